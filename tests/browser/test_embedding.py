"""The Embedding page in a real browser: the row and the cursors follow t there, a phone."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from diffusion_core.process.sinusoids import sinusoids
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import start_server
from tests.tiny_runs import TINY, write_run

# What t = 4 does to the page, before the server is told: after the next frame of the screen.
MOVED = """
input => new Promise(done => {
  input.value = 4;
  input.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => requestAnimationFrame(() => done(location.search)));
})
"""


def row_in_the_browser(page: Page) -> np.ndarray:
    with page.expect_download() as download:
        page.locator(".sinusoids").get_by_role("button", name="CSV").click()
    with download.value.path().open() as file:
        return np.array([float(line["value"]) for line in csv.DictReader(file)])


@pytest.mark.long
@pytest.mark.parametrize(("size", "base"), [(32, 10_000), (4, 2), (1024, 1_000_000)])
def test_the_browser_computes_the_rows_of_numpy(size: int, base: int, open_page: OpenPage) -> None:
    page = open_page(f"/embedding?size={size}&base={base}&T=4000&t=3999")
    slider = page.get_by_role("slider")
    for t, key in ((3999, "ArrowRight"), (3998, "ArrowLeft"), (0, "Home"), (1, "ArrowRight")):
        slider.press(key)
        figure = page.get_by_role("img", name=re.compile(f"^The {size} numbers of t = {t:,}:"))
        expect(figure).to_be_visible()
        [expected] = sinusoids([t], size, base)
        assert row_in_the_browser(page) == pytest.approx(expected, abs=1e-6)
    half = size // 2
    table = page.locator(".sinusoids tbody tr").evaluate_all(
        "lines => lines.map(line => [...line.cells].map(cell => cell.textContent))"
    )
    shown = np.array([[float(cell.replace("−", "-")) for cell in line] for line in table])
    assert shown.shape == (half, 4)
    assert np.hstack([shown[:, 2], shown[:, 3]]) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.long
def test_row_table_and_cursors_move_before_the_server_is_told(open_page: OpenPage) -> None:
    page = open_page("/embedding?t=30")
    lines = page.locator(".chart .cursor line")
    expect(lines).to_have_count(3)  # across the rows, across and down the similarities
    heatmaps = page.locator(".chart .heatmaplayer image").element_handles()
    before = lines.evaluate_all("all => all.map(line => line.outerHTML)")
    address = page.get_by_role("slider").evaluate(MOVED)
    assert "t=4" not in address
    after = lines.evaluate_all("all => all.map(line => line.outerHTML)")
    assert not set(before) & set(after)
    expect(page.locator(".sinusoids tbody tr").first).to_contain_text("−0.7568")  # sin(4)
    page.wait_for_url(re.compile(r"t=4\b"))
    expect(page.locator(".sinusoids tbody tr").first).to_contain_text("−0.7568")
    assert len(heatmaps) == 2
    assert all(each.evaluate("image => image.isConnected") for each in heatmaps)  # not drawn again


@pytest.mark.long
def test_a_visitor_changes_size_and_base_and_shares_the_view(open_page: OpenPage) -> None:
    page = open_page("/embedding?t=31")
    for label, value in (("Embedding size", "64"), ("Base", "500")):
        field = page.get_by_label(label, exact=True)
        field.fill(value)
        field.press("Enter")
    page.wait_for_url(re.compile("base=500"))
    page.get_by_role("radio", name="Size and base").click()
    expect(page.get_by_text("Similarity over distance: bases, at size 64")).to_be_visible()
    page.wait_for_url(re.compile("view=Size"))

    shared = open_page("/embedding" + page.url.partition("/embedding")[2])
    expect(shared.get_by_label("Base", exact=True)).to_have_value("500")
    expect(shared.locator(".chart .main-svg").first).to_be_visible()


@pytest.mark.long
@pytest.mark.parametrize("view", ["Time MLP", "Blocks", "Over training"])
def test_a_trained_run_is_shown_on_a_phone_too(
    view: str, open_page: OpenPage, tmp_path: Path
) -> None:
    write_run(tmp_path / "runs", "mine", 20, 40, config=TINY)
    with start_server(tmp_path) as server:
        page = open_page(f"/embedding?view={view}&t=5", server.url, viewport=PHONE)
        charts = {"Time MLP": 2, "Blocks": 3, "Over training": 2}[view]
        expect(page.locator(".chart:has(.main-svg)")).to_have_count(charts)
        assert_not_too_wide(page)
        line = page.locator(".chart .cursor line").first
        before = line.evaluate("line => line.outerHTML")
        page.get_by_role("slider").last.press("ArrowRight")
        page.wait_for_url(re.compile(r"t=6\b"))
        assert line.evaluate("line => line.outerHTML") != before
