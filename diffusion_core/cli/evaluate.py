"""The command `evaluate`: measure a run's images, print what was found as a table."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence

from tqdm import tqdm

from diffusion_core.cli.options import (
    DONE,
    RUN_HELP,
    add_device,
    find_checkpoint,
    find_run,
    number,
    whole_number,
)
from diffusion_core.device import pick_device
from diffusion_core.evaluation.results import (
    METRICS,
    Estimates,
    Result,
    estimate_words,
    known_metrics,
    result_path,
    yardsticks,
)
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.runs.run import Run
from diffusion_core.sampling.levels import TIMESTEP_SPACINGS
from diffusion_core.sampling.spec import MAX_GUIDANCE, MAX_SEED, MOST_IMAGES

Row = tuple[str, Estimates]  # what was measured, and what was found


def add_arguments(evaluate: argparse.ArgumentParser) -> None:
    evaluate.set_defaults(do=do_evaluate)
    evaluate.add_argument("--run", required=True, help=RUN_HELP)
    which = evaluate.add_mutually_exclusive_group()
    which.add_argument("--step", type=whole_number, help="of the checkpoint; by default the latest")
    which.add_argument("--all-steps", action="store_true", help="every checkpoint that there is")
    evaluate.add_argument("--n", type=whole_number, default=2048, help="images; by default 2048")
    evaluate.add_argument("--sampler", help="by default dpmpp_2m where the run takes it")
    evaluate.add_argument(
        "--steps", type=whole_number, nargs="+", help="one measurement for each; by default 20"
    )
    evaluate.add_argument("--spacing", choices=TIMESTEP_SPACINGS, default="trailing")
    evaluate.add_argument("--average", default=MAIN_AVERAGE, help="which averaged weights")
    evaluate.add_argument("--guidance-scale", type=number, default=1.0)
    evaluate.add_argument("--seed", type=whole_number, default=0)
    evaluate.add_argument(
        "--bits-per-dim", action="store_true", help="also the bits per dimension, which take longer"
    )
    evaluate.add_argument("--again", action="store_true", help="also what was measured before")
    add_device(evaluate)


def do_evaluate(words: argparse.Namespace) -> int:
    from diffusion_core.evaluation.evaluate import evaluate, make_spec
    from diffusion_core.evaluation.evaluator import FEWEST, cost

    if not FEWEST <= words.n <= MOST_IMAGES:
        raise ConfigError(f"--n is {words.n}; it must lie between {FEWEST} and {MOST_IMAGES:,}.")
    if not 0 <= words.seed <= MAX_SEED:
        raise ConfigError(f"--seed is {words.seed}; it must lie between 0 and {MAX_SEED:,}.")
    if not 0 <= words.guidance_scale <= MAX_GUIDANCE:
        raise ConfigError(
            f"--guidance-scale is {words.guidance_scale:g}; it must lie between 0 and "
            f"{MAX_GUIDANCE:g}."
        )
    run = find_run(words.run)
    device = pick_device(words.device)
    found = []
    for checkpoint in find_checkpoints(run, words):
        loaded = load_model(checkpoint, device, words.average)
        for steps in words.steps or [min(20, loaded[1].timesteps)]:
            spec = make_spec(
                run.name,
                checkpoint,
                n=words.n,
                sampler=words.sampler,
                steps=steps,
                seed=words.seed,
                guidance_scale=words.guidance_scale,
                average=words.average,
                spacing=words.spacing,
            )
            work = evaluate(
                run, checkpoint, spec, loaded, bits=words.bits_per_dim, again=words.again
            )
            total = cost(spec, loaded[1], words.bits_per_dim)
            label = f"step {spec.step:,}, {spec.method}, {spec.steps} steps"
            with tqdm(total=total, desc=label, unit="evaluation", dynamic_ncols=True) as bar:
                while True:
                    try:
                        done = next(work)
                    except StopIteration as end:
                        found.append(end.value)
                        bar.update(total - bar.n)
                        break
                    bar.update(done - bar.n)
    print(table(found, shutil.get_terminal_size((120, 24)).columns))
    for note in dict.fromkeys(note for result in found for note in result.notes):
        print(note)
    print(f"Written to {result_path(run.path, found[-1].spec).parent}.")
    return DONE


def find_checkpoints(run: Run, words: argparse.Namespace) -> Sequence[Checkpoint]:
    """Those to measure; raises CheckpointError where there is none."""
    if not words.all_steps:
        return [find_checkpoint(run, words.step)]
    find_checkpoint(run, None)  # says which are broken
    return run.checkpoints()[0]


def table(results: Sequence[Result], width: int) -> str:
    """The results between floor and ceiling: a row each, as many columns beside each other as fit
    in `width` characters, the others below."""
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
        cells = [METRICS[name].title]
        cells += [estimate_words(name, e[name]) if name in e else "" for _, e in rows]
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
