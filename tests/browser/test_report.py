"""A report in a real browser: it opens offline, says no error, asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page

from diffusion_core.review.report.write import write_report
from diffusion_core.runs.remarks import Kind, add
from diffusion_core.runs.run import load_run
from tests.browser.conftest import Windows
from tests.browser.test_accessibility import serious
from tests.core.review.test_report import add_curves, add_series, add_strips
from tests.tiny_runs import write_run

pytestmark = pytest.mark.long


@pytest.fixture
def offline(windows: Windows) -> Iterator[Page]:
    """A window without a network."""
    page = windows.chromium.new_page()
    windows.chromium.set_offline(True)
    yield page
    windows.chromium.set_offline(False)
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (390, "light")])
def test_a_report_opens_offline_with_live_figures(
    offline: Page, tmp_path: Path, width: int, scheme: Literal["dark", "light"]
) -> None:
    runs = []
    for name in ("one", "two"):
        path = write_run(tmp_path, name, 20)
        add_strips(path, 3)
        add_curves(path)
        add_series(path, "wheels", 3)
        add(path, Kind.NOTE, "A **note** with [a link](https://lab.org/).", by="ann")
        runs.append(load_run(path))
    file = tmp_path / "report.html"
    write_report(runs, file)
    page = offline
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    said, asked = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.locator("#curves-figure .legendtext").nth(1).wait_for()
    page.locator("#curve").select_option("learning_rate")
    page.locator("#curves-figure").get_by_text("learning rate").wait_for()
    page.locator("#axis").select_option("seconds")
    page.locator("#curves-figure").get_by_text("training time, seconds").wait_for()
    strips = page.locator(".strips").first.locator("figure")
    assert [each.is_visible() for each in strips.all()] == [False, False, True]
    page.locator("#step").press("Home")
    assert [each.is_visible() for each in strips.all()] == [True, False, False]
    assert page.evaluate("[...document.images].every((each) => each.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not said
    assert not serious(page)
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    # What gets past all escaping still does not run.
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.evil = 1\">')"
    )
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.evil = 1'}))"
    )
    page.wait_for_timeout(200)
    refused = [text for text in said if "Content Security Policy" in text]
    assert len(refused) >= 2 and said == refused
    assert page.evaluate("window.evil") is None
