"""`train`: train a run, in this terminal or in the background."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_core.cli.options import (
    DONE,
    RUN_HELP,
    STOPPED,
    add_device,
    add_settings,
    default_runs_dir,
    find_run,
    print_started,
    program,
    run_path,
    start_waiting,
    whole_number,
)
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import check_spec, usage
from diffusion_core.device import pick_device
from diffusion_core.process.tables import DESIGNED
from diffusion_core.runs import jobs
from diffusion_core.runs.alerts import watch as alerts
from diffusion_core.runs.config import (
    MAIN_AVERAGE,
    ConfigError,
    RunConfig,
    parse_settings,
    split_origin,
    with_options,
    with_settings,
)
from diffusion_core.runs.designs import DESIGNS
from diffusion_core.runs.origin import (
    distillation,
    find_origin,
    origin_title,
    settle_origin,
)
from diffusion_core.runs.presets import PRESETS, check_network, preset
from diffusion_core.runs.run import load_run
from diffusion_core.runs.status import read_status
from diffusion_core.text import shown, some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # torchrun takes --run for the beginning of its own --run-path, wherever it stands.
    parser.add_argument(
        "--run", "--folder", dest="run", type=run_path, required=True, help=RUN_HELP
    )
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint")
    add_start(parser)
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.add_argument(
        "--background", action="store_true", help="train in the background, as the dashboard does"
    )
    parser.add_argument(
        "--processes",
        type=whole_number,
        metavar="N",
        help="processes in the background (default: one per GPU)",
    )
    parser.set_defaults(do=train_run)


def add_start(parser: argparse.ArgumentParser) -> None:
    """The options that say what settings a new run has."""
    parser.add_argument("--preset", choices=list(PRESETS), help="starting point (default: small)")
    parser.add_argument("--like", metavar="RUN", help="start from the settings of another run")
    parser.add_argument(
        "--init-from",
        metavar="RUN[@STEP]",
        help="start from the averaged weights of another run (default step: the latest), and from "
        "its settings unless --preset or --like is given",
    )
    parser.add_argument(
        "--distil",
        metavar="RUN[@STEP]",
        help="distil another run into one that samples in one or two steps: start from its weights "
        "and from its settings, with the objective consistency",
    )
    parser.add_argument(
        "--init-average",
        metavar="NAME",
        help=f"which of its averaged weights, for example short (default: {MAIN_AVERAGE})",
    )
    parser.add_argument("--data", help=usage())
    parser.add_argument(
        "--schedule",
        metavar="NAME",
        help="a noise schedule that was designed on the Schedule page and saved beside the runs",
    )
    parser.add_argument("--steps", type=whole_number, help="training steps in total")
    parser.add_argument("--batch-size", type=whole_number, help="images per step")
    parser.add_argument("--seed", type=whole_number)
    add_settings(parser, "any other settings")


def train_run(arguments: argparse.Namespace) -> int:
    from diffusion_core.training.distributed import process_count, process_number
    from diffusion_core.training.trainer import train

    lead = process_number() == 0  # the others report nothing but errors
    settings = given_settings(arguments)
    if arguments.run.resolve() == default_runs_dir().resolve():
        raise ConfigError(f"{arguments.run} is the folder of the runs; name a run in it.")
    if arguments.processes is not None and not arguments.background:
        raise ConfigError(
            "--processes needs --background; in a terminal use torchrun (see the command "
            "'command')."
        )
    config = None
    if not arguments.resume and not created_before(arguments, settings):
        config = with_settings(start_settings(arguments, settings), settings)
        try:
            check_spec(config.data)
        except DataError as error:
            raise ConfigError(f"data: {error}") from error
        config = settle_origin(config, arguments.run.parent)
        check_network(config)
        if process_count() == 1:  # before it waits for the device; several tell each other
            jobs.check_data(config)
        if config.init_from and lead:
            print(f"Starts from the weights of {origin_title(config)}.")
    if arguments.background:
        print_started(start_in_background(arguments, config, settings))
        return DONE
    if arguments.resume and settings:
        jobs.change(load_run(arguments.run), settings)
    bar: tqdm | None = None  # from the first step on, so that what fails before it is one line

    def show(step: int, steps: int, loss: float | None) -> None:
        nonlocal bar
        if bar is None:
            quiet = arguments.quiet or not lead
            bar = tqdm(
                total=steps, initial=step - 1, unit="step", dynamic_ncols=True, disable=quiet
            )
        bar.update()
        if loss is not None:
            bar.set_postfix(loss=f"{loss:.4f}")

    try:
        state = train(
            arguments.run,
            config,
            resume=arguments.resume,
            device=pick_device(arguments.device),
            on_step=show,
            write_report=write_report,
        )
    finally:
        if bar is not None:
            bar.close()
        if lead:  # the device is free again
            start_waiting(arguments.run.parent)
            alerts.end(arguments.run.parent)
    if not lead:
        return DONE
    why = read_status(arguments.run).message
    print(f"{arguments.run}: {state}. {why}".rstrip())
    if state == "finished":
        return DONE
    print(f"Resume with: {program()} train --run {arguments.run} --resume")
    return STOPPED if process_count() == 1 else DONE


def write_report(run: Path) -> None:
    """Imported when it is needed: most runs have no report. Raises ReportError, OSError."""
    from diffusion_core.review.report.write import write_run_report

    write_run_report(run)


def start_in_background(
    arguments: argparse.Namespace, config: RunConfig | None, settings: dict[str, Any]
) -> jobs.Run:
    """Start a new run with `config`; where that is None, one that has its settings."""
    if config is None:
        run = load_run(arguments.run)
        jobs.resume(run, arguments.device, settings, arguments.processes)
        return run
    path = arguments.run
    return jobs.start(path.parent, path.name, config, arguments.device, arguments.processes)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings given beside those that the run starts from. Raises ConfigError."""
    settings = parse_settings(arguments.set)
    named = {name: getattr(arguments, name) for name in ("data", "batch_size", "seed")}
    named["init_average"] = arguments.init_average
    fixed = [arguments.preset, arguments.like, arguments.init_from, arguments.init_average]
    fixed.append(arguments.distil)
    fixed += [named["batch_size"], named["seed"], arguments.schedule]
    if arguments.resume and any(value is not None for value in fixed):
        raise ConfigError(
            "A resumed run keeps its settings. Use --steps and --set for settings that may change, "
            "and --data for images that were moved."
        )
    if arguments.schedule is not None:
        named["schedule.kind"] = DESIGNED
        named["schedule.points"] = _points(arguments.run.parent, arguments.schedule)
    if arguments.distil is not None:
        if arguments.preset or arguments.like or arguments.init_from is not None:
            raise ConfigError(
                "--distil takes settings and weights from its run; leave --preset, --like and "
                "--init-from out."
            )
        settings.setdefault("objective", "consistency")
    origin = arguments.init_from if arguments.distil is None else arguments.distil
    if origin is not None:
        name, step = split_origin(origin)
        there = find_run(name).path.absolute()
        named["init_from"] = str(there) if step is None else f"{there}@{step}"
        settings.setdefault("init_average", arguments.init_average or MAIN_AVERAGE)
    return with_options(settings, named | {"steps": arguments.steps, "preset": arguments.preset})


