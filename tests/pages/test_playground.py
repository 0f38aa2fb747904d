"""The Playground page without a browser: what the browser is told, links, code."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard.explain import playground
from dashboard.explain.playground_gallery import GALLERY
from diffusion_core.playground import Settings, make_data, sample, start
from tests.pages.app import component_data, open_page, words


def told(**link: Any) -> dict[str, Any]:
    return component_data(open_page("playground.py", **link), "playground")


def test_the_page_opens_with_two_moons_and_offers_code() -> None:
    app = open_page("playground.py")
    data = component_data(app, "playground")
    assert data["settings"] == data["defaults"] == playground.defaults()
    assert data["settings"]["data"] == "two moons"
    assert "trainStep" in data["worker"] and "import {" not in data["worker"]
    [code] = app.code
    assert 'sample(settings, model, data, "ddim")' in code.value


def test_a_link_sets_everything_and_what_it_cannot_set_is_said() -> None:
    link = {"data": "spiral", "T": "100", "panels": ["flow", "exact"], "level": "250", "width": "5"}
    app = open_page("playground.py", **link)
    settings = component_data(app, "playground")["settings"]
    assert settings["data"] == "spiral" and settings["panels"] == ["flow", "exact"]
    assert settings["level"] == settings["timesteps"] == 100
    assert settings["width"] == playground.START.width
    assert "Neurons each is" in words(app)
    assert "drawing of at most 400 points" in words(open_page("playground.py", drawing="AAAA"))


def test_a_schedule_that_stops_early_misplaces_particles_as_the_gallery_says() -> None:
    """A tenth of the points are on the right; the linear schedule sends a third there."""
    shares = {}
    for _, _, chosen in GALLERY:
        if chosen.get("timesteps") == 50:
            values = {**playground.defaults(), **chosen, "particles": 600}
            settings = Settings(**{k: values[k] for k in values if k in Settings.model_fields})
            data = make_data(settings)
            ends = sample(settings, start(settings, "epsilon"), data, "exact")[-1]
            shares[settings.kind] = (ends[:, 0] > 0).mean()
            assert (data.points[:, 0] > 0).mean() == 0.1
    assert shares["linear"] == pytest.approx(1 / 3, abs=0.05)
    assert shares["cosine"] == pytest.approx(1 / 10, abs=0.03)


@pytest.mark.parametrize("title, sentence, settings", GALLERY)
def test_the_gallerys_links_set_what_they_say(
    title: str, sentence: str, settings: dict[str, Any]
) -> None:
    assert len(sentence) < 120
    for control in playground.CONTROLS:
        if control.field in settings:
            texts = control.to_link(settings[control.field])
            assert control.link_problem(texts) == "" or len(texts) > 1
            assert control.of_link(texts) == settings[control.field]
    assert set(settings) <= {control.field for control in playground.CONTROLS}
