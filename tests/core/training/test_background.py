"""Work beside the training: in order, bounded, its errors heard; snapshots that do not move."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from diffusion_core.training.background import Background, all_finite, snapshot, to_cpu
from tests.tiny_runs import DEVICE


def after(
    gate: threading.Event, done: list[int], started: threading.Event | None = None
) -> Callable[[], None]:
    """A job that waits for the gate and then notes that it is done."""

    def job() -> None:
        if started is not None:
            started.set()
        gate.wait(30)
        done.append(1)

    return job


def test_jobs_are_done_one_after_the_other_and_at_most_one_waits() -> None:
    worker, gate = Background("test", DEVICE), threading.Event()
    done: list[int] = []
    worker.submit(after(gate, done))
    worker.submit(lambda: done.append(2))  # waits behind the first

    third = threading.Thread(target=lambda: worker.submit(lambda: done.append(3)))
    third.start()
    third.join(0.2)
    assert third.is_alive() and done == []  # a third has to wait with its snapshot
    gate.set()
    third.join(30)
    worker.wait()
    worker.close()
    assert done == [1, 2, 3]


def test_what_went_wrong_is_raised_when_somebody_waits_and_later_jobs_still_run() -> None:
    worker = Background("test", DEVICE)
    done: list[int] = []

    def fail() -> None:
        raise OSError("no")

    worker.submit(fail)
    worker.submit(lambda: done.append(1))
    with pytest.raises(OSError, match="no"):
        worker.wait()
    worker.wait()
    worker.close()
    assert done == [1]


class Stream:
    """In place of a stream of CUDA: notes what is asked of it."""

    def __init__(self, device: torch.device, priority: int) -> None:
        self.asked: list[str] = []
        MADE.append(self)

    def wait_event(self, event: str) -> None:
        self.asked.append(event)

    def synchronize(self) -> None:
        self.asked.append("synchronised")


MADE: list[Stream] = []


def test_all_jobs_on_cuda_have_one_stream_and_leave_nothing_to_do_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = SimpleNamespace(record_event=lambda: "the training")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: training)
    MADE.clear()
    worker = Background("test", torch.device("cuda"))
    [stream] = MADE

    def fail() -> None:
        raise OSError("no")

    for job in (lambda: stream.asked.append("a job"), fail):
        worker.submit(job)
    with pytest.raises(OSError, match="no"):
        worker.wait()
    worker.close()
    before, after = "the training", "synchronised"
    assert stream.asked == [before, "a job", after, before, after]
    assert len(MADE) == 1


def test_on_mps_the_training_itself_does_the_jobs() -> None:
    worker = Background("test", torch.device("mps"))
    by: list[int] = []
    worker.submit(lambda: by.append(threading.get_ident()))
    worker.close()
    assert by == [threading.get_ident()]


def test_closing_drops_what_waits() -> None:
    worker, gate, started = Background("test", DEVICE), threading.Event(), threading.Event()
    done: list[int] = []
    worker.submit(after(gate, done, started))
    worker.submit(lambda: done.append(2))
    started.wait(30)
    threading.Timer(0.1, gate.set).start()
    worker.close()
    assert done == [1]


def test_a_snapshot_keeps_its_values_while_the_weights_go_on() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    tree = {"a": weight, "b": [weight, 3], "c": ("x", {"d": weight})}
    kept = snapshot(tree)
    with torch.no_grad():
        weight.add_(1)
    for tensor in (kept["a"], kept["b"][0], kept["c"][1]["d"]):
        assert torch.equal(tensor, torch.ones(2)) and not tensor.requires_grad
    assert kept["b"][1] == 3 and kept["c"][0] == "x"
    assert to_cpu(kept)["c"][1]["d"].device.type == "cpu"


def test_a_snapshot_for_which_the_device_has_no_room_is_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = {"a": torch.ones(2), "b": torch.ones(3)}
    usual = torch.Tensor.clone

    def clone(tensor: torch.Tensor) -> torch.Tensor:
        if len(tensor) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(tensor)

    monkeypatch.setattr(torch.Tensor, "clone", clone)
    kept = snapshot(weights)
    for name, weight in weights.items():
        weight.add_(1)
        assert torch.equal(kept[name], torch.ones(len(weight))) and kept[name].device.type == "cpu"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_is_found(bad: float) -> None:
    good = {"a": torch.ones(3), "n": torch.tensor(2)}
    assert all_finite(good)
    assert all_finite({})
    assert not all_finite({**good, "b": torch.tensor([0.0, bad])})
