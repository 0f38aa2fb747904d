"""The Data page in a real browser: an image in full size, and a zip file that becomes a set."""

from __future__ import annotations

import re
from urllib.parse import quote_plus

import pytest
from playwright.sync_api import expect

from dashboard.explain.data import VIEWS
from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.pages.test_data import zipped


@pytest.mark.long
def test_an_image_is_enlarged_in_the_browser_and_shown_in_full_size(open_page: OpenPage) -> None:
    page = open_page("/data?data=digits")
    page.get_by_role("button", name="Enlarge image 3,").click()
    expect(page.locator(".gallery output")).to_have_text("image 3, 3, 32×32 px (4 of 40)")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Full size", exact=True).click()
    dialog = page.get_by_role("dialog", name="Full size")
    expect(dialog).to_contain_text("Image 4, 4, 32×32 px.")
    size = dialog.locator("img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert size == [32, 32]


@pytest.mark.long
def test_a_zip_file_is_uploaded_and_shown(open_page: OpenPage) -> None:
    page = open_page("/data")
    page.get_by_text("Your own images").click()
    page.locator("input[type=file]").set_input_files(
        {"name": "pets.zip", "mimeType": "application/zip", "buffer": zipped()}
    )
    name = page.get_by_label("Name")
    name.fill("pets")
    name.press("Enter")
    wait_until_shown(page)  # a press in the milliseconds in which the page still runs got lost once
    page.get_by_role("button", name="Make a data set").click()
    expect(page.get_by_role("alert").filter(has_text="3 images in 2 classes").first).to_be_visible()
    expect(page).to_have_url(re.compile("data=uploaded%3Apets"))
    expect(page.get_by_role("button", name="Enlarge image 0, a, 9×9 px")).to_be_visible()


@pytest.mark.long
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_a_phone(open_page: OpenPage, view: str) -> None:
    page = open_page(f"/data?data=digits&view={quote_plus(view)}", viewport=PHONE)
    if view in ("Statistics", "Near duplicates"):
        button = page.get_by_role("button", name="Examine 1,797 images")
        done = page.get_by_text("All 1,797 images, read at 64×64 px")
        expect(button.or_(done)).to_be_visible()
        if button.is_visible():  # not where another test has done so
            button.click()
        expect(done).to_be_visible()
    assert_not_too_wide(page)
