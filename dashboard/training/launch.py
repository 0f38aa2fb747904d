"""What a new run starts from, and what the form says before its start."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from dashboard.services.shared_look import recent
from dashboard.ui.outside import code
from dashboard.ui.run_wording import count, duration
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.origin import distillation
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import ACTIVE, AT_WORK, StatusRecord, same_place

# Before so many steps a run's speed is that of its slow first ones.
ENOUGH_STEPS = 10


class Start(NamedTuple):
    """What a new run's settings start from: a preset, another run, or that run to be distilled."""

    preset: str = ""
    run: str = ""
    distils: bool = False

    @property
    def title(self) -> str:
        if self.distils:
            return f"distillation of {self.run}"
        return f"run {self.run}" if self.run else self.preset

    @property
    def name(self) -> str:
        """What the new run is called where nothing else is said."""
        return f"{self.run}-distilled" if self.distils else self.run

    def config(self, runs_dir: Path) -> RunConfig:
        """Raises ConfigError where a run has no usable settings."""
        if not self.run:
            return preset(self.preset)
        try:
            config = Run(runs_dir / self.run).config
        except ConfigError as error:
            raise ConfigError(
                f"The settings of {self.run} cannot be used: {error} "
                "Choose another run or a preset."
            ) from error
        if config is None:
            raise ConfigError(f"{self.run} has no settings; start from a preset.")
        if not self.distils:
            return config.alone()
        steps = Run(runs_dir / self.run).weights()
        return distillation(config, f"{self.run}@{steps[-1][0]}" if steps else self.run)


class Speed(NamedTuple):
    """How fast a run would train, by one that has trained here."""

    images_per_second: float
    run: str
    same_size: bool  # of the images; else it follows from the number of pixels


def speed_of(runs: list[RunSnapshot], config: RunConfig, device: str) -> Speed | None:
    """By a run of the same preset on this machine, the newest one with images of the same size,
    else with the size that is nearest."""
    known = [
        (abs(run.config.image_size - config.image_size), number, run.config.image_size)
        for number, run in enumerate(runs)
        if run.config is not None
        and run.config.preset == config.preset
        and run.config.preset_version == config.preset_version
        and same_place(run.status, here(device))
        and run.status.step >= ENOUGH_STEPS
        and run.status.images_per_second
    ]
    if not known:
        return None
    _, number, size = min(known)
    run = runs[number]
    speed = (run.status.images_per_second or 0) * (size / config.image_size) ** 2
    return Speed(speed, run.name, size == config.image_size)


def estimate(runs: list[RunSnapshot], config: RunConfig, device: str) -> str:
    """How long a run would take; "" where that is not known."""
    if (speed := speed_of(runs, config, device)) is None:
        return ""
    about = duration(config.steps * config.batch_size / speed.images_per_second)
    at = f"About {about}, at {speed.images_per_second:.1f} images/s"
    if speed.same_size:
        return f"{at} as in {code(speed.run)}."
    return f"{at}, estimated from {code(speed.run)} by the number of pixels."


def here(device: str) -> StatusRecord:
    """The status of a run on a device of this machine."""
    return StatusRecord(host=socket.gethostname(), device=device)


def can_distil(run: RunSnapshot) -> bool:
    """Whether there are weights, of a run that is not distilled itself."""
    if run.config is None or run.config.distilled:
        return False
    return bool(recent(("weights", run.path), run.run.weights))


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
