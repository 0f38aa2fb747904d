"""Forecasts of quality: exact for an exact law, honest intervals, and a record that is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion_core.evaluation.forecast import FEWEST, Record, forecast, forecast_of, record_of
from diffusion_core.runs.metrics import HIGH, LOW, QUALITY, MetricsWriter
from diffusion_core.runs.run import RunSnapshot, load_run
from tests.tiny_runs import tiny, write_run

STEPS = np.arange(1, 9) * 500


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("floor", [0.0, 20.0])
def test_an_exact_power_law_is_continued_exactly(floor: float, exponent: float) -> None:
    def law(steps: np.ndarray | int) -> np.ndarray:
        return floor + 100 * (np.asarray(steps) / 500.0) ** -exponent

    for noise in (None, np.linspace(1, 2, len(STEPS))):
        made = forecast(STEPS, law(STEPS), 6000, noise=noise)
        assert made is not None
        assert made.value == pytest.approx(float(law(6000)), rel=1e-6)
        assert made.high - made.low < 1e-5 * made.value
        assert made.low <= made.value <= made.high


def test_a_curve_that_does_not_fall_is_forecast_to_stay() -> None:
    made = forecast(STEPS, np.full(len(STEPS), 7.0), 6000)
    assert made is not None
    assert (made.low, made.value, made.high) == pytest.approx((7, 7, 7))


def test_the_intervals_hold_what_comes_as_often_as_they_say() -> None:
    count, held = 6, 0
    rng, steps = np.random.default_rng(0), np.arange(1, count + 1) * 500
    for _ in range(150):
        floor, scale, exponent = rng.uniform(5, 30), rng.uniform(30, 150), rng.uniform(0.3, 1.5)
        values = floor + scale * (np.append(steps, 1000 * count) / 500) ** -exponent
        values += rng.normal(size=count + 1)
        made = forecast(steps, values[:-1], 1000 * count)
        assert made is not None
        held += made.low <= values[-1] <= made.high
    assert 0.91 <= held / 150 <= 0.99


def test_with_few_evaluations_nothing_is_forecast() -> None:
    assert forecast(STEPS[: FEWEST - 1], np.ones(FEWEST - 1), 6000) is None
    assert forecast(STEPS[:FEWEST], np.array([1, 2, np.nan, 3.0]), 6000) is None
    assert forecast(STEPS, np.ones(8), 0) is None


def evaluated_run(
    runs_dir: Path, name: str, last: float, state: str = "finished", steps: int = 800
) -> RunSnapshot:
    """100 / step before, and this at the end."""
    run = write_run(runs_dir, name, config=tiny(steps=steps), state=state, step=800, total=steps)
    writer = MetricsWriter(run / "metrics.sqlite")
    for step in range(100, 900, 100):
        value = last if step == 800 else 10_000 / step
        for end, number in (("", value), (LOW, value - 1), (HIGH, value + 1)):
            writer.add([(step, QUALITY["frechet"] + end, number, 0.0)])
    writer.close()
    return load_run(run).snapshot()


def test_a_run_is_forecast_from_its_curve_and_earlier_forecasts_are_counted(
    runs_dir: Path,
) -> None:
    running = evaluated_run(runs_dir, "running", 12.5, "stopped", 1600)
    made = forecast_of(running)
    assert made is not None
    assert made.step == 1600
    assert made.value == pytest.approx(6.25, rel=1e-6)
    assert forecast_of(running, 300) is None
    runs = [
        running,
        evaluated_run(runs_dir, "as-expected", 12.5),
        evaluated_run(runs_dir, "worse", 25.0),
    ]
    record = record_of(runs, 0.5)
    assert (record.runs, record.inside) == (2, 1)
    assert record.error == pytest.approx(0.25, rel=0.01)  # the median of 0 and 0.5
    assert record_of(runs, 0.3) == Record(0, 0, 0.0)  # three evaluations
    assert record_of(runs, 1.0) == Record(0, 0, 0.0)  # nothing is left to be forecast
