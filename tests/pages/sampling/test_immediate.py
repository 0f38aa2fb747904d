"""The image of a distilled run that follows the hand: what the browser is told and what it asks."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.components.immediate.immediate import Asked
from dashboard.sampling import immediate
from dashboard.services.sampling_queue import SamplingQueue
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling.metadata import read
from diffusion_core.sampling.spec import SamplingSpec
from tests.pages.app import component_data, generate, open_page, words
from tests.tiny_runs import CLASSES, TINY, write_run

DISTILLED = TINY.replace(objective="consistency", init_from="teacher", min_snr_gamma=0.0)


@pytest.fixture
def run(runs_dir: Path) -> Run:
    return Run(write_run(runs_dir, "cars", 20, config=DISTILLED))


def told(app: AppTest) -> dict[str, Any]:
    return component_data(app, "immediate")


def pixels(data: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(data["png"]))) as image:
        return np.array(image)


def spec_of(**changes: Any) -> SamplingSpec:
    """In float32, so that it is the same on every machine and in every batch."""
    values: dict[str, Any] = {
        "run": "cars",
        "step": 20,
        "n": 1,
        "sampler": "consistency",
        "steps": 2,
    }
    return SamplingSpec(**values | {"classes": CLASSES, "label": "van", "exact": True} | changes)


def core_image(run: Run, **changes: Any) -> np.ndarray:
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    return to_uint8(spec_of(**changes).make(load_model(checkpoint, exact=True)))[0]


def test_a_distilled_run_is_sampled_at_once_as_generate_would(run: Run) -> None:
    app = open_page("sampling.py", seed=7, n=2, exact="true")
    data = told(app)
    assert data["settings"] == {"seed": 7, "label": "van", "guidance": 1.0}
    assert data["classes"] == ["any class", *CLASSES]
    assert data["guidance"] == {"min": 1.0, "max": 8.0, "step": 0.25}
    assert np.array_equal(pixels(data), core_image(run, seed=7))
    made = read(base64.b64decode(data["png"]))
    assert (made.spec, made.image) == (spec_of(seed=7), 0)
    assert "2 network evaluations" in data["said"]
    job = generate(app)
    assert np.array_equal(job.result.images[0], pixels(told(app)))


def test_what_the_hand_sets_is_sampled_and_what_it_cannot_set_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("sampling.py", steps=1, exact="true")
    base = told(app)["base"]

    def ask(base: str = base, **settings: Any) -> dict[str, Any]:
        asked = Asked(3, base, {"seed": 0, "label": "van", "guidance": 1} | settings, False)
        monkeypatch.setattr(immediate, "asked", lambda key: asked)
        return told(app.run())

    data = ask(seed=41, label="bus", guidance=2)
    assert (data["turn"], data["base"]) == (3, base)
    assert data["settings"] == {"seed": 41, "label": "bus", "guidance": 2.0}
    wanted = core_image(run, steps=1, seed=41, label="bus", guidance_scale=2.0)
    assert np.array_equal(pixels(data), wanted)
    assert data["said"].startswith("2 network evaluations")
    # Without a class there is nothing to be guided to.
    data = ask(label="any class", guidance=3)
    assert data["settings"]["guidance"] == 1.0 and data["guidance"] is None
    for wrong in ({"seed": -1}, {"seed": 1e400}, {"label": "tram"}, {"guidance": "9" * 9}):
        assert ask(**wrong)["settings"] == {"seed": 0, "label": "van", "guidance": 1.0}
    # It was asked of settings that are no longer on the page.
    assert ask("other", seed=5)["settings"]["seed"] == 0


def test_with_more_steps_the_page_says_what_to_do(run: Run) -> None:
    app = open_page("sampling.py", steps=5)
    assert "With at most 4 steps, an image follows the hand here" in words(app)
    assert "immediate" not in {each.proto.component_name for each in app.get("bidi_component")}


def test_where_others_come_first_the_page_says_so_and_the_browser_asks_again(
    run: Run, still: SamplingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(immediate, "PATIENCE_SECONDS", 0.0)
    data = told(open_page("sampling.py"))
    assert data["waits"] and data["png"] is None and data["said"] == "Sampling …"
    assert len(still.jobs) == 1
    data = told(open_page("sampling.py"))
    assert data["waits"] and "Waiting for 1 other job" in data["said"]


def test_a_visitor_over_the_budget_reads_why_there_is_no_image(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_HOURLY_EVALUATIONS", "1")
    data = told(open_page("sampling.py"))
    assert data["png"] is None and not data["waits"]
    assert data["said"].startswith("This needs 2 network evaluations; the limit per hour is 1.")
