"""The sampling job: its order, its queue, its snapshots, and how it ends."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dashboard.services import sampling_job, sampling_queue
from dashboard.services.sampling_job import SamplingJob, Snapshot
from dashboard.services.sampling_queue import CLOSED, QueueFull, SamplingQueue
from dashboard.services.sampling_tasks import OnStep, Task, pace_key, sample_task
from dashboard.services.settings import SettingsError
from diffusion_core.media.images import to_uint8
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import CheckpointError, LoadedModel
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError, RunConfig
from diffusion_core.runs.presets import build_network
from diffusion_core.sampling.sample import LECTURE_SAMPLING, sample
from diffusion_core.sampling.solvers import StepView
from diffusion_core.sampling.spec import SamplingSpec

SOON = 60.0  # how long a busy machine may take for what takes milliseconds
CONFIG = RunConfig(image_size=16, schedule={"timesteps": 20}, prediction_type="epsilon")
SPEC = SamplingSpec(run="tiny", step=4, n=2, steps=5)
SECOND_A_STEP = "a second a step", 1


class Gate(nn.Module):
    """A network that waits in every evaluation until the test lets it through."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.arrived = threading.Semaphore(0)
        self.permits = threading.Semaphore(0)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.arrived.release()
        assert self.permits.acquire(timeout=SOON)
        return x * self.weight

    def wait(self) -> None:
        """Until it is asked once more."""
        assert self.arrived.acquire(timeout=SOON)

    def open(self, evaluations: int = 1000) -> None:
        self.permits.release(evaluations)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> SamplingQueue:
    return SamplingQueue(load, clock)


@pytest.fixture
def gate() -> Iterator[Gate]:
    model = Gate()
    yield model
    model.open()  # so that no thread is left behind where a test fails


@dataclass(frozen=True, eq=False)
class Saved:
    """In place of a checkpoint: a network that is loaded at once."""

    network: nn.Module
    config: RunConfig


def load(saved: Any, average: str = MAIN_AVERAGE, exact: bool = False) -> LoadedModel:
    schedule = NoiseSchedule(**saved.config.schedule)
    return LoadedModel(saved.network.eval(), schedule, saved.config)


def save(model: nn.Module, config: RunConfig = CONFIG) -> Any:
    return Saved(model, config)


def small_network(num_classes: int = 0) -> nn.Module:
    torch.manual_seed(1)
    network = build_network(
        "unet",
        {"widths": [8], "blocks": 1, "attention_levels": [0], "num_classes": num_classes},
    )
    for parameter in network.parameters():  # its output starts at zero
        nn.init.normal_(parameter, std=0.1)
    return network


def small_lecture_network() -> nn.Module:
    torch.manual_seed(1)
    return build_network("lecture", {"widths": [4, 8, 8, 8, 8]})


def test_a_job_gives_the_images_of_sample(queue: SamplingQueue) -> None:
    saved = save(small_network(num_classes=3))
    loaded = load(saved)
    spec = SPEC.replace(sampler="ddim", eta=0.5, seed=7, guidance_scale=2.0)
    spec = spec.replace(classes=("a", "b", "c"), label="b")
    job = queue.submit(sample_task(spec, saved))
    assert job.wait(SOON)
    seen = job.snapshot()
    expected = sample(
        loaded[0],
        loaded[1],
        2,
        "ddim",
        5,
        seed=7,
        eta=0.5,
        labels=torch.tensor([1, 1]),
        guidance_scale=2.0,
        shape=(3, 16, 16),
    )
    assert (seen.state, seen.step, seen.sentence) == ("done", 5, "")
    assert np.array_equal(seen.now.x_t, to_uint8(expected))
    assert seen.now.x_t.std() > 0


def test_the_lectures_way_is_the_lectures_sampling_and_leaves_the_network_as_it_was(
    queue: SamplingQueue,
) -> None:
    saved = save(small_lecture_network(), CONFIG.replace(image_size=32))
    loaded = load(saved)
    before = {name: tensor.clone() for name, tensor in loaded[0].state_dict().items()}
    spec = SPEC.replace(sampler="ddpm", steps=20, as_lecture=True)
    job = queue.submit(sample_task(spec, saved))
    assert job.wait(SOON)
    expected = sample(loaded[0], loaded[1], 2, shape=(3, 32, 32), **LECTURE_SAMPLING)
    assert np.array_equal(job.snapshot().now.x_t, to_uint8(expected))
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded[0].state_dict().items())
    assert not any(module.training for module in loaded[0].modules())


