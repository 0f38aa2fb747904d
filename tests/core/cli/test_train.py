"""`diffusion-lab train` and `resume`, as people who type meet them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core.cli.main import main
from diffusion_core.data.sources.car_kinds import CLASSES
from diffusion_core.runs import jobs
from diffusion_core.runs.run import load_run
from diffusion_core.training import step as training_step
from tests import tiny_runs
from tests.core.cli.commands import TINY, one_line


def test_training_writes_the_run_folder_and_says_how_it_ended(
    finished: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), "--steps", "1", "--seed", "7", *TINY]) == 0
    printed = capsys.readouterr()
    assert one_line(printed.out) == f"{run}: finished."
    assert one_line(printed.err) == f"cars:48: 48 images in 8 classes ({', '.join(CLASSES)})."
    config = load_run(run).config
    assert (config.seed, config.steps, config.data, config.image_size) == (7, 1, "cars:48", 16)
    assert config.schedule == {"kind": "cosine", "timesteps": 20}
    assert load_run(finished).state == "finished"
    assert [step for step, _ in load_run(finished).weights()] == [2, 4]


def test_progress_is_shown_unless_it_is_to_be_quiet(tmp_path: Path, capsys) -> None:
    words = [word for word in TINY if word != "--quiet"]
    assert main(["train", "--run", str(tmp_path / "run"), "--steps", "2", *words]) == 0
    shown = capsys.readouterr().err
    assert "2/2" in shown and "step/s" in shown and "loss=" in shown


def test_a_run_stopped_by_request_ends_with_130_and_can_be_resumed(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    make_batch = training_step.make_batch

    def stop_at_step_3(config, store, index, step, **options):
        if step == 3:
            jobs.request(load_run(run), "stop")
        return make_batch(config, store, index, step, **options)

    monkeypatch.setattr(training_step, "make_batch", stop_at_step_3)
    assert main(["train", "--run", str(run), "--steps", "6", *TINY]) == 130
    printed = capsys.readouterr()
    assert one_line(printed.err).startswith("cars:48: 48 images")
    assert f"{run}: stopped." in printed.out
    assert f"python -m diffusion_core train --run {run} --resume" in printed.out
    assert load_run(run).latest_checkpoint().step == 3

    monkeypatch.setattr(training_step, "make_batch", make_batch)
    assert main(["train", "--run", str(run), "--resume", "--device", "cpu", "--quiet"]) == 0
    assert one_line(capsys.readouterr().out) == f"{run}: finished."
    assert load_run(run).status.step == 6


def test_a_run_that_fails_says_so_in_one_line_and_keeps_the_traceback(
    tmp_path: Path, capsys
) -> None:
    run, images = tmp_path / "run", tmp_path / "images"
    images.mkdir()
    for k in range(20):
        (images / f"{k}.png").write_text("text")
    words = [*TINY, "--data", f"folder:{images}"]
    assert main(["train", "--run", str(run), "--steps", "1", *words]) == 1
    assert "None of the 20 files can be read" in one_line(capsys.readouterr().err)
    assert "Traceback" in (run / "train.log").read_text()
    assert load_run(run).state == "failed"


def test_data_that_is_not_there_is_refused_before_the_run_waits_for_a_device(
    tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    words = [*TINY, "--data", f"folder:{tmp_path / 'nowhere'}"]
    assert main(["train", "--run", str(run), "--steps", "1", *words]) == 1
    assert "There is no folder" in one_line(capsys.readouterr().err)
    assert not run.exists()


def test_a_folder_that_holds_a_run_is_not_trained_over(finished: Path, capsys) -> None:
    before = (finished / "config.json").read_bytes()
    assert main(["train", "--run", str(finished), "--steps", "9", *TINY]) == 1
    assert "already holds a run" in one_line(capsys.readouterr().err)
    assert (finished / "config.json").read_bytes() == before


def test_nothing_to_resume_gets_one_line(tmp_path: Path, capsys) -> None:
    assert main(["train", "--run", str(tmp_path / "run"), "--resume"]) == 1
    assert "no run" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "step=3"], "There is no setting called step; did you mean steps?"),
        (["--set", "rate=3"], "There is no setting called rate; there are preset, preset_version,"),
        (["--set", 'ema_decays={"a b": 0.5}'], "'a b' cannot be a name; use up to 32 letters, "),
        (["--set", "steps"], "'steps' is no setting; write it as KEY=VALUE."),
        (["--set", "=3"], "'=3' is no setting; write it as KEY=VALUE."),
        (
            ["--set", 'schedule={"timesteps": 20, "timesteps": 30}'],
            "schedule.timesteps is set to 20 and to 30; leave one of them out.",
        ),
        (["--background", "--processes", "0"], "0 processes cannot train; it takes 1 or more."),
        (["--init-from", "@3"], "init_from is '@3'; use RUN or RUN@STEP, STEP a whole number."),
        (["--steps", "0"], "steps is 0; it must be from 1 to 1,000,000,000."),
        (["--set", "learning_rate=-1"], "learning_rate is -1.0"),
        (["--set", "schedule.kind=square"], "Unknown schedule 'square'"),
        (
            ["--batch-size", "2", "--set", "batch_size=16"],
            "--batch-size is 2, but --set batch_size is 16; leave one of them out.",
        ),
        (["--steps", "5", "--set", "steps=6"], "--steps is 5, but --set steps is 6; leave one"),
        (["--seed", "5", "--set", "seed=6"], "--seed is 5, but --set seed is 6; leave one"),
        (
            ["--data", "cars", "--set", "data=digits"],
            "--data is 'cars', but --set data is 'digits'",
        ),
        (["--preset", "base", "--set", "preset=small"], "--preset is 'base', but --set preset is"),
        (["--set", "steps=5", "--set", "steps=6"], "steps is set to 5 and to 6; leave one of"),
        (["--resume", "--steps", "5", "--set", "steps=6"], "--steps is 5, but --set steps is 6"),
        (["--set", "network_args.attention_levels=[11]"], "there are levels 0 to 3."),
        (["--set", "network_args.patch=7"], "needs height and width divisible by 56."),
        (["--seed", "9223372036854775808"], "seed is 9223372036854775808; it must be from 0 to"),
        (["--data", "cars:"], "data: 'cars:' is no data set. Use cars, cars:N, digits"),
        (["--data", "cars:0"], "data: 'cars:0' is no data set: cars:N takes a number"),
        (["--data", "digits:many"], "data: 'digits:many' is no data set: digits:N takes a"),
        (["--set", "steps=٣"], "steps takes a whole number, not '٣'."),
        (["--data", "moon:3"], "data: 'moon:3' is no data set. Use cars, cars:N, digits"),
        (["--resume", "--batch-size", "3"], "A resumed run keeps its settings"),
        (["--resume", "--seed", "0"], "A resumed run keeps its settings"),
    ],
)
def test_settings_that_cannot_be_used_end_with_2_and_one_line(
    tmp_path: Path, capsys, words: list[str], sentence: str
) -> None:
    assert main(["train", "--run", str(tmp_path / "run"), *words]) == 2
    assert sentence in one_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_unforeseen_says_so_without_the_words_of_pytorch(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def multiply(*_: object) -> None:
        torch.ones(2, 3) @ torch.ones(2, 3)

    monkeypatch.setattr(training_step, "objective", multiply)
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), "--steps", "1", *TINY]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == load_run(run).status.error
    assert said == (
        "An unexpected error occurred during training; train.log in the run's folder says "
        "where. Please report it with that file."
    )
    assert "mat1 and mat2" in (run / "train.log").read_text()


def test_a_setting_that_is_not_a_number_is_named(tmp_path: Path, capsys) -> None:
    run = tiny_runs.write_run(tmp_path, "cars", 20)
    assert main(["change", str(run), "learning_rate=nan"]) == 2
    assert one_line(capsys.readouterr().err) == "learning_rate is nan; it must be a finite number."
