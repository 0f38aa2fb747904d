"""The command line and the library's front, as people who type meet them."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion_core
from diffusion_core.cli import doctor
from diffusion_core.cli.main import COMMANDS, main
from diffusion_core.data.sources.car_kinds import CLASSES
from diffusion_core.runs import jobs
from diffusion_core.runs.checkpoint import weights_path
from diffusion_core.runs.run import load_run
from diffusion_core.sampling import spec
from diffusion_core.sampling.metadata import Kind, Made, read
from diffusion_core.training import step as training_step
from tests import tiny_runs

ROOT = Path(diffusion_core.__file__).parent.parent
# A network and images so small that a step takes milliseconds.
TINY = [
    *("--data", "cars:48", "--batch-size", "4", "--device", "cpu", "--quiet"),
    *("--set", 'network_args={"widths": [8, 16], "blocks": 1, "attention_levels": [1]}'),
    *("--set", "schedule.timesteps=20", "image_size=16", "num_workers=0", "mixed_precision=no"),
    *("--set", "checkpoint_every=2", "sample_every=0", "validate_every=0"),
]


@pytest.fixture(scope="module", autouse=True)
def images_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images_cache: None) -> Path:
    """A finished run of four steps, with weights of steps 2 and 4. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--run", str(run), "--steps", "4", *TINY]) == 0
    return run


def image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def draw(run: Path, out: Path | str, *words: str) -> int:
    arguments = ["sample", "--run", str(run), "--device", "cpu", "--out", str(out)]
    return main([*arguments, "--steps", "3", *words])


def one_line(text: str) -> str:
    """The text without its line end; it must be a single line."""
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


