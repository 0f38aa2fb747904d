"""The choice of the way that computes a layer fastest, and the file that keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_core.models.convolutions import DEPTH, GEMM, PLAIN, Geometry, Way, Ways
from diffusion_core.runs.presets import network_plan
from diffusion_core.training import layer_ways
from diffusion_core.training.layer_ways import FILE, Shape, faster, fastest_ways, possible, shapes

WIDE = Shape(False, Geometry(4, 2, 1), 512, (16, 16), 512, 32, torch.bfloat16, True)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Shape]:
    """The shapes that are measured; gemm is said to be the fastest of the gradient in the input."""
    asked: list[Shape] = []

    def fastest(shape: Shape) -> Ways:
        asked.append(shape)
        return Ways(grad_input=GEMM)

    monkeypatch.setattr(layer_ways, "fastest", fastest)
    return asked


def ways_of(folder: Path, known: dict[str, Ways] | None = None) -> dict[str, Ways]:
    return fastest_ways(network_plan("lecture", {}), 32, 64, torch.float32, known, folder)


def test_a_way_is_chosen_where_it_is_worth_it() -> None:
    times: list[dict[Way, float]]
    times = [{PLAIN: 1.0, GEMM: 0.95}, {PLAIN: 1.0, GEMM: 0.8, DEPTH: 0.5}, {PLAIN: 1.0}]
    assert faster(times) == Ways(PLAIN, DEPTH, PLAIN)


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        ({}, (PLAIN, GEMM, DEPTH)),
        ({"transposed": True}, (PLAIN, GEMM, DEPTH)),
        ({"sides": (15, 15)}, (PLAIN, GEMM)),
        ({"geometry": Geometry(3, 2, 1)}, (PLAIN, GEMM)),
        ({"geometry": Geometry(3, 1, 1)}, (PLAIN,)),  # of many pixels, where oneDNN is fast
        ({"geometry": Geometry(3, 1, 1), "sides": (8, 8)}, (PLAIN, GEMM)),
        ({"geometry": Geometry(1, 1, 0), "sides": (8, 8)}, (PLAIN,)),
        ({"batch": 1, "channels": 32}, (PLAIN,)),  # too little work to be worth a measurement
    ],
)
def test_only_ways_that_can_be_the_fastest_are_measured(
    changes: dict[str, Any], ways: tuple[str, ...]
) -> None:
    assert possible(WIDE._replace(**changes)) == ways


def test_the_work_of_each_layer_is_that_of_the_trace() -> None:
    network = network_plan("lecture", {})
    found = shapes(network, 1, 64, torch.float32)
    rows = {row.name: row for row in layer_ways.trace(network, 64).rows}
    assert found["downs.0.transform"].sides == (64, 64)
    assert len(found) == 3 * 8 + 2
    for name, shape in found.items():
        assert shape.flop == 2 * rows[name].multiply_adds


def test_a_kind_of_layer_is_measured_once_on_a_machine(
    tmp_path: Path, measured: list[Shape]
) -> None:
    first = ways_of(tmp_path)
    assert "downs.3.transform" in first and "downs.0.conv1" not in first
    assert len(measured) == len(set(measured)) > 5
    measured.clear()
    assert ways_of(tmp_path) == first
    assert measured == []


def test_another_number_of_threads_is_measured_again(
    tmp_path: Path, measured: list[Shape], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways_of(tmp_path)
    before = len(measured)
    monkeypatch.setattr(layer_ways, "this_machine", lambda: "the same with one thread")
    ways_of(tmp_path)
    assert len(measured) == 2 * before
    assert len(json.loads((tmp_path / FILE).read_text())["machines"]) == 2


@pytest.mark.parametrize(
    "text", ["", "{", '{"machines": 5}', '{"machines": {"a": {"b": ["plain", "magic", "gemm"]}}}']
)
def test_a_file_that_cannot_be_used_is_measured_again(
    tmp_path: Path, measured: list[Shape], text: str
) -> None:
    (tmp_path / FILE).write_text(text)
    assert ways_of(tmp_path)
    assert measured
    measured.clear()
    ways_of(tmp_path)
    assert measured == []


def test_a_way_that_a_layer_cannot_have_is_not_believed(
    tmp_path: Path, measured: list[Shape]
) -> None:
    ways_of(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    [kept] = content["machines"].values()
    wrong = next(name for name in kept if name.startswith("3x3"))
    kept[wrong] = [DEPTH, DEPTH, DEPTH]
    (tmp_path / FILE).write_text(json.dumps(content))
    measured.clear()
    ways = ways_of(tmp_path)
    assert [str(shape) for shape in measured] == [wrong]
    assert set(ways.values()) == {Ways(grad_input=GEMM)}


def test_a_folder_that_cannot_be_written_to_costs_a_measurement(
    tmp_path: Path, measured: list[Shape]
) -> None:
    (tmp_path / "file").touch()
    assert ways_of(tmp_path / "file" / "cache")
    assert measured


def test_a_run_that_goes_on_keeps_its_ways(tmp_path: Path, measured: list[Shape]) -> None:
    depth = Ways(DEPTH, GEMM, PLAIN)
    known = {"downs.3.transform": depth, "downs.0.conv1": depth, "gone": depth}
    assert ways_of(tmp_path, known=known) == {"downs.3.transform": depth}
    assert measured == []


def test_a_measurement_leaves_the_random_numbers_of_training_where_they_are() -> None:
    shape = WIDE._replace(channels=4, out=4, batch=2, dtype=torch.float32)
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    times = layer_ways.seconds(shape._replace(transposed=True)) + layer_ways.seconds(shape)
    assert len(times) == 6 and all(each[PLAIN] > 0 for each in times)
    assert torch.equal(torch.rand(3), wanted)
