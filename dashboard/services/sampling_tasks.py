"""What is sampled: the tasks of the sampling queue, and what their time depends on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.sample import StepView
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.sampling.trajectory import Recorder, Trajectory

# A checkpoint, which of its averaged weights, and whether in plain float32.
Load = Callable[[Checkpoint, str, bool], LoadedModel]
OnStep = Callable[[StepView], None]
PaceKey = tuple[str, int]  # see `pace_key`


@dataclass(frozen=True)
class Task:
    """What a job does.

    `work(load, on_step)` loads its models with `load`, passes every step to `on_step` and returns
    the result. It may be a generator that yields how much is done after each batch. Other jobs may
    go on in both, after a step and after a yield.
    """

    spec: SamplingSpec
    text: str  # the task as the pages describe it
    steps: int  # calls of `on_step`, or the last number that a generator yields
    evaluations: int  # of the network, over all images that are still to make
    pace_key: PaceKey  # tasks with the same key need the same time per evaluation
    work: Callable[[Load, OnStep], Any | Generator[int, None, Any]] | None  # None once it is done
    background: bool = False  # keeps running when no page looks at it
    immediate: bool = False  # a few evaluations for which a hand waits: see `passes_on`
    image: int | None = None  # the number, from 0, of the image of the spec that it treats


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """The result of `sample_task`."""

    images: np.ndarray  # uint8 (n, H, W, C)
    trajectory: Trajectory  # of as many of them as it keeps


def load_guide(load: Load, spec: SamplingSpec, checkpoint: Checkpoint) -> LoadedModel | None:
    """The network that guides the images of a spec, by `load`; None where none does. Raises
    CheckpointError."""
    guide = spec.guide_of(checkpoint)
    return None if guide is None else load(guide, spec.guide_average, spec.exact)


def sample_task(spec: SamplingSpec, checkpoint: Checkpoint) -> Task:
    """All images of a spec at once; the result is a `GeneratedImages`. Raises ValueError."""
    schedule = build_schedule(checkpoint.config)

    def work(load: Load, on_step: OnStep) -> GeneratedImages:
        loaded = load(checkpoint, spec.average, spec.exact)
        guide = load_guide(load, spec, checkpoint)
        recorder = Recorder(spec.levels(schedule))

        def on_both(view: StepView) -> None:
            recorder(view)
            on_step(view)

        images = spec.make(loaded, on_both, guide=guide)
        return GeneratedImages(to_uint8(images), recorder.finish())

    return Task(
        spec,
        spec.describe(),
        spec.steps,
        spec.evaluations(schedule),
        pace_key(spec, checkpoint.config),
        work,
    )


def pace_key(spec: SamplingSpec, config: RunConfig, at_once: int | None = None) -> PaceKey:
    """What the time of an evaluation depends on: the network, and how many images it sees at once.

    `at_once`: how many are sampled together, by default all; with guidance by a class it sees each
    twice.
    """
    network = (
        f"{config.network} {config.network_args} {config.image_size} {spec.as_lecture} {spec.exact}"
    )
    if spec.autoguided and spec.guide_run:
        network += f" and {spec.guide_run}"
    alone = spec.as_lecture or spec.exact
    seen = 1 if alone else at_once or spec.n
    return network, seen if spec.guidance_scale == 1.0 or spec.autoguided else 2 * seen


def pace_key_of(parts: Sequence[tuple[SamplingSpec, RunConfig]]) -> PaceKey:
    """The same of several specs that are sampled one after the other."""
    found = [pace_key(*part) for part in parts]
    networks = sorted({network for network, _ in found})
    return " and ".join(networks), round(sum(at_once for _, at_once in found) / len(found))
