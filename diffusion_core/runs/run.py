"""Reading run folders: their state, settings, curves, samples and checkpoints.

Only reads. A run that cannot be read is listed with the reason; a checkpoint that does not open is
skipped and named. `jobs.py` starts and stops runs.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from diffusion_core.files import short_path
from diffusion_core.records import RecordError, read_record_file
from diffusion_core.runs import metrics
from diffusion_core.runs.changes import Change, read_changes, with_changes
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError, by_step, read_checkpoint
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import (
    Details,
    config_of_earlier_version,
    read_config_file,
    read_details,
)
from diffusion_core.runs.request import Action, RequestRecord, read_request
from diffusion_core.runs.status import ACTIVE, RunState, StatusRecord, read_status, state_now


@dataclass(frozen=True)
class Run:
    """A run folder. Every property reads the disk, so it is as true as the folder.

    To look at several of them use `snapshot`, which reads each file once.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def status(self) -> StatusRecord:
        """`status.json` as the trainer wrote it; `Run.state` is the current state."""
        return read_status(self.path)

    @property
    def state(self) -> RunState:
        return state_now(self.status)

    @property
    def config(self) -> RunConfig | None:
        """The settings with everything that was changed since the start.

        None where the run has left none; raises ConfigError.
        """
        return self.config_at(None)

    def config_at(self, step: int | None) -> RunConfig | None:
        """The settings that hold at a step; 0: those of the start. As `config` otherwise."""
        start, _, changes = _read_settings(self.path, self.status)
        return start and with_changes(start, changes, step)

    @property
    def details(self) -> Details:
        """The details in `config.json`; empty before the trainer has begun."""
        return read_details(self.path)

    @property
    def created(self) -> float:
        """Seconds since 1970 of the run's start; 0 where it has not written a status."""
        return self.status.created

    def snapshot(self) -> RunSnapshot:
        """The run as it is at this moment; reads each of its small files once. Never raises."""
        status, faults = StatusRecord(), list[str]()
        try:
            status = read_record_file(StatusRecord, self.path / "status.json", faults) or status
        except RecordError as error:
            faults.append(str(error))
        problem = faults[0] if faults else ""
        start = config = details = None
        changes: list[Change] = []
        try:
            start, details, changes = _read_settings(self.path, status)
            config = start and with_changes(start, changes)
        except ConfigError as error:
            problem = str(error)
        state, request = state_now(status), RequestRecord()
        if state in ACTIVE:
            request = read_request(self.path / "request.json")
        return RunSnapshot(
            self, state, status, start, tuple(changes), config, details, problem, request
        )

    def curve(self, name: str, max_points: int = 2000) -> dict[str, np.ndarray]:
        """See `metrics.read_curve`."""
        return metrics.read_curve(self.path / "metrics.sqlite", name, max_points)

    def last_values(self) -> dict[str, tuple[int, float]]:
        """The newest (step, value) of every curve."""
        return metrics.read_last(self.path / "metrics.sqlite")

    def samples(self) -> list[tuple[int, Path]]:
        """(step, image) of every sample strip, oldest first."""
        return by_step(self.path / "samples", "*.png")

    def weights(self) -> list[tuple[int, Path]]:
        """(step, file) of every weights file, oldest first, good or broken."""
        return by_step(self.path / "weights", "*.safetensors")

    def best_step(self, curve: str) -> int | None:
        """The step with the lowest value of a curve among the weights that are there.

        None where no value is known of any of them. Raises MetricsError.
        """
        there = {step for step, _ in self.weights()}
        found = self.curve(curve, max_points=10**9)
        pairs = zip(found["value"].tolist(), found["step"].tolist(), strict=True)
        return min(((v, step) for v, step in pairs if step in there), default=(0.0, None))[1]

    def best_quality_step(self) -> int | None:
        """The step of the best quality that was measured during training, by `compared_by`. As
        `best_step` otherwise."""
        metric = self.compared_by()
        return None if metric is None else self.best_step(metrics.QUALITY[metric])

    def compared_by(self) -> str | None:
        """The metric by which the steps measured during training are compared, see COMPARED_BY.

        The first that was measured at the most of them: an older version of this project did not
        measure all. None where nothing was measured. Raises MetricsError.
        """
        counts = {
            name: len(self.curve(metrics.QUALITY[name], max_points=10**9)["step"])
            for name in metrics.COMPARED_BY
        }
        best = max(counts, key=lambda name: counts[name])
        return best if counts[best] else None

    def checkpoint(self, step: int) -> Checkpoint:
        """The checkpoint of one step; raises CheckpointError where it is missing or broken."""
        for found, path in self.weights():
            if found == step:
                return _open_checkpoint(path)
        raise CheckpointError(f"{self.name} has no checkpoint of step {step}.")

    def checkpoints(self) -> tuple[list[Checkpoint], list[str]]:
        """The usable checkpoints, oldest first, and a sentence for each that is not."""
        good, broken = [], []
        try:
            os.scandir(self.path / "weights").close()
        except FileNotFoundError:
            pass
        except OSError as error:
            broken.append(f"The folder weights cannot be read: {error.strerror}.")
        for _, path in self.weights():
            try:
                good.append(_open_checkpoint(path))
            except CheckpointError as error:
                if os.path.lexists(path):  # else the trainer has just removed it, as too old
                    broken.append(str(error))
        return good, broken

    def latest_checkpoint(self) -> Checkpoint | None:
        """The highest step whose file opens and fits its settings; None where there is none."""
        for _, path in reversed(self.weights()):
            try:
                return _open_checkpoint(path)
            except CheckpointError:
                continue
        return None


