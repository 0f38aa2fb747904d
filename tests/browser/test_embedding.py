"""The Embedding page in a real browser: another size and t, a run's `time_mlp`, a phone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from diffusion_core.runs.checkpoint import save_weights
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_network
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import start_server


@pytest.mark.long
def test_a_visitor_changes_size_and_t_and_shares_the_view(open_page: OpenPage) -> None:
    page = open_page("/embedding")
    expect(page.get_by_text("No run has a checkpoint yet.")).to_be_visible()
    expect(page.locator(".chart.js-plotly-plot")).to_have_count(3)
    size = page.get_by_label("Embedding size", exact=True)
    size.fill("64")
    size.press("Enter")
    page.wait_for_url(re.compile("size=64"))
    page.get_by_role("slider").press("ArrowRight")
    expect(page.get_by_role("heading", name="Embedding of t = 31")).to_be_visible()
    page.wait_for_url(re.compile("t=31"))

    shared = open_page("/embedding" + page.url.partition("/embedding")[2])
    expect(shared.get_by_role("heading", name="Embedding of t = 31")).to_be_visible()
    expect(shared.get_by_label("Embedding size", exact=True)).to_have_value("64")


@pytest.mark.long
def test_a_trained_run_is_shown_on_a_phone_too(open_page: OpenPage, tmp_path: Path) -> None:
    config = RunConfig(
        network_args={"widths": [8, 8], "blocks": 1, "attention_levels": []},
        schedule={"timesteps": 40},
    )
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.json").write_text(config.to_json())
    weights = build_network(config.network, config.network_args).state_dict()
    save_weights(run, 3, weights, config, ())
    with start_server(tmp_path) as server:
        page = open_page("/embedding", server.url, viewport=PHONE)
        expect(page.get_by_text("mine at step 3")).to_be_visible()
        expect(page.locator(".chart.js-plotly-plot")).to_have_count(5)
        assert_not_too_wide(page)
