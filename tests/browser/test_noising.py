"""The Noising page in a real browser: what it mixes against the core, links, uploads, a drawing."""

from __future__ import annotations

import base64
import csv
import re

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from diffusion_core.data.store import load_image
from diffusion_core.media.images import to_uint8
from diffusion_core.process.noising import (
    fixed_noise,
    image_to_x_0,
    noise_to_uint8,
    noised_at,
    strip_timesteps,
)
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.spectrum import power_spectra
from diffusion_core.process.tables import SCHEDULE_KINDS, USUAL_POINTS
from tests import image_files
from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide

SIZE = 64
# Moves the slider to each timestep, waits until the image is there and reads the canvas.
READ_TIMESTEPS = """
async (slider, [box, timesteps]) => {
  const found = [];
  for (const t of timesteps) {
    slider.value = t;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    while (box.dataset.t !== String(t)) await new Promise(requestAnimationFrame);
    const canvas = box.querySelector(".x_t canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let text = "";
    data.forEach((value) => { text += String.fromCharCode(value); });
    found.push(btoa(text));
  }
  return found;
}
"""
READ = """
canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from(data);
}
"""
# A browser without WebGL2, from the first script on.
NO_GRAPHICS = """
const original = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind === "webgl2" ? null : original.call(this, kind, ...rest);
};
"""


def upload(page: Page, name: str, content: bytes) -> None:
    field = page.get_by_test_id("stFileUploaderDropzoneInput")
    field.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def expect_formula(page: Page, t: int, signal: str, spread: str) -> None:
    expect(page.locator(".noising .formula")).to_have_text(f"x{t} = {signal} x0 + {spread} ε")


def slider(page: Page) -> Locator:
    return page.get_by_role("slider", name="Timestep t")


def shown(canvas: Locator) -> np.ndarray:
    """The pixels of a canvas, int (SIZE, SIZE, 3)."""
    return np.array(canvas.evaluate(READ)).reshape(SIZE, SIZE, 4)[..., :3]


def at_most_one_level(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found.astype(int) - wanted.astype(int)).max() <= 1)


