"""What a run has measured of itself, on the Training and the Sampling page."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.progress import scalars
from diffusion_core.runs.metrics import BEHIND, LOW, MetricsWriter
from tests.pages.app import open_page, words
from tests.tiny_runs import tiny, write_run


def measured(runs_dir: Path, name: str, share: float) -> Path:
    """A run that was the best at its second step, with this share of near copies at the end."""
    config = tiny(evaluate_every=10, evaluate_images=64, ema_decays={"short": 0.9})
    run = write_run(runs_dir, name, 10, 20, 30, config=config)
    metrics = MetricsWriter(run / "metrics.sqlite")
    for step, value in ((10, 40.0), (20, 20.0), (30, 25.0)):
        copies = share if step == 30 else 0.05
        found = {
            "frechet": Estimate(value, value - 2, value + 2, 64, 64),
            "copies": Estimate(copies, copies - 0.05, copies + 0.05, 64, 64),
        }
        rows = scalars(found) | {"loss": 0.5, BEHIND: 0.2, BEHIND + LOW: 0.1 if share > 0.5 else 0}
        metrics.add((step, curve, number, 0.0) for curve, number in rows.items())
    metrics.close()
    return run


def test_the_quality_during_training_and_the_alarm(runs_dir: Path) -> None:
    measured(runs_dir, "copies", 0.8)
    app = open_page("training.py", more="Quality")
    [alarm] = [each.value for each in app.warning if "Memorisation" in each.value]
    assert "80.0 % (75.0 to 85.0 %) of the samples of step 30 are near copies" in alarm
    said = words(app)
    assert "The averaged weights (main, 0.9995) are still behind the raw ones: at step 30" in said
    assert "use the average short" in said
    assert "Best checkpoint: step 20 (20.0)." in said
    assert "64 images of the averaged weights, 10 sampling steps" in said
    alts = [json.loads(each.proto.json).get("alt") for each in app.get("bidi_component")]
    assert {f"{what} of copies over the steps" for what in ("Fréchet distance", "Near copies")} <= {
        *alts
    }


def test_a_run_that_memorises_nothing_raises_no_alarm_and_its_best_step_is_offered(
    runs_dir: Path,
) -> None:
    run = measured(runs_dir, "new-images", 0.06)
    said = words(open_page("training.py", more="Quality"))
    assert "Memorisation" not in said and "still behind" not in said
    app = open_page("sampling.py", run="new-images", step="best")
    assert "Step 20 of 8, saved" in words(app)
    (run / "weights" / "step-00000020.safetensors").unlink()
    app = open_page("sampling.py", run="new-images")
    [checkpoint] = [box for box in app.selectbox if box.label == "Checkpoint"]
    assert checkpoint.options == ["latest", "best", "30", "10"]  # the best of those that are left


def test_the_quality_at_the_end_is_forecast_and_what_such_forecasts_were_worth(
    runs_dir: Path,
) -> None:
    for name, state, steps in (("before", "finished", 100), ("now", "stopped", 200)):
        config = tiny(steps=steps)
        run = write_run(runs_dir, name, config=config, state=state, step=100, total=steps)
        metrics = MetricsWriter(run / "metrics.sqlite")
        for step in range(10, 110, 10):
            value = 1000 / step
            found = scalars({"frechet": Estimate(value, value - 1, value + 1, 64, 64)})
            metrics.add((step, curve, number, 0.0) for curve, number in found.items())
        metrics.close()
    said = words(open_page("training.py", run="now", more="Quality"))
    assert (
        "Is it enough? Forecast of Fréchet distance at step 200: 5.00 (95 %: 5.00 to 5.00). Of 1 "
        "finished run, such a forecast at 50 % of the steps held the result for 1; the median "
        "error was 0 %."
    ) in said.replace("**", "")
    assert "Is it enough?" not in words(open_page("training.py", run="before", more="Quality"))


def test_a_run_with_too_few_held_out_images_says_why_it_has_no_near_copies(runs_dir: Path) -> None:
    run = measured(runs_dir, "few", 0.06)
    with sqlite3.connect(run / "metrics.sqlite") as connection:
        connection.execute("DELETE FROM scalars WHERE name LIKE 'evaluation.copies%'")
    said = words(open_page("training.py", more="Quality"))
    assert (
        "they need at least 16 held-out images, and this run has 0. Set *validation_count*" in said
    )
