"""Which samplers there are, which of them a model takes, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from diffusion_core.process.schedule import Schedule
from diffusion_core.sampling import solvers
from diffusion_core.sampling.levels import NoiseLevel, spacings_for
from diffusion_core.sampling.solvers import Sampler

REGISTRY: list[Sampler] = list(solvers.SAMPLERS)


def find_sampler(name: str, flow: bool = False) -> Sampler | None:
    """The sampler called `name`, of those for flows or those for diffusion models."""
    for sampler in REGISTRY:
        if (sampler.name, sampler.flow) == (name, flow):
            return sampler
    return None


def sampler_of(name: str, flow: bool = False) -> Sampler:
    """As `find_sampler`. Raises ValueError with the names there are."""
    sampler = find_sampler(name, flow)
    if sampler is None:
        raise unknown_sampler(name, sampler_names(flow))
    return sampler


def samplers_for(schedule: Schedule, distilled: bool = False) -> tuple[Sampler, ...]:
    """The samplers that a model with this schedule takes, the usual one first.

    A distilled network predicts where a path ends, which the others take for the mean of all images
    that a noisy one may have been: they would not sample what it has learned.
    """
    return tuple(
        sampler
        for sampler in REGISTRY
        if (sampler.flow, sampler.distilled) == (schedule.is_flow, distilled)
        and (sampler.from_pure_noise or not schedule.ends_in_noise)
    )


def sampler_names(flow: bool | None = None) -> list[str]:
    """The names of all samplers, or of those for flows or diffusion models, each once."""
    wanted = (True, False) if flow is None else (flow,)
    return list(dict.fromkeys(each.name for each in REGISTRY if each.flow in wanted))


def unknown_sampler(name: str, known: Iterable[str]) -> ValueError:
    return ValueError(f"{name!r} cannot sample this model; choose one of {', '.join(known)}.")


def usual_steps(sampler: Sampler, timesteps: int) -> int:
    """How many steps to take of a schedule where none are given."""
    return min(sampler.usual_steps or timesteps, timesteps)


def usual_spacing(sampler: Sampler, schedule: Schedule) -> str:
    """How to space the steps on a schedule where nothing is said about it."""
    known = spacings_for(schedule)
    return sampler.usual_spacing if sampler.usual_spacing in known else known[0]


def count_evaluations(
    sampler: Sampler,
    levels: Sequence[NoiseLevel],
    *,
    guided: bool = False,
    guidance_interval: tuple[float, float] | None = None,
    resample: int = 1,
) -> int:
    """How often the network is evaluated per image on a walk down `levels`.

    `guided`: with a guidance scale other than 1, which evaluates twice within the interval.
    `resample`: passes per step of a walk with a mask.
    """
    at = [level.t for level in levels[:-1]]
    if sampler.evaluations == 2:
        at += at[1:]
    at = at[:-1] * resample + at[-1:]
    if not guided:
        return len(at)
    low, high = guidance_interval or (-math.inf, math.inf)
    return len(at) + sum(low <= t <= high for t in at)
