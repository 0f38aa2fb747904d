"""The browser's own notifications of a run that ends."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.server import Server
from tests.faults.processes import wait_until
from tests.tiny_runs import set_running, write_run

# Headless Chromium shows no notifications: what the page asks for is kept instead.
RECORD = """
answer => {
    window.asked = [];
    window.Notification = class extends EventTarget {
        static requestPermission() { return Promise.resolve(answer); }
        constructor(title, options) { super(); window.asked.push([title, options.tag]); }
        close() {}
    };
}
"""

# There pages may ask, but only those that are installed show any.
ANDROID = """
() => {
    window.Notification = class {
        static requestPermission() { return Promise.resolve("granted"); }
        constructor() { throw new TypeError("Illegal constructor"); }
    };
}
"""


def asked(page: Page) -> list[list[str]]:
    return page.evaluate("window.asked")


@pytest.mark.long
def test_a_visitor_is_notified_once_when_a_run_ends(open_page: OpenPage, server: Server) -> None:
    run = write_run(server.runs_dir, "watched", state="running")
    set_running(run)
    other = write_run(server.runs_dir, "other", state="running", created=1.0)
    set_running(other)
    page = open_page("/training?run=watched")
    page.evaluate(RECORD, "granted")
    button = page.get_by_role("button", name="Notify me")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    words = "You will be notified when watched ends, while this page is open in a tab."
    assert asked(page) == [[words, "diffusion-lab-notify"]]
    # Another run may be shown meanwhile.
    page.goto(f"{server.url}/training?run=other")
    page.evaluate(RECORD, "granted")
    expect(page.get_by_role("button", name="Notify me")).to_have_attribute("aria-pressed", "false")
    (run / "status.json").write_text('{"state": "finished", "step": 40, "total": 40}')
    wait_until(lambda: asked(page), "the notification has come")
    (other / "status.json").write_text('{"state": "failed", "step": 7, "total": 40}')
    expect(page.get_by_text("other has failed.")).to_be_visible()
    expect(page.get_by_role("button", name="Notify me")).to_be_hidden()
    assert asked(page) == [["watched has finished, step 40 of 40.", "watched"]]


@pytest.mark.long
def test_a_browser_that_blocks_notifications_is_named(open_page: OpenPage, server: Server) -> None:
    set_running(write_run(server.runs_dir, "watched", state="running"))
    page = open_page("/training?run=watched")
    button = page.get_by_role("button", name="Notify me")
    page.evaluate(RECORD, "denied")
    button.click()
    expect(page.get_by_text("The browser blocks notifications.")).to_be_visible()
    expect(button).to_have_attribute("aria-pressed", "false")
    page.evaluate(ANDROID)
    button.click()
    expect(page.get_by_text("This browser shows no notifications of web pages.")).to_be_visible()
    expect(button).to_have_attribute("aria-pressed", "false")
