"""Measure the quality of a run's images and write the result into the run.

`evaluate` is a generator, so that the dashboard can let other requests go first. `evaluator.py`
measures; `results.py` reads and writes the files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from diffusion_core.data.found import Found
from diffusion_core.data.store import ImageStore, build_store, fingerprint_of, same_images
from diffusion_core.evaluation.evaluator import (
    FEWEST,
    OnStep,
    measure,
    measure_bits,
)
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.metrics import BITS
from diffusion_core.evaluation.results import (
    FOLDER,
    Result,
    read_results,
    same_sampling,
    write_result,
)
from diffusion_core.files import check_folder
from diffusion_core.process.prediction import prediction_type_of
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.spec import EACH_IN_TURN, MOST_IMAGES, SamplingSpec, SpecError


def make_spec(
    run: str,
    checkpoint: Checkpoint,
    *,
    n: int,
    sampler: str | None = None,
    spacing: str | None = None,
    **settings: Any,
) -> SamplingSpec:
    """The spec of `n` images for `evaluate`; `settings`: other fields of `SamplingSpec`.

    The default sampler is the first that the model takes. The default spacing is the learned one
    where timesteps were learned for this way to sample, else the sampler's usual one. A network
    with classes gets "each in turn", for which `evaluate` samples each class as often as it occurs
    in training. Raises ConfigError for what the checkpoint cannot do.
    """
    can = Capabilities.of(checkpoint)
    if not FEWEST <= n <= MOST_IMAGES:
        raise ConfigError(f"n is {n}; it must be from {FEWEST} to {MOST_IMAGES:,}.")
    sampler = sampler or can.samplers[0]
    usual = SamplingSpec(run=run, step=checkpoint.step)
    how = (settings.get("steps", usual.steps), settings.get("average", usual.average))
    values = {"run": run, "step": checkpoint.step, "n": n, "sampler": sampler}
    values |= can.spaced(sampler, *how, spacing)
    values |= {"classes": can.classes, "label": EACH_IN_TURN if can.classes else ""}
    try:
        spec = SamplingSpec.from_dict(values | {"flow": can.flow} | settings, source="")
    except SpecError as error:
        raise ConfigError(str(error)) from error
    if problems := spec.problems(can):
        raise ConfigError(" ".join(problems))
    return spec


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
    on_found: Callable[[Found], None] | None = None,
) -> Generator[int, None, Result]:
    """Measure the images of a spec and write the result, unless the run has it already.

    A result counts only for the same files of the checkpoint and of its guide and the same real
    images, also where they were moved. Yields the network evaluations done, of `cost`, after every
    batch; returns the result. `bits`: also measure bits per dimension. `again`: measure even if
    there is a result. `workers`: see `build_store`. `on_found` is told what the real images are,
    before it begins. Raises CheckpointError if the guide is missing, DataError if the run's images
    cannot be read, ConfigError for too few images and for bits per dimension where there are none
    (`without_bits`), ValueError if the network answers with NaN.
    """
    _, schedule, config = loaded
    guided_at = spec.guide_time(checkpoint)

    def is_wanted(other: Result) -> bool:
        return same_sampling(other.spec, spec) and other.guide_time == guided_at

    fingerprint = fingerprint_of(config.data, config.image_size, config.channels, config.resize)
    known = [] if again else _known(run, checkpoint)
    moved = [other for other in known if other.fingerprint != fingerprint]
    known = [other for other in known if other.fingerprint == fingerprint]
    result = next(filter(is_wanted, known), None)
    wanted = bits and (result is None or BITS.name not in result.metrics)
    if result is not None and not wanted:
        return result
    if bits and (why_not := without_bits(config)):
        raise ConfigError(why_not)
    store = build_store(
        config.data, config.image_size, config.channels, config.resize, workers=workers
    )
    if on_found is not None:
        on_found(store.found)
    for other in moved:
        if same_images(store, other.fingerprint, other.content):
            known.append(_follow(run, other, config.data, store))
    if result is None:
        result = next(filter(is_wanted, known), None)
        wanted = bits and (result is None or BITS.name not in result.metrics)
    sampling_cost = spec.evaluations(schedule)
    check_folder(run.path / FOLDER)  # before the work
    if result is None:
        result, sheet = yield from measure(run, checkpoint, spec, loaded, store, again, on_step)
        write_result(run.path, result, sheet)
    if wanted:
        yield sampling_cost
        found = _known_bits(known, spec.average)
        if found is None:
            found = yield from measure_bits(checkpoint, spec, loaded, store, sampling_cost)
        result = result.model_copy(update={"metrics": result.metrics | {BITS.name: found}})
        write_result(run.path, result)
    return result


def without_bits(config: RunConfig) -> str:
    """Why a run has no bits per dimension; empty where it has."""
    if prediction_type_of(config.prediction_type).flow:
        return "Bits per dimension need a diffusion model; a flow has none."
    if config.distilled:
        return (
            "Bits per dimension need a model that predicts the mean of what a noisy image hides; "
            "a distilled one does not."
        )
    return ""


def _known(run: Run, checkpoint: Checkpoint) -> list[Result]:
    """The results of this file of the checkpoint."""
    now = (checkpoint.step, checkpoint.time)
    results, _ = read_results(run.path)
    return [r for r in results if (r.spec.step, r.checkpoint_time) == now]


def _follow(run: Run, result: Result, data: str, store: ImageStore) -> Result:
    """A result whose images lie elsewhere now, as it is from now on."""
    place = {"data": data, "fingerprint": store.fingerprint, "content": store.content}
    result = result.model_copy(update=place)
    write_result(run.path, result)
    return result


def _known_bits(known: list[Result], average: str) -> Estimate | None:
    """Bits per dimension of another result: they do not depend on the sampling."""
    for other in known:
        if other.spec.average == average and BITS.name in other.metrics:
            return other.metrics[BITS.name]
    return None