def test_a_finished_job_has_its_images_and_their_trajectory(queue: SamplingQueue) -> None:
    job = queue.submit(sample_task(SPEC.replace(steps=20), save(small_network())))
    assert job.wait(SOON)
    made = job.result
    assert np.array_equal(made.images, job.snapshot().now.x_t)
    assert np.array_equal(made.trajectory.x_t[-1], made.images)
    looks = made.trajectory.kept[made.trajectory.evenly(10)]
    assert made.trajectory.timesteps[looks].tolist() == [19, 17, 15, 13, 11, 8, 6, 4, 2, 0]


def test_a_job_that_has_ended_does_not_keep_its_network(queue: SamplingQueue) -> None:
    def submit() -> tuple[SamplingJob, weakref.ref[nn.Module]]:
        network = small_network()
        return queue.submit(sample_task(SPEC, save(network))), weakref.ref(network)

    job, network = submit()
    assert job.wait(SOON)
    queue.submit(sample_task(SPEC, save(small_network()))).wait(SOON)
    gc.collect()
    assert job.result.images.shape == (2, 16, 16, 3)
    assert network() is None


def test_on_a_gpu_one_thread_does_the_jobs_and_gives_memory_back_when_it_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests = threading.Event()
    monkeypatch.setattr(torch.cuda, "empty_cache", rests.set)
    monkeypatch.setattr(sampling_queue, "REST", 0.01)
    threads = []

    def load_here(*which: Any) -> LoadedModel:
        threads.append(threading.get_ident())
        return load(*which)

    jobs = SamplingQueue(load_here, keeps_thread=True)
    for _ in range(3):
        rests.clear()
        assert jobs.submit(sample_task(SPEC, save(small_network()))).wait(SOON)
        assert rests.wait(SOON)
    assert len(set(threads)) == 1


def test_a_snapshot_shows_how_far_it_is_and_how_long_it_will_take(
    queue: SamplingQueue, clock: Clock, gate: Gate
) -> None:
    job = queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    seen = job.snapshot()
    assert (seen.state, seen.step, seen.now, seen.seconds_left) == ("sampling", 0, None, None)
    for seconds in (1.5, 3.0):
        clock.now = seconds
        gate.open(1)
        gate.wait()
    seen = job.snapshot()
    assert (seen.state, seen.step, seen.now.timestep) == ("sampling", 2, 15)
    assert seen.now.x_t.shape == seen.now.x_0.shape == (2, 16, 16, 3)
    assert (seen.seconds, seen.seconds_left) == (3.0, 4.5)


def test_jobs_of_a_device_run_one_after_the_other_in_the_order_of_submission(
    queue: SamplingQueue, gate: Gate
) -> None:
    first = queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    second, third = (queue.submit(sample_task(SPEC, save(small_network()))) for _ in range(2))
    assert [job.snapshot().before for job in (first, second, third)] == [0, 1, 2]
    assert [job.snapshot().state for job in (second, third)] == ["waiting", "waiting"]
    gate.open()
    assert third.wait(SOON)
    assert [job.snapshot().state for job in (first, second, third)] == ["done"] * 3


def test_what_a_hand_waits_for_goes_between_two_steps_of_a_turn(
    queue: SamplingQueue, clock: Clock, gate: Gate
) -> None:
    first = queue.submit(sample_task(SPEC, save(gate)), "one")
    gate.wait()
    task = sample_task(SPEC.replace(steps=1), save(small_network()))
    asked = queue.submit(replace(task, immediate=True), "two")
    clock.now = sampling_queue.SLICE / 2
    gate.open(1)
    assert asked.wait(SOON)
    assert first.active and first.snapshot().step == 1
    gate.open()
    assert first.wait(SOON)


