"""The loaded models that all sessions share, bounded by the bytes that they take on the device.

The least recently used go first. A model that a job still uses leaves the cache, not the job.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import torch

from dashboard.services.settings import get_settings
from diffusion_core.device import free_memory
from diffusion_core.models.inference import memory_of
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel, load_model
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.presets import build_network, build_schedule

MOST_ON_CPU = 2**30  # bytes, if the settings have no bound


@dataclass(frozen=True)
class Key:
    """Identifies a loaded model."""

    run: str  # the run's folder
    step: int
    written: float  # when the checkpoint was saved: a step can be saved again after a resume
    average: str
    device: str
    exact: bool = False


@dataclass(frozen=True)
class Entry:
    loaded: LoadedModel
    size: int  # bytes
    newest: bool  # whether no later step of the run was in the cache when it was loaded


class ModelCache:
    """Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Key, Entry] = {}  # least recently used first
        self._loading: dict[Key, Future[LoadedModel]] = {}

    def get(self, key: Key, load: Callable[[], LoadedModel], most: int) -> LoadedModel:
        """The model of this key; `load` makes it if it is not in the cache, once for all callers.

        Afterwards the models take at most `most` bytes, or this is the only one. Raises what `load`
        raises, and then keeps nothing.
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
            else:  # this session's page was stopped; the other callers load it themselves
                mine.cancel()
            raise
        with self._lock:
            del self._loading[key]
            self._keep(key, loaded, most)
        mine.set_result(loaded)
        return loaded

    @property
    def size(self) -> int:
        """Bytes of all models in the cache."""
        with self._lock:
            return sum(entry.size for entry in self._entries.values())

    def held(self) -> list[Key]:
        """What is in the cache, least recently used first."""
        with self._lock:
            return list(self._entries)

    def _keep(self, key: Key, loaded: LoadedModel, most: int) -> None:
        of_run = [k for k in self._entries if (k.run, k.device) == (key.run, key.device)]
        newest = all(k.step <= key.step for k in of_run)
        # The latest checkpoint replaces the previous latest. An older step that was loaded beside a
        # later one was chosen, and stays.
        for k in of_run:
            if newest and self._entries[k].newest and k.written != key.written:
                del self._entries[k]
        self._entries[key] = Entry(loaded, memory_of(loaded.model), newest)
        while len(self._entries) > 1 and sum(e.size for e in self._entries.values()) > most:
            del self._entries[next(iter(self._entries))]
        torch.cuda.empty_cache()  # for training on the same GPU; does nothing without CUDA


def default_bound(device: torch.device, held: int) -> int:
    """Bytes: a quarter of the free memory of the device and the `held` bytes; on the CPU at most
    1 GB."""
    quarter = (free_memory(device) + held) // 4
    return quarter if device.type == "cuda" else min(MOST_ON_CPU, quarter)


MODELS = ModelCache()  # of this server


def shared_model(
    checkpoint: Checkpoint, average: str, exact: bool = False, *, device: torch.device
) -> LoadedModel:
    """A checkpoint ready for sampling on the device, from MODELS; not to be changed.

    `average`: which of its averaged weights. `exact`: see `load_model`. May be
    called from any thread. Raises CheckpointError.
    """
    run = str(checkpoint.path.parent.parent)
    key = Key(run, checkpoint.step, checkpoint.time, average, str(device), exact)
    load = functools.partial(load_model, checkpoint, device, average, exact=exact)
    loaded = MODELS.get(key, load, _bound(device))
    # The run's images may have been moved since it was loaded.
    same = loaded.config == checkpoint.config
    return loaded if same else loaded._replace(config=checkpoint.config)


def fresh_model(config: RunConfig, device: torch.device) -> LoadedModel:
    """The network of these settings with random weights, always the same, as an exact one from
    MODELS; not to be changed. Raises ConfigError."""

    schedule = build_schedule(config).to(device)

    def build() -> LoadedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_network(config.network, config.network_args)
        network = network.to(device).eval().requires_grad_(False)
        return LoadedModel(network, schedule, config)

    network = f"{config.network} {json.dumps(dict(config.network_args), sort_keys=True)}"
    key = Key(network, 0, 0.0, MAIN_AVERAGE, str(device), exact=True)
    # Several settings may have this network.
    return LoadedModel(MODELS.get(key, build, _bound(device)).model, schedule, config)


def _bound(device: torch.device) -> int:
    """The most bytes of MODELS on the device."""
    chosen = get_settings().model_cache_mb
    return default_bound(device, MODELS.size) if chosen is None else chosen * 10**6
