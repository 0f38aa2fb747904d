"""The loaded models that all sessions share, bounded by the bytes that they take on the device.

Those that were used longest ago go first. A model that a drawing still uses leaves the cache, not
the drawing. Knows nothing of Streamlit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import torch

from diffusion_core.device import free_memory
from diffusion_core.models.inference import memory_of
from diffusion_core.runs.checkpoint import LoadedModel

MOST_ON_CPU = 2**30  # bytes, where nobody says otherwise


@dataclass(frozen=True)
class Key:
    """What tells one loaded model from another."""

    run: str  # the run's folder
    step: int
    written: float  # the time of the checkpoint: a step can be written again after a resume
    average: str
    device: str


@dataclass(frozen=True)
class Entry:
    loaded: LoadedModel
    size: int  # bytes
    newest: bool  # whether no later step of the run was here when it was loaded


class ModelCache:
    """Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Key, Entry] = {}  # the one used longest ago first
        self._loading: dict[Key, Future[LoadedModel]] = {}

    def get(self, key: Key, load: Callable[[], LoadedModel], most: int) -> LoadedModel:
        """The model of this key; `load` makes it where it is not here, once for all who ask.

        Afterwards the models take at most `most` bytes, or there is only this one. Raises what
        `load` raises, and then keeps nothing.
        """
        with self._lock:
            if key in self._entries:
                self._entries[key] = self._entries.pop(key)
                return self._entries[key].loaded
            under_way = self._loading.get(key)
            if under_way is None:
                mine = self._loading[key] = Future()
        if under_way is not None:
            try:
                return under_way.result()
            except CancelledError:
                return self.get(key, load, most)
        try:
            loaded = load()
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            if isinstance(error, Exception):
                mine.set_exception(error)
            else:  # this session's page was stopped; the others try themselves
                mine.cancel()
            raise
        with self._lock:
            del self._loading[key]
            self._keep(key, loaded, most)
        mine.set_result(loaded)
        return loaded

    @property
    def size(self) -> int:
        """Bytes of all models here."""
        with self._lock:
            return sum(entry.size for entry in self._entries.values())

    def held(self) -> list[Key]:
        """What is here, the one used longest ago first."""
        with self._lock:
            return list(self._entries)

    def _keep(self, key: Key, loaded: LoadedModel, most: int) -> None:
        of_run = [k for k in self._entries if (k.run, k.device) == (key.run, key.device)]
        newest = all(k.step <= key.step for k in of_run)
        # Who takes the latest checkpoint wants no older one any more. An older step that was loaded
        # beside a later one was somebody's choice, and stays.
        for k in of_run:
            if newest and self._entries[k].newest and k.written != key.written:
                del self._entries[k]
        self._entries[key] = Entry(loaded, memory_of(loaded[0]), newest)
        while len(self._entries) > 1 and sum(e.size for e in self._entries.values()) > most:
            del self._entries[next(iter(self._entries))]
        torch.cuda.empty_cache()  # a training on the same GPU may want it; nothing without CUDA


def default_bound(device: torch.device, held: int) -> int:
    """Bytes: a quarter of what the device has free beside the `held` ones, on the CPU at most
    1 GB."""
    quarter = (free_memory(device) + held) // 4
    return quarter if device.type == "cuda" else min(MOST_ON_CPU, quarter)


MODELS = ModelCache()  # of this server