def test_a_running_job_is_cancelled_after_its_step_and_keeps_what_it_has(
    queue: SamplingQueue, gate: Gate
) -> None:
    job = queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    job.cancel()
    assert job.snapshot().sentence == "Stops after this step."
    gate.open()
    assert job.wait(SOON)
    seen = job.snapshot()
    assert (seen.state, seen.step, seen.sentence) == ("cancelled", 1, "Cancelled.")
    assert seen.now.x_t.shape == (2, 16, 16, 3)


def test_a_waiting_job_that_is_cancelled_leaves_the_queue(queue: SamplingQueue, gate: Gate) -> None:
    queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    second, third = (queue.submit(sample_task(SPEC, save(small_network()))) for _ in range(2))
    second.cancel()
    assert (second.snapshot().state, second.snapshot().step) == ("cancelled", 0)
    assert third.snapshot().before == 1
    gate.open()
    assert third.wait(SOON)
    assert third.snapshot().state == "done"


@pytest.mark.parametrize(
    ("seconds", "others_wait", "state"),
    [
        (sampling_job.PATIENCE - 1, False, "done"),
        (sampling_job.PATIENCE + 1, False, "cancelled"),
        (sampling_job.PATIENCE_IN_DEMAND - 1, True, "done"),
        (sampling_job.PATIENCE_IN_DEMAND + 1, True, "cancelled"),
    ],
)
def test_a_job_that_nobody_looks_at_ends_by_itself_sooner_where_others_wait(
    queue: SamplingQueue, clock: Clock, gate: Gate, seconds: float, others_wait: bool, state: str
) -> None:
    job = queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    if others_wait:
        queue.submit(sample_task(SPEC, save(small_network())))
    clock.now += seconds
    gate.open()
    assert job.wait(SOON)
    assert job.snapshot().state == state
    assert ("no page showed it" in job.snapshot().sentence) == (state == "cancelled")


def test_a_job_that_somebody_looks_at_is_left_alone(
    queue: SamplingQueue, clock: Clock, gate: Gate
) -> None:
    job = queue.submit(sample_task(SPEC, save(gate)))
    for _ in range(SPEC.steps):
        gate.wait()
        clock.now += sampling_job.PATIENCE - 1
        job.snapshot()
        gate.open(1)
    assert job.wait(SOON)
    assert job.snapshot().state == "done"


def test_somebody_who_left_the_queue_holds_nobody_up(
    queue: SamplingQueue, clock: Clock, gate: Gate
) -> None:
    first = queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    gone, stays = (queue.submit(sample_task(SPEC, save(small_network()))) for _ in range(2))
    for _ in range(2):
        clock.now += sampling_job.PATIENCE_IN_DEMAND * 4
        first.snapshot()
        stays.snapshot()
    assert stays.snapshot().before == 1
    gate.open()
    assert stays.wait(SOON)
    assert (gone.snapshot().state, stays.snapshot().state) == ("cancelled", "done")


def test_the_queue_has_an_end(queue: SamplingQueue, gate: Gate) -> None:
    queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    waiting = [
        queue.submit(sample_task(SPEC, save(small_network())))
        for _ in range(sampling_queue.MAX_WAITING)
    ]
    with pytest.raises(QueueFull, match="are already waiting for this device"):
        queue.submit(sample_task(SPEC, save(small_network())))
    for job in waiting:
        job.cancel()
    gate.open()


