"""Two images compared in a real browser: divider, turns, difference map, keys, full size."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from diffusion_core.media.images import png, strip
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server
from tests.tiny_runs import TINY, write_run

pytestmark = pytest.mark.long

SIDE = 16
# The colours of an image's pixels in a canvas that shows each of them enlarged.
PIXELS = """
(canvas, side) => {
  const size = canvas.width / side;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = [];
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const at = 4 * (Math.floor((y + 0.5) * size) * canvas.width + Math.floor((x + 0.5) * size));
      found.push([...data.slice(at, at + 3)]);
    }
  }
  return found;
}
"""


@pytest.fixture
def images(server: Server) -> dict[str, np.ndarray]:
    """Two runs with a random image at each of two steps; by "row.column" of the grid."""
    found = {}
    for row, name in enumerate(("first", "second"), 1):
        config = TINY.replace(learning_rate=row * 1e-4, sample_count=1)
        run = write_run(server.runs_dir, name, config=config)
        (run / "samples").mkdir()
        for column, step in enumerate((20, 40), 1):
            pixels = np.random.default_rng([row, step]).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            (run / "samples" / f"step-{step:08d}.png").write_bytes(png(strip([pixels])))
            found[f"{row}.{column}"] = pixels
    return found


LOOK = "/review?view=Look&runs=first&runs=second"


def viewer(page: Page) -> Locator:
    return page.get_by_role("region", name="Images A and B")


def pixels(canvas: Locator) -> np.ndarray:
    return np.array(canvas.evaluate(PIXELS, SIDE)).reshape(SIDE, SIDE, 3)


def cell(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def test_the_divider_is_moved_by_mouse_and_keys(
    open_page: OpenPage, images: dict[str, np.ndarray]
) -> None:
    page = open_page(LOOK)
    slider = page.get_by_role("slider", name="Divider between A and B")
    expect(slider).to_have_attribute("aria-valuenow", "50")
    screen = page.locator(".swipe .screen")
    screen.scroll_into_view_if_needed()
    box = screen.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 30)
    page.mouse.up()
    expect(slider).to_have_attribute("aria-valuenow", "25")
    expect(slider).to_be_focused()
    for key, value in (("ArrowRight", "27"), ("Shift+ArrowLeft", "17"), ("End", "100")):
        page.keyboard.press(key)
        expect(slider).to_have_attribute("aria-valuenow", value)
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "A on 100 % of the width")
    second = viewer(page).get_by_role("img", name="B: first, step 40")
    assert second.evaluate("canvas => canvas.style.clipPath") == "inset(0px 0px 0px 100%)"
    assert (pixels(viewer(page).get_by_role("img", name="A: ")) == images["1.1"]).all()


def test_images_are_chosen_by_clicks_and_keys_and_the_link_has_them(
    open_page: OpenPage, images: dict[str, np.ndarray]
) -> None:
    page = open_page(LOOK)
    expect(cell(page, "first, step 20, image A")).to_have_attribute("aria-pressed", "true")
    cell(page, "second, step 40").click()
    expect(cell(page, "first, step 40, image A")).to_be_visible()
    expect(cell(page, "second, step 40, image B")).to_be_focused()
    page.wait_for_url("**look_a=1.2&look_b=2.2*")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("a")
    expect(cell(page, "first, step 20, image A")).to_be_focused()
    page.keyboard.press("n")  # after the last comes the first
    expect(cell(page, "first, step 20, image A, image B")).to_be_visible()
    page.keyboard.press("p")
    page.keyboard.press("Shift+N")
    page.keyboard.press("x")
    expect(cell(page, "first, step 40, image B")).to_be_visible()
    expect(cell(page, "second, step 40, image A")).to_be_visible()
    page.keyboard.press("3")
    expect(page.get_by_role("button", name="Side by side")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.wait_for_url("**look_view=Side+by+side*")
    page.reload()
    expect(cell(page, "second, step 40, image A")).to_be_visible()
    shown = viewer(page).get_by_role("img")
    assert (pixels(shown.nth(0)) == images["2.2"]).all()
    assert (pixels(shown.nth(1)) == images["1.2"]).all()


def test_the_difference_map_is_that_of_numpy(
    open_page: OpenPage, images: dict[str, np.ndarray]
) -> None:
    page = open_page(f"{LOOK}&look_view=Difference&look_a=1.1&look_b=2.2")
    apart = images["1.1"].astype(float) - images["2.2"]
    drawn = viewer(page).get_by_role("img", name="Difference between first, step 20 and second")
    expect(drawn).to_be_visible()
    output = viewer(page).locator("output")
    expect(output).to_contain_text(f"Mean absolute difference {np.abs(apart).mean():.2f} of 255")
    assert (pixels(drawn) == np.clip(4 * np.abs(apart), 0, 255)).all()
    viewer(page).get_by_label("Times").select_option("1")
    viewer(page).get_by_label("Signed").check()
    expect(output).to_contain_text("shown × 1. Grey: equal.")
    page.wait_for_url("**look_signed=true*")
    assert (pixels(drawn) == np.clip(np.rint(128 + apart / 2), 0, 255)).all()


def test_a_and_b_alternate_but_not_by_themselves_where_less_motion_is_wanted(
    open_page: OpenPage, images: dict[str, np.ndarray]
) -> None:
    page = open_page(LOOK)
    output = viewer(page).locator("output")
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="Flicker").click()
    expect(viewer(page).get_by_role("button", name="Play")).to_be_visible()
    stage = viewer(page).get_by_role("group", name="A and B, large")
    stage.focus()
    expect(output).to_have_text("A: first, step 20")
    page.keyboard.press("Space")
    expect(output).to_have_text("B: first, step 40")
    assert (pixels(viewer(page).get_by_role("img", name="B: ")) == images["1.2"]).all()
    expect(viewer(page).get_by_role("img", name="A: ")).to_have_count(0)
    viewer(page).get_by_role("button", name="Play").click()
    expect(output).to_have_text("A: first, step 20")
    expect(output).to_have_text("B: first, step 40")
    viewer(page).get_by_role("button", name="Pause").click()
    page.emulate_media(reduced_motion="no-preference")
    page.get_by_role("button", name="Swipe").click()
    page.get_by_role("button", name="Flicker").click()
    expect(viewer(page).get_by_role("button", name="Pause")).to_be_visible()
    expect(output).to_have_text("B: first, step 40")
    fastest = viewer(page).get_by_label("Each for").locator("option").last
    assert int(fastest.get_attribute("value") or 0) >= 400  # two images are a flash


def test_full_size_shows_whole_pixels_and_the_keys_go_on(
    open_page: OpenPage, images: dict[str, np.ndarray]
) -> None:
    page = open_page(LOOK, viewport=PHONE)
    assert_not_too_wide(page)
    page.get_by_role("button", name="Full size").click()
    dialog = page.get_by_role("dialog", name="Images A and B, full size")
    expect(dialog).to_be_visible()
    page.keyboard.press("n")
    drawn = dialog.get_by_role("img", name="B: second, step 20")
    expect(drawn).to_be_visible()
    width = drawn.evaluate("canvas => canvas.clientWidth")
    assert width % SIDE == 0 and PHONE["width"] / 2 < width <= PHONE["width"]
    dialog.get_by_label("Zoom").select_option("16×")
    expect(drawn).to_have_css("width", "256px")
    page.wait_for_url("**look_zoom=16*")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Full size")).to_be_focused()
    assert_not_too_wide(page)
