"""Which folders a command takes for a run, by name or path, and which it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffusion_core.cli.main import main
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.run import Run, list_runs
from tests.tiny_runs import write_run

START = ("--data", "cars:48", "--device", "cpu", "--quiet", "--steps", "1")


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line in which a command says why it does nothing."""
    assert main([str(word) for word in words]) in (1, 2)
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("background", [[], ["--background"]])
def test_a_new_run_takes_no_folder_that_holds_other_files(
    background: list[str], runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = runs_dir / "photos"
    photos.mkdir()
    for k in range(5):
        (photos / f"{k}.jpg").write_bytes(b"mine")
    (photos / ".0.jpg.99999999-1.tmp").write_bytes(b"mine")
    before = sorted(photos.iterdir())
    said = refused(capsys, "train", "--run", photos, *START, *background)
    if background:
        assert said == "There is already a run called photos; choose another name."
    else:
        assert said == (
            f"{photos} holds other files: '0.jpg', '1.jpg', '2.jpg' and 2 more. Choose a new "
            "folder: deleting the run would delete them too."
        )
    assert sorted(photos.iterdir()) == before
    assert "is not a run folder" in refused(capsys, "delete", photos, "--yes")
    with pytest.raises(jobs.JobError, match="is not a run folder; only runs can be deleted"):
        trash.delete(Run(photos))
    assert sorted(photos.iterdir()) == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_run_does_not_take_the_folder_of_the_runs(
    exists: bool, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not exists:
        runs_dir.rmdir()
    for path in (runs_dir, f"{runs_dir}/", runs_dir / ".." / runs_dir.name):
        said = refused(capsys, "train", "--run", path, *START)
        assert said == f"{Path(path)} is the folder of the runs; name a run in it."
    assert runs_dir.exists() == exists


def test_a_new_run_takes_no_folder_of_other_runs_and_none_inside_a_run(
    tmp_path: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(runs_dir, "run", 40)
    assert refused(capsys, "train", "--run", tmp_path, *START).startswith(f"{tmp_path} holds other")
    for background in ([], ["--background"]):
        said = refused(capsys, "train", "--run", run / "inner", *START, *background)
        assert said in (
            f"{run / 'inner'} is inside the run run; choose a folder of its own.",
            f"{run} is a run; new runs need a folder of their own.",
        )
    assert not (run / "inner").exists()


@pytest.mark.parametrize("name", [".hidden", "two\nlines", "tab\t", "-option", "a" * 81, "sp ace"])
@pytest.mark.parametrize("background", [[], ["--background"]])
def test_a_name_that_the_list_would_hide_or_that_breaks_it_is_refused(
    name: str, background: list[str], runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (runs_dir / name, name):
        said = refused(capsys, "train", f"--run={path}", *START, *background)
        assert "cannot be a run's name. Use up to 80 letters, digits, dots, dashes and" in said
        assert len(said) < 250
    assert list(runs_dir.iterdir()) == []


def test_a_folder_that_holds_runs_is_not_deleted(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs_dir, "run", 40)
    outer = write_run(runs_dir.parent, "outer")
    (runs_dir / "run").rename(outer / "run")
    said = refused(capsys, "delete", outer, "--yes")
    assert said == f"{outer} holds other runs, for example run; deleting it would delete them too."
    assert [run.name for run in list_runs(outer)] == ["run"]


def test_every_command_takes_a_name_or_a_path(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path = write_run(runs_dir, "run", 40, state="stopped")
    elsewhere = write_run(tmp_path, "elsewhere", 40, state="stopped")
    (tmp_path / "run").mkdir()  # of the same name, but no run
    monkeypatch.chdir(tmp_path)
    grid = str(tmp_path / "grid.png")
    for k, name in enumerate(("run", str(path), "elsewhere", "./elsewhere", str(elsewhere))):
        of = "elsewhere" if "elsewhere" in name else "run"
        assert main(["sample", "--run", name, "--n", "1", "--steps", "2", "--out", grid]) == 0
        assert main(["change", name, f"steps={50 + k}"]) == 0
        assert main(["export", name, "--format", "diffusers", "--out", f"export-{k}"]) == 0
        capsys.readouterr()
        assert refused(capsys, "pause", name) == f"{of} is stopped; there is nothing to pause."
        assert f"{of} has weights to sample with, but no state" in refused(capsys, "command", name)
        assert f"{of} has no checkpoint of step 3" in refused(
            capsys, "evaluate", "--run", name, "--step", 3
        )
        new = ["train", "--run", name, "--preset", "small", *START]
        assert "already holds a run. Continue it with --resume" in refused(capsys, *new)
        assert main(["delete", name, "--yes"]) == 0
        [*_, hint] = capsys.readouterr().out.split()
        away = str(elsewhere) if name == str(elsewhere) else "./elsewhere"
        assert hint == ("run" if of == "run" else away)
        assert main(["restore", hint]) == 0
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert refused(capsys, "pause", ".") == "elsewhere is stopped; there is nothing to pause."


def test_a_new_run_of_a_name_goes_to_the_folder_of_the_runs(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []

    def train(path: Path, *_: object, **__: object) -> str:
        made.append(path)
        return "paused"

    monkeypatch.setattr("diffusion_core.training.trainer.train", train)
    assert main(["train", "--run", "named", *START]) == 130
    assert main(["train", "--run", "./here", *START]) == 130
    assert made == [runs_dir / "named", Path("here")]


@pytest.mark.parametrize("name", [b"two\nlines", b"caf\xe9"])
def test_a_run_of_another_program_whose_name_cannot_be_printed_is_listed(
    name: bytes, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(runs_dir, "run")
    os.rename(path, os.fsencode(runs_dir) + b"/" + name)
    assert main(["runs"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.startswith(repr(os.fsdecode(name)))


def test_a_path_that_no_system_takes_gets_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "pause", "a" * 5000)
    assert said.startswith("There is no run ") and len(said) < 300
