"""Which run and step each cell of a grid shows, why one is empty, and what is sampled for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion_core.review.grid import (
    GUIDANCE,
    RUN,
    SAMPLER,
    SETTING,
    STEP,
    STEPS,
    USUAL,
    Axis,
    Cell,
    Source,
    make_cells,
    setting_values,
    spec_of,
)
from diffusion_core.review.index import Value
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import Capabilities
from tests.tiny_runs import CLASSES, write_run

FAST, SLOW = {"learning_rate": 1e-3}, {"learning_rate": 1e-4}
SOURCES = [
    Source("a", (10, 20), FAST | {"seed": 0, "batch_size": 8}),
    Source("b", (10, 30), SLOW | {"seed": 1, "batch_size": 16}),
    Source("c", (25,), SLOW | {"seed": 0, "batch_size": 8}),
]
REST = {RUN: "a", STEP: 30, SAMPLER: "ddim", STEPS: 5, GUIDANCE: 1.0}
BY_RATE = Axis(f"{SETTING}learning_rate", (1e-4, 1e-3))


def shown(cells: list[list[Cell]]) -> list[list[Any]]:
    """Of each cell the run and step, or why it is empty."""
    return [[c.problem or (c.values[RUN], c.values[STEP]) for c in row] for row in cells]


def test_runs_and_steps_show_only_what_there_is() -> None:
    cells = make_cells(SOURCES, Axis(RUN, ("a", "c")), Axis(STEP, (10, 25)), REST)
    assert shown(cells) == [
        [("a", 10), "Nothing at step 25."],
        ["Nothing at step 10.", ("c", 25)],
    ]
    assert {cell.note for row in cells for cell in row} == {""}


def test_a_step_for_all_is_that_of_each_run_or_the_newest_before() -> None:
    [[a, b, c]] = make_cells(
        SOURCES, Axis(SAMPLER, ("ddpm",)), Axis(RUN, ("a", "b", "c")), REST | {STEP: 20}
    )
    assert (a.values[STEP], a.note) == (20, "")
    assert (b.values[STEP], b.note) == (10, "step 10")
    assert c.problem == "Nothing at step 20 or before."
    assert a.values == {RUN: "a", STEP: 20, SAMPLER: "ddpm", STEPS: 5, GUIDANCE: 1.0}


def test_a_setting_selects_the_run_that_otherwise_differs_least() -> None:
    rows = make_cells(SOURCES, BY_RATE, Axis(STEPS, (5, 10)), REST)
    assert shown(rows) == [[("c", 25)] * 2, [("a", 20)] * 2]
    assert [row[0].note for row in rows] == ["c; step 25", "a; step 20"]
    rows = make_cells(SOURCES, BY_RATE, Axis(STEPS, (5, 10)), REST | {RUN: "b"})
    assert shown(rows) == [[("b", 30)] * 2, [("a", 20)] * 2]
    assert rows[1][0].note == "a; also differs in batch_size, seed; step 20"


def test_a_cell_that_no_run_fits_says_which_settings() -> None:
    seeds = Axis(f"{SETTING}seed", setting_values(SOURCES, "seed"))
    assert shown(make_cells(SOURCES, BY_RATE, seeds, REST)) == [
        [("c", 25), ("b", 30)],
        [("a", 20), "No chosen run has learning_rate 0.001 and seed 1."],
    ]
    assert shown(make_cells(SOURCES, Axis(RUN, ("a", "b")), seeds, REST)) == [
        [("a", 20), "a has seed 0."],
        ["b has seed 1.", ("b", 30)],
    ]


def test_values_of_a_setting_are_sorted_as_numbers() -> None:
    given: list[Value | None] = [10, 9, "linear", None, 0.5]
    settings: list[dict[str, Value]] = [{"x": value} if value else {} for value in given]
    sources = [Source(str(k), (), each) for k, each in enumerate(settings)]
    assert setting_values(sources, "x") == [0.5, 9, 10, "linear", None]


def test_what_is_sampled_differs_only_in_the_cell(runs_dir: Path) -> None:
    checkpoint = Run(write_run(runs_dir, "cars", 20)).checkpoint(20)
    can = Capabilities.of(checkpoint)

    def spec(**values: Any) -> Any:
        cell = Cell(REST | {RUN: "cars", STEP: 20} | values)
        return spec_of(cell, checkpoint, can, n=3, seed=7)

    assert spec().classes == CLASSES and not spec().problems(can)
    assert spec(**{SAMPLER: USUAL}).sampler == can.samplers[0]
    assert spec(**{SAMPLER: "heun"}).spacing == "karras"  # the usual one of Heun
    assert spec(**{GUIDANCE: 3.0}).guidance_scale == 3.0
    assert spec(**{STEPS: 21}).problems(can) == ["cars at step 20 takes 1 to 20 steps, not 21."]
