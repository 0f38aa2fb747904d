"""`diffusion-lab runs`, and the commands that name a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.cli.main import main
from tests import tiny_runs
from tests.core.cli.commands import one_line


def test_the_runs_are_a_table(finished: Path, tmp_path: Path, capsys) -> None:
    assert main(["runs", "--runs-dir", str(finished.parent)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    names = ["run", "state", "step", "steps", "latest_loss", "images_per_second", "created"]
    assert head.split() == names
    assert row.split()[:4] == ["tiny", "finished", "4", "4"]
    assert main(["runs", "--runs-dir", str(tmp_path / "nowhere")]) == 0
    assert "There are no runs in" in one_line(capsys.readouterr().out)


def test_the_table_of_runs_is_filtered_sorted_and_grouped(runs_dir: Path, capsys) -> None:
    for name, size, state in (("a", 4, "finished"), ("b", 8, "stopped"), ("c", 16, "finished")):
        config = tiny_runs.TINY.replace(batch_size=size)
        tiny_runs.write_run(runs_dir, name, config=config, state=state, created=1e9 + size)

    def table(*words: str) -> list[list[str]]:
        assert main(["runs", *words]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    columns = ("--columns", "batch_size", "tensorboard", "best_step")
    large = table("--where", "batch_size > 4", *columns)
    assert large == [
        ["run", "batch_size", "tensorboard", "best_step"],
        ["c", "16", "false"],
        ["b", "8", "false"],
    ]
    assert [row[0] for row in table("--sort", "batch_size")] == ["run", "a", "b", "c"]
    assert [row[0] for row in table("--sort", "batch_size", "--reverse")] == ["run", "c", "b", "a"]
    assert [row[0] for row in table("--reverse")] == ["run", "a", "b", "c"]
    assert table("--group", "state", "--columns", "batch_size") == [
        ["state", "=", "finished", "(2)"],
        ["run", "batch_size"],
        ["c", "16"],
        ["a", "4"],
        [],
        ["state", "=", "stopped", "(1)"],
        ["run", "batch_size"],
        ["b", "8"],
        [],
    ]
    assert table("--where", "state = failed") == [f"No run in {runs_dir} fits the filter.".split()]


@pytest.mark.parametrize("option", ["--where", "--sort", "--group", "--columns"])
def test_an_unknown_name_in_a_question_about_runs_is_named(option: str, capsys) -> None:
    assert main(["runs", option, "batchsize"]) == 2
    assert one_line(capsys.readouterr().err) == (
        "There is no setting or result called batchsize; did you mean batch_size?"
    )


@pytest.mark.parametrize("word", ["stop", "pause", "resume"])
def test_a_finished_run_has_nothing_to_stop_pause_or_resume(
    finished: Path, capsys, word: str
) -> None:
    assert main([word, str(finished)]) == 1
    said = one_line(capsys.readouterr().err)
    assert said.startswith(f"tiny is finished; there is nothing to {word}.")
    assert ("Give it more steps" in said) == (word == "resume")
    assert not (finished / "request.json").exists()


def test_a_run_can_be_named_without_its_folder(
    finished: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(finished.parent))
    assert main(["stop", "tiny"]) == 1
    assert "tiny is finished" in capsys.readouterr().err
    assert main(["stop", "nowhere"]) == 1
    assert one_line(capsys.readouterr().err) == f"There is no run {finished.parent / 'nowhere'}."
    assert main(["runs"]) == 0
    assert "tiny" in capsys.readouterr().out


def test_a_run_whose_name_is_too_long_is_named_cut_short(capsys) -> None:
    assert main(["stop", "9" * 5000]) == 1
    assert len(one_line(capsys.readouterr().err)) < 300
