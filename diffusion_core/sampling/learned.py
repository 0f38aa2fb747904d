"""Timesteps that were learned for a checkpoint, and their files in the run folder.

`timesteps/step-00005000-1a2b3c4d5e6f.json` holds those of one checkpoint, one of its averages, one
sampler and one number of steps, which the letters stand for. `tuning.py` finds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from diffusion_core.files import listing, make_folder, write_json
from diffusion_core.process.tables import MOST_TIMESTEPS
from diffusion_core.records import Count, Record, RecordError, ShortText, read_record_file
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.runs.status import Moment

FOLDER = "timesteps"  # in a run
MOST_LEARNED = 100  # steps; with more the usual spacings are as good

Timestep = Annotated[float, Field(ge=0, le=MOST_TIMESTEPS)]
Timesteps = Annotated[tuple[Timestep, ...], Field(max_length=MOST_LEARNED)]
Error = Annotated[float, Field(ge=0)]
Way = tuple[str, str, int]  # average, sampler, steps


def falling(timesteps: tuple[float, ...]) -> bool:
    """Whether each is below the one before it."""
    return all(high > low for high, low in pairwise(timesteps))


def in_words(timesteps: Sequence[float]) -> list[str]:
    """For links and commands, each to the last digit."""
    return [repr(float(t)).removesuffix(".0") for t in timesteps]


class LearnedTimesteps(Record):
    """The timesteps of one way to sample; without guidance."""

    step: Count  # of the checkpoint
    checkpoint_time: Moment  # when it was written
    average: ShortText = MAIN_AVERAGE
    sampler: ShortText
    steps: Annotated[int, Field(ge=1, le=MOST_LEARNED)]
    prediction_type: ShortText
    timesteps: Timesteps  # falling, also between two of the schedule's
    # Mean distance from the teacher's images (`tuning.Lessons.distances`), of noise that they were
    # not learned from; with these timesteps and, by its name, with each usual spacing.
    error: Error
    usual_errors: Annotated[dict[ShortText, Error], Field(min_length=1, max_length=100)]
    written: Moment  # Unix time, seconds

    @model_validator(mode="after")
    def _fit(self) -> LearnedTimesteps:
        if len(self.timesteps) != self.steps:
            raise ValueError(f"It has {len(self.timesteps)} timesteps for {self.steps} steps.")
        if not falling(self.timesteps):
            raise ValueError("Its timesteps do not fall.")
        return self

    @property
    def way(self) -> Way:
        return self.average, self.sampler, self.steps

    @property
    def usual(self) -> str:
        """The best of the usual spacings."""
        return min(self.usual_errors, key=lambda name: self.usual_errors[name])


def learned_path(run: Path, step: int, way: Way) -> Path:
    letters = hashlib.sha256(json.dumps(way).encode()).hexdigest()[:12]
    return run / FOLDER / f"step-{step:08d}-{letters}.json"


def write_learned(run: Path, learned: LearnedTimesteps) -> Path:
    """Write them into the run in place of older ones. Raises DiskFull."""
    path = learned_path(run, learned.step, learned.way)
    make_folder(path.parent)
    write_json(path, learned.model_dump(mode="json"))
    return path


def read_learned(
    checkpoint: Checkpoint, timesteps: int
) -> tuple[Mapping[Way, LearnedTimesteps], tuple[str, ...]]:
    """What was learned for this file of a checkpoint, by way to sample, and a sentence for each
    file that cannot be used. `timesteps`: how many its schedule has."""
    found, broken = {}, []
    run = checkpoint.path.parent.parent
    made = (checkpoint.step, checkpoint.time, checkpoint.config.prediction_type)
    for path in listing(run / FOLDER, f"step-{checkpoint.step:08d}-*.json"):
        try:
            learned = read_record_file(LearnedTimesteps, path)
        except RecordError as error:
            broken.append(str(error))
            continue
        if learned is None:
            continue
        if learned.timesteps[0] > timesteps - 1:
            broken.append(f"{path.name}: Its timesteps must end at {timesteps - 1:,} or before.")
        elif (learned.step, learned.checkpoint_time, learned.prediction_type) == made:
            found[learned.way] = learned
    return found, tuple(broken)
