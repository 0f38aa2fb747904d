"""What the Sampling page suggests from the measured quality of the checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.results import Result, write_result
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.spec import AUTOGUIDANCE, EACH_IN_TURN, SamplingSpec
from tests.pages.app import buttons, generate, open_page, press, words
from tests.tiny_runs import CLASSES, TINY, write_checkpoint, write_run

TIMESTEPS = (17.0, 8.125, 1.5)


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


def set_steps(app: AppTest, steps: int) -> AppTest:
    app.number_input(key="steps").set_value(steps).run()
    assert not app.exception
    return app


def write(folder: Path, value: float, *, n: int = 64, metric: str = "frechet", **how: Any) -> None:
    checkpoint = Run(folder).checkpoint(how.pop("step", 20))
    way: dict[str, Any] = {"run": "cars", "step": checkpoint.step, "label": EACH_IN_TURN} | how
    spec = SamplingSpec(n=n, classes=CLASSES, **way)
    write_result(
        folder,
        Result(
            spec=spec,
            metrics={metric: Estimate(value, value - 0.5, value + 0.5, n, n)},
            floor={},
            ceiling={},
            evaluations=round(spec.evaluations(NoiseSchedule("cosine", 20)) / n),
            seconds=1.0,
            device="cpu",
            data="cars",
            fingerprint="f",
            checkpoint_time=checkpoint.time,
            guide_time=spec.guide_time(checkpoint),
            neighbours=(),
            near=0.0,
            notes=(),
            written=time.time(),
        ),
    )


def suggested(app: AppTest) -> str:
    return next((line for line in words(app).splitlines() if line.startswith("Best measured")), "")


def test_nothing_is_suggested_where_nothing_was_measured(run: Path) -> None:
    app = open_page("sampling.py", steps=5)
    assert not suggested(app)
    write(run, 9.0, steps=8)  # costs more
    write_checkpoint(run, 40)
    write(run, 3.0, steps=4, step=40)  # of another checkpoint
    app = open_page("sampling.py", steps=5, step=20)
    assert not suggested(app) and "Use it" not in buttons(app)


def test_the_best_measured_within_the_evaluations_is_suggested_and_set_by_a_click(
    run: Path,
) -> None:
    write(run, 9.0, steps=5)
    write(run, 7.0, steps=4, sampler="unipc", spacing="exponential")
    write(run, 6.0, steps=4, sampler="heun", spacing="karras")  # 7 evaluations
    write(run, 2.0, steps=5, sampler="lms", n=128)  # fewer of that many images: not comparable
    app = open_page("sampling.py", steps=5, n=1, seed=7, label="bus")
    assert suggested(app) == (
        "Best measured of this checkpoint within 5 network evaluations: unipc, 4 steps, "
        "exponential spacing (Fréchet distance 7.00 (6.50 to 7.50); 64 images, 2 measured)."
    )
    press(app, "Use it")
    spec = generate(app).spec
    assert (spec.sampler, spec.steps, spec.spacing) == ("unipc", 4, "exponential")
    assert (spec.seed, spec.label, spec.n) == (7, "bus", 1)
    assert "within 4 network evaluations" in suggested(app) and "Use it" not in buttons(app)
    set_steps(app, 7)
    assert "heun" in suggested(app)
    press(app, "Use it")
    assert app.selectbox(key="spacing").value == "karras"
    assert app.number_input(key="steps").value == 4


def test_a_suggestion_with_learned_timesteps_sets_them(run: Path) -> None:
    """Those that were measured, though the run does not have them any more."""
    write(run, 4.0, steps=3, spacing="learned", timesteps=TIMESTEPS)
    app = open_page("sampling.py", steps=4, n=1)
    assert "dpmpp_2m, 3 steps, learned spacing" in suggested(app)
    press(app, "Use it")
    assert generate(app).spec.timesteps == TIMESTEPS
    assert "The timesteps come from the link or the file" in words(app)


def test_without_frechet_distance_the_other_distance_decides(run: Path) -> None:
    write(run, 9.0, steps=4, metric="sliced_wasserstein")
    assert "Sliced Wasserstein 9.00" in suggested(open_page("sampling.py", steps=5))


def test_a_guide_that_was_measured_is_set_while_it_is_the_same_file(run: Path) -> None:
    write_checkpoint(run, 10)
    write(run, 4.0, steps=2, guidance_scale=2.0, guidance=AUTOGUIDANCE, guide_step=10)
    app = open_page("sampling.py", steps=3, n=1, step=20, label="any class")
    assert not suggested(app)  # it costs 4 evaluations
    set_steps(app, 4)
    assert "autoguidance 2 by step 10 (Fréchet distance 4.00" in suggested(app)
    press(app, "Use it")
    spec = generate(app).spec
    assert (spec.guidance, spec.guide_step, spec.guidance_scale) == (AUTOGUIDANCE, 10, 2.0)
    assert (spec.steps, spec.label) == (2, "any class")
    assert suggested(app) and "Use it" not in buttons(app)
    write_checkpoint(run, 10)  # again
    assert not suggested(open_page("sampling.py", steps=4, step=20))


def test_guidance_by_class_that_was_measured_is_set_with_a_class(run: Path) -> None:
    write(run, 4.0, steps=2, guidance_scale=2.0, guidance_interval=(3.0, 15.0))
    app = open_page("sampling.py", steps=4, n=1, label="any class")
    press(app, "Use it")
    spec = generate(app).spec
    assert (spec.label, spec.guidance_scale, spec.guidance_interval) == (
        EACH_IN_TURN,
        2.0,
        (3.0, 15.0),
    )


def test_of_a_distilled_run_the_best_number_of_steps_is_suggested(runs_dir: Path) -> None:
    settings = {"objective": "consistency", "init_from": "cars", "min_snr_gamma": 0.0}
    run = write_run(runs_dir, "fast", 20, config=TINY.replace(**settings))
    for steps, value in ((1, 9.0), (2, 6.0), (4, 8.0)):
        write(run, value, run="fast", sampler="consistency", steps=steps)
    app = open_page("sampling.py", steps=1, n=1)
    assert "consistency, 1 step (Fréchet distance 9.00" in suggested(app)
    assert "Use it" not in buttons(app)
    assert "consistency, 2 steps (Fréchet distance 6.00" in suggested(set_steps(app, 4))
    press(app, "Use it")
    assert generate(app).spec.steps == 2
