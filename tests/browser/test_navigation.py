"""The shell in a real browser: every page is reached, the device is named, the look follows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from dashboard.ui.navigation import HOME, SECTIONS
from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import PHONE, OpenPage, assert_no_exception, assert_not_too_wide
from tests.browser.server import Server

ENTRIES = [entry for section in SECTIONS.values() for entry in section]


def test_the_menu_leads_to_every_page_in_a_working_state_and_back(open_page: OpenPage) -> None:
    """That each opens at its own address is seen in the page's own file beside this one."""
    page = open_page("/")
    menu = page.get_by_test_id("stSidebarNav")
    for entry in ENTRIES:
        menu.get_by_role("link", name=entry.title, exact=True).click()
        page.wait_for_url(re.compile(rf"/{entry.url_path}(\?|$)"))
        wait_until_shown(page)
        expect(page.get_by_test_id("stSidebar")).to_contain_text("Device: CPU, 1 thread")
        expect(page.get_by_test_id("stMain").locator("h1")).to_have_count(1)
        expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)
        assert_no_exception(page)
    menu.get_by_role("link", name=HOME.title, exact=True).click()
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()


@pytest.mark.parametrize("address", ["/unet?size=72", "/network/deep/page?size=72"])
def test_an_older_or_a_deeper_address_leads_to_its_page(address: str, open_page: OpenPage) -> None:
    page = open_page(address)
    page.wait_for_url(re.compile(r"/network\?size=72$"))
    expect(page.get_by_text("Images of 72×72")).to_be_visible()


def test_the_links_of_home_lead_to_their_pages(open_page: OpenPage) -> None:
    page = open_page("/")
    links = page.get_by_test_id("stMain").get_by_test_id("stPageLink")
    expect(links).to_have_count(len(ENTRIES))
    links.filter(has_text=ENTRIES[0].title).get_by_role("link").click()
    page.wait_for_url(re.compile(rf"/{ENTRIES[0].url_path}$"))


def test_the_look_follows_the_visitors_system(open_page: OpenPage) -> None:
    for scheme, background in (("light", "rgb(251, 251, 249)"), ("dark", "rgb(20, 25, 26)")):
        page = open_page("/", color_scheme=scheme)
        expect(page.get_by_test_id("stApp")).to_have_css("background-color", background)


def test_home_fits_a_phone_and_asks_no_other_host(open_page: OpenPage, server: Server) -> None:
    page = open_page("/", viewport=PHONE)
    assert_not_too_wide(page)
    asked = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert asked
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []
