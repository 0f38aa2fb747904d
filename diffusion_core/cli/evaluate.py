"""The command `evaluate`: measure a run's images and print the results as a table."""

from __future__ import annotations

import argparse
import functools
import shutil
from collections.abc import Generator, Sequence

from tqdm import tqdm

from diffusion_core.cli.options import (
    DONE,
    RUN_HELP,
    add_device,
    add_guidance,
    find_checkpoint,
    find_run,
    guide_settings,
    whole_number,
)
from diffusion_core.cores import computing
from diffusion_core.data.found import Found, sentence
from diffusion_core.device import pick_device
from diffusion_core.evaluation.metrics import METRICS, Estimates
from diffusion_core.evaluation.results import Result, known_metrics, result_path, yardsticks
from diffusion_core.files import complain
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.runs.metrics import MetricsError
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.levels import LEARNED, TIMESTEP_SPACINGS

Row = tuple[str, Estimates]  # what was measured, and its values


def add_arguments(evaluate: argparse.ArgumentParser) -> None:
    evaluate.set_defaults(do=do_evaluate)
    evaluate.add_argument("--run", required=True, help=RUN_HELP)
    which = evaluate.add_mutually_exclusive_group()
    which.add_argument("--step", type=whole_number, help="checkpoint step (default: the latest)")
    which.add_argument("--all-steps", action="store_true", help="measure every checkpoint")
    evaluate.add_argument(
        "--n", type=whole_number, default=2048, help="number of images (default: %(default)s)"
    )
    evaluate.add_argument("--sampler", help="default: the first that the model supports")
    evaluate.add_argument(
        "--steps",
        type=whole_number,
        nargs="+",
        help="sampling steps, one result each (default: 20; of a distilled run 1 and 2)",
    )
    evaluate.add_argument(
        "--spacing",
        choices=(*TIMESTEP_SPACINGS, LEARNED),
        help="of the steps (default: learned if the run has timesteps for it, else the sampler's "
        "usual)",
    )
    evaluate.add_argument(
        "--average", default=MAIN_AVERAGE, help="averaged weights (default: %(default)s)"
    )
    add_guidance(evaluate)
    evaluate.set_defaults(guidance_scale=1.0)
    evaluate.add_argument("--seed", type=whole_number, default=0)
    evaluate.add_argument(
        "--bits-per-dim", action="store_true", help="also measure bits per dimension, which is slow"
    )
    evaluate.add_argument(
        "--again", action="store_true", help="measure again even if there is a result"
    )
    add_device(evaluate)


def do_evaluate(given: argparse.Namespace) -> int:
    from diffusion_core.evaluation.evaluate import evaluate, make_spec
    from diffusion_core.evaluation.evaluator import cost

    run = find_run(given.run)
    device = pick_device(given.device)
    results, told = [], set[str]()

    def tell(data: str, found: Found) -> None:
        if data not in told:
            told.add(data)
            complain(f"{data}: {sentence(found)}")

    for checkpoint in find_checkpoints(run, given):
        can = Capabilities.of(checkpoint)
        timesteps = can.timesteps
        specs = [
            make_spec(
                run.name,
                checkpoint,
                n=given.n,
                sampler=given.sampler,
                steps=steps,
                seed=given.seed,
                guidance_scale=given.guidance_scale,
                guidance_interval=given.guidance_interval,
                **guide_settings(given, run, checkpoint),
                average=given.average,
                spacing=given.spacing,
            )
            for steps in given.steps or ([1, 2] if can.distilled else [min(20, timesteps)])
        ]
        loaded = load_model(checkpoint, device, given.average)
        for reason in can.unusable:
            complain(f"Skipped: {reason}")
        for spec in specs:
            if warning := spec.warning(can):
                complain(f"Warning: {warning}")
            work = evaluate(
                run,
                checkpoint,
                spec,
                loaded,
                bits=given.bits_per_dim,
                again=given.again,
                on_found=functools.partial(tell, checkpoint.config.data),
            )
            label = f"step {spec.step:,}, {spec.method}, {spec.steps} steps"
            with computing(run.path.parent, device):
                total = cost(spec, loaded[1], given.bits_per_dim)
                results.append(with_progress(work, total, label))
    print(table(results, shutil.get_terminal_size((120, 24)).columns))
    notes = [note for result in results for note in result.notes] + advice(run, results)
    for note in dict.fromkeys(notes):
        print(note)
    print(f"Written to {result_path(run.path, results[-1].spec).parent}.")
    return DONE


def advice(run: Run, results: Sequence[Result]) -> list[str]:
    """What the results and the validation of the run say of memorisation and of its averages."""
    from diffusion_core.evaluation.progress import average_sentence, memorisation_sentence, scalars

    found = []
    for result in results:
        last = {name: (result.spec.step, each) for name, each in scalars(result.metrics).items()}
        found.append(memorisation_sentence(last))
    try:
        config, last = run.config, run.last_values()
    except (ConfigError, MetricsError):  # the images could be measured all the same
        config = None
    if config is not None:
        found.append(average_sentence(config, last))
    return [sentence for sentence in found if sentence]


def with_progress(work: Generator[int, None, Result], total: int, label: str) -> Result:
    """The result of a measurement, which yields the evaluations done, of `total`."""
    bar: tqdm | None = None  # from the first on, so that what is refused is one line
    try:
        while True:
            done = next(work)
            if bar is None:
                bar = tqdm(total=total, desc=label, unit="evaluation", dynamic_ncols=True)
            bar.update(done - bar.n)
    except StopIteration as end:
        if bar is not None:
            bar.update(total - bar.n)
        return end.value
    finally:
        if bar is not None:
            bar.close()


def find_checkpoints(run: Run, given: argparse.Namespace) -> Sequence[Checkpoint]:
    """The checkpoints to measure. Raises CheckpointError if there is none."""
    if not given.all_steps:
        return [find_checkpoint(run, given.step)]
    find_checkpoint(run, None)  # names those that are broken
    return run.checkpoints()[0]


def table(results: Sequence[Result], width: int) -> str:
    """The results as rows between floor and ceiling, the columns wrapped at `width` characters."""
    rows: list[Row] = []
    ends = yardsticks(list(results))
    several = len({result.spec.n for result in results}) > 1
    of = {id(end): f" ({end.spec.n:,})" if several else "" for end in ends}
    rows += [(f"held-out images{of[id(end)]}", end.floor) for end in ends if end.floor]
    for result in results:
        rows.append((f"step {result.spec.step:,}, {result.way()}", result.metrics))
    rows += [(f"noise{of[id(end)]}", end.ceiling) for end in ends]
    first = max(len(name) for name, _ in rows)
    columns = []
    for name in known_metrics(list(results)):
        metric = METRICS[name]
        cells = [metric.title]
        cells += [metric.format_estimate(e[name]) if name in e else "" for _, e in rows]
        columns.append(cells)
    lines: list[str] = []
    while columns:
        taken = 1
        used = first + _wide(columns[0])
        while taken < len(columns) and used + _wide(columns[taken]) <= width:
            used += _wide(columns[taken])
            taken += 1
        for k, name in enumerate(["", *(name for name, _ in rows)]):
            cells = [f"{cells[k]:>{_wide(cells)}}" for cells in columns[:taken]]
            lines.append(f"{name:<{first}}" + "".join(cells))
        lines.append("")
        columns = columns[taken:]
    return "\n".join(lines)


def _wide(cells: list[str]) -> int:
    return max(map(len, cells)) + 3
