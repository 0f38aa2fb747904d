"""One real dashboard and one Chromium for all tests in the browser; each page has a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.browser.chromium import FLAGS, find_chromium, wait_until_shown
from tests.browser.server import PATIENCE_SECONDS, Server, start_server
from tests.faults.processes import end_processes_of

OpenPage = Callable[..., Page]

DESKTOP: ViewportSize = {"width": 1280, "height": 720}
PHONE: ViewportSize = {"width": 390, "height": 844}

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard with an empty folder of runs, which the tests of one process share."""
    with start_server(tmp_path_factory.mktemp("dashboard")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_runs_left(server: Server) -> Iterator[None]:
    """Every test finds the shared dashboard without runs."""
    yield
    end_processes_of(server.runs_dir)
    for left in server.runs_dir.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    """The windows of one Chromium, which the tests of one process share."""
    path = find_chromium()
    if path is None:
        pytest.fail("Chromium is missing; `make test` says how to get it.")
    with sync_playwright() as playwright:
        # With a folder of its own Chromium keeps what it has compiled of Streamlit's scripts.
        folder = tmp_path_factory.mktemp("chromium")
        chromium = playwright.chromium.launch_persistent_context(
            folder, executable_path=path, args=FLAGS
        )
        chromium.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield Windows(chromium)
        chromium.close()


class Windows:
    """Browser windows, used again and again: a new one takes a second more of a core for a page."""

    def __init__(self, chromium: BrowserContext) -> None:
        self.chromium = chromium
        self.idle: list[Page] = []

    def take(self, viewport: ViewportSize, color_scheme: Literal["light", "dark"]) -> Page:
        page = self.idle.pop() if self.idle else self.chromium.new_page()
        page.bring_to_front()  # one that is covered shows a frame a second
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=color_scheme)
        return page

    def give_back(self, page: Page) -> None:
        page.evaluate("sessionStorage.clear()")
        page.goto("about:blank")
        self.idle.append(page)


@pytest.fixture
def open_page(server: Server, windows: Windows) -> Iterator[OpenPage]:
    """`open_page("/schedule?T=50")` gives that page in a window of its own, once it has been drawn.

    `viewport` and `color_scheme` are Playwright's. A test fails where a page that it opened shows
    an exception or has an error in its scripts, then or at the test's end.
    """
    opened: list[tuple[Page, list[str]]] = []

    def open_(
        path: str,
        base: str = server.url,
        viewport: ViewportSize = DESKTOP,
        color_scheme: Literal["light", "dark"] = "light",
    ) -> Page:
        page = windows.take(viewport, color_scheme)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        opened.append((page, errors))
        page.goto(base + path)
        wait_until_shown(page)
        assert_no_exception(page)
        return page

    yield open_
    for page, errors in opened:
        assert_no_exception(page)
        assert not errors, errors
        windows.give_back(page)


def assert_no_exception(page: Page) -> None:
    shown = page.get_by_test_id("stException").all_inner_texts()
    assert not shown, f"{page.url} shows:\n" + "\n".join(shown)


def assert_not_too_wide(page: Page) -> None:
    """Nothing on the page is wider than the window."""
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => main.scrollWidth - main.clientWidth") == 0
