"""What the tests of several pages share."""

from __future__ import annotations

import json
import time

import pytest
import torch

from dashboard.services import sampling_queue
from dashboard.services.sampling_queue import SamplingQueue
from diffusion_core.runs import queue as run_queue
from diffusion_core.runs.run import RunSnapshot


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> SamplingQueue:
    """A device on which nobody works: all jobs stay in the queue."""
    queue = SamplingQueue(sampling_queue.queue_of(torch.device("cpu")).load)
    monkeypatch.setattr(queue, "_choose", lambda: None)
    monkeypatch.setitem(sampling_queue._queues, "cpu", queue)
    return queue


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RunSnapshot]:
    """Every run whose trainer would have been started, as it was then."""
    calls: list[RunSnapshot] = []

    def spawn(run: RunSnapshot) -> None:
        calls.append(run)
        status = {"state": "starting", "created": time.time(), "heartbeat": time.time()}
        (run.path / "status.json").write_text(json.dumps(status))

    monkeypatch.setattr(run_queue, "_spawn", spawn)
    return calls
