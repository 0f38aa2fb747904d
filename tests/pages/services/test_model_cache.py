"""The loaded models that all sessions share."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from dashboard.services import cached, model_cache
from dashboard.services.model_cache import Key, ModelCache, default_bound
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.run import load_run
from tests.tiny_runs import TINY, write_checkpoint, write_run

SIZE = 1000  # bytes of a model
PLENTY = 100 * SIZE


def key(run: str, step: int = 1, written: float | None = None, average: str = "main") -> Key:
    return Key(run, step, float(step) if written is None else written, average, "cpu")


def model() -> LoadedModel:
    return LoadedModel(nn.Linear(SIZE // 4, 1, bias=False), NoiseSchedule(), TINY)


def refuse() -> LoadedModel:
    raise AssertionError("It was here already.")


def names(cache: ModelCache) -> list[tuple[str, int]]:
    return [(k.run, k.step) for k in cache.held()]


def test_a_model_is_loaded_once() -> None:
    cache = ModelCache()
    first = cache.get(key("a"), model, PLENTY)
    assert cache.get(key("a"), refuse, PLENTY) is first
    assert cache.size == SIZE


def test_the_one_used_longest_ago_goes_first() -> None:
    cache = ModelCache()
    for run in "abc":
        cache.get(key(run), model, 3 * SIZE)
    cache.get(key("a"), refuse, 3 * SIZE)
    cache.get(key("d"), model, 3 * SIZE)
    assert names(cache) == [("c", 1), ("a", 1), ("d", 1)]
    assert cache.size == 3 * SIZE


def test_one_that_is_larger_than_the_bound_stays_alone() -> None:
    cache = ModelCache()
    cache.get(key("a"), model, SIZE // 2)
    assert names(cache) == [("a", 1)]
    cache.get(key("b"), model, SIZE // 2)
    assert names(cache) == [("b", 1)]


def test_a_newer_checkpoint_replaces_the_older_ones_of_its_run() -> None:
    cache = ModelCache()
    for run, step in (("a", 100), ("b", 50), ("a", 200)):
        cache.get(key(run, step), model, PLENTY)
    assert names(cache) == [("b", 50), ("a", 200)]


def test_a_step_that_was_written_again_replaces_the_first() -> None:
    cache = ModelCache()
    cache.get(key("a", 100, written=1.0), model, PLENTY)
    cache.get(key("a", 100, written=2.0), model, PLENTY)
    assert [k.written for k in cache.held()] == [2.0]


def test_the_averages_of_one_checkpoint_stay_beside_each_other() -> None:
    cache = ModelCache()
    for average in ("main", "short"):
        cache.get(key("a", average=average), model, PLENTY)
    assert [k.average for k in cache.held()] == ["main", "short"]


def test_an_older_step_that_somebody_chose_stays_beside_the_newer_and_outlives_the_next() -> None:
    cache = ModelCache()
    for step in (200, 100, 300):
        cache.get(key("a", step), model, PLENTY)
    assert names(cache) == [("a", 100), ("a", 300)]


def test_a_model_in_use_leaves_the_cache_and_its_memory_when_it_is_let_go() -> None:
    cache = ModelCache()
    job = cache.get(key("a"), model, SIZE)
    alive = weakref.ref(job[0])
    cache.get(key("b"), model, SIZE)
    assert names(cache) == [("b", 1)]
    assert job[0](torch.zeros(1, SIZE // 4)).shape == (1, 1)
    del job
    gc.collect()
    assert alive() is None


def ask_at_once(cache: ModelCache, load: Callable[[], LoadedModel], askers: int) -> list[object]:
    def ask() -> object:
        try:
            return cache.get(key("a"), load, PLENTY)
        except (OSError, KeyboardInterrupt) as error:
            return type(error)

    with ThreadPoolExecutor(askers) as pool:
        return [waiting.result(10) for waiting in [pool.submit(ask) for _ in range(askers)]]


class Slow:
    """Loads when all have asked. What it raises, it raises the first time."""

    def __init__(self, askers: int, error: type[BaseException] | None = None) -> None:
        self.loads, self.error = 0, error
        self.asked = threading.Barrier(askers)

    def __call__(self) -> LoadedModel:
        self.loads += 1
        if self.loads == 1:
            # The others wait by now, or find the model when they come.
            threading.Event().wait(0.2)
            if self.error is not None:
                raise self.error
        return model()


def test_sessions_that_ask_at_once_load_a_model_once() -> None:
    load = Slow(5)
    found = ask_at_once(ModelCache(), load, 5)
    assert load.loads == 1
    assert all(one is found[0] for one in found)


def test_all_who_wait_learn_of_a_failure_and_the_next_loads_again() -> None:
    cache, load = ModelCache(), Slow(3, OSError)
    assert ask_at_once(cache, load, 3) == [OSError] * 3
    assert cache.held() == []
    assert cache.get(key("a"), load, PLENTY)
    assert load.loads == 2


def test_a_page_that_is_stopped_while_it_loads_leaves_the_loading_to_the_others() -> None:
    cache, load = ModelCache(), Slow(3, KeyboardInterrupt)
    found = ask_at_once(cache, load, 3)
    assert found.count(KeyboardInterrupt) == 1
    assert load.loads == 2
    assert len(cache.held()) == 1


def test_the_usual_bound_is_a_quarter_of_what_is_free_and_1_gb_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_cache, "free_memory", lambda device: 100 * 2**30)
    assert default_bound(torch.device("cpu"), 0) == 2**30
    assert default_bound(torch.device("cuda"), 0) == 25 * 2**30
    monkeypatch.setattr(model_cache, "free_memory", lambda device: 2**30)
    assert default_bound(torch.device("cpu"), 2**30) == 2**29


def test_the_setting_bounds_what_the_pages_keep(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ModelCache()
    monkeypatch.setattr(model_cache, "MODELS", kept)
    # Two take more than 1 MB.
    wide = TINY.replace(network_args={"widths": [64], "blocks": 1, "attention_levels": []})
    for name in ("one", "two"):
        write_run(runs_dir, name, config=wide)
        for step in (20, 40):
            write_checkpoint(runs_dir / name, step, wide)
    one, two = (load_run(runs_dir / name) for name in ("one", "two"))
    first = cached.model(one.checkpoint(20))
    assert cached.model(one.checkpoint(20)) is first
    cached.model(one.checkpoint(40))
    cached.model(two.checkpoint(20))
    assert names(kept) == [(str(one.path), 40), (str(two.path), 20)]
    monkeypatch.setenv("DIFFUSION_LAB_MODEL_CACHE_MB", "1")
    cached.model(one.checkpoint(20))
    cached.model(two.checkpoint(40))
    assert names(kept) == [(str(two.path), 40)]
