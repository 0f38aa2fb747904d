"""Sampling in a real browser: images form and are downloaded; a slow one is cancelled."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, ViewportSize, expect

from diffusion_core.sampling.metadata import read
from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import PHONE, OpenPage, Windows, assert_not_too_wide
from tests.browser.server import Server
from tests.tiny_runs import TINY, set_running, write_checkpoint, write_run

# Moves the slider through all frames, a frame of the screen each, and counts what the page sends to
# the server meanwhile; returns what was seen at each frame.
SCRUB = """
async (slider) => {
  const root = slider.getRootNode();
  const send = WebSocket.prototype.send;
  let sent = 0;
  WebSocket.prototype.send = function (...words) { sent += 1; return send.apply(this, words); };
  const frames = [];
  for (let k = 0; k <= slider.max; k += 1) {
    slider.value = k;
    slider.dispatchEvent(new Event("input"));
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    frames.push({
      words: slider.getAttribute("aria-valuetext"),
      images: [...root.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()),
      bars: root.querySelector(".bars").getAttribute("d"),
      facts: [...root.querySelectorAll("dd")].map((fact) => fact.textContent),
    });
  }
  WebSocket.prototype.send = send;
  return { frames, sent };
}
"""

WIDE: ViewportSize = {"width": 1400, "height": 900}
# What each mode needs so that its button can be pressed, and the button.
STARTS = [
    ("", "Generate"),
    ("mode=Edit", "Vary"),
    ("mode=Interpolate", "Generate film"),
    ("mode=Compare&vs_seed=1&vs_seed=2", "Generate 2 rows"),
    ("mode=Batch", "Generate in background"),
]
SLOW = TINY.replace(schedule={"kind": "cosine", "timesteps": 4000}, image_size=64)


@pytest.fixture
def run(server: Server) -> Iterator[Path]:
    """A tiny run whose schedule is long enough for a slow sampling; gone after the test."""
    path = write_run(server.runs_dir, "tiny", 20, config=SLOW)
    yield path
    shutil.rmtree(path)


def press_generate(page: Page) -> None:
    page.get_by_role("button", name="Generate", exact=True).click()


def test_a_visitor_samples_and_downloads_the_images(open_page: OpenPage, run: Path) -> None:
    page = open_page("/sampling?steps=6&n=4&label=bus")
    press_generate(page)
    main = page.get_by_test_id("stMain")
    expect(main).to_contain_text("tiny at step 20: 4 images, dpmpp_2m, 6 steps, seed 0, bus")
    expect(main).to_contain_text("24 network evaluations")
    expect(main.get_by_role("button", name="Enlarge Image")).to_have_count(4)
    strip = main.get_by_role("img", name="Image 1 from noise")
    expect(strip).to_have_js_property("complete", True)
    assert strip.evaluate("image => image.naturalWidth") > 0
    with page.expect_download() as started:
        page.get_by_role("button", name="Grid as PNG").click()
    assert started.value.suggested_filename == "tiny-step-20-seed-0-grid.png"
    with Image.open(io.BytesIO(Path(started.value.path()).read_bytes())) as image:
        assert image.size == (128, 128)
        assert image.info["Description"].startswith("tiny at step 20: 4 images")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)

    slider = page.get_by_role("slider", name="Frame of the film")
    slider.scroll_into_view_if_needed()
    expect(slider).to_have_attribute("aria-valuetext", "step 6 of 6, t = 666")
    seen = slider.evaluate(SCRUB)
    assert seen["sent"] == 0
    frames = seen["frames"]
    assert [frame["words"].split(",")[0] for frame in frames] == [
        f"step {k} of 6" for k in range(1, 7)
    ]
    assert all(len(frame["images"]) == 2 for frame in frames)
    for part in ("words", "bars"):
        assert len({frame[part] for frame in frames}) == 6
    assert all(len({frame["images"][row] for frame in frames}) == 6 for row in (0, 1))
    assert frames[5]["images"][0] == frames[5]["images"][1]  # the end is the last prediction
    assert frames[0]["facts"][1] == "–" and float(frames[0]["facts"][0]) > 0
    slider.press("Home")
    bars = page.locator(".flipbook .bars")
    first = bars.get_attribute("d")
    shown = page.get_by_role("img", name="noisy x_t, image 1, bus, step 1 of 6", exact=False)
    expect(shown).to_be_visible()
    page.locator(".flipbook .which").select_option("3")
    expect(page.get_by_role("img", name="predicted x_0, image 3, bus, step 1 of 6")).to_be_visible()
    expect(bars).not_to_have_attribute("d", first)
    page.wait_for_url("**picture=3*")  # all of the page is about it now
    page.get_by_role("button", name="Play the film").click()
    expect(slider).to_have_attribute("aria-valuetext", "step 6 of 6, t = 666")
    page.get_by_text("MP4", exact=True).click()
    with page.expect_download() as started:
        page.get_by_role("button", name="Film as MP4").click()
    assert started.value.suggested_filename == "tiny-step-20-seed-0-image-3.mp4"
    assert b"ftyp" in Path(started.value.path()).read_bytes()[:12]


# The colours of a canvas's pixels: how many there are, and whether all of it is of one.
COLOURS = """
(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}
"""
CLIPBOARD = """
async () => {
  const [item] = await navigator.clipboard.read();
  const image = await createImageBitmap(await item.getType("image/png"));
  return [image.width, image.height];
}
"""


@pytest.mark.long
def test_an_image_opens_large_and_the_keys_go_on(
    open_page: OpenPage, run: Path, windows: Windows
) -> None:
    page = open_page("/sampling?steps=2&n=3&label=bus")
    press_generate(page)
    second = page.get_by_role("button", name="Enlarge Image 2, bus")
    expect(second.locator("canvas")).not_to_have_attribute("width", "300")  # painted
    first = page.get_by_role("button", name="Enlarge Image 1, bus")
    first.focus()
    first.press("ArrowRight")
    expect(second).to_be_focused()
    second.press("Enter")
    dialog = page.get_by_role("dialog", name="Enlarged image")
    large = dialog.get_by_role("img", name="Image 2, bus")
    expect(large).not_to_have_attribute("height", "150")  # painted
    box, window = large.bounding_box(), page.viewport_size
    assert box is not None and window is not None
    assert box["height"] > 0.75 * window["height"] and box["y"] > 0
    assert large.evaluate(COLOURS) > 100
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("Image 3, bus (3 of 3)")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("Image 1, bus (1 of 3)")
    page.keyboard.press("ArrowLeft")
    with page.expect_download() as started:
        dialog.get_by_role("link", name="Download").click()
    assert started.value.suggested_filename == "tiny-step-20-seed-0-image-3.png"
    made = read(Path(started.value.path()).read_bytes())
    assert (made.spec.label, made.image) == ("bus", 2)

    windows.chromium.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog.get_by_role("button", name="Copy image").click()
    expect(dialog.locator(".said")).to_have_text("Copied.")
    assert page.evaluate(CLIPBOARD) == [64, 64]
    windows.chromium.clear_permissions()
    screen = dialog.get_by_role("button", name="Full screen")
    screen.click()
    expect(screen).to_have_attribute("aria-pressed", "true")
    screen.click()
    expect(screen).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Enlarge Image 3, bus")).to_be_focused()


@pytest.mark.long
def test_an_earlier_result_is_shown_again_on_a_phone(open_page: OpenPage, run: Path) -> None:
    page = open_page("/sampling?steps=2&n=2&label=bus", viewport=PHONE, color_scheme="dark")
    press_generate(page)
    tiles = page.get_by_role("button", name="Enlarge Image")
    expect(tiles).to_have_count(2)
    seed = page.get_by_label("Seed", exact=True)
    seed.fill("7")
    seed.press("Enter")
    expect(page.get_by_text("The settings have changed since.")).to_be_visible()
    press_generate(page)
    thumbnails = page.get_by_role("group", name="Results of this session").get_by_role("button")
    expect(thumbnails).to_have_count(2)
    expect(thumbnails.nth(0)).to_have_attribute("aria-pressed", "true")
    thumbnails.nth(1).click()
    expect(thumbnails.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(tiles).to_have_count(4)
    wait_until_shown(page)
    assert_not_too_wide(page)
    tiles.nth(0).click()
    dialog = page.get_by_role("dialog", name="Enlarged image")
    dialog.get_by_role("button", name="Next image").click()
    expect(dialog).to_contain_text("Image 2, bus (2 of 2)")
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_text("Settings restored: tiny at step 20")).to_be_visible()
    wait_until_shown(page)  # for a moment the field is there twice, as it was and as it is
    expect(seed).to_have_value("0")


def test_a_newer_checkpoint_is_offered_without_a_reload(open_page: OpenPage, run: Path) -> None:
    set_running(run)
    page = open_page("/sampling")
    main = page.get_by_test_id("stMain")
    expect(main).to_contain_text("Step 20 of 40")
    write_checkpoint(run, 30, SLOW)
    page.get_by_role("button", name="Use newer checkpoint (step 30)").click()
    expect(main).to_contain_text("Step 30 of 40")


def test_a_slow_sampling_is_seen_to_go_on_and_is_cancelled(open_page: OpenPage, run: Path) -> None:
    page = open_page("/sampling?sampler=ddpm&n=16", viewport=PHONE)
    press_generate(page)
    main = page.get_by_test_id("stMain")
    # Without the page being asked: two updates of the running job.
    shown = main.get_by_text("of 4,000, t = ")
    first = shown.inner_text()
    expect(shown).not_to_have_text(first)
    expect(main.get_by_test_id("stImage").locator("img")).to_have_count(1)
    assert_not_too_wide(page)
    page.get_by_role("button", name="Cancel").click()
    expect(main).to_contain_text("of 4,000 steps were done.")
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()


def in_bar(page: Page, name: str) -> Locator:
    return page.locator(".st-key-sampling-bar").get_by_role("button", name=name, exact=True)


@pytest.mark.long
@pytest.mark.parametrize(("settings", "label"), STARTS)
def test_a_few_tabs_lead_to_the_button_of_every_mode(
    open_page: OpenPage, run: Path, settings: str, label: str
) -> None:
    page = open_page(f"/sampling?{settings}", viewport=WIDE)
    start = in_bar(page, label)
    expect(start).to_be_enabled()
    page.get_by_test_id("stMain").focus()
    for _ in range(8):
        page.keyboard.press("Tab")
        if start.evaluate("button => button === document.activeElement"):
            return
    pytest.fail(f"8 Tab stops do not lead to {label}.")


@pytest.mark.long
@pytest.mark.parametrize(
    "viewport",
    [
        pytest.param(WIDE, id="wide"),
        pytest.param(PHONE, id="phone", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(("settings", "label"), STARTS)
def test_the_button_the_progress_and_cancel_stay_in_view(
    open_page: OpenPage, run: Path, settings: str, label: str, viewport: ViewportSize
) -> None:
    page = open_page(f"/sampling?sampler=ddpm&steps=4000&{settings}", viewport=viewport)
    main = page.get_by_test_id("stMain")
    bottom = "main => main.scrollTo(0, main.scrollHeight)"
    main.evaluate(bottom)
    in_bar(page, label).click()
    cancel = in_bar(page, "Cancel")
    expect(cancel).to_be_visible()
    main.evaluate(bottom)
    bar = page.locator(".st-key-sampling-bar")
    for each in (in_bar(page, label), bar.get_by_role("progressbar"), cancel):
        expect(each).to_be_in_viewport(ratio=1)
    assert_not_too_wide(page)
    cancel.click()
    expect(cancel).to_have_count(0)
