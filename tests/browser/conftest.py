"""One real dashboard and one Chromium for all tests in the browser; a new window for each page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.chromium import FLAGS, find_chromium, wait_until_shown
from tests.browser.server import PATIENCE_SECONDS, Server, start_server
from tests.faults.processes import end_processes_of

OpenPage = Callable[..., Page]

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
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = find_chromium()
    if path is None:
        pytest.fail("Chromium is missing; `make test` says how to get it.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def context(browser: Browser) -> Callable[..., BrowserContext]:
    """`context(color_scheme="dark")`: the one for these options, which keeps Streamlit's own files:
    to read them anew takes a second of each page."""
    known: dict[str, BrowserContext] = {}

    def get(**options: Any) -> BrowserContext:
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = browser.new_context(**options)
            known[key].set_default_timeout(PATIENCE_SECONDS * 1000)
        return known[key]

    return get


@pytest.fixture
def open_page(server: Server, context: Callable[..., BrowserContext]) -> Iterator[OpenPage]:
    """`open_page("/schedule?T=50")` gives that page in a new window, once it has been drawn.

    Further arguments are those of Playwright's `new_context` (`color_scheme`, `viewport`).
    A test fails where a page that it opened shows an exception or has an error in its scripts,
    then or at the test's end.
    """
    opened: list[tuple[Page, list[str]]] = []

    def open_(path: str, base: str = server.url, **context_options: Any) -> Page:
        page = context(**context_options).new_page()
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
        page.close()


def assert_no_exception(page: Page) -> None:
    shown = page.get_by_test_id("stException").all_inner_texts()
    assert not shown, f"{page.url} shows:\n" + "\n".join(shown)
