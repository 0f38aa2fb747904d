"""What a new run starts from, and what the form says before its start."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from dashboard.ui.outside import code
from dashboard.ui.run_wording import count, duration
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import ACTIVE, AT_WORK, StatusRecord, same_place

# The first steps are slow and would make up too much of a shorter run.
ENOUGH_STEPS = 20


class Start(NamedTuple):
    """What a new run's settings start from: a preset, or another run."""

    preset: str = ""
    run: str = ""

    @property
    def title(self) -> str:
        return f"run {self.run}" if self.run else self.preset

    def config(self, runs_dir: Path) -> RunConfig:
        """Raises ConfigError where a run has no usable settings."""
        if not self.run:
            return preset(self.preset)
        try:
            config = Run(runs_dir / self.run).config
        except ConfigError as error:
            raise ConfigError(
                f"The settings of {self.run} cannot be used: {error} Choose another start."
            ) from error
        if config is None:
            raise ConfigError(f"{self.run} has no settings; start from a preset.")
        return config


def estimate(runs: list[RunSnapshot], config: RunConfig, device: str) -> str:
    """How long a run would take by the newest similar one on this machine; "" if unknown."""
    for run in runs:
        status, known = run.status, run.config
        speed = status.images_per_second or 0
        if (
            known is not None
            and (known.preset, known.image_size) == (config.preset, config.image_size)
            and same_place(status, here(device))
            and status.step >= ENOUGH_STEPS
            and speed > 0
        ):
            seconds = config.steps * config.batch_size / speed
            return f"About {duration(seconds)}, at {speed:.1f} images/s as in {code(run.name)}."
    return ""


def here(device: str) -> StatusRecord:
    """The status of a run on a device of this machine."""
    return StatusRecord(host=socket.gethostname(), device=device)


def queue_note(runs: list[RunSnapshot], device: str) -> str:
    """Whether a run that is started now would wait."""
    before = [run for run in runs if run.state in ACTIVE and same_place(run.status, here(device))]
    busy = [code(run.name) for run in before if run.state in AT_WORK]
    queued = len(before) - len(busy)
    if not busy:
        return f"A new run joins the queue, behind {count(queued, 'run')}." if queued else ""
    if not queued:
        return f"{busy[0]} is using the device; a new run waits until it is free."
    waits = "waits" if queued == 1 else "wait"
    return (
        f"{busy[0]} is using the device and {count(queued, 'run')} {waits}; a new run joins the "
        "queue."
    )