# ---------------------------------------------------------------- train


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
        (["--set", "rate=3"], "There is no setting called rate; there are preset, network,"),
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
        (["--set", "network_args.attention_levels=[11]"], "there are levels 0 to 2."),
        (["--set", "network_args.patch=7"], "needs height and width divisible by 28."),
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


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["train"], ["train", "--run", "x", "--preset", "huge"], ["sample", "--n", "x"]],
)
def test_words_that_make_no_command_end_with_2(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: python -m diffusion_core" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["train", "--run", "x", "--steps", "many"],
            "--steps is 'many'; it must be a whole number.",
        ),
        (["sample", "--run", "x", "--seed", "9" * 5000], f"--seed is '{'9' * 39}…'; it must"),
        (["sample", "--run", "x", "--eta", "nan"], "--eta is 'nan'; it must be a finite number."),
        (
            ["evaluate", "--run", "x", "--guidance-scale", "1e999"],
            "--guidance-scale is '1e999'; it must be a finite number.",
        ),
        (["sample", "--run", "x", "--n", "٣"], "--n is '٣'; it must be a whole number."),
        (["train", "--run", "x", "--init-from", ""], "--init-from is empty; it needs a value."),
        (["train", "--run", ""], "--run/--folder is empty; it needs a value."),
        (["delete", "", "--yes"], "run is empty; it needs a value."),
        (["sample", "--run", "x", "--out="], "--out is empty; it needs a value."),
        (["sample", "--run", "x", "--average", " "], "--average is empty; it needs a value."),
        (["change", "x", "steps=3", ""], "KEY=VALUE is empty; it needs a value."),
        (["runs", "--runs-dir", ""], "--runs-dir is empty; it needs a value."),
        ([""], "COMMAND is empty; it needs a value."),
    ],
)
def test_a_number_that_cannot_be_read_gets_a_sentence(
    words: list[str], sentence: str, capsys
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: python -m diffusion_core {command} " in capsys.readouterr().out


def test_settings_are_listed_with_what_they_mean(capsys) -> None:
    assert main(["settings", "seed", "schedule.kind", "ema_decays.long"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "seed = 0",
        "    The same settings and seed give the same run.",
        "schedule.kind = cosine",
        "    How the noise grows over the timesteps. See the Schedule page.",
        "ema_decays.long =",
        "    Decay of a further average, which can be chosen when sampling.",
    ]
    assert main(["settings", "sed"]) == 2


def test_help_and_version_do_not_load_pytorch() -> None:
    """Nobody waits a second for a list of commands."""
    code = (
        "import sys\nfrom diffusion_core.cli.main import main\n"
        "try:\n    main([sys.argv[1]])\nfinally:\n    print('torch' in sys.modules)"
    )
    for word, said in (("--help", "evaluate"), ("--version", diffusion_core.__version__)):
        done = subprocess.run(
            [sys.executable, "-c", code, word],
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said in done.stdout
        assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_can_complete_the_commands_and_their_options(shell: str, capsys) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("diffusion-lab", "checkpoint-now", "guidance-scale"):
        assert word in script


def test_bash_completes_what_is_typed(tmp_path: Path, capsys) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    function = "_shtab_diffusion_lab"
    asked = "\n".join(
        f"COMP_WORDS=({typed}) COMP_CWORD={len(typed.split()) - 1}; {function}; "
        'echo "${COMPREPLY[@]}"'
        for typed in (
            "diffusion-lab ev",
            "diffusion-lab train --pres",
            "diffusion-lab export --format p",
        )
    )
    script.write_text(capsys.readouterr().out + "\n" + asked)
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["evaluate"],
        ["--preset"],
        ["parquet"],
    ]


@pytest.mark.long
def test_a_reader_that_has_gone_is_no_error(runs_dir: Path) -> None:
    """`diffusion-lab runs | head -n 0`."""
    code = "import sys; from diffusion_core.cli.main import entry; input(); entry()"
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "runs", "--runs-dir", str(runs_dir)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    os.close(reading)
    _, said = process.communicate(b"\n", timeout=60)
    assert (process.returncode, said) == (0, b"")


# ---------------------------------------------------------------- sample


def test_samples_are_written_as_a_grid_and_are_the_same_every_time(
    finished: Path, tmp_path: Path, capsys
) -> None:
    assert draw(finished, tmp_path / "a.png", "--n", "3", "--seed", "5") == 0
    printed = capsys.readouterr()
    assert one_line(printed.out) == f"3 images of tiny, step 4: {tmp_path / 'a.png'}"
    assert "3/3" in printed.err  # the progress bar
    grid = image(tmp_path / "a.png")
    assert grid.shape == (16, 48, 3)
    assert draw(finished, tmp_path / "b.png", "--n", "3", "--seed", "5") == 0
    assert draw(finished, tmp_path / "c.png", "--n", "3", "--seed", "6") == 0
    assert np.array_equal(image(tmp_path / "b.png"), grid)
    assert not np.array_equal(image(tmp_path / "c.png"), grid)


@pytest.mark.parametrize(
    "words",
    [
        ["--sampler", "ddpm"],
        ["--label", "bus", "--seed", str(2**63 - 1)],
        ["--label", "2", "--guidance-scale", "3"],
        ["--exact"],
    ],
)
def test_every_way_to_sample_works(finished: Path, tmp_path: Path, words: list[str]) -> None:
    assert draw(finished, tmp_path / "grid.png", "--n", "2", *words) == 0
    assert image(tmp_path / "grid.png").shape == (16, 32, 3)


def test_the_lectures_network_is_sampled_as_the_lecture_does(tmp_path: Path) -> None:
    run = tiny_runs.write_run(tmp_path, "lecture", 20, config=tiny_runs.LECTURE)
    assert draw(run, tmp_path / "grid.png", "--n", "2", "--lecture") == 0
    assert read((tmp_path / "grid.png").read_bytes()).spec.as_lecture


def test_guidance_is_refused_where_the_class_was_always_given(tmp_path: Path, capsys) -> None:
    run = tiny_runs.write_run(
        tmp_path, "given", 20, config=tiny_runs.TINY.replace(label_dropout=0.0)
    )
    out = tmp_path / "grid.png"
    assert draw(run, out, "--guidance-scale", "3") == 2
    assert "it cannot be guided away from any class" in one_line(capsys.readouterr().err)
    assert not out.exists()
    assert draw(run, out, "--guidance-scale", "3", "--negative", "van", "--label", "bus") == 0


def test_steps_are_spaced_as_usual_for_the_sampler_and_what_diverges_is_warned_of(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    words = ["sample", "--run", str(finished), "--device", "cpu", "--out", str(out), "--n", "1"]
    for sampler, spacing in (("heun", "karras"), ("euler", "trailing")):
        assert main([*words, "--sampler", sampler]) == 0
        assert read(out.read_bytes()).spec.spacing == spacing
        assert "Warning" not in capsys.readouterr().err
    assert main([*words, "--sampler", "heun", "--spacing", "trailing", "--steps", "4"]) == 0
    assert read(out.read_bytes()).spec.spacing == "trailing"
    assert "Warning: heun diverges on this schedule with trailing spacing and 4 steps" in (
        capsys.readouterr().err
    )


def test_an_earlier_step_can_be_sampled(finished: Path, tmp_path: Path, capsys) -> None:
    assert draw(finished, tmp_path / "2.png", "--n", "1", "--step", "2") == 0
    assert "of tiny, step 2:" in capsys.readouterr().out
    assert draw(finished, tmp_path / "4.png", "--n", "1") == 0
    assert not np.array_equal(image(tmp_path / "2.png"), image(tmp_path / "4.png"))


def test_a_step_without_a_checkpoint_and_a_run_without_any_get_one_line(
    finished: Path, tmp_path: Path, capsys
) -> None:
    assert draw(finished, tmp_path / "x.png", "--step", "3") == 1
    assert one_line(capsys.readouterr().err) == "tiny has no checkpoint of step 3."
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "status.json").write_text("{}")
    assert draw(tmp_path / "empty", tmp_path / "x.png") == 1
    assert one_line(capsys.readouterr().err) == "empty has no usable checkpoint yet."
    assert draw(tmp_path / "nowhere", tmp_path / "x.png") == 1
    assert one_line(capsys.readouterr().err) == f"There is no run {tmp_path / 'nowhere'}."
    assert draw(tmp_path, tmp_path / "x.png") == 1
    assert "is not a run folder" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--label", "boat"], "There is no class 'boat'; choose one of sedan, hatchback"),
        (["--label", "8"], "There is no class '8'"),
        (["--n", "5000"], "n is 5000; it must be from 1 to 4,096."),
        (["--eta", "2"], "eta is 2.0; it must be from 0 to 1."),
        (["--eta", "0.5", "--sampler", "ddpm"], "eta has no effect with ddpm; use ddim."),
        (["--variance", "large"], "variance has no effect with dpmpp_2m; use ddpm."),
        (["--lecture", "--sampler", "heun"], "as the lecture does needs the sampler ddpm."),
        (["--lecture", "--spacing", "karras"], "needs the spacing trailing."),
        (["--lecture"], "cannot be sampled as the lecture does: that needs the lecture's network"),
        (["--negative", "van"], "have no effect without guidance; set a guidance scale"),
        (["--guidance-scale", "99"], "guidance_scale is 99.0; it must be from 0 to 20"),
        (["--n", "0"], "n is 0; it must be from 1 to 4,096."),
        (["--seed", "-1"], "seed is -1; it must be from 0 to 9,223,372,036,854,775,807."),
        (["--seed", str(2**63)], "it must be from 0 to 9,223,372,036,854,775,807."),
        (["--steps", "0"], "steps is 0; it must be from 1 to"),
        (["--steps", "21"], "takes 1 to 20 steps, not 21."),
    ],
)
def test_samples_that_cannot_be_drawn_end_with_2_and_one_line(
    finished: Path, tmp_path: Path, capsys, words: list[str], sentence: str
) -> None:
    assert draw(finished, f"{tmp_path}/many/", *words) == 2
    assert sentence in one_line(capsys.readouterr().err)
    assert draw(finished, f"{tmp_path}/many/", "--average", "long") == 2
    assert "has no averaged weights called 'long'; it has main" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "many").exists()


