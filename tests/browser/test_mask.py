"""Painting a mask in a real browser, with the mouse and with the keys, and repainting by it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.server import Server
from tests.tiny_runs import TINY, tiny, write_run


@pytest.mark.long
def test_a_mask_is_painted_by_mouse_and_keys_and_what_it_covers_is_repainted(
    open_page: OpenPage, server: Server
) -> None:
    write_run(server.runs_dir, "tiny", 40, config=tiny(network_args=TINY.network_args))
    page = open_page("/sampling?mode=From+a+picture&edit=Repaint&steps=3&resample=1&variants=1")
    canvas, repaint = page.locator(".mask canvas"), page.get_by_role("button", name="Repaint").last
    undo = page.get_by_role("button", name="Undo", exact=True)
    said = page.locator(".mask .said")
    expect(said).to_have_text("Paint over the area to repaint.")
    expect(undo).to_be_disabled()

    canvas.scroll_into_view_if_needed()
    frame = canvas.bounding_box()
    assert frame is not None
    middle = frame["y"] + frame["height"] / 2
    page.mouse.move(frame["x"] + 0.2 * frame["width"], middle)
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.8 * frame["width"], middle, steps=3)
    page.mouse.up()
    painted = re.compile(r"^\d+ % is painted")
    expect(repaint).to_be_enabled()  # the stroke has ended
    expect(said).to_have_text(painted)
    by_mouse = said.inner_text()
    page.get_by_role("button", name="Invert", exact=True).click()
    expect(said).not_to_have_text(by_mouse)
    undo.click()
    expect(said).to_have_text(by_mouse)
    undo.click()
    expect(said).to_have_text("Paint over the area to repaint.")

    canvas.focus()
    canvas.press("ArrowLeft")
    canvas.press("Space")
    expect(said).to_have_text(painted)
    expect(repaint).to_be_enabled()
    repaint.click()
    expect(page.get_by_text("All as PNG")).to_be_visible()
    expect(said).to_have_text(painted)  # it stays for another try