def test_a_checkpoint_is_loaded_by_the_job_which_says_so_and_not_counted_in_its_time(
    clock: Clock,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(saved: Any, average: str, exact: bool) -> LoadedModel:
        begun.set()
        assert go_on.wait(SOON)
        clock.now += 10.0
        return load(saved)

    queue = SamplingQueue(slow, clock)
    job = queue.submit(sample_task(SPEC, save(small_network())))
    assert begun.wait(SOON)
    assert (job.snapshot().state, job.active) == ("loading", True)
    go_on.set()
    assert job.wait(SOON)
    assert (job.snapshot().state, job.snapshot().seconds) == ("done", 0.0)
    begun.clear()
    go_on.clear()
    cancelled = queue.submit(sample_task(SPEC, save(Failing(RuntimeError("never asked")))))
    assert begun.wait(SOON)
    cancelled.cancel()
    go_on.set()
    assert cancelled.wait(SOON)
    assert (cancelled.snapshot().state, cancelled.snapshot().step) == ("cancelled", 0)


def test_a_checkpoint_that_cannot_be_loaded_is_the_jobs_sentence() -> None:
    def gone(checkpoint: object, average: str, exact: bool) -> LoadedModel:
        raise CheckpointError("step-00000004.safetensors can no longer be read.")

    job = SamplingQueue(gone).submit(sample_task(SPEC, save(small_network())))
    assert job.wait(SOON)
    seen = job.snapshot()
    assert (seen.state, seen.sentence) == (
        "failed",
        "step-00000004.safetensors can no longer be read.",
    )


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
            "The device does not have enough memory; generate fewer images at once.",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "The device does not have enough memory; generate fewer images at once.",
        ),
        (ConfigError("This network takes no labels."), "This network takes no labels."),
        (
            ValueError("operands could not be broadcast together"),
            "Something went wrong (error 0a0b0c0d). The log of the server says what.",
        ),
        (
            RuntimeError("odd"),
            "Something went wrong (error 0a0b0c0d). The log of the server says what.",
        ),
    ],
)
def test_an_error_is_a_sentence_and_the_next_job_runs(
    queue: SamplingQueue, error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "0a0b0c0d")
    failing = queue.submit(sample_task(SPEC, save(Failing(error))))
    fine = queue.submit(sample_task(SPEC, save(small_network())))
    assert fine.wait(SOON)
    assert (failing.snapshot().state, failing.snapshot().sentence) == ("failed", sentence)
    assert fine.snapshot().state == "done"


def test_a_turn_that_cannot_begin_fails_its_job_and_not_the_queue() -> None:
    errors: list[Exception] = [SettingsError("DIFFUSION_LAB_ROLE is 'king'.")]

    @contextmanager
    def computing() -> Iterator[None]:
        if errors:
            raise errors.pop()
        yield

    queue = SamplingQueue(load, computing=computing)
    failing, fine = (queue.submit(sample_task(SPEC, save(small_network()))) for _ in range(2))
    assert failing.wait(SOON) and fine.wait(SOON)
    seen = failing.snapshot()
    assert (seen.state, seen.sentence) == ("failed", "DIFFUSION_LAB_ROLE is 'king'.")
    assert fine.snapshot().state == "done"


def test_more_steps_than_the_schedule_has_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="steps must lie between 1 and 20, not 21"):
        sample_task(SPEC.replace(steps=21), save(small_network()))


def test_the_expected_time_goes_by_the_last_job_of_the_same_network(
    queue: SamplingQueue, clock: Clock, gate: Gate
) -> None:
    key = pace_key(SPEC, CONFIG)
    assert queue.expected_seconds(key, 10) is None
    job = queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    clock.now = 20.0
    gate.open()
    assert job.wait(SOON)
    assert queue.expected_seconds(key, 20) == pytest.approx(40.0)
    other = pace_key(SPEC, CONFIG.replace(image_size=32))
    assert queue.expected_seconds(other, 20) is None


def test_the_expected_time_depends_on_how_many_images_the_network_sees_at_once(
    queue: SamplingQueue,
) -> None:
    def expected(n: int, evaluations: int = 100, **settings: Any) -> float | None:
        spec = SPEC.replace(n=n, **settings)
        return queue.expected_seconds(pace_key(spec, CONFIG), evaluations)

    # A call takes 0.3 s and 0.1 s for each image.
    queue.learn(pace_key(SPEC.replace(n=16), CONFIG), 160, 10 * (0.3 + 16 * 0.1))
    assert expected(1) == expected(16)  # nothing else is known
    queue.learn(pace_key(SPEC.replace(n=1), CONFIG), 10, 10 * (0.3 + 0.1))
    assert expected(1, 5) == pytest.approx(5 * 0.4)
    assert expected(4, 4) == pytest.approx(0.3 + 4 * 0.1)
    assert expected(2, 4, guidance_scale=2.0) == pytest.approx(0.3 + 4 * 0.1)
    assert expected(64) == expected(16)
    assert expected(4, exact=True) is None


