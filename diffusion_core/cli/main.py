"""The command line: train, sample, export, doctor, `evaluate`, and those of `control.py`.

Exit codes: 0 done, 1 failed with one clear line on standard error, 2 bad arguments,
130 stopped or paused by request. Of several processes under torchrun, which calls all but 0 a
failure, a stopped or paused run is 0 too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_core.cli import doctor, evaluate, sample
from diffusion_core.cli.control import (
    BAD_ARGUMENTS,
    DONE,
    FAILED,
    STOPPED,
    add_commands,
    default_runs_dir,
    find_checkpoint,
    find_run,
    said_of,
    start_waiting,
)
from diffusion_core.cli.sample import check_place
from diffusion_core.data.sources import usage
from diffusion_core.device import pick_device
from diffusion_core.files import os_sentence
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, with_settings
from diffusion_core.runs.presets import PRESETS, preset
from diffusion_core.runs.run import load_run


def main(arguments: Sequence[str] | None = None) -> int:
    words = make_parser().parse_args(arguments)
    try:
        return words.do(words)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_ARGUMENTS
    except OSError as error:
        print(os_sentence(error), file=sys.stderr)
        return FAILED
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return STOPPED


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diffusion_core", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, do: Callable[[argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(do=do)
        return added

    device = os.environ.get("DIFFUSION_LAB_DEVICE")
    train = command("train", do_train, "train a run in this terminal")
    # torchrun takes --run for a beginning of its own --run-path, wherever it stands.
    train.add_argument(
        "--run", "--folder", dest="run", type=Path, required=True, help="the run folder"
    )
    train.add_argument("--resume", action="store_true", help="go on from its last checkpoint")
    train.add_argument("--preset", choices=list(PRESETS), help="small where nothing is said")
    train.add_argument("--like", metavar="RUN", help="with all settings of another run")
    train.add_argument("--data", help=usage())
    train.add_argument("--steps", type=int)
    train.add_argument("--batch-size", type=int)
    train.add_argument("--seed", type=int)
    train.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="any other settings",
    )
    train.add_argument("--device", default=device, help="auto, cpu, cuda, cuda:N or mps")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.add_argument(
        "--background", action="store_true", help="in the background, as from the Training page"
    )

    train.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="in the background so many; by default one for each GPU",
    )

    sample.add_command(command, device)
    export = command("export", do_export, "a run for diffusers, or its numbers as CSV or Parquet")
    export.add_argument("run", help="a folder, or a name in the runs folder")
    export.add_argument("--format", choices=["diffusers", "csv", "parquet"], required=True)
    export.add_argument("--step", type=int, help="of the checkpoint; by default the latest")
    export.add_argument("--out", type=Path, help="a new folder for diffusers, else a file")
    add_commands(command, device)
    evaluate.add_commands(command, device)
    check = command("doctor", do_doctor, "device, versions, write access, speed")
    check.add_argument("--runs-dir", type=Path, default=default_runs_dir())
    check.add_argument("--device", default=device)
    return parser


def do_train(words: argparse.Namespace) -> int:
    from diffusion_core.training.distributed import process_count, process_number
    from diffusion_core.training.trainer import train

    settings = given_settings(words)
    if words.processes is not None and not words.background:
        raise ConfigError(
            "--processes goes with --background; in a terminal torchrun starts several, see the "
            "command 'command'."
        )
    config = None
    if not words.resume:
        if settings or words.preset or words.like or not (words.run / "config.json").exists():
            config = with_settings(start_settings(words), settings)
        if words.background:
            if config is None:
                raise ConfigError(f"{words.run} was created already; start it with --resume.")
            jobs.check_data(config)
            run = jobs.start(
                words.run.parent, words.run.name, config, words.device, words.processes or 0
            )
            print(said_of(run))
            return DONE
    elif words.background:
        jobs.resume(run := load_run(words.run), words.device, settings, words.processes or 0)
        print(said_of(run))
        return DONE
    elif settings:
        jobs.change(load_run(words.run), settings)
    lead = process_number() == 0  # of several the others say nothing but what goes wrong
    bar: tqdm | None = None  # from the first step on, so that what fails before it is one line

    def show(step: int, steps: int, loss: float | None) -> None:
        nonlocal bar
        if bar is None:
            options = {"unit": "step", "dynamic_ncols": True, "disable": words.quiet or not lead}
            bar = tqdm(total=steps, initial=step - 1, **options)
        bar.update()
        if loss is not None:
            bar.set_postfix(loss=f"{loss:.4f}")

    try:
        state = train(
            words.run,
            config,
            resume=words.resume,
            device=pick_device(words.device),
            on_step=show,
        )
    finally:
        if bar is not None:
            bar.close()
        if lead:  # the device is free again
            start_waiting(words.run.parent)
    if not lead:
        return DONE
    print(f"{words.run}: {state}.")
    if state == "finished":
        return DONE
    print(f"Go on with: python -m diffusion_core train --run {words.run} --resume")
    return STOPPED if process_count() == 1 else DONE


def given_settings(words: argparse.Namespace) -> dict[str, Any]:
    """The settings that the words of `train` name beside those that it starts from."""
    settings = parse_settings(words.set)
    named = {name: getattr(words, name) for name in ("data", "batch_size", "seed")}
    named = {name: value for name, value in named.items() if value is not None}
    if words.resume and (named or words.preset or words.like):
        raise ConfigError(
            "A resumed run keeps its own settings; leave the others out. What may change goes "
            "after --steps and --set."
        )
    if words.steps is not None:
        named["steps"] = words.steps
    return settings | named


def start_settings(words: argparse.Namespace) -> RunConfig:
    """The settings that a new run starts from: a preset's, or those of another run."""
    if not words.like:
        return preset(words.preset or "small")
    if words.preset:
        raise ConfigError("--preset and --like both say what to start from; choose one.")
    config = (other := find_run(words.like)).config
    if config is None:
        raise ConfigError(f"{other.name} has left no settings; start from a preset.")
    return config


def do_export(words: argparse.Namespace) -> int:
    from diffusion_core.files import replacing
    from diffusion_core.runs.export import metrics_table, write_diffusers

    run = find_run(words.run)
    if words.format == "diffusers":
        out = words.out or Path(f"{run.name}-diffusers")
        check_place(out)
        checkpoint = find_checkpoint(run, words.step)
        write_diffusers(run, checkpoint, out)
        print(f"{run.name}, step {checkpoint.step}, for diffusers: {out}")
        return DONE
    if words.step is not None:
        raise ConfigError("--step chooses a checkpoint for diffusers; the numbers have all steps.")
    out = words.out or Path(f"{run.name}-metrics.{words.format}")
    check_place(out)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give --out the name of a file.")
    table = metrics_table(run, words.format)
    with replacing(out) as file:
        file.write(table)
    print(f"The numbers of {run.name}: {out}")
    return DONE


def do_doctor(words: argparse.Namespace) -> int:
    return doctor.report(words.runs_dir, pick_device(words.device))
