"""How good a run's images are: draw many, hold them against real ones, write what is found.

`evaluate` is a generator, so that the dashboard can let other drawings go first in between. The
measuring itself is in `measuring.py`, what is written in `quality_results.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from diffusion_core.data.store import build_store, fingerprint_of
from diffusion_core.evaluation.evaluator import OnStep, measure, measure_bits
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.results import Result, read_results, same_sampling, write_result
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.spec import EACH_IN_TURN, SamplingSpec

Turns = Generator[int, None, Result]


def make_spec(
    run: str,
    checkpoint: Checkpoint,
    *,
    n: int,
    sampler: str | None = None,
    steps: int = 20,
    seed: int = 0,
    guidance_scale: float = 1.0,
    average: str = MAIN_AVERAGE,
    spacing: str = "trailing",
) -> SamplingSpec:
    """What to draw; by default by DPM-Solver++ 2M where the model takes it.

    Of a network with classes it says "each in turn"; `evaluate` asks for each as often as the
    training met it. Raises ConfigError with a sentence for what the checkpoint cannot be drawn
    with.
    """
    schedule = build_schedule(checkpoint.config)
    names = [sampler.name for sampler in samplers_for(schedule)]
    sampler = sampler or names[0]
    if sampler not in names:
        raise ConfigError(f"{run} is drawn from by {', '.join(names)}, not by {sampler!r}.")
    if not 1 <= steps <= schedule.timesteps:
        raise ConfigError(f"{run} is drawn from in 1 to {schedule.timesteps:,} steps, not {steps}.")
    if guidance_scale != 1 and not checkpoint.classes:
        raise ConfigError(f"{run} was trained without classes; it takes no guidance.")
    if guidance_scale != 1 and checkpoint.config.label_dropout == 0:
        # It would lead away from "any class", which the network never learned.
        raise ConfigError(
            f"{run} was trained with the class always given, so nothing can guide it; leave the "
            "guidance scale at 1."
        )
    return SamplingSpec(
        run=run,
        step=checkpoint.step,
        n=n,
        sampler=sampler,
        steps=steps,
        seed=seed,
        classes=checkpoint.classes,
        label=EACH_IN_TURN if checkpoint.classes else "",
        guidance_scale=guidance_scale,
        average=average,
        flow=schedule.is_flow,
        spacing=spacing,
    )


def evaluate(
    run: Run,
    checkpoint: Checkpoint,
    spec: SamplingSpec,
    loaded: LoadedModel,
    *,
    bits: bool = False,
    again: bool = False,
    workers: int | None = None,
    on_step: OnStep | None = None,
) -> Turns:
    """Measure what `order` draws and write it into the run; what is there already, of this very
    checkpoint and these very images, is not made anew.

    Yields after every batch how many of the `cost` evaluations are done; returns the result.
    `bits`: also the bits per dimension, of the checkpoint and not of the sampling. `again`: make it
    anew. `workers`: see `build_store`. Raises DataError where the run's images cannot be had,
    ConfigError where there are too few or the network has no such number, ValueError where the
    network answers with NaN.
    """
    _, schedule, config = loaded
    fingerprint = fingerprint_of(config.data, config.image_size, config.channels)
    known = [] if again else _known(run, checkpoint, fingerprint)
    result = next((other for other in known if same_sampling(other.spec, spec)), None)
    wanted = bits and (result is None or "bits_per_dim" not in result.metrics)
    if result is not None and not wanted:
        return result
    if bits and spec.flow:
        raise ConfigError("Bits per dimension need a diffusion model; a flow has none.")
    store = build_store(config.data, config.image_size, config.channels, workers=workers)
    sampling_cost = spec.evaluations(schedule)
    if result is None:
        result, sheet = yield from measure(run, checkpoint, spec, loaded, store, again, on_step)
        write_result(run.path, result, sheet)
    if wanted:
        yield sampling_cost
        found = _known_bits(known, spec.average)
        if found is None:
            found = yield from measure_bits(checkpoint, spec, loaded, store, sampling_cost)
        result = dataclasses.replace(result, metrics=result.metrics | {"bits_per_dim": found})
        write_result(run.path, result)
    return result


def _known(run: Run, checkpoint: Checkpoint, fingerprint: str) -> list[Result]:
    """What was measured of this writing of the checkpoint, against the images of now."""
    now = (checkpoint.step, checkpoint.time, fingerprint)
    results, _ = read_results(run.path)
    return [r for r in results if (r.spec.step, r.checkpoint_time, r.fingerprint) == now]


def _known_bits(known: list[Result], average: str) -> Estimate | None:
    """Measured already with other settings: they are the same however images are drawn."""
    for other in known:
        if other.spec.average == average and "bits_per_dim" in other.metrics:
            return other.metrics["bits_per_dim"]
    return None
