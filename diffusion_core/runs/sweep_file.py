"""`.sweeps/NAME.json` beside the runs: what a sweep is to do, and how far it has come.

Where it is lost, the runs stay as they are; each names its sweep in `config.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import filelock
from pydantic import Field, ValidationError

from diffusion_core.files import listing, make_folder, os_sentence, short_path, write_json
from diffusion_core.process.noise import MAX_SEED
from diffusion_core.records import Record, RecordError, ShortText, read_record_file, sentences
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.jobs import JobError, check_name
from diffusion_core.runs.metrics import QUALITY
from diffusion_core.runs.status import Moment
from diffusion_core.runs.sweep_plan import MOST_DIMENSIONS, MOST_RUNS, Method

FOLDER = ".sweeps"
LONGEST_NAME = 70  # with the number behind it, a run's name
MOST_RUNGS = 20
PATIENCE_SECONDS = 30  # it is held while processes are started

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Names = Annotated[tuple[Name, ...], Field(max_length=MOST_RUNS)]
Step = Annotated[int, Field(ge=1, le=10**9)]

Judge = Literal["validation_loss", "quality"]
# The curves by which each judges, with their titles: the first that all runs have. Lower is better.
JUDGES: dict[Judge, dict[str, str]] = {
    "validation_loss": {"validation_loss": "validation loss"},
    "quality": {
        QUALITY["frechet"]: "Fréchet distance",
        QUALITY["frechet_general"]: "Fréchet distance of general features",
        QUALITY["sliced_wasserstein"]: "sliced Wasserstein distance",
    },
}


class Plan(Record):
    """What a sweep is to do. Raises ConfigError, which names everything that is wrong."""

    vary: Annotated[  # see `parse_dimension`
        tuple[Annotated[str, Field(max_length=4096)], ...],
        Field(strict=False, min_length=1, max_length=MOST_DIMENSIONS),
    ]
    method: Method = "grid"
    runs: Annotated[int, Field(ge=1, le=MOST_RUNS)] | None = None  # None: those of the grid
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0  # of the combinations
    at_most: Annotated[int, Field(ge=1, le=MOST_RUNS)] = 1  # runs at work or queued at once
    # After these steps the weaker half of the runs pauses.
    halve_at: Annotated[tuple[Step, ...], Field(strict=False, max_length=MOST_RUNGS)] = ()
    # None: by quality where it is measured on the way, else by the validation loss.
    judge: Judge | None = None

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(" ".join(sentences(error, Plan))) from error


class Round(Record):
    """What the runs of a sweep do between two rungs."""

    until: Annotated[int, Field(ge=0, le=10**9)]  # a step; 0: to their end
    runs: Names  # in their order
    started: Names = ()  # those that the sweep has started or resumed for it


class State(StrEnum):
    """The state of a sweep."""

    RUNNING = "running"
    STOPPED = "stopped"
    OVER = "over"


class Sweep(Record):
    """`.sweeps/NAME.json`."""

    name: Name
    plan: Plan
    judge: Judge
    host: ShortText  # which starts the runs
    device: ShortText
    created: Moment
    by: ShortText = ""
    state: Annotated[State, Field(strict=False)] = State.RUNNING
    rounds: Annotated[tuple[Round, ...], Field(min_length=1, max_length=MOST_RUNGS + 1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return self.rounds[0].runs

    @property
    def filter(self) -> str:
        """The filter of `review.query` that its runs fit."""
        return f'sweep = "{self.name}"'

    def replace(self, **changes: Any) -> Sweep:
        """A copy with other values, which are not checked."""
        return self.model_copy(update=changes)


def read_sweep(runs_dir: Path, name: str) -> Sweep:
    """Raises JobError where there is no such sweep or its file cannot be used."""
    try:
        found = read_record_file(Sweep, file_of(runs_dir, check_name(name)))
    except RecordError as error:
        raise JobError(f"The sweep {name} cannot be used: {error}") from error
    if found is None or found.name != name:
        raise JobError(f"There is no sweep called {name} in {short_path(runs_dir)}.")
    return found


def read_sweeps(runs_dir: Path) -> list[Sweep]:
    """The sweeps of a folder, the newest first, without those that cannot be used."""
    found = []
    for path in listing(runs_dir / FOLDER, "*.json"):
        with suppress(JobError):
            found.append(read_sweep(runs_dir, path.stem))
    return sorted(found, key=lambda sweep: (sweep.created, sweep.name), reverse=True)


def file_of(runs_dir: Path, name: str) -> Path:
    return runs_dir / FOLDER / f"{name}.json"


def write_sweep(runs_dir: Path, sweep: Sweep) -> None:
    try:
        write_json(file_of(runs_dir, sweep.name), sweep.model_dump(mode="json"))
    except OSError as error:
        raise JobError(f"The sweep {sweep.name} cannot be saved: {os_sentence(error)}") from error


@contextmanager
def holding_sweeps(runs_dir: Path) -> Iterator[None]:
    """Nobody else changes the sweeps of the folder; held before the queue. Raises JobError."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        make_folder(runs_dir / FOLDER)
        lock = filelock.FileLock(runs_dir / FOLDER / ".lock")
        held = lock.acquire(timeout=PATIENCE_SECONDS)
    except filelock.Timeout as error:
        raise JobError(
            f"The sweeps in {short_path(runs_dir)} have been in use for {PATIENCE_SECONDS} "
            "seconds; try again."
        ) from error
    except OSError as error:
        raise JobError(f"The sweeps cannot be changed: {os_sentence(error)}") from error
    with held:
        yield
