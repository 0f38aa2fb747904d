"""The Network page in a real browser: choose, follow the shapes, share the view, use a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from diffusion_core.runs.config import RunConfig
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server


@pytest.mark.long
def test_a_visitor_chooses_a_network_and_a_size_and_shares_the_view(open_page: OpenPage) -> None:
    page = open_page("/network")
    expect(page.get_by_test_id("stMetricValue").first).to_have_text("62,438,883")
    page.get_by_role("slider").press("ArrowRight")
    page.wait_for_url(re.compile("size=72"))
    expect(page.get_by_text("Images of 72×72")).to_be_visible()
    page.get_by_role("combobox", name="Network").click()
    page.get_by_role("option", name="small").click()
    page.wait_for_url(re.compile("network=small"))
    expect(page.get_by_test_id("stMetricValue").first).to_have_text("5,452,780")

    shared = open_page("/network" + page.url.partition("/network")[2])
    expect(shared.get_by_text("Images of 72×72")).to_be_visible()
    expect(shared.get_by_test_id("stMetricValue").first).to_have_text("5,452,780")


def test_the_page_starts_from_the_last_run_and_its_address_has_it(
    open_page: OpenPage, server: Server
) -> None:
    for name in ("one", "two"):
        run = server.runs_dir / name
        run.mkdir()
        (run / "config.json").write_text(RunConfig(image_size=32).to_json())
        (run / "status.json").write_text('{"state": "finished", "created": 1.0}')
    page = open_page("/training?run=one")
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Network", exact=True).click()
    expect(page.get_by_text("Images of 32×32")).to_be_visible()
    page.wait_for_url(re.compile(r"/network\?network=run(\+|%20)one$"))


def test_pointing_at_a_block_of_the_u_shows_its_shapes(open_page: OpenPage) -> None:
    page = open_page("/network", viewport={"width": 1400, "height": 1600})
    u = page.locator(".chart.js-plotly-plot").first
    deepest = u.locator(".bars .point").filter(has_text="1024").first
    deepest.locator("path").hover(force=True)
    hover = u.locator(".hoverlayer")
    expect(hover).to_contain_text("downs.3, down block")
    expect(hover).to_contain_text("out (1, 1024, 4, 4)")


@pytest.mark.long
def test_the_page_fits_a_phone(open_page: OpenPage) -> None:
    page = open_page("/network?network=small", viewport=PHONE)
    expect(page.locator(".chart.js-plotly-plot")).to_have_count(3)
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    assert_not_too_wide(page)
