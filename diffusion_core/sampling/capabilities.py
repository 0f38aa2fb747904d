"""What a checkpoint can be sampled with, as one value that pages and command line ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.runs.post_hoc import can_make
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.learned import LearnedTimesteps, Way, read_learned
from diffusion_core.sampling.levels import LEARNED, spacings_for
from diffusion_core.sampling.registry import samplers_for, usual_spacing, usual_steps

EACH_IN_TURN = "each in turn"
ANY_CLASS = "any class"


@dataclass(frozen=True)
class Capabilities:
    """What a `SamplingSpec` may say of one checkpoint; see `SamplingSpec.problems`."""

    classes: tuple[str, ...]  # empty where the network takes no labels
    any_class: bool  # whether it has learned to sample without a class, which guidance is held to
    averages: tuple[str, ...]  # of its weights; with `snapshots` there are those of other lengths
    snapshots: tuple[int, ...]  # of averages: see `post_hoc`
    flow: bool
    distilled: bool  # whether it was trained for `consistency`
    timesteps: int
    image_size: int  # pixels
    channels: int
    samplers: tuple[str, ...]  # names, the usual one first
    spacings: tuple[str, ...]  # of the steps; also LEARNED for the ways to sample in `learned`
    usual_steps: Mapping[str, int]  # by sampler
    usual_spacing: Mapping[str, str]  # by sampler
    takes_lecture: bool  # whether it can be sampled as the lecture does
    folder: Path = field(compare=False, repr=False)  # of its run
    schedule: Schedule = field(compare=False, repr=False)
    learned: Mapping[Way, LearnedTimesteps] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()  # a sentence for each file of learned timesteps that is broken

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Capabilities:
        config = checkpoint.config
        schedule = build_schedule(config)
        samplers = samplers_for(schedule, config.distilled)
        learned, unusable = read_learned(checkpoint, schedule.timesteps)
        return cls(
            classes=checkpoint.classes,
            any_class=checkpoint.any_class,
            averages=checkpoint.averages,
            snapshots=checkpoint.snapshots,
            flow=schedule.is_flow,
            distilled=config.distilled,
            timesteps=schedule.timesteps,
            image_size=config.image_size,
            channels=config.channels,
            samplers=tuple(sampler.name for sampler in samplers),
            spacings=spacings_for(schedule),
            usual_steps={each.name: usual_steps(each, schedule.timesteps) for each in samplers},
            usual_spacing={each.name: usual_spacing(each, schedule) for each in samplers},
            # At 16 pixels the deepest maps are a single one, which has no statistics for BatchNorm.
            takes_lecture=(
                config.network == "lecture" and config.image_size > 16 and not config.distilled
            ),
            folder=checkpoint.path.parent.parent,
            schedule=schedule,
            learned=learned,
            unusable=unusable,
        )

    def has_average(self, name: str) -> bool:
        """Whether there are averaged weights of this name."""
        return name in self.averages or can_make(name, self.snapshots)

    def spacings_for(
        self, sampler: str, steps: int, average: str = MAIN_AVERAGE
    ) -> tuple[str, ...]:
        """Those that a way to sample can have, the usual one first."""
        usual = self.usual_spacing.get(sampler, self.spacings[0])
        learned = (LEARNED,) if (average, sampler, steps) in self.learned else ()
        return (*learned, usual, *(name for name in self.spacings if name != usual))

    def spaced(
        self, sampler: str, steps: int, average: str = MAIN_AVERAGE, spacing: str | None = None
    ) -> dict[str, Any]:
        """The fields `spacing` and `timesteps` of a `SamplingSpec`; by default the usual spacing,
        which is the learned one where timesteps were learned for it."""
        spacing = spacing or self.spacings_for(sampler, steps, average)[0]
        learned = self.learned.get((average, sampler, steps))
        timesteps = learned.timesteps if learned is not None and spacing == LEARNED else ()
        return {"spacing": spacing, "timesteps": timesteps}

    @property
    def labels(self) -> tuple[str, ...]:
        """What `SamplingSpec.label` may be, the usual one first; empty without classes."""
        if not self.classes:
            return ()
        return (EACH_IN_TURN, *([ANY_CLASS] if self.any_class else []), *self.classes)
