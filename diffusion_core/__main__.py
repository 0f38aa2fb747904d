"""The command line: train, sample, runs, stop, pause, resume, doctor.

Exit codes: 0 done, 1 failed with one clear line on standard error, 2 bad arguments,
130 stopped or paused by request.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from diffusion_core import doctor, jobs
from diffusion_core.checkpoint import CheckpointError, load_model
from diffusion_core.config import ConfigError, parse_settings, with_settings
from diffusion_core.device import pick_device
from diffusion_core.files import os_sentence
from diffusion_core.presets import PRESETS, preset
from diffusion_core.runs import Run, list_runs, load_run

DONE, FAILED, BAD_ARGUMENTS, STOPPED = 0, 1, 2, 130


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
    train.add_argument("--run", type=Path, required=True, help="the run folder")
    train.add_argument("--resume", action="store_true", help="go on from its last checkpoint")
    train.add_argument("--preset", choices=list(PRESETS), default="small")
    train.add_argument("--data", help="cars, cars:N, digits, folder:PATH or torchvision:NAME")
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

    sample = command("sample", do_sample, "draw pictures from a run's checkpoint")
    sample.add_argument("--run", type=Path, required=True)
    sample.add_argument("--step", type=int, help="of the checkpoint; by default the latest")
    sample.add_argument("--sampler", choices=["ddpm", "ddim"], default="ddim")
    sample.add_argument("--steps", type=int, help="by default 50 for ddim, all for ddpm")
    sample.add_argument("--n", type=int, default=16)
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--label", help="a class by name or number; by default each in turn")
    sample.add_argument("--guidance-scale", type=float, default=1.0)
    sample.add_argument("--lecture", action="store_true", help="as the lecture samples, slips too")
    sample.add_argument("--device", default=device)
    sample.add_argument("--out", type=Path, default=Path("grid.png"))

    runs = command("runs", do_runs, "a table of the runs")
    runs.add_argument("--runs-dir", type=Path, default=default_runs_dir())
    for name in ("stop", "pause"):
        ask = command(name, do_request, f"ask a run to {name} at its next step")
        ask.add_argument("run", help="a folder, or a name in the runs folder")
        ask.set_defaults(action=name)
    resume = command("resume", do_resume, "go on with a run in the background")
    resume.add_argument("run", help="a folder, or a name in the runs folder")
    resume.add_argument("--device", default=device)
    check = command("doctor", do_doctor, "device, versions, write access, speed")
    check.add_argument("--runs-dir", type=Path, default=default_runs_dir())
    check.add_argument("--device", default=device)
    return parser


def default_runs_dir() -> Path:
    return Path(os.environ.get("DIFFUSION_LAB_RUNS_DIR", "checkpoints"))


def find_run(word: str) -> Run:
    """A run by its folder or by its name in the runs folder."""
    path = Path(word)
    return load_run(path if path.is_dir() else default_runs_dir() / word)


def do_train(words: argparse.Namespace) -> int:
    from diffusion_core.trainer import train

    config = None
    if not words.resume:
        settings = parse_settings(words.set)
        for name in ("data", "steps", "batch_size", "seed"):
            if getattr(words, name) is not None:
                settings[name] = getattr(words, name)
        config = with_settings(preset(words.preset), settings)
    elif words.set or any(
        value is not None for value in (words.data, words.steps, words.batch_size, words.seed)
    ):
        raise ConfigError("A resumed run keeps its own settings; leave the others out.")
    bar: tqdm | None = None  # from the first step on, so that what fails before it is one line

    def show(step: int, steps: int, loss: float | None) -> None:
        nonlocal bar
        if bar is None:
            options = {"unit": "step", "dynamic_ncols": True, "disable": words.quiet}
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
    print(f"{words.run}: {state}.")
    if state == "finished":
        return DONE
    print(f"Go on with: python -m diffusion_core train --run {words.run} --resume")
    return STOPPED


def do_sample(words: argparse.Namespace) -> int:
    import torch

    from diffusion_core.files import replacing
    from diffusion_core.pictures import grid, png, to_uint8
    from diffusion_core.samplers import LECTURE_SAMPLING, StepView, sample

    if words.n < 1:
        raise ConfigError(f"--n is {words.n}; it must be at least 1.")
    if not words.out.resolve().parent.is_dir():
        raise ConfigError(f"There is no folder {words.out.parent} to write {words.out.name} to.")
    run = load_run(words.run)
    if words.step is None:
        usable, broken = run.checkpoints()
        print("".join(f"Skipped: {reason}\n" for reason in broken), end="", file=sys.stderr)
        if not usable:
            raise CheckpointError(f"{run.name} has no usable checkpoint yet.")
        checkpoint = usable[-1]
    else:
        checkpoint = run.checkpoint(words.step)
    device = pick_device(words.device)
    model, schedule, config = load_model(checkpoint, device)
    classes = checkpoint.classes
    labels = None
    if words.label is not None:
        labels = torch.full((words.n,), class_number(words.label, classes))
    elif classes:
        labels = torch.arange(words.n) % len(classes)
    elif words.guidance_scale != 1:
        raise ConfigError(f"{run.name} was trained without classes; it takes no --guidance-scale.")
    options: dict = {"sampler": words.sampler}
    if words.lecture:
        options = dict(LECTURE_SAMPLING)
    steps = words.steps
    if steps is None and options["sampler"] == "ddim":
        steps = min(50, schedule.timesteps)
    if steps is not None and not 1 <= steps <= schedule.timesteps:
        raise ConfigError(f"--steps is {steps}; this run has 1 to {schedule.timesteps}.")
    with tqdm(total=steps or schedule.timesteps, unit="step", dynamic_ncols=True) as bar:

        def show(view: StepView) -> None:
            bar.update()

        pictures = sample(
            model,
            schedule,
            words.n,
            steps=steps,
            seed=words.seed,
            prediction_type=config.prediction_type,
            labels=labels,
            guidance_scale=words.guidance_scale,
            shape=(3, config.image_size, config.image_size),
            on_step=show,
            **options,
        )
    with replacing(words.out) as file:
        file.write(png(grid(to_uint8(pictures))))
    print(f"{words.n} pictures of {run.name}, step {checkpoint.step}: {words.out}")
    return DONE


def class_number(word: str, classes: tuple[str, ...]) -> int:
    """A class by name or number; raises ConfigError with the names there are."""
    if word in classes:
        return classes.index(word)
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    there = f"there are {', '.join(classes)}" if classes else "this run was trained without"
    raise ConfigError(f"There is no class {word!r}; {there}.")


def do_runs(words: argparse.Namespace) -> int:
    runs = list_runs(words.runs_dir)
    if not runs:
        print(f"There are no runs in {words.runs_dir}.")
        return DONE
    print(f"{'run':30} {'state':9} {'step':>15} {'loss':>8} {'images/s':>9}  started")
    for run in runs:
        status = run.status
        steps = f"{status.get('step', 0):,}/{status.get('total', 0):,}"
        loss = status.get("loss")
        speed = status.get("images_per_second")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
        print(
            f"{run.name:30} {run.state:9} {steps:>15} "
            f"{'' if loss is None else f'{loss:.4f}':>8} "
            f"{'' if speed is None else f'{speed:.1f}':>9}  {when}"
        )
    return DONE


def do_request(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    jobs.request(run, words.action)
    print(f"{run.name} will {words.action} at its next step.")
    return DONE


def do_resume(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    jobs.resume(run, words.device)
    print(f"{run.name} goes on in the background; its words are in {run.path / 'train.log'}.")
    return DONE


def do_doctor(words: argparse.Namespace) -> int:
    return doctor.report(words.runs_dir, pick_device(words.device))


if __name__ == "__main__":
    sys.exit(main())