def test_a_long_first_step_and_what_was_done_before_do_not_count_in_the_time_left(
    queue: SamplingQueue, clock: Clock
) -> None:
    lefts: list[float] = []

    def work(load: object, on_step: OnStep) -> Generator[int, None, None]:
        for seconds, done in ((30.0, 52), (1.0, 56), (1.0, 60)):
            lefts.append(job.left())
            clock.now += seconds
            yield done
        lefts.append(job.left())

    queue.learn(SECOND_A_STEP, 1, 1.0)
    ready = threading.Event()

    def begin(load: object, on_step: OnStep) -> Generator[int, None, None]:
        assert ready.wait(SOON)
        return work(load, on_step)

    job = queue.submit(Task(SPEC, "rest", 64, 16, SECOND_A_STEP, begin, background=True))
    ready.set()
    assert job.wait(SOON)
    assert lefts == [16.0, 3.0, 2.0, 1.0]


def background(
    total: int,
    done: list[int],
    gate: threading.Semaphore,
    begun: threading.Semaphore | None = None,
) -> Task:
    """A long task of `total` turns that notes each; it passes `gate` in every one."""

    def work(load: object, on_step: object) -> Generator[int, None, str]:
        for k in range(total):
            if begun is not None:
                begun.release()
            assert gate.acquire(timeout=SOON)
            done.append(k)
            yield k + 1
        return "all"

    return Task(SPEC, "many", total, total, ("many", 1), work, background=True)


def test_a_long_task_takes_turns_and_lets_others_go_first(queue: SamplingQueue, gate: Gate) -> None:
    done: list[int] = []
    turn, begun = threading.Semaphore(0), threading.Semaphore(0)
    long = queue.submit(background(3, done, turn, begun))
    assert begun.acquire(timeout=SOON)  # it is in its first turn
    short = queue.submit(sample_task(SPEC, save(gate)))
    turn.release()
    gate.wait()  # the short one samples, after one turn of the long one
    assert done == [0]
    seen = long.snapshot()
    assert (seen.state, seen.step, seen.before) == ("sampling", 1, 1)
    gate.open()
    turn.release(3)
    assert short.wait(SOON) and long.wait(SOON)
    assert (long.snapshot().state, long.result, done) == ("done", "all", [0, 1, 2])


def test_a_long_task_goes_on_when_nobody_looks(queue: SamplingQueue, clock: Clock) -> None:
    done: list[int] = []
    turn = threading.Semaphore(0)
    job = queue.submit(background(2, done, turn))
    clock.now = 10 * sampling_job.PATIENCE
    turn.release(3)
    assert job.wait(SOON)
    assert job.snapshot().state == "done"


def test_a_long_task_is_cancelled_between_its_turns_and_may_tidy_up(
    queue: SamplingQueue, gate: Gate
) -> None:
    ended = []
    turn, begun = threading.Semaphore(0), threading.Semaphore(0)

    def work(load: object, on_step: object) -> Generator[int, None, None]:
        try:
            begun.release()
            assert turn.acquire(timeout=SOON)
            yield 1
            yield 2
        finally:
            ended.append(True)

    job = queue.submit(Task(SPEC, "many", 2, 2, ("many", 1), work, background=True))
    assert begun.acquire(timeout=SOON)
    short = queue.submit(sample_task(SPEC, save(gate)))
    turn.release()
    gate.wait()
    job.cancel()
    assert job.wait(SOON)
    assert (job.snapshot().state, job.snapshot().step, ended) == ("cancelled", 1, [True])
    gate.open()
    assert short.wait(SOON)


def test_a_long_task_comes_after_all_others(queue: SamplingQueue, gate: Gate) -> None:
    done: list[int] = []
    queue.submit(sample_task(SPEC, save(gate)))
    gate.wait()
    long = queue.submit(background(1, done, threading.Semaphore(1)))
    short = queue.submit(sample_task(SPEC, save(small_network())))
    assert [job.snapshot().before for job in (short, long)] == [1, 2]
    gate.open()
    assert short.wait(SOON) and long.wait(SOON) and done == [0]


