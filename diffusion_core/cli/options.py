"""What several commands share: exit codes, options, and finding the run that an option names."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.files import complain, short_path
from diffusion_core.text import shown

if TYPE_CHECKING:
    from diffusion_core.runs.checkpoint import Checkpoint
    from diffusion_core.runs.run import Run

DONE, FAILED, BAD_ARGUMENTS, STOPPED = 0, 1, 2, 130
SCRIPT = "diffusion-lab"
RUN_HELP = "run folder, or a name in the runs folder"


def program() -> str:
    """How the command line was called: by its script, or as a module."""
    return SCRIPT if Path(sys.argv[0]).stem == SCRIPT else "python -m diffusion_core"


def whole_number(text: str) -> int:
    """An argparse type. Python reads at most 4,300 digits."""
    try:
        return int(text) if text.isascii() else int("")
    except ValueError:
        wanted = "it must be a whole number."
        raise argparse.ArgumentTypeError(f"is {shown(text)}; {wanted}") from None


def number(text: str) -> float:
    """An argparse type: any finite number."""
    try:
        value = float(text) if text.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"is {shown(text)}; it must be a finite number.")
    return value


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help=RUN_HELP)


def add_settings(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help=help
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default=os.environ.get("DIFFUSION_LAB_DEVICE") or None,
        help="auto, cpu, cuda, cuda:N or mps (default: $DIFFUSION_LAB_DEVICE, else auto)",
    )


def add_guidance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guidance-scale",
        type=number,
        help="lead away from a worse prediction, other + scale * (own - other): that for any "
        "class, or that of --guide (default: 1, no guidance)",
    )
    parser.add_argument(
        "--guidance-interval",
        type=number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="guided timesteps, both included (default: all)",
    )
    parser.add_argument(
        "--guide",
        metavar="RUN[@STEP]",
        help="autoguidance: guide away from this weaker checkpoint, of the same run or of one "
        "beside it (default step: the latest)",
    )
    parser.add_argument(
        "--guide-average",
        metavar="NAME",
        help="averaged weights of the guide (default: main); without --guide, of the sampled "
        "checkpoint itself",
    )


def guide_settings(given: argparse.Namespace, run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of a `SamplingSpec` that --guide and --guide-average give. Raises ConfigError and
    CheckpointError."""
    from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError, split_origin
    from diffusion_core.sampling.spec import AUTOGUIDANCE

    if given.guide is None and given.guide_average is None:
        return {}
    found = {"guidance": AUTOGUIDANCE, "guide_average": given.guide_average or MAIN_AVERAGE}
    if given.guide is None:
        return found | {"guide_step": checkpoint.step}
    name, step = split_origin(given.guide, "--guide")
    guide = find_run(name, run.path.parent)
    if guide.path.absolute().parent != run.path.absolute().parent:
        raise ConfigError(f"--guide is {shown(given.guide)}; it must be a run beside {run.name}.")
    if step is None:
        step = find_checkpoint(guide, None).step
    beside = "" if guide.name == run.name else guide.name
    return found | {"guide_run": beside, "guide_step": step}


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=default_runs_dir(),
        help="folder of the runs (default: $DIFFUSION_LAB_RUNS_DIR, else checkpoints)",
    )


def check_runs_dir(runs_dir: Path) -> None:
    """Raises JobError where the runs in a folder cannot be listed."""
    from diffusion_core.files import why_no_list
    from diffusion_core.runs.jobs import JobError

    if why := why_no_list(runs_dir):
        raise JobError(f"{short_path(runs_dir)} {why}")


def default_runs_dir() -> Path:
    return Path(os.environ.get("DIFFUSION_LAB_RUNS_DIR") or "checkpoints")


def find_run(name: str, runs_dir: Path | None = None) -> Run:
    """A run by its folder or by its name in the runs folder. Raises FileNotFoundError."""
    from diffusion_core.runs.run import load_run

    return load_run(run_path(name, runs_dir))


def run_path(name: str, runs_dir: Path | None = None) -> Path:
    """The folder of a run, new or not, that is given as a path or as a name in the runs folder."""
    from diffusion_core.runs.run import is_run

    path = Path(name)
    if path.name in ("", ".."):  # the folder where one is, and those above it
        return path.resolve()
    if is_run(path) or path.name != name:
        return path
    return (runs_dir or default_runs_dir()) / name


def listed(name: str) -> str:
    """A run's name in a table: one of another program may have line breaks, or not be Unicode."""
    return name if name.isprintable() else shown(name)


def find_checkpoint(run: Run, step: int | None) -> Checkpoint:
    """The checkpoint of a step, or the latest usable one; newer broken ones are named on stderr.

    Raises CheckpointError.
    """
    from diffusion_core.runs.checkpoint import CheckpointError

    if step is not None:
        return run.checkpoint(step)
    usable, broken = run.checkpoints()
    for reason in broken:
        complain(f"Skipped: {reason}")
    if not usable:
        raise CheckpointError(f"{run.name} has no usable checkpoint yet.")
    return usable[-1]


def check_place(out: Path) -> None:
    """Raises ConfigError where the folder that `out` is to be written to does not exist."""
    from diffusion_core.runs.config import ConfigError

    if not out.resolve().parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent} to write {out.name} to.")


def start_waiting(runs_dir: Path) -> None:
    """Start what comes next in sweeps, and the queued runs whose device is free; a failure is only
    reported."""
    from diffusion_core.runs import jobs
    from diffusion_core.runs.sweep_rounds import advance

    for look in (advance, jobs.start_next):
        try:
            look(runs_dir)
        except (jobs.JobError, OSError) as error:
            complain(str(error))


def print_started(run: Run) -> None:
    """Say whether a run that was started in the background runs or waits."""
    if run.state == "queued":
        print(f"{run.name} is queued; it starts when the device is free.")
    else:
        print(f"{run.name} runs in the background; its log is {run.path / 'train.log'}.")
