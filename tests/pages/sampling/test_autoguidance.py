"""The Sampling page: autoguidance, its controls, its links and its files."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.sampling.sharing import link
from dashboard.services import model_cache, series_jobs
from diffusion_core.media.images import png, to_uint8
from diffusion_core.runs.checkpoint import load_model, load_weights, save_weights
from diffusion_core.runs.run import Run
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.series import Series
from diffusion_core.sampling.spec import AUTOGUIDANCE, SamplingSpec
from tests.pages.app import button, buttons, generate, open_page, press, words
from tests.tiny_runs import CLASSES, TINY, write_checkpoint, write_run

SMALL = TINY.replace(network_args=dict(TINY.network_args) | {"widths": [4], "attention_levels": []})
SPEC = SamplingSpec(
    run="cars",
    step=20,
    n=2,
    steps=4,
    classes=CLASSES,
    label="bus",
    guidance_scale=2.0,
    guidance_interval=(3.0, 15.0),
    guidance=AUTOGUIDANCE,
    guide_run="small",
    guide_step=15,
)
LINK = {
    "run": "cars",
    "step": "20",
    "steps": "4",
    "n": "2",
    "label": "bus",
    "guidance": "2.0",
    "guidance_kind": "autoguidance",
    "guide": "small",
    "guide_step": "15",
    "guided": ["3", "15"],
}


@pytest.fixture
def runs(runs_dir: Path) -> Path:
    """A run, a smaller one beside it, and one that cannot guide it."""
    write_run(runs_dir, "other", 20, config=TINY.replace(image_size=32))
    write_run(runs_dir, "small", 5, 15, config=SMALL)
    write_run(runs_dir, "cars", 10, 20)
    return runs_dir


def keys(app: AppTest) -> set[str]:
    shown = (*app.selectbox, *app.slider, *app.get("button_group"))
    return {each.key for each in shown if each.key and "guid" in each.key}


def test_the_guide_is_chosen_by_run_step_and_average_where_guidance_is_on(runs: Path) -> None:
    app = open_page("sampling.py", run="cars", n="1", steps="2", label="bus")
    assert keys(app) == {"guidance"}
    app.slider(key="guidance").set_value(2.0).run()
    assert keys(app) == {"guidance", "guidance_kind", "guided"}
    app.button_group(key="guidance_kind").set_value("autoguidance").run()
    assert keys(app) == {"guidance", "guidance_kind", "guide", "guide_step", "guided"}
    assert not [each for each in app.selectbox if each.key == "negative"]
    assert app.selectbox(key="guide").options == ["the same run", "small"]
    assert app.selectbox(key="guide_step").options == ["10"]
    spec = generate(app).spec
    assert (spec.guidance, spec.guide_run, spec.guide_step) == (AUTOGUIDANCE, "", 10)
    app.selectbox(key="guide").select("small").run()
    assert app.selectbox(key="guide_step").options == ["5", "15"]
    job = generate(app)
    assert (job.spec.guide_run, job.spec.guide_step) == ("small", 5)
    assert job.task.evaluations == 4
    shown = words(app)
    assert "bus, autoguidance 2 by small at step 5" in shown
    assert "4 network evaluations (1 image × 2 steps × 2, by the network and its guide)" in shown
    app.selectbox(key="guide").select("the same run").run()
    assert generate(app).spec.guide_step == 10
    app.slider(key="guidance").set_value(1.0).run()
    assert generate(app).spec == spec.replace(guidance_scale=1.0).without_unused()


def test_a_checkpoint_of_its_own_run_guides_with_another_average(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cars", 20)
    checkpoint = Run(run).checkpoint(20)
    weights = load_weights(checkpoint)
    short = {name: 1.1 * tensor for name, tensor in weights.items()}
    save_weights(run, 20, weights, TINY, CLASSES, {"short": short})
    app = open_page(
        "sampling.py", n="1", steps="2", label="any class", guidance="2",
        guidance_kind="autoguidance",
    )  # fmt: skip
    assert app.button_group(key="guide_average").options == ["short"]
    spec = generate(app).spec
    assert (spec.guide_step, spec.guide_average, spec.label) == (20, "short", "any class")
    assert "autoguidance 2 by the short average of step 20" in words(app)


def test_the_image_of_the_page_is_that_of_the_core_and_both_networks_are_kept(runs: Path) -> None:
    model_cache.MODELS = model_cache.ModelCache()
    app = open_page("sampling.py", **LINK, exact="true")
    job = generate(app)
    spec = SPEC.replace(exact=True)
    assert job.spec == spec
    checkpoint = Run(runs / "cars").checkpoint(20)
    alone = spec.make(load_model(checkpoint, exact=True), guide=spec.load_guide(checkpoint))
    assert np.array_equal(job.result.images, to_uint8(alone))
    held = [(Path(key.run).name, key.step) for key in model_cache.MODELS.held()]
    assert held == [("cars", 20), ("small", 15)]
    assert generate(app).snapshot().state == "done"
    assert len(model_cache.MODELS.held()) == 2


def test_a_link_and_a_file_bring_autoguidance_back(runs: Path) -> None:
    job = generate(open_page("sampling.py", **LINK))
    assert job.spec == SPEC
    found = parse_qs(link(job.spec).partition("?")[2])
    again = {name: values if len(values) > 1 else values[0] for name, values in found.items()}
    assert again == LINK | {"sampler": "dpmpp_2m"}
    file = png(np.zeros((4, 4, 3), np.uint8), text=entries(SPEC))
    app = open_page("sampling.py", run="other", guidance="3")
    app.file_uploader[0].set_value(("image.png", file, "image/png")).run()
    assert not app.exception
    assert "autoguidance 2 by small at step 15 where 3 ≤ t ≤ 15" in words(app)
    assert generate(app).spec == SPEC


def test_a_file_that_names_its_own_run_as_the_guide_is_restored(runs: Path) -> None:
    own = SPEC.replace(guide_run="cars", guide_step=10)
    file = png(np.zeros((4, 4, 3), np.uint8), text=entries(own))
    app = open_page("sampling.py", run="cars")
    app.file_uploader[0].set_value(("image.png", file, "image/png")).run()
    assert not app.exception
    assert generate(app).spec == own.without_unused()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"guide_step": 7}, "The guide is missing. small has no checkpoint of step 7."),
        (
            {"guide_run": "gone"},
            "The guide is missing. There is no run gone that could guide cars.",
        ),
        ({"guide_run": "other", "guide_step": 20}, "generates colour images of 32 pixels, not"),
    ],
)
def test_a_file_whose_guide_is_gone_says_so(runs: Path, change: dict, sentence: str) -> None:
    file = png(np.zeros((4, 4, 3), np.uint8), text=entries(SPEC.replace(**change)))
    app = open_page("sampling.py", run="cars")
    app.file_uploader[0].set_value(("image.png", file, "image/png")).run()
    assert not app.exception
    assert sentence in words(app)


def test_a_guide_of_a_link_that_does_not_exist_is_left_out_and_said(runs: Path) -> None:
    app = open_page("sampling.py", **(LINK | {"guide": "gone", "guide_step": "7"}))
    assert "Guide is 'gone'; it must be one of the same run, small." in words(app)
    assert generate(app).spec.guide_step == 10


def test_a_guide_that_vanishes_while_the_page_is_open_is_said(runs: Path) -> None:
    app = open_page("sampling.py", **LINK)
    for path in (runs / "small" / "weights").iterdir():
        path.unlink()
    app.run()
    assert not app.exception
    assert app.selectbox(key="guide").options == ["the same run"]
    assert generate(app).spec.guide_run == ""


def test_without_classes_autoguidance_is_the_only_kind(runs_dir: Path) -> None:
    plain = TINY.replace(network_args={"widths": [8], "blocks": 1, "attention_levels": [0]})
    run = write_run(runs_dir, "plain", 20, config=plain)
    app = open_page("sampling.py", n="1", steps="2")
    assert keys(app) == set()
    write_checkpoint(run, 10, plain)
    app.run()
    app.slider(key="guidance").set_value(1.5).run()
    job = generate(app)
    assert job.spec.autoguided and job.spec.guide_step == 10
    assert link(job.spec).count("guidance_kind=autoguidance") == 1
    app = open_page("sampling.py", n="1", steps="2", guidance="1.5", mode="Compare")
    button(app, "Add another")
    assert job.snapshot().state == "done"


def test_scales_of_autoguidance_are_compared_also_across_runs(runs: Path) -> None:
    write_run(runs, "cars2", 30)
    app = open_page(
        "sampling.py", mode="Compare", run="cars", label="bus", steps="2", guidance="2.0",
        guidance_kind="autoguidance", vs_run=["cars", "cars2"], vs_guidance=["1.0", "2.0"],
    )  # fmt: skip
    rows = generate(app, "Generate 4 rows", "compare").result.rows
    kept = [(row.spec.run, row.spec.guidance_scale, row.spec.guide_run) for row in rows]
    assert kept == [("cars", 1, ""), ("cars", 2, ""), ("cars2", 1, ""), ("cars2", 2, "cars")]
    assert [row.spec.guide_step for row in rows] == [None, 10, None, 10]


def test_a_series_and_a_film_are_autoguided_too(runs: Path) -> None:
    app = press(open_page("sampling.py", **LINK, mode="Batch", many="2"), "Generate in background")
    [path] = (runs / "cars" / "drawings").iterdir()
    series = Series(path)
    job = series_jobs.job_of(series)
    assert job is None or job.wait(60)
    assert (series.state, len(series.numbers())) == ("finished", 2) and series.spec.autoguided
    app = open_page("sampling.py", **LINK, mode="Interpolate", frames="2")
    [name] = [label for label in buttons(app) if label.startswith("Generate")]
    job = generate(app, name, "interpolate")
    assert job.snapshot().state == "done" and job.spec.autoguided
