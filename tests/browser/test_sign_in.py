"""Signing in and out in Chromium, with a provider on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from diffusion_core.runs.history import read_history
from tests.browser.conftest import OpenPage
from tests.browser.server import Server, start_server
from tests.sign_in import Provider, secrets_toml, start_provider
from tests.tiny_runs import set_running, write_run


@pytest.fixture
def provider() -> Iterator[Provider]:
    with start_provider() as running:
        yield running


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "secrets.toml").write_text(secrets_toml(["@lab.org"], provider.url))
    with start_server(folder, script="tests/faults/app_with_secrets.py") as running:
        yield running


def sign_in(page: Page, person: str) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name=person).click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


@pytest.mark.long
def test_an_operator_signs_in_pauses_a_run_and_signs_out(
    lab: Server, provider: Provider, open_page: OpenPage
) -> None:
    path = write_run(lab.runs_dir, "busy")
    set_running(path)
    page = open_page("/", base=lab.url)
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_contain_text("Role: viewer.")

    sign_in(page, "Eve")
    expect(sidebar).to_contain_text("Signed in as eve@lab.org.example.")
    expect(sidebar).to_contain_text("Your address is not among DIFFUSION_LAB_OPERATORS.")
    sign_out(page)

    sign_in(page, "Ann")
    expect(sidebar).to_contain_text("Signed in as Ann@lab.org. Role: operator.")
    page.get_by_role("link", name="Training").first.click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("tab", name="History").click()
    expect(page.get_by_text("Pause requested by Ann@lab.org")).to_be_visible()
    [entry] = read_history(path).entries
    assert (entry.event, entry.by) == ("pause", "Ann@lab.org")

    sign_out(page)
    expect(sidebar).to_contain_text("Role: viewer.")
    assert provider.ended == 2
    page.goto(f"{lab.url}/training?more=History")
    expect(page.get_by_text("Pause requested,")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
