"""What is typed: help, completion, settings, and what makes no command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import diffusion_core
from diffusion_core.cli.main import COMMANDS, main
from diffusion_core.sampling import spec
from tests import tiny_runs
from tests.core.cli.commands import draw, one_line

ROOT = Path(diffusion_core.__file__).parent.parent


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
            "--format is 'xls'; it must be one of diffusers, onnx,",
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