def image_and_noise(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return image_to_x_0(load_image("cars", 0, SIZE)[0]), fixed_noise(seed, SIZE)


def test_t_noise_and_schedule_are_in_the_address_and_a_colleague_sees_the_same(
    open_page: OpenPage,
) -> None:
    page = open_page("/noising?t=149")
    slider(page).press("ArrowRight")
    expect_formula(page, 150, "0.6800", "0.7332")
    page.wait_for_url(re.compile(r"t=150"))
    page.get_by_role("button", name="New noise").click()
    page.wait_for_url(re.compile(r"seed=1"))
    expect(page.get_by_role("spinbutton", name=re.compile("Seed"))).to_have_value("1")
    page.get_by_role("combobox", name="Schedule").select_option("cosine")
    expect_formula(page, 150, "0.6990", "0.7151")
    page.wait_for_url(re.compile(r"kind=cosine"))

    address = page.url.removeprefix(re.match(r"https?://[^/]+", page.url).group())
    colleague = open_page(address)
    expect_formula(colleague, 150, "0.6990", "0.7151")
    x_t = to_uint8(noised_at(NoiseSchedule("cosine"), *image_and_noise(1), [150]))[0]
    for each in (page, colleague):
        assert at_most_one_level(shown(each.locator(".x_t canvas")), x_t)
    page.get_by_role("combobox", name="Schedule").select_option("linear")
    page.wait_for_url(lambda url: "kind=" not in url)


@pytest.mark.long
@pytest.mark.parametrize("mixer", ["webgl2", "canvas"])
def test_the_browser_mixes_what_the_core_does(mixer: str, open_page: OpenPage) -> None:
    page = open_page("/noising?T=1000")
    if mixer == "canvas":
        page.add_init_script(NO_GRAPHICS)
        page.reload()
    box = page.locator(f".noising[data-mixer={mixer}]")
    expect(box).to_be_visible()
    x_0, noise = image_and_noise()
    assert np.array_equal(shown(box.locator(".x_0 canvas")), to_uint8(x_0)[0])
    assert at_most_one_level(shown(box.locator(".noise canvas")), noise_to_uint8(noise)[0])
    timesteps = [k * 999 // 199 for k in range(200)]
    for kind in SCHEDULE_KINDS:
        page.get_by_role("combobox", name="Schedule").select_option(kind)
        schedule = NoiseSchedule(kind, 1000, points=USUAL_POINTS)
        texts = slider(page).evaluate(READ_TIMESTEPS, [box.element_handle(), timesteps])
        found = np.stack([np.frombuffer(base64.b64decode(text), np.uint8) for text in texts])
        found = found.reshape(-1, SIZE, SIZE, 4)
        wanted = to_uint8(noised_at(schedule, x_0, noise, timesteps))
        assert (found[..., 3] == 255).all()
        assert at_most_one_level(found[..., :3], wanted)
        strip = box.locator(".strip canvas")
        wanted = to_uint8(noised_at(schedule, x_0, noise, strip_timesteps(1000)))
        for k, image in enumerate(wanted):
            assert at_most_one_level(shown(strip.nth(k)), image)


@pytest.mark.long
def test_the_strength_scales_the_noise_and_a_press_on_the_strip_moves_t(
    open_page: OpenPage,
) -> None:
    page = open_page("/noising")
    strength = page.get_by_role("slider", name="Strength of the noise")
    for _ in range(10):
        strength.press("ArrowLeft")
    expect(page.locator(".noising .formula")).to_have_text("x150 = 0.6800 x0 + 0.7332 · 0.50 ε")
    page.wait_for_url(re.compile(r"strength=0\.5"))
    page.get_by_role("button", name="Go to t = 240").click()
    page.wait_for_url(re.compile(r"t=240"))
    expect(slider(page)).to_have_value("240")
    x_0, noise = image_and_noise()
    wanted = to_uint8(noised_at(NoiseSchedule(), x_0, noise / 2, [240, 0]))
    assert at_most_one_level(shown(page.locator(".x_t canvas")), wanted[0])
    # Also after the browser has taken the graphics away.
    box = page.locator(".noising")
    box.evaluate("box => box.view.mixer.close()")
    page.get_by_role("button", name="Go to t = 0", exact=True).click()
    expect(page.locator(".noising[data-t='0']")).to_be_visible()
    assert box.evaluate("box => box.view.mixer.kind") == "canvas"
    assert at_most_one_level(shown(page.locator(".x_t canvas")), wanted[1])


@pytest.mark.long
def test_dragging_t_repaints_without_the_server(open_page: OpenPage) -> None:
    page = open_page("/noising")
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.reload()
    expect(page.locator(".noising[data-t='150']")).to_be_visible()
    wait_until_shown(page)
    frame = slider(page).bounding_box()
    middle = frame["y"] + frame["height"] / 2
    page.mouse.move(frame["x"] + frame["width"] / 2, middle)
    page.mouse.down()
    before = len(sent)
    page.mouse.move(frame["x"] + frame["width"], middle, steps=20)
    expect(page.locator(".noising[data-t='299']")).to_be_visible()
    expect_formula(page, 299, "0.2192", "0.9757")
    assert len(sent) == before
    page.mouse.up()
    page.wait_for_url(re.compile("t=299"))
    assert len(sent) > before


def table(page: Page, box: str) -> dict[str, np.ndarray]:
    """The curves of a figure's CSV: (n, 2) by their names."""
    with page.expect_download() as download:
        page.locator(box).get_by_role("button", name="CSV").click()
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    names = dict.fromkeys(name for name, _, _ in rows)
    return {
        name: np.array([(float(x), float(y)) for each, x, y in rows if each == name])
        for name in names
    }


@pytest.mark.long
def test_the_figures_are_those_of_numpy(open_page: OpenPage) -> None:
    page = open_page("/noising?t=70&strength=1.25")
    expect(page.locator(".noising .formula")).to_contain_text("x70")
    x_0, noise = image_and_noise()
    x_t = noised_at(NoiseSchedule(), x_0, 1.25 * noise, [70])[0].double().numpy()
    density, edges = np.histogram(x_t, np.linspace(-5, 5, 101), density=True)
    bars = table(page, ".histogram")
    assert bars["xₜ"][:, 0] == pytest.approx((edges[:-1] + edges[1:]) / 2)
    # A value beside an edge may be in the bar beside it.
    assert np.abs(bars["xₜ"][:, 1] - density).max() * x_t.size / 10 < 3
    mean, std = f"{x_t.mean():.4f}".replace("-", "−"), f"{x_t.std():.4f}"
    expect(page.locator(".moments")).to_contain_text(f"mean {mean}, standard deviation {std}")

    points = table(page, ".quantiles")["xₜ"]
    probabilities = (np.arange(len(points)) + 0.5) / len(points)
    assert points[:, 1] == pytest.approx(np.quantile(x_t, probabilities), abs=1e-5)
    normal = torch.special.ndtri(torch.from_numpy(probabilities)).numpy()
    assert points[:, 0] == pytest.approx(normal, abs=1e-9)

    page.get_by_role("button", name="Spectrum").click()
    page.wait_for_url(re.compile("plot=Spectrum"))
    wanted = power_spectra(x_t, x_t)
    power = table(page, ".spectrum")["xₜ"]
    assert power[:, 0].tolist() == wanted.cycles.tolist()
    assert power[:, 1] == pytest.approx(wanted.image, rel=1e-4)
    # Where the noise overtakes, of what repeats every 2, 4, ..., 64 pixels.
    schedule, parts = NoiseSchedule(), power_spectra(x_0[0].numpy(), noise[0].numpy())
    ratio = (1.25 * schedule.exact_spread / schedule.exact_signal) ** 2
    rows = page.locator(".order tbody tr").all_inner_texts()
    for row, cycles in zip(rows, (32, 16, 8, 4, 2, 1), strict=True):
        over = ratio * parts.noise[cycles - 1] >= parts.image[cycles - 1]
        at = f"t = {over.argmax()}" if over.any() else "never"
        assert row.split("\t") == [f"{SIZE // cycles} pixels", at]


@pytest.mark.long
def test_a_drawing_is_noised_after_each_stroke_and_undo_takes_it_back(open_page: OpenPage) -> None:
    page = open_page("/noising?source=drawing")
    hint = page.get_by_text("Draw an image to add noise to it.")
    expect(hint).to_be_visible()
    page.get_by_role("button", name="red", exact=True).click()
    canvas = page.locator(".drawing canvas")
    canvas.focus()
    canvas.press("Space")
    expect(page.locator(".what")).to_have_text("your drawing")
    x_0 = shown(page.locator(".x_0 canvas"))
    assert x_0[SIZE // 2, SIZE // 2].tolist() == [208, 58, 47]
    assert x_0[0, 0].tolist() == [255, 255, 255]
    page.get_by_role("button", name="Undo").click()
    expect(hint).to_be_visible()


@pytest.mark.long
def test_every_kind_of_upload_works_or_gets_one_sentence(open_page: OpenPage) -> None:
    page = open_page("/noising?source=upload")
    expect(page.get_by_text("Choose an image file")).to_be_visible()
    errors = page.get_by_test_id("stAlertContentError")

    upload(page, "letter.txt", image_files.TEXT)
    expect(errors).to_have_text(re.compile("^This is not a readable image"))
    upload(page, "huge.png", image_files.huge_png(10_000, 20_000))
    expect(errors).to_have_text(re.compile("far more than 50 megapixels"))
    expect(page.locator(".noising")).to_have_count(0)
    for name, content, size in (
        ("printed.jpg", image_files.halves("JPEG", "CMYK"), "40×20"),
        ("deep.png", image_files.png_16_bit(), "64×8"),
        ("moving.gif", image_files.animated_gif(), "24×24"),
        ("dot.png", image_files.one_pixel(), "1×1"),
    ):
        upload(page, name, content)
        expect(page.locator(".what")).to_contain_text(f"resized from {size}")
        expect(errors).to_have_count(0)


@pytest.mark.long
@pytest.mark.parametrize("more", ["", "Wrong+shapes", "Step+by+step", "Notes+on+tensors"])
def test_the_noising_page_fits_a_phone(more: str, open_page: OpenPage) -> None:
    page = open_page(f"/noising?more={more}", viewport=PHONE)
    expect(page.locator(".noising .strip canvas")).to_have_count(10)
    assert_not_too_wide(page)
