"""Work beside the training: writing checkpoints, sampling strips.

The loop takes a snapshot of the tensors on their device (`snapshot`) and continues; a thread copies
them to the CPU or samples with them (`Background`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from diffusion_core.device import is_out_of_memory


class Background:
    """A thread that does one job after the other; at most one waits behind the one at work.

    On CUDA it has a stream of its own, so that the training's does not wait for it, and on MPS the
    jobs are done at once: Metal aborts where two threads use it.
    """

    def __init__(self, name: str, device: torch.device, priority: int = 0) -> None:
        """`priority` of the stream: the training's is 0, and a lower number goes first."""
        self.device = device
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.jobs: list[Future[None]] = []
        # One for all jobs: memory is cached by stream, and cuBLAS keeps room to work in for each.
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device, priority=priority)

    def submit(self, job: Callable[[], None]) -> None:
        """Do `job` later; waits while two are not done. Raises what an earlier job raised.

        What the training has asked of the device so far is done before it.
        """
        if self.device.type == "mps":
            job()
            return
        while len(self.jobs) > 1:
            self.jobs.pop(0).result()
        if self.stream is not None:
            asked = torch.cuda.current_stream(self.device).record_event()
            job = functools.partial(self._do_in_stream, self.stream, asked, job)
        self.jobs.append(self.pool.submit(job))

    def _do_in_stream(
        self, stream: torch.cuda.Stream, asked: torch.cuda.Event, job: Callable[[], None]
    ) -> None:
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            stream.wait_event(asked)
            try:
                job()
            finally:  # until then the memory of its tensors is not another's
                stream.synchronize()

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
