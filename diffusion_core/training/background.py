"""Work beside the training: writing checkpoints, sampling strips.

The loop takes a snapshot of the tensors on their device (`snapshot`) and continues; a thread copies
them to the CPU or samples with them (`Background`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffusion_core.device import is_out_of_memory


class Background:
    """A thread that does one job after the other; at most one waits behind the one at work."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.jobs: list[Future[None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        """Do `job` later; waits while two are not done. Raises what an earlier job raised."""
        while len(self.jobs) > 1:
            self.jobs.pop(0).result()
        self.jobs.append(self.pool.submit(job))

    def wait(self) -> None:
        """Until all is done. Raises what a job raised."""
        while self.jobs:
            self.jobs.pop(0).result()

    def close(self) -> None:
        """Let the job at work end and drop what waits behind it."""
        self.pool.shutdown(cancel_futures=True)


def snapshot(tree: Any) -> Any:
    """A copy of nested dictionaries and lists with every tensor copied on its own device.

    Where that has no room for all of them they are on the CPU, for which the training waits.
    """
    try:
        return _with_tensors(tree, lambda tensor: tensor.detach().clone())
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # After the error is gone, which held on to the first copies.
    torch.cuda.empty_cache()
    return _with_tensors(tree, lambda tensor: tensor.detach().to("cpu", copy=True))


def to_cpu(tree: Any) -> Any:
    """The same with every tensor on the CPU."""
    return _with_tensors(tree, Tensor.cpu)


def _with_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _with_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_with_tensors(value, change) for value in tree)
    return tree


def all_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity; waits for the device once."""
    return not tensors or bool(torch.stack([t.isfinite().all() for t in tensors.values()]).all())


class Beside:
    """A stream of the device's own for a thread, so that the training's does not wait for it.

    Made where the snapshot was taken; `with beside.stream():` in the thread then waits for the
    snapshot and works beside the training. Without CUDA it does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ready = None
        if device.type == "cuda":
            self.ready = torch.cuda.Event()
            self.ready.record(torch.cuda.current_stream(device))

    @contextmanager
    def stream(self) -> Iterator[None]:
        if self.ready is None:
            yield
            return
        side = torch.cuda.Stream(self.device)
        with torch.cuda.device(self.device), torch.cuda.stream(side):
            side.wait_event(self.ready)
            yield
            side.synchronize()
