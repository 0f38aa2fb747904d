"""The Network page in a real browser: choose, follow the shapes, share the view, use a phone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from playwright.sync_api import expect

from dashboard.explain.network import TABS
from diffusion_core.runs.config import RunConfig
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server
from tests.forks.client import ROOT


@pytest.mark.long
def test_a_visitor_chooses_a_network_and_a_size_and_shares_the_view(open_page: OpenPage) -> None:
    page = open_page("/network")
    expect(page.get_by_test_id("stMetricValue").first).to_have_text("62,438,883")
    for size in (72, 80):
        page.get_by_role("slider").press("ArrowRight")
        page.wait_for_url(re.compile(f"size={size}"))
        expect(page.get_by_text(f"Images of {size}×{size}")).to_be_visible()
    page.get_by_role("combobox", name="Network").click()
    page.get_by_role("option", name="small").click()
    page.wait_for_url(re.compile("network=small"))
    expect(page.get_by_test_id("stMetricValue").first).to_have_text("3,956,460")

    shared = open_page("/network" + page.url.partition("/network")[2])
    expect(shared.get_by_text("Images of 80×80")).to_be_visible()
    expect(shared.get_by_test_id("stMetricValue").first).to_have_text("3,956,460")


def test_the_page_starts_from_the_last_run_and_its_address_has_it(
    open_page: OpenPage, server: Server
) -> None:
    for name in ("one", "two"):
        run = server.runs_dir / name
        run.mkdir()
        (run / "config.json").write_text(RunConfig(image_size=32).to_json())
        (run / "status.json").write_text('{"state": "finished", "created": 1.0}')
    page = open_page("/training?run=one")
    expect(page.get_by_text("has finished.")).to_be_visible()
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Network", exact=True).click()
    expect(page.get_by_text("Images of 32×32")).to_be_visible()
    page.wait_for_url(re.compile(r"/network\?network=run(\+|%20)one$"))


@pytest.mark.long
def test_pointing_at_a_block_of_the_u_shows_its_shapes(open_page: OpenPage) -> None:
    page = open_page("/network", viewport={"width": 1400, "height": 1600})
    u = page.locator(".chart.js-plotly-plot").first
    deepest = u.locator(".bars .point").filter(has_text="1024").first
    deepest.locator("path").hover(force=True)
    hover = u.locator(".hoverlayer")
    expect(hover).to_contain_text("downs.3, down block")
    expect(hover).to_contain_text("out (1, 1024, 4, 4)")


@pytest.fixture
def demo(server: Server) -> Path:
    """The shipped run."""
    demo = ROOT / "checkpoints" / "demo-cars"
    return Path(shutil.copytree(demo, server.runs_dir / demo.name))


@pytest.mark.long
def test_a_click_on_the_u_chooses_the_block_that_the_tab_shows(
    open_page: OpenPage, demo: Path
) -> None:
    page = open_page("/network?network=run+demo-cars&tab=Inside+a+block")
    block = page.get_by_role("combobox", name="Block")
    expect(block).to_have_value("downs.0")
    rectangles = page.locator(".chart.js-plotly-plot").first.locator(".bars .point")
    rectangles.filter(has_text="96").first.locator("path").click(force=True)
    expect(block).to_have_value("downs.4")
    page.wait_for_url(re.compile("block=downs.4"))
    expect(page.get_by_text("(1, 64, 8, 8) + (1, 128) → (1, 96, 8, 8)")).to_be_visible()
    expect(page.get_by_alt_text("64 feature maps of downs.4")).to_be_visible()


@pytest.mark.long
def test_a_pixel_is_chosen_by_a_click_by_keys_and_by_its_numbers(
    open_page: OpenPage, demo: Path
) -> None:
    page = open_page("/network?network=run+demo-cars&tab=Receptive+field")
    said = page.locator(".pixel .said")
    expect(said).to_have_text("Pixel in row 32, column 32.")
    image = page.get_by_role("application")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.2578, box["y"] + box["height"] * 0.7578)
    expect(said).to_have_text("Pixel in row 48, column 16.")
    page.wait_for_url(re.compile("row=48"))
    image.focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    expect(said).to_have_text("Pixel in row 40, column 18.")
    page.wait_for_url(re.compile("row=40"))
    expect(page.get_by_role("spinbutton", name="Column")).to_have_value("18")
    page.get_by_role("spinbutton", name="Row").fill("5")
    page.keyboard.press("Enter")
    expect(said).to_have_text("Pixel in row 5, column 18.")
    expect(page.get_by_role("img", name="Gradient, at most")).to_be_visible()


@pytest.mark.long
def test_the_page_fits_a_phone(open_page: OpenPage) -> None:
    page = open_page("/network?network=small", viewport=PHONE)
    expect(page.locator(".chart.js-plotly-plot")).to_have_count(3)
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    assert_not_too_wide(page)


@pytest.mark.long
@pytest.mark.parametrize("tab", TABS[1:])
def test_every_tab_fits_a_phone(tab: str, open_page: OpenPage, demo: Path) -> None:
    address = f"/network?network=run+demo-cars&block=middle.0&tab={quote_plus(tab)}"
    page = open_page(address, viewport=PHONE)
    expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
    assert_not_too_wide(page)
