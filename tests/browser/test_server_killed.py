"""kill -9 of the real server under a training that was started in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dashboard.ui.navigation import HOME, SECTIONS
from diffusion_core.runs.run import Run
from tests.browser.conftest import OpenPage
from tests.browser.server import start_server
from tests.faults.processes import (
    end_processes_of,
    wait_for_progress,
    wait_for_state,
    wait_until,
)

# A run of 16 × 16 pixels that goes on until it is stopped.
FORM = "/training?cars=48&size=16&batch=4&steps=1000000&every=1000000&name=survivor"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """What the servers of the test share; the training in it ends with the test."""
    yield tmp_path
    end_processes_of(tmp_path)


def assert_pages_are_found(page: Page) -> None:
    """Where the first visit is a link, Streamlit could take `pages` for its older kind of pages."""
    titles = page.get_by_test_id("stSidebarNavLink").all_inner_texts()
    entries = [entry for section in SECTIONS.values() for entry in section]
    assert [title.split("\n")[-1] for title in titles] == [e.title for e in (HOME, *entries)]


@pytest.mark.long
def test_a_training_outlives_its_killed_server_and_the_next_server_shows_and_stops_it(
    folder: Path, open_page: OpenPage
) -> None:
    run = Run(folder / "runs" / "survivor")
    cache = str(folder / "cache")
    with start_server(folder, CACHE_DIR=cache) as server:
        page = open_page(FORM, base=server.url)
        assert_pages_are_found(page)
        page.get_by_role("button", name="Start", exact=True).click()
        wait_until(lambda: run.state == "running", "the run is running")
        server.process.kill()
        server.process.wait()
    wait_for_progress(run)
    with start_server(folder, CACHE_DIR=cache) as server:
        page = open_page("/", base=server.url)
        expect(page.get_by_test_id("stMain")).to_contain_text("survivor is training, step")
        page = open_page("/training", base=server.url)
        page.get_by_role("button", name="Stop", exact=True).click()
        wait_for_state(run, "stopped")
        expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible()
    assert run.latest_checkpoint().step == run.status.step
