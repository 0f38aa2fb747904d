"""What a checkpoint can be sampled with, as one value that pages and command line ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.post_hoc import can_make
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.levels import spacings_for
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
    spacings: tuple[str, ...]  # of the steps
    usual_steps: Mapping[str, int]  # by sampler
    usual_spacing: Mapping[str, str]  # by sampler
    takes_lecture: bool  # whether it can be sampled as the lecture does
    schedule: Schedule = field(compare=False, repr=False)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Capabilities:
        config = checkpoint.config
        schedule = build_schedule(config)
        samplers = samplers_for(schedule, config.distilled)
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
            schedule=schedule,
        )

    def has_average(self, name: str) -> bool:
        """Whether there are averaged weights of this name."""
        return name in self.averages or can_make(name, self.snapshots)

    @property
    def labels(self) -> tuple[str, ...]:
        """What `SamplingSpec.label` may be, the usual one first; empty without classes."""
        if not self.classes:
            return ()
        return (EACH_IN_TURN, *([ANY_CLASS] if self.any_class else []), *self.classes)
