"""Requests to a run, which all its processes answer at the same step."""

from __future__ import annotations

import time
from typing import Any

import accelerate
from accelerate import Accelerator

from diffusion_core.runs.request import ENDING
from diffusion_core.runs.status_writer import StatusWriter
from diffusion_core.training.step_log import FLUSH_SECONDS


class ControlSync:
    """Looks for requests.

    A single process looks after every step. Several agree about once a second, since each
    agreement makes them wait for each other.
    """

    def __init__(self, accelerator: Accelerator, status: StatusWriter, done: int) -> None:
        self.several = accelerator.num_processes > 1
        self.status = status
        self.next = done + 1  # the step of the next agreement
        self.last = (done, time.monotonic())  # the step and moment of the last one

    def ask(self, step: int) -> tuple[str | None, dict[str, Any]]:
        """The requested action, if any, and the settings to change."""
        if not self.several:
            return self._look()
        if step < self.next:
            return None, {}
        before, moment = self.last
        self.last = (step, time.monotonic())
        pace = max(self.last[1] - moment, 1e-3) / max(1, step - before)
        # The first process decides, also of the next meeting; but a signal to any of them counts.
        plan = (*self._look(), step + max(1, round(FLUSH_SECONDS / pace)))
        plans = accelerate.utils.gather_object([plan])
        action, settings, self.next = plans[0]
        if action not in ENDING and any(other[0] == "stop" for other in plans):
            action = "stop"
        return action, settings

    def _look(self) -> tuple[str | None, dict[str, Any]]:
        action = self.status.poll()
        return action, self.status.request.settings

    def met(self, step: int) -> bool:
        """Whether all processes met at this step."""
        return self.several and step == self.last[0]
