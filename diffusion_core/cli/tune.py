"""The command `tune`: learn the timesteps of a sampler in few steps, and store them in the run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from diffusion_core.cli.options import (
    DONE,
    STOPPED,
    add_device,
    add_run,
    find_checkpoint,
    find_run,
    whole_number,
)
from diffusion_core.cores import computing
from diffusion_core.device import pick_device
from diffusion_core.files import check_folder, complain
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.learned import FOLDER, LearnedTimesteps, write_learned
from diffusion_core.sampling.levels import LEARNED

if TYPE_CHECKING:
    from diffusion_core.runs.run import Run
    from diffusion_core.sampling.tuning import Progress

Returned = TypeVar("Returned")


def add_arguments(tune: argparse.ArgumentParser) -> None:
    add_run(tune)
    tune.add_argument("--sampler", help="one that adds no noise (default: the model's first)")
    tune.add_argument(
        "--steps",
        type=whole_number,
        nargs="+",
        default=[5, 10],
        help="numbers of sampling steps, each learned by itself (default: 5 10)",
    )
    tune.add_argument("--step", type=whole_number, help="checkpoint step (default: the latest)")
    tune.add_argument(
        "--average", default=MAIN_AVERAGE, help="averaged weights (default: %(default)s)"
    )
    add_device(tune)
    tune.set_defaults(do=do_tune)


def do_tune(given: argparse.Namespace) -> int:
    from diffusion_core.sampling import tuning

    run = find_run(given.run)
    checkpoint, device = find_checkpoint(run, given.step), pick_device(given.device)
    can = Capabilities.of(checkpoint)
    sampler = given.sampler or next(iter(tuning.tunable(can)), can.samplers[0])
    counts = list(dict.fromkeys(given.steps))
    try:
        tuning.check(can, sampler, counts, given.average)
    except tuning.TuningError as error:
        raise ConfigError(str(error)) from error
    check_folder(run.path / FOLDER)  # before the work
    last: list[Progress] = []  # the newest, which holds the best so far
    with computing(run.path.parent, device):
        try:
            student = tuning.Student.of(checkpoint, device, given.average)
            lessons: dict[str, tuning.Lessons] = {}
            for steps in counts:
                last.clear()
                spacing = tuning.teacher_spacing(student.schedule, steps)
                if spacing not in lessons:
                    lessons[spacing] = with_progress(
                        tuning.make_lessons(student, len(can.classes), spacing),
                        tuning.cost_of_lessons(student.schedule),
                        last,
                    )
                found = with_progress(
                    tuning.learn(
                        student, lessons[spacing], can, checkpoint, sampler, steps, given.average
                    ),
                    tuning.cost(can, sampler, steps),
                    last,
                )
                store(run, sampler, steps, found)
        except KeyboardInterrupt:
            best = last[0].learned if last else None
            if best is None:
                complain("Stopped before anything better than the usual spacings was found.")
            else:
                complain(f"Stopped. The best of {best.steps} steps so far is kept.")
                store(run, sampler, best.steps, best)
            return STOPPED
    return DONE


def with_progress(
    work: Generator[Progress, None, Returned], total: int, last: list[Progress]
) -> Returned:
    """What `work` returns, with a bar of the evaluations done; `last` holds its newest progress."""
    with tqdm(total=total, unit="evaluation", dynamic_ncols=True, file=sys.stderr) as bar:
        while True:
            try:
                seen = next(work)
            except StopIteration as end:
                bar.update(total - bar.n)
                return end.value
            last[:] = [seen]
            bar.set_description(seen.text)
            bar.update(seen.evaluations - bar.n)


def store(run: Run, sampler: str, steps: int, found: LearnedTimesteps | None) -> None:
    what = f"{sampler}, {steps} step{'s' if steps > 1 else ''}"
    if found is None:
        print(f"{what}: nothing better than the usual spacings was found; nothing is stored.")
        return
    path = write_learned(run.path, found)
    usual = found.usual_errors[found.usual]
    print(f"{what}: {' '.join(f'{t:g}' for t in found.timesteps)}")
    print(
        f"  Distance from the images of many steps {found.error:.3g}, with {found.usual} spacing "
        f"{usual:.3g}. Written to {path}; {LEARNED} is now the usual spacing of this way to sample."
    )
