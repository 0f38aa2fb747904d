"""The view "Compare" in a browser: what a setting means, colours, and room on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server
from tests.browser.test_accessibility import serious
from tests.pages.review.test_compare import make_run


@pytest.mark.long
def test_a_comparison_says_what_settings_mean_and_fits_a_phone(
    open_page: OpenPage, server: Server
) -> None:
    make_run(server.runs_dir, "one", 31.2)
    make_run(server.runs_dir, "two", 24.6, learning_rate=3e-4, batch_size=8)
    make_run(server.runs_dir, "three", 26.0, learning_rate=3e-4)
    page = open_page("/review?view=Compare&runs=one&runs=two&runs=three", color_scheme="dark")
    table = page.get_by_role("region", name="The chosen runs")
    about = page.locator(".about")
    table.get_by_role("button", name="learning_rate").hover()
    expect(about).to_have_text("How far each step moves the weights.")
    page.mouse.move(0, 0)
    expect(about).to_be_hidden()
    table.get_by_role("button", name="batch_size").focus()
    expect(about).to_have_text("Images per step, over all processes.")
    page.keyboard.press("Escape")
    expect(about).to_be_hidden()

    # The name of a run has the colour of its curve.
    heads = table.get_by_role("columnheader")
    colours = [
        heads.nth(k).evaluate("head => getComputedStyle(head).borderTopColor") for k in (1, 2, 3)
    ]
    lines = page.locator(".legend path.js-line")
    expect(lines).to_have_count(3)
    assert colours == lines.evaluate_all("all => all.map(line => getComputedStyle(line).stroke)")
    assert len(set(colours)) == 3

    assert not serious(page)
    page.set_viewport_size(PHONE)
    expect(page.locator(".parcoords")).to_be_attached()
    wait_until_shown(page)
    assert_not_too_wide(page)
    assert not serious(page)
