"""A training from its start by a click to its end, in a real browser with a real process."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from diffusion_core.runs.run import Run
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server

SMALLEST = "data=digits&digits=40&size=16&batch=2&every=1000"


def test_a_run_is_started_watched_paused_resumed_and_stopped_without_a_reload(
    open_page: OpenPage, server: Server
) -> None:
    page = open_page(f"/training?{SMALLEST}&steps=100000&name=watched")
    page.evaluate("window.notReloaded = true")
    main = page.get_by_test_id("stMain")
    main.get_by_role("button", name="Start", exact=True).click()
    expect(main.get_by_text("watched is training.")).to_be_visible()

    chart = main.get_by_role("figure", name="The loss of watched over the steps")
    expect(chart.locator(".legendtext", has_text="smoothed")).to_be_visible()
    # Hidden curves stay hidden while new points come in.
    chart.locator(".legendtoggle").first.click()
    hidden = chart.locator(".traces", has_text="loss").first
    expect(hidden).to_have_css("opacity", "0.5")
    steps = main.get_by_text("of 100,000")
    before = steps.inner_text()
    expect(steps).not_to_have_text(before)
    expect(hidden).to_have_css("opacity", "0.5")

    main.get_by_role("button", name="Pause", exact=True).click()
    expect(main.get_by_text("watched is paused.")).to_be_visible()
    main.get_by_role("button", name="Resume").click()
    expect(main.get_by_text("watched is training.")).to_be_visible()
    main.get_by_role("button", name="Stop", exact=True).click()
    expect(main.get_by_text("watched was stopped.")).to_be_visible()
    expect(main.get_by_role("button", name="Resume")).to_be_visible()
    assert page.evaluate("window.notReloaded")
    run = Run(server.runs_dir / "watched")
    assert run.state == "stopped"
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == run.status.step


@pytest.mark.long
def test_a_short_run_is_seen_to_its_end_and_found_by_another_session_on_a_phone(
    open_page: OpenPage, server: Server
) -> None:
    first = open_page(f"/training?{SMALLEST}&name=short&steps=3")
    first.get_by_role("button", name="Start", exact=True).click()
    expect(first.get_by_text("short has finished.")).to_be_visible()
    second = open_page("/training?run=short", viewport=PHONE)
    expect(second.get_by_text("short has finished.")).to_be_visible()
    expect(second.get_by_role("img", name="Samples of short at step 3, 8 images")).to_be_visible()
    assert_not_too_wide(second)