def test_a_grid_and_a_folder_of_images_hold_the_same_and_say_what_made_them(
    finished: Path, tmp_path: Path, capsys
) -> None:
    words = ["--n", "9", "--sampler", "ddim", "--steps", "3", "--eta", "0.5", "--label", "bus"]
    words += ["--spacing", "linspace"]
    words += ["--guidance-scale", "3", "--negative", "van", "--guidance-interval", "5", "19"]
    assert draw(finished, tmp_path / "grid.png", *words) == 0
    assert draw(finished, f"{tmp_path}/many/", *words) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"9 images of tiny, step 4: {tmp_path / 'many'}"
    assert "9/9" in printed.err
    made = read((tmp_path / "grid.png").read_bytes())
    assert made.spec.negative == "van" and made.spec.guidance_interval == (5, 19)
    assert made.spec.describe().endswith("η 0.5, bus, guidance 3 away from van where 5 ≤ t ≤ 19")
    file = tmp_path / "many" / "pictures" / "000004.png"
    assert read(file.read_bytes()) == Made(made.spec, 4, Kind.IMAGE)
    assert np.array_equal(image(file), image(tmp_path / "grid.png")[16:32, 16:32])


def test_a_folder_of_images_is_gone_on_with_by_its_own_settings(
    finished: Path, tmp_path: Path, capsys
) -> None:
    out = f"{tmp_path}/many/"
    words = ["--n", "3", "--steps", "2"]
    assert draw(finished, out, "--resume") == 2
    assert "There are no images in" in one_line(capsys.readouterr().err)
    assert draw(finished, out, *words) == 0
    gone = tmp_path / "many" / "pictures" / "000001.png"
    before = gone.read_bytes()
    gone.unlink()
    capsys.readouterr()
    assert draw(finished, out, *words) == 2
    said = one_line(capsys.readouterr().err)
    assert "holds tiny at step 4: 3 images, dpmpp_2m, 2 steps" in said and "--resume" in said
    assert draw(finished, out, "--seed", "4", "--resume") == 2
    assert "leave other settings out" in one_line(capsys.readouterr().err)
    assert draw(finished, out, *words, "--resume") == 0
    assert gone.read_bytes() == before
    assert draw(finished, tmp_path / "x.png", "--resume") == 2
    assert "--resume continues a folder" in capsys.readouterr().err.splitlines()[-1]