@dataclass(frozen=True)
class RunSnapshot:
    """A run as it was when `Run.snapshot` read it."""

    run: Run
    state: RunState
    status: StatusRecord
    start: RunConfig | None = None  # before the changes
    changes: tuple[Change, ...] = ()  # oldest first
    config: RunConfig | None = None  # after the changes; None where it cannot be used
    details: Details | None = None  # None where the run has not begun
    problem: str = ""  # why a file of it cannot be used, as a sentence; "" where all can
    request: RequestRecord = field(default_factory=RequestRecord)

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def created(self) -> float:
        return self.status.created

    @property
    def pending(self) -> Action | None:
        """The request that a run at work has not answered yet."""
        return self.request.action

    @property
    def begun(self) -> bool:
        """Whether a trainer has begun it, so that it can only be resumed. May read the disk."""
        return self.details is not None or bool(self.run.weights())


def load_run(path: Path | str) -> Run:
    """The run in a folder; raises FileNotFoundError with a sentence where there is none."""
    run = Run(Path(path))
    if not os.path.lexists(run.path):
        raise FileNotFoundError(f"There is no run {short_path(path)}.")
    if not is_run(run.path):
        raise FileNotFoundError(f"{short_path(path)} is not a run folder: it has no config.json.")
    return run


def list_runs(runs_dir: Path) -> list[Run]:
    """All runs in a folder, newest first; empty where it does not exist or cannot be read."""
    return sorted(run_folders(runs_dir), key=lambda run: (run.created, run.name), reverse=True)


def snapshots(runs_dir: Path) -> list[RunSnapshot]:
    """As `list_runs`, each read once."""
    seen = [run.snapshot() for run in run_folders(runs_dir)]
    return sorted(seen, key=lambda run: (run.created, run.name), reverse=True)


def run_folders(runs_dir: Path) -> list[Run]:
    """As `list_runs`, in no order; nothing in the folders is read."""
    try:
        paths = [path for path in runs_dir.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    return [Run(path) for path in paths if os.path.isdir(path) and is_run(path)]


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run; one that must not be read may be."""
    for name in ("config.json", "status.json"):
        try:
            os.stat(path / name)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a null byte in the name
            continue
        except OSError:
            return os.path.isdir(path)
        return True
    return False


def _read_settings(
    run: Path, status: StatusRecord
) -> tuple[RunConfig | None, Details | None, list[Change]]:
    """The settings at the start, their details, and the changes. Raises ConfigError."""
    found = read_config_file(run)
    if found is None:
        return config_of_earlier_version(status), None, []
    return *found, read_changes(run)


def _open_checkpoint(path: Path) -> Checkpoint:
    try:
        stat = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be opened: {error.strerror}.") from error
    return _read_checkpoint(path, stat.st_mtime_ns, stat.st_size, _modified(path))


def _modified(weights: Path) -> int:
    """When `config.json` of the run of a weights file was written, in ns; 0 where it is not."""
    try:
        return (weights.parent.parent / "config.json").stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=512)
def _read_checkpoint(path: Path, modified_ns: int, size: int, config_ns: int) -> Checkpoint:
    """Cached by what changes when the files do; errors are not cached.

    The images of the run may have been moved since the weights were written.
    """
    checkpoint = read_checkpoint(path)
    try:
        found = read_config_file(path.parent.parent)
    except ConfigError:
        return checkpoint
    if found is None or found[0].data == checkpoint.config.data:
        return checkpoint
    return replace(checkpoint, config=checkpoint.config.replace(data=found[0].data))
