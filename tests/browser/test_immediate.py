"""The image that follows the hand on the Sampling page, in a real browser."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from diffusion_core.runs.run import Run
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server
from tests.browser.test_accessibility import serious
from tests.tiny_runs import TINY, write_run

DISTILLED = TINY.replace(objective="consistency", init_from="teacher", min_snr_gamma=0.0)


@pytest.fixture(autouse=True)
def run(server: Server) -> Run:
    """A distilled run with random weights."""
    return Run(write_run(server.runs_dir, "quick", 20, config=DISTILLED))


def expect_shown(page: Page, **settings: object) -> None:
    """An image of these settings comes to be on the screen."""
    wanted = {"seed": 0, "label": "van", "guidance": 1} | settings
    found = re.compile(re.escape(json.dumps(wanted, separators=(",", ":"), ensure_ascii=False)))
    expect(page.locator(".immediate")).to_have_attribute("data-shown", found)


@pytest.mark.long
def test_the_image_follows_the_sliders_and_the_page_follows_when_they_rest(
    open_page: OpenPage,
) -> None:
    page = open_page("/sampling?steps=1")
    expect_shown(page)
    image = page.locator(".immediate img")
    first = image.get_attribute("src")
    slider = page.locator(".immediate")
    # Many moves, of which the last counts, whatever is answered on the way.
    for seed in (3, 9, 12, 40):
        slider.get_by_role("slider", name="Seed").fill(str(seed))
    expect_shown(page, seed=40)
    assert image.get_attribute("src") != first
    slider.get_by_role("slider", name="Class").press("ArrowRight")
    expect_shown(page, seed=40, label="bus")
    slider.get_by_role("slider", name="Guidance scale").fill("2.5")
    expect_shown(page, seed=40, label="bus", guidance=2.5)
    page.wait_for_url(re.compile(r"[?&]seed=40(&|$)"))
    page.wait_for_url(re.compile(r"[?&]guidance=2\.5(&|$)"))
    expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("40")
    # And the other way round.
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_role("spinbutton", name="Seed").press("Enter")
    expect_shown(page, seed=7, label="bus", guidance=2.5)
    with page.expect_download() as found:
        page.get_by_role("link", name="Download image").click()
    assert found.value.suggested_filename.endswith("image-1.png")


@pytest.mark.long
def test_it_fits_a_phone_and_axe_finds_nothing_serious(open_page: OpenPage) -> None:
    page = open_page("/sampling?steps=1", viewport=PHONE)
    expect_shown(page)
    assert_not_too_wide(page)
    assert not serious(page)