def test_a_place_to_write_to_is_checked_before_anything_is_drawn(
    finished: Path, tmp_path: Path, capsys
) -> None:
    assert draw(finished, tmp_path / "nowhere" / "x.png") == 2
    assert "There is no folder" in one_line(capsys.readouterr().err)


def test_control_c_ends_a_sampling_with_130(
    finished: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spec, "sample", interrupted)
    assert draw(finished, tmp_path / "x.png") == 130
    assert capsys.readouterr().err.endswith("Stopped.\n")
    assert not (tmp_path / "x.png").exists()


# ---------------------------------------------------------------- runs, stop, pause, resume


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


# ---------------------------------------------------------------- doctor


def test_the_doctor_names_device_versions_and_the_runs_folder(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "seconds_per_image", lambda name, device: 0.0125)
    assert main(["doctor", "--runs-dir", str(tmp_path / "new"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "CPU, 1 thread" in printed
    assert torch.__version__.split("+")[0] in printed
    assert "is writable" in printed
    assert "12.5 ms per image (forward pass)" in printed
    (tmp_path / "file").write_text("in the way")
    words = ["doctor", "--runs-dir", str(tmp_path / "file" / "runs"), "--device", "cpu"]
    assert main(words) == doctor.NO_RUNS
    assert "is not writable" in capsys.readouterr().out


def test_the_doctor_says_the_same_as_a_record_and_its_code_says_what_is_wrong(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "seconds_per_image", lambda name, device: 0.0125)
    runs = tmp_path / "new"
    assert main(["doctor", "--json", "--runs-dir", str(runs), "--device", "cpu"]) == 0
    found = doctor.Findings.model_validate_json(capsys.readouterr().out)
    assert found == doctor.findings(runs, torch.device("cpu")).model_copy(
        update={"free_bytes": found.free_bytes}
    )
    assert found.free_bytes is not None and found.free_bytes > 0
    assert found.packages["torch"] == version("torch")
    assert found.ms_per_image["small"] == 12.5
    assert (found.problems, found.not_writable, found.network_disk) == ([], "", False)

    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert main(["doctor", "--json", "--runs-dir", str(runs), "--device", "cpu"]) == 3
    missing = json.loads(capsys.readouterr().out)
    assert missing["packages"]["no-such-package"] is None
    assert missing["problems"] == [
        "no-such-package is missing: pip install -r requirements.txt",
    ]
    (tmp_path / "file").write_text("in the way")
    assert main(["doctor", "--json", "--runs-dir", str(tmp_path / "file"), "--device", "cpu"]) == 1
    both = json.loads(capsys.readouterr().out)
    assert both["free_bytes"] is None and both["not_writable"] == "File exists"
    assert len(both["problems"]) == 2


def test_the_doctor_times_a_real_forward_pass() -> None:
    seconds = doctor.seconds_per_image("small", torch.device("cpu"), batch=1, times=1)
    assert 1e-4 < seconds < 60


def test_a_device_that_is_not_there_gets_one_line(capsys) -> None:
    assert main(["doctor", "--device", "abacus"]) == 1
    assert "'abacus' is no device; use auto, cpu, cuda" in one_line(capsys.readouterr().err)


# ---------------------------------------------------------------- as a process, as a library


def test_it_runs_as_a_module_in_a_process_of_its_own(finished: Path, tmp_path: Path) -> None:
    words = ["sample", "--run", str(finished), "--n", "1", "--steps", "2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_core", *words, "--out", "grid.png"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 image of tiny, step 4: grid.png\n"
    assert image(tmp_path / "grid.png").shape == (16, 16, 3)


def test_the_library_samples_a_run_in_five_lines(finished: Path) -> None:
    from diffusion_core import load_model, load_run, sample

    checkpoint = load_run(finished).latest_checkpoint()
    model, schedule, config = load_model(checkpoint, "cpu")
    images = sample(
        model,
        schedule,
        2,
        sampler="ddim",
        steps=3,
        prediction_type=config.prediction_type,
        x_T=torch.randn(2, 3, 16, 16),
    )
    assert images.shape == (2, 3, 16, 16)
    assert images.abs().max() <= 1


def test_the_command_line_and_the_library_draw_the_same_images(
    finished: Path, tmp_path: Path
) -> None:
    from diffusion_core.media.images import grid, png, to_uint8

    assert draw(finished, tmp_path / "x.png", "--n", "2", "--seed", "3") == 0
    model, schedule, config = diffusion_core.load_model(load_run(finished).latest_checkpoint())
    images = diffusion_core.sample(
        model,
        schedule,
        2,
        "dpmpp_2m",
        3,
        seed=3,
        prediction_type=config.prediction_type,
        labels=torch.tensor([0, 1]),
        shape=(3, 16, 16),
    )
    drawn = Image.open(io.BytesIO(png(grid(to_uint8(images)))))
    assert np.array_equal(np.asarray(drawn), image(tmp_path / "x.png"))


def test_the_names_of_the_design_can_be_imported() -> None:
    promised = (
        "NoiseSchedule SinusoidalPositionEmbeddings SimpleUnet Unet build_model sample StepView "
        "Cancelled load_run Run load_model"
    ).split()
    assert set(promised) <= set(diffusion_core.__all__) <= set(dir(diffusion_core))
    for name in diffusion_core.__all__:
        assert getattr(diffusion_core, name) is not None
    assert diffusion_core.NoiseSchedule(kind="cosine").timesteps == 300
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffusion_core.nothing


def test_the_signatures_of_the_design_are_kept() -> None:
    def defaults(function) -> dict:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}

    empty = inspect.Parameter.empty
    assert defaults(diffusion_core.NoiseSchedule) == {
        "kind": "linear",
        "timesteps": 300,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "rescale_zero_terminal_snr": False,
    }
    assert list(defaults(diffusion_core.sample).items()) == [
        ("model", empty),
        ("schedule", empty),
        ("n", empty),
        ("sampler", "ddpm"),
        ("steps", None),
        ("seed", 0),
        ("prediction_type", "epsilon"),
        ("x_T", None),
        ("timestep_spacing", None),  # the sampler's usual one
        ("clip_x0", True),
        ("labels", None),
        ("guidance_scale", 1.0),
        ("on_step", None),
    ]
    assert list(defaults(diffusion_core.NoiseSchedule.add_noise)) == ["self", "x_0", "t", "noise"]


def test_decoding_images_does_not_load_pytorch() -> None:
    """The processes that decode start quickly."""
    code = "import sys, diffusion_core.data.store; print('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_truncated_newest_checkpoint_is_skipped_and_named(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), "--steps", "4", *TINY]) == 0
    newest = weights_path(run, 4)
    newest.write_bytes(newest.read_bytes()[:-100])
    capsys.readouterr()
    assert draw(run, tmp_path / "x.png", "--n", "1") == 0
    printed = capsys.readouterr()
    assert "step 2:" in printed.out
    assert newest.name in printed.err
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


# ---------------------------------------------------------------- what is refused, and how


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample"], "--run must be given; see --help."),
        ([], "COMMAND must be given; see --help."),
        (["sample", "--run"], "--run takes a value; it is missing."),
        (["sample", "--run", "x", "--bogus", "1"], "--bogus 1 is not known here; see --help."),
        (
            ["sample", "--run", "x", "--spacing", "odd"],
            "--spacing is 'odd'; it must be one of trailing, leading, linspace, karras, exp",
        ),
        (
            ["sample", "--run", "x", "--guidance-interval", "3"],
            "--guidance-interval takes 2 values.",
        ),
        (
            ["sample", "--run", "x", "--lecture=1"],
            "--lecture takes no value, but is given '1'.",
        ),
        (
            ["sample", "--run", "x", "--s", "1"],
            "--s can mean --step, --sampler, --spacing, --steps, --seed; write it in full.",
        ),
        (
            ["evaluate", "--run", "x", "--step", "1", "--all-steps"],
            "--all-steps and --step exclude each other; leave one out.",
        ),
        (["evaluate", "--run", "x", "--steps"], "--steps takes values; they are missing."),
        (
            ["export", "x", "--format", "xls"],
            "--format is 'xls'; it must be one of diffusers, csv,",
        ),
        (["sample", "--run", "x", "--bogus", "y" * 5000], f"--bogus {'y' * 32}… is not known"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused_in_our_words(
    words: list[str], sentence: str, capsys
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.partition(": ")[2].startswith(sentence)


@pytest.mark.parametrize(
    "name", ["grid.jpg", "grid.JPEG", "grid.webp", "grid.avif", "grid.tif", "grid.bmp", "grid.png"]
)
def test_an_image_is_written_in_the_format_of_its_name(
    name: str, finished: Path, tmp_path: Path
) -> None:
    assert draw(finished, tmp_path / name, "--n", "4") == 0
    found = Image.open(tmp_path / name)
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    suffix = Path(name).suffix.lower()
    assert found.format == formats.get(suffix, suffix[1:].upper())
    assert found.size == (32, 32)


@pytest.mark.parametrize("name", ["grid", "grid.gif", "grid.svg", "grid.png.txt", "x.npy", ".png"])
def test_an_image_file_of_no_known_format_is_refused_with_the_list(
    name: str, finished: Path, runs_dir: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs_dir)
    assert draw(finished, name) == 2
    assert one_line(capsys.readouterr().err) == (
        f"--out is '{name}'; its name must end with one of .png, .jpg, .jpeg, .webp, .avif, .tif, "
        ".tiff, .bmp, or with / for a folder of images."
    )
    assert not list(runs_dir.iterdir())


def test_any_class_can_be_asked_for(tmp_path: Path) -> None:
    run = tiny_runs.write_run(tmp_path, "cars", 20)
    assert draw(run, tmp_path / "any.png", "--label", "any class", "--n", "2") == 0
    assert draw(run, tmp_path / "van.png", "--label", "van", "--n", "2") == 0
    away = ("--label", "van", "--guidance-scale", "2", "--negative", "any class", "--n", "2")
    assert draw(run, tmp_path / "away.png", *away) == 0
    assert read((tmp_path / "any.png").read_bytes()).spec.label == "any class"
    assert read((tmp_path / "away.png").read_bytes()).spec.negative == ""
    assert not np.array_equal(image(tmp_path / "any.png"), image(tmp_path / "van.png"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--label", "9" * 5000], "There is no class '999"),
        (
            ["--label", "٣"],
            "choose one of van, bus, coupé. --label also takes 'each in turn' and 'any class'.",
        ),
        (["--device", "9" * 5000], f"'{'9' * 39}…' is no device"),
        (["--guidance-scale", "2", "--guidance-interval", "3", "4"], "where none of the steps is"),
        (["--n", "-1"], "n is -1; it must be from 1 to 4,096."),
    ],
)
def test_values_that_cannot_be_are_named_with_their_range(
    words: list[str], sentence: str, tmp_path: Path, capsys
) -> None:
    run = tiny_runs.write_run(tmp_path, "cars", 20)
    arguments = ["sample", "--run", str(run), "--out", str(tmp_path / "x.png"), "--steps", "3"]
    assert main([*arguments, *words]) in (1, 2)
    said = one_line(capsys.readouterr().err)
    assert sentence in said and len(said) < 300


def test_an_error_that_nobody_has_foreseen_is_kept_in_a_file(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_runs.write_run(tmp_path, "cars", 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def multiply(*_: object, **__: object) -> None:
        torch.ones(2, 3) @ torch.ones(2, 3)

    monkeypatch.setattr(spec.SamplingSpec, "make", multiply)
    assert draw(run, tmp_path / "x.png") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    [log] = tmp_path.glob("diffusion-lab-*.log")
    assert said == (
        f"An unexpected error occurred; {log} says where. Please report it with that file."
    )
    assert "mat1 and mat2" in log.read_text()


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


def test_a_run_whose_name_is_too_long_is_named_cut_short(capsys) -> None:
    assert main(["stop", "9" * 5000]) == 1
    assert len(one_line(capsys.readouterr().err)) < 300


def test_a_setting_that_is_not_a_number_is_named(tmp_path: Path, capsys) -> None:
    run = tiny_runs.write_run(tmp_path, "cars", 20)
    assert main(["change", str(run), "learning_rate=nan"]) == 2
    assert one_line(capsys.readouterr().err) == "learning_rate is nan; it must be a finite number."
