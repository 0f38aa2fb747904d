"""The Noising page in a real browser: t and the noise in the address, and what people upload."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests import image_files
from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide


def upload(page: Page, name: str, content: bytes) -> None:
    field = page.get_by_test_id("stFileUploaderDropzoneInput")
    field.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def expect_formula(page: Page, t: int, signal: str, spread: str) -> None:
    """KaTeX keeps what it was given beside what it draws."""
    given = page.locator("[data-testid=stMain] .katex-display annotation")
    expect(given).to_have_text(rf"x_{{{t}}} = {signal}\,x_0 + {spread}\,\epsilon")


def test_t_and_the_noise_are_in_the_address_and_a_colleague_sees_the_same(
    open_page: OpenPage,
) -> None:
    page = open_page("/noising?t=149")
    slider = page.get_by_role("slider", name="Timestep t")
    slider.press("ArrowRight")
    expect_formula(page, 150, "0.6800", "0.7332")
    slider.press("ArrowLeft")
    expect_formula(page, 149, "0.6834", "0.7300")
    page.get_by_role("button", name="New noise").click()
    page.wait_for_url(re.compile(r"seed=1"))
    images = page.get_by_test_id("stImage").locator("img")
    expect(images).to_have_count(13)
    expect(page.get_by_role("spinbutton", name=re.compile("Seed"))).to_have_value("1")
    wait_until_shown(page)
    shown = images.evaluate_all("all => all.map(e => new URL(e.src).pathname)")

    address = page.url.removeprefix(re.match(r"https?://[^/]+", page.url).group())
    colleague = open_page(address)
    theirs = colleague.get_by_test_id("stImage").locator("img")
    expect(theirs).to_have_count(13)
    assert theirs.evaluate_all("all => all.map(e => new URL(e.src).pathname)") == shown


@pytest.mark.long
def test_every_kind_of_upload_works_or_gets_one_sentence(open_page: OpenPage) -> None:
    page = open_page("/noising?source=upload")
    expect(page.get_by_text("Choose an image file")).to_be_visible()
    errors = page.get_by_test_id("stAlertContentError")
    images = page.get_by_test_id("stImage").locator("img")

    upload(page, "letter.txt", image_files.TEXT)
    expect(errors).to_have_text(re.compile("^This is not a readable image"))
    upload(page, "huge.png", image_files.huge_png(10_000, 20_000))
    expect(errors).to_have_text(re.compile("far more than 50 megapixels"))
    expect(images).to_have_count(0)
    for name, content, size in (
        ("printed.jpg", image_files.halves("JPEG", "CMYK"), "40×20"),
        ("deep.png", image_files.png_16_bit(), "64×8"),
        ("moving.gif", image_files.animated_gif(), "24×24"),
        ("dot.png", image_files.one_pixel(), "1×1"),
    ):
        upload(page, name, content)
        expect(page.get_by_text(f"resized from {size}")).to_be_visible()
        expect(images).to_have_count(13)
        expect(errors).to_have_count(0)


@pytest.mark.long
def test_the_noising_page_fits_a_phone(open_page: OpenPage) -> None:
    page = open_page("/noising", viewport=PHONE)
    expect(page.get_by_test_id("stImage").locator("img")).to_have_count(13)
    assert_not_too_wide(page)