def _points(runs_dir: Path, name: str) -> list[list[float]]:
    """Those of a saved schedule. Raises ConfigError."""
    designs, problems = DESIGNS.read(runs_dir)
    if name not in designs:
        there = f"there are {some(list(designs))}" if designs else "none is saved"
        raise ConfigError(" ".join([f"There is no schedule {shown(name)}; {there}.", *problems]))
    return [list(point) for point in designs[name].points]


def created_before(arguments: argparse.Namespace, settings: dict[str, Any]) -> bool:
    """Whether nothing is set and the run has its settings in its folder."""
    given = settings or arguments.preset or arguments.like
    return not given and (arguments.run / "config.json").exists()


def start_settings(arguments: argparse.Namespace, settings: dict[str, Any]) -> RunConfig:
    """The settings that a new run starts from: a preset's, or those of another run.

    Without either they are those of the run whose weights it starts from.
    """
    runs_dir = arguments.run.parent
    if not arguments.like:
        if (arguments.init_from or arguments.distil) and not arguments.preset:
            named = preset("small").replace(init_from=settings["init_from"])
            found = find_origin(named, runs_dir).config
            if arguments.distil:
                return distillation(found, settings["init_from"])
            return found.alone().replace(init_average=MAIN_AVERAGE)
        return preset(arguments.preset or "small")
    if arguments.preset:
        raise ConfigError("--preset and --like both name a starting point; choose one.")
    config = (other := find_run(arguments.like)).config
    if config is None:
        raise ConfigError(f"{other.name} has no settings; start from a preset.")
    if config.init_from:  # a name there is one beside that run
        origin = other.path.absolute().parent / config.init_from
        config = config.replace(init_from=str(origin))
    return config.alone()