def test_a_device_has_one_queue_for_all() -> None:
    cpu = torch.device("cpu")
    assert sampling_queue.queue_of(cpu) is sampling_queue.queue_of(torch.device("cpu"))
    assert sampling_queue.queue_of(cpu) is not sampling_queue.queue_of(torch.device("meta"))


# ---------------------------------------------------------------- turns


@dataclass
class Work:
    """Tasks that take a second of the clock a step, and the order in which they were at work."""

    clock: Clock
    order: str = ""

    def task(
        self, name: str, steps: int, at: dict[int, Callable[[], object]] | None = None
    ) -> Task:
        """`at`: what happens in a step, such as that somebody else comes."""
        image = torch.zeros(1, 3, 16, 16)

        def work(load: object, on_step: OnStep) -> str:
            for step in range(steps):
                (at or {}).get(step, lambda: None)()
                self.clock.now += 1.0
                self.order += name
                on_step(StepView(step, steps, 0.0, image, image, image))
            return name

        return Task(SPEC, name, steps, steps, SECOND_A_STEP, work)


@pytest.fixture
def work(clock: Clock, queue: SamplingQueue, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(sampling_job, "PATIENCE_IN_DEMAND", 1e9)
    monkeypatch.setattr(sampling_job, "PATIENCE", 1e9)
    queue.learn(SECOND_A_STEP, 1, 1.0)
    return Work(clock)


def test_a_few_images_wait_at_most_a_turn_for_an_order_of_hours(
    queue: SamplingQueue, work: Work
) -> None:
    jobs: list[SamplingJob] = []

    def comes(name: str) -> Callable[[], None]:
        return lambda: jobs.append(queue.submit(work.task(name, 3), name))

    long = queue.submit(work.task("L", 60, {10: comes("b"), 30: comes("c")}), "stranger")
    assert long.wait(SOON)
    assert all(job.wait(SOON) for job in jobs)
    # The step in which they come ends first.
    assert work.order == "L" * 11 + "bbb" + "L" * 20 + "ccc" + "L" * 29


def test_a_long_order_is_not_put_off_for_ever_by_short_ones(
    queue: SamplingQueue, work: Work
) -> None:
    """Another visitor with a short order comes whenever one is done."""
    jobs: list[SamplingJob] = []

    def comes() -> None:
        if len(jobs) < 30:
            jobs.append(queue.submit(work.task("s", 2, {1: comes}), f"visitor {len(jobs)}"))

    long = queue.submit(work.task("L", 8, {0: comes}), "first")
    assert long.wait(SOON)
    while any(not job.wait(SOON) for job in list(jobs)) or len(jobs) < 30:
        pass
    assert work.order.rindex("L") < len(work.order) - 10
    assert "s" * 9 not in work.order[: work.order.rindex("L")]


def test_a_second_order_waits_for_the_first_of_everybody_else(
    queue: SamplingQueue, work: Work
) -> None:
    jobs: list[SamplingJob] = []

    def all_come() -> None:
        for name, visitor, steps in (("2", "A", 1), ("3", "A", 1), ("b", "B", 4), ("c", "C", 2)):
            jobs.append(queue.submit(work.task(name, steps), visitor))
        assert [job.snapshot().before for job in jobs] == [3, 4, 2, 1]

    first = queue.submit(work.task("1", 9, {0: all_come}), "A")
    assert first.wait(SOON) and all(job.wait(SOON) for job in jobs)
    # The shorter of the first ones comes first, and the second ones of A after its first.
    assert work.order.startswith("1ccbbbb")
    assert work.order.endswith("123")


def test_whoever_waits_sees_its_place_and_its_time(queue: SamplingQueue, work: Work) -> None:
    seen: list[Snapshot] = []

    def look() -> None:
        one = queue.submit(work.task("b", 2), "B")
        other = queue.submit(work.task("c", 4), "C")
        seen.extend(job.snapshot() for job in (one, other, long))
        jobs.extend((one, other))

    jobs: list[SamplingJob] = []
    gate = threading.Event()
    long = queue.submit(work.task("L", 10, {0: lambda: gate.wait(SOON), 4: look}), "A")
    gate.set()
    assert long.wait(SOON) and all(job.wait(SOON) for job in jobs)
    # The long one still needs six seconds; the shorter comes before the longer.
    assert [(each.before, each.wait) for each in seen] == [(1, 6.0), (2, 8.0), (0, 0.0)]
    assert seen[2].seconds_left == 12.0  # 6 of its own, and the others' 2 and 4


def test_jobs_in_turns_with_one_network_give_the_images_that_each_gives_alone(
    queue: SamplingQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them in training mode, as the lecture samples."""
    for seconds in ("SLICE", "LONG"):  # now they change after every step
        monkeypatch.setattr(sampling_queue, seconds, 0.0)
    network = small_lecture_network()
    modes: list[bool] = []

    def evaluated(module: nn.Module, inputs: object) -> None:
        modes.append(module.training)
        clock.now += 0.01

    network.register_forward_pre_hook(evaluated)
    saved = save(network, CONFIG.replace(image_size=32))
    specs = [SPEC.replace(sampler="ddpm", steps=20, as_lecture=True), SPEC.replace(steps=20)]
    tasks = [sample_task(spec, saved) for spec in specs]
    alone = []
    for task in tasks:
        job = queue.submit(task)
        assert job.wait(SOON)
        alone.append(job.result.images)
    modes.clear()
    with queue.lock:
        jobs = [queue.submit(task, name) for task, name in zip(tasks, "AB", strict=True)]
    assert all(job.wait(SOON) for job in jobs)
    assert all(np.array_equal(job.result.images, a) for job, a in zip(jobs, alone, strict=True))
    changes = sum(a != b for a, b in itertools.pairwise(modes))
    assert changes > 10  # they did take turns


def test_a_job_is_cancelled_while_it_is_not_its_turn(queue: SamplingQueue, work: Work) -> None:
    def cancel() -> None:
        long.cancel()

    others: list[SamplingJob] = []

    def comes() -> None:
        others.append(queue.submit(work.task("b", 3, {1: cancel}), "B"))

    gate = threading.Event()
    long = queue.submit(work.task("L", 20, {0: lambda: gate.wait(SOON), 2: comes}), "A")
    gate.set()
    assert long.wait(SOON)
    assert others[0].wait(SOON)
    assert (long.snapshot().state, long.snapshot().step) == ("cancelled", 3)
    assert work.order == "LLLbbb"
    assert queue.holder is None and queue.jobs == []


# ---------------------------------------------------------------- the end of the server, the log


def test_a_server_that_ends_cancels_what_is_under_way_and_what_waits_and_takes_nothing_more(
    queue: SamplingQueue, gate: Gate
) -> None:
    running, waiting = (queue.submit(sample_task(SPEC, save(gate))) for _ in range(2))
    gate.wait()
    queue.close()
    assert not waiting.active
    gate.open(1)
    assert running.wait(SOON)
    for job in (running, waiting):
        seen = job.snapshot()
        assert (seen.state, seen.sentence) == ("cancelled", CLOSED)
    assert running.snapshot().step == 1
    with pytest.raises(QueueFull, match="the server is shutting down"):
        queue.submit(sample_task(SPEC, save(gate)))


def test_the_log_says_how_long_an_order_has_waited_and_worked(
    queue: SamplingQueue, gate: Gate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="dashboard.services"):
        first = queue.submit(sample_task(SPEC, save(gate)))
        gate.wait()
        clock.now = 2.0
        second = queue.submit(sample_task(SPEC, save(small_network())))
        clock.now = 5.0
        second.cancel("Enough.")
        gate.open()
        assert first.wait(SOON)
    lines = [vars(record) for record in caplog.records]
    assert [(line["msg"], line["order"]) for line in lines] == [
        ("sampling submitted", 0),
        ("sampling submitted", 1),
        ("sampling cancelled", 1),
        ("sampling done", 0),
    ]
    assert [(line["seconds"], line["waited"]) for line in lines[2:]] == [(0.0, 3.0), (5.0, 0.0)]
    assert lines[2]["reason"] == "Enough."
    assert (lines[3]["run"], lines[3]["images"]) == ("tiny", 2)
