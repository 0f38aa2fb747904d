"""The drawing job: its order, its line, its snapshots, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dashboard import drawing
from dashboard.drawing import ANY_CLASS, EACH_IN_TURN, LineFull, Loaded, Order, Queue
from diffusion_core.config import RunConfig
from diffusion_core.pictures import to_uint8
from diffusion_core.presets import build_network
from diffusion_core.samplers import LECTURE_SAMPLING, sample
from diffusion_core.schedule import NoiseSchedule

SOON = 60.0  # how long a busy machine may take for what takes milliseconds
CONFIG = RunConfig(image_size=16, schedule={"timesteps": 20}, prediction_type="epsilon")
ORDER = Order(run="tiny", step=4, n=2, steps=5)


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
def queue(clock: Clock) -> Queue:
    return Queue(clock)


@pytest.fixture
def gate() -> Iterator[Gate]:
    model = Gate()
    yield model
    model.open()  # so that no thread is left behind where a test fails


def with_schedule(model: nn.Module, config: RunConfig = CONFIG) -> Loaded:
    return model.eval(), NoiseSchedule(**config.schedule), config


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


def test_a_drawing_gives_the_pictures_of_sample(queue: Queue) -> None:
    loaded = with_schedule(small_network(num_classes=3))
    order = replace(ORDER, seed=7, eta=0.5, classes=("a", "b", "c"), label="b", guidance_scale=2.0)
    job = queue.submit(order, loaded)
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
    queue: Queue,
) -> None:
    loaded = with_schedule(small_lecture_network(), CONFIG.replace(image_size=32))
    before = {name: tensor.clone() for name, tensor in loaded[0].state_dict().items()}
    order = replace(ORDER, sampler="ddpm", steps=20, as_lecture=True)
    job = queue.submit(order, loaded)
    assert job.wait(SOON)
    expected = sample(loaded[0], loaded[1], 2, shape=(3, 32, 32), **LECTURE_SAMPLING)
    assert np.array_equal(job.snapshot().now.x_t, to_uint8(expected))
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded[0].state_dict().items())
    assert not any(module.training for module in loaded[0].modules())


def test_the_strip_has_ten_looks_spread_over_the_steps_and_ends_in_the_picture(
    queue: Queue,
) -> None:
    job = queue.submit(replace(ORDER, steps=20), with_schedule(small_network()))
    assert job.wait(SOON)
    seen = job.snapshot()
    assert [look.timestep for look in seen.looks] == [19, 17, 15, 13, 11, 8, 6, 4, 2, 0]
    assert np.array_equal(seen.looks[-1].x_t, seen.now.x_t)
    few = queue.submit(replace(ORDER, steps=3), with_schedule(small_network()))
    assert few.wait(SOON)
    assert len(few.snapshot().looks) == 3


def test_a_snapshot_shows_how_far_it_is_and_how_long_it_will_take(
    queue: Queue, clock: Clock, gate: Gate
) -> None:
    job = queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    seen = job.snapshot()
    assert (seen.state, seen.step, seen.now, seen.seconds_left) == ("drawing", 0, None, None)
    gate.open(2)
    gate.wait()
    gate.wait()  # asked for the third time: two steps are taken
    clock.now = 3.0
    seen = job.snapshot()
    assert (seen.state, seen.step, seen.now.timestep) == ("drawing", 2, 15)
    assert seen.now.x_t.shape == seen.now.x_0.shape == (2, 16, 16, 3)
    assert (seen.seconds, seen.seconds_left) == (3.0, 4.5)


def test_drawings_of_a_device_come_one_after_the_other_in_the_order_of_asking(
    queue: Queue, gate: Gate
) -> None:
    first = queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    second, third = (queue.submit(ORDER, with_schedule(small_network())) for _ in range(2))
    assert [job.snapshot().before for job in (first, second, third)] == [0, 1, 2]
    assert [job.snapshot().state for job in (second, third)] == ["waiting", "waiting"]
    gate.open()
    assert third.wait(SOON)
    assert [job.snapshot().state for job in (first, second, third)] == ["done"] * 3


def test_a_running_drawing_is_cancelled_after_its_step_and_keeps_what_it_has(
    queue: Queue, gate: Gate
) -> None:
    job = queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    job.cancel()
    assert job.snapshot().sentence == "It stops after this step."
    gate.open()
    assert job.wait(SOON)
    seen = job.snapshot()
    assert (seen.state, seen.step, seen.sentence) == ("cancelled", 1, "Cancelled.")
    assert seen.now.x_t.shape == (2, 16, 16, 3)


def test_a_waiting_drawing_that_is_cancelled_leaves_the_line(queue: Queue, gate: Gate) -> None:
    queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    second, third = (queue.submit(ORDER, with_schedule(small_network())) for _ in range(2))
    second.cancel()
    assert (second.snapshot().state, second.snapshot().step) == ("cancelled", 0)
    assert third.snapshot().before == 1
    gate.open()
    assert third.wait(SOON)
    assert third.snapshot().state == "done"


@pytest.mark.parametrize(
    ("seconds", "others_wait", "state"),
    [
        (drawing.PATIENCE - 1, False, "done"),
        (drawing.PATIENCE + 1, False, "cancelled"),
        (drawing.PATIENCE_IN_DEMAND - 1, True, "done"),
        (drawing.PATIENCE_IN_DEMAND + 1, True, "cancelled"),
    ],
)
def test_a_drawing_that_nobody_looks_at_ends_by_itself_sooner_where_others_wait(
    queue: Queue, clock: Clock, gate: Gate, seconds: float, others_wait: bool, state: str
) -> None:
    job = queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    if others_wait:
        queue.submit(ORDER, with_schedule(small_network()))
    clock.now += seconds
    gate.open()
    assert job.wait(SOON)
    assert job.snapshot().state == state
    assert ("nobody was looking" in job.snapshot().sentence) == (state == "cancelled")


def test_a_drawing_that_somebody_looks_at_is_left_alone(
    queue: Queue, clock: Clock, gate: Gate
) -> None:
    job = queue.submit(ORDER, with_schedule(gate))
    for _ in range(ORDER.steps):
        gate.wait()
        clock.now += drawing.PATIENCE - 1
        job.snapshot()
        gate.open(1)
    assert job.wait(SOON)
    assert job.snapshot().state == "done"


def test_somebody_who_left_the_line_holds_nobody_up(queue: Queue, clock: Clock, gate: Gate) -> None:
    first = queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    gone, stays = (queue.submit(ORDER, with_schedule(small_network())) for _ in range(2))
    for _ in range(2):
        clock.now += drawing.PATIENCE_IN_DEMAND * 4
        first.snapshot()
        stays.snapshot()
    assert stays.snapshot().before == 1
    gate.open()
    assert stays.wait(SOON)
    assert (gone.snapshot().state, stays.snapshot().state) == ("cancelled", "done")


def test_the_line_has_an_end(queue: Queue, gate: Gate) -> None:
    queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    waiting = [
        queue.submit(ORDER, with_schedule(small_network())) for _ in range(drawing.LONGEST_LINE)
    ]
    with pytest.raises(LineFull, match="wait for this device already; try again"):
        queue.submit(ORDER, with_schedule(small_network()))
    for job in waiting:
        job.cancel()
    gate.open()


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
            "The device has not enough memory for that; draw fewer pictures at once.",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "The device has not enough memory for that; draw fewer pictures at once.",
        ),
        (ValueError("This network takes no labels."), "This network takes no labels."),
        (RuntimeError("odd"), "Drawing failed: odd"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_the_next_drawing_comes(
    queue: Queue, error: Exception, sentence: str
) -> None:
    failing = queue.submit(ORDER, with_schedule(Failing(error)))
    fine = queue.submit(ORDER, with_schedule(small_network()))
    assert fine.wait(SOON)
    assert (failing.snapshot().state, failing.snapshot().sentence) == ("failed", sentence)
    assert fine.snapshot().state == "done"


def test_more_steps_than_the_schedule_has_are_refused_with_a_sentence(queue: Queue) -> None:
    job = queue.submit(replace(ORDER, steps=21), with_schedule(small_network()))
    assert job.wait(SOON)
    assert job.snapshot().sentence == "steps must lie between 1 and 20, not 21."


def test_the_expected_time_goes_by_the_last_drawing_of_the_same_network(
    queue: Queue, clock: Clock, gate: Gate
) -> None:
    assert queue.expected_seconds(ORDER, CONFIG) is None
    job = queue.submit(ORDER, with_schedule(gate))
    gate.wait()
    clock.now = 20.0
    gate.open()
    assert job.wait(SOON)
    twice = replace(ORDER, n=4)
    assert queue.expected_seconds(twice, CONFIG) == pytest.approx(40.0)
    guided = replace(ORDER, guidance_scale=3.0)
    assert queue.expected_seconds(guided, CONFIG) == pytest.approx(40.0)
    assert queue.expected_seconds(ORDER, CONFIG.replace(image_size=32)) is None


def test_labels_come_in_turn_as_one_class_or_not_at_all() -> None:
    order = replace(ORDER, n=4, classes=("van", "bus", "coupé"), label=EACH_IN_TURN)
    assert order.labels().tolist() == [0, 1, 2, 0]
    assert [order.class_of(k) for k in range(4)] == ["van", "bus", "coupé", "van"]
    assert replace(order, n=6).columns == 3
    assert replace(order, label="bus").labels().tolist() == [1] * 4
    assert replace(order, label=ANY_CLASS).labels() is None
    assert replace(order, label=ANY_CLASS).class_of(0) == ""
    assert ORDER.labels() is None


@pytest.mark.parametrize(
    ("n", "columns"), [(1, 1), (2, 2), (3, 3), (6, 3), (7, 7), (8, 4), (10, 5), (16, 4), (64, 8)]
)
def test_the_grid_leaves_no_place_empty_where_it_can(n: int, columns: int) -> None:
    assert replace(ORDER, n=n).columns == columns
    assert replace(ORDER, n=11).columns is None


def test_an_order_says_in_words_what_makes_its_pictures() -> None:
    order = Order("cars", 1250, 1, "ddim", 50, 3, 0.5, ("van",), "van", 2.5)
    words = "cars at step 1,250: 1 picture, ddim, 50 steps, seed 3, η 0.5, van, guidance 2.5"
    assert order.words() == words
    lecture = Order("cars", 5, 2, "ddpm", 300, as_lecture=True)
    assert lecture.words() == "cars at step 5: 2 pictures, as the lecture does, 300 steps, seed 0"


def test_a_device_has_one_queue_for_all() -> None:
    cpu = torch.device("cpu")
    assert drawing.queue_of(cpu) is drawing.queue_of(torch.device("cpu"))
    assert drawing.queue_of(cpu) is not drawing.queue_of(torch.device("meta"))
