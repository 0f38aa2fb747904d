"""The Live page in a real browser: its image is the core's; hand and keys, failures, a phone."""

from __future__ import annotations

import re
import time
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Locator, Page, Worker, expect

from diffusion_core.media.images import to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling.sample import sample
from tests.browser.conftest import DESKTOP, PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import PATIENCE_SECONDS, Server
from tests.browser.test_accessibility import serious
from tests.tiny_runs import CLASSES, TINY, write_run

SIZE = TINY.image_size
READ = """
canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from(data);
}
"""
# Every evaluation of the network takes `self.delay` milliseconds longer, and is counted.
SLOW = """
() => {
  const network = lab.network;
  [self.evaluations, self.delay] = [0, 150];
  lab.network = { ...network, predict(...given) {
    self.evaluations += 1;
    const until = performance.now() + self.delay;
    while (performance.now() < until);
    return network.predict(...given);
  } };
}
"""
# Some of 20 steps, not all; a busy machine may look at the page late.
UNDER_WAY = re.compile(r"after ([2-9]|1\d) of 20 steps")
# The longest time between two frames of the page within a second.
LONGEST_FRAME = """
() => new Promise((done) => {
  let [longest, before] = [0, performance.now()];
  const until = before + 1000;
  const look = () => {
    const now = performance.now();
    [longest, before] = [Math.max(longest, now - before), now];
    if (now < until) requestAnimationFrame(look);
    else done(longest);
  };
  requestAnimationFrame(look);
})
"""


@pytest.fixture(autouse=True)
def run(server: Server) -> Run:
    """A run with random weights."""
    return Run(write_run(server.runs_dir, "tiny", 20))


def open_live(open_page: OpenPage, link: str = "", wait: bool = True) -> Page:
    page = open_page(f"/live{link}")
    if wait:
        expect(page.locator(".live[data-state=done]")).to_be_visible()
    return page


def worker_of(page: Page) -> Worker:
    [worker] = page.workers
    return worker


def canvas_of(page: Page, name: str = "image") -> Locator:
    return page.locator(f".{name} canvas")


def shown(page: Page) -> np.ndarray:
    """The image, int (SIZE, SIZE, 3)."""
    return np.array(canvas_of(page).evaluate(READ)).reshape(SIZE, SIZE, 4)[..., :3]


def wanted(
    run: Run,
    steps: int,
    label: int | None = None,
    x_T: torch.Tensor | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The core's image by DPM-Solver++."""
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    model, schedule, config = load_model(checkpoint, exact=True)
    images = sample(
        model,
        schedule,
        1,
        "dpmpp_2m",
        steps,
        seed,
        config.prediction_type,
        x_T,
        labels=None if label is None else torch.tensor([label]),
        shape=config.image_shape,
        exact=True,
    )
    return to_uint8(images)[0]


def expect_image(page: Page, core: np.ndarray) -> None:
    """The page comes to show the core's image, to two grey levels."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while np.abs(shown(page) - core.astype(int)).max() > 2:
        assert time.monotonic() < deadline, "The page shows another image."
        page.wait_for_timeout(50)


def expect_done(page: Page, words: str) -> None:
    expect(page.locator(".said")).to_contain_text(words)
    expect(page.locator(".live")).to_have_attribute("data-state", "done")


def test_the_image_is_the_cores_follows_the_class_and_stands_in_the_link(
    run: Run, open_page: OpenPage
) -> None:
    page = open_live(open_page, "?seed=3&steps=5")
    expect_done(page, "5 steps in")
    expect_image(page, wanted(run, 5, seed=3))
    page.get_by_role("combobox", name="Class").select_option(CLASSES[1])
    page.get_by_role("combobox", name="Steps").select_option("4")
    expect_done(page, "4 steps in")
    expect_image(page, wanted(run, 4, 1, seed=3))
    page.wait_for_url(lambda url: "label=bus" in url and "steps=4" in url and "seed=3" in url)


@pytest.mark.long
def test_webgl2_shows_the_same_and_javascript_goes_on_without_it(
    run: Run, open_page: OpenPage
) -> None:
    page = open_live(open_page, "?steps=5&engine=WebGL2")
    expect_done(page, "with WebGL2.")
    expect_image(page, wanted(run, 5))
    worker_of(page).evaluate("lab.network.close()")  # as a browser takes the graphics away
    page.get_by_role("combobox", name="Steps").select_option("8")
    expect_done(page, "with JavaScript. The browser has taken the graphics processor away.")
    expect_image(page, wanted(run, 8))
    page.get_by_role("combobox", name="Compute with").select_option("processor")
    expect_done(page, "with JavaScript.")
    page.wait_for_url(re.compile("engine=JavaScript"))


@pytest.mark.long
def test_the_noise_is_moved_painted_and_mixed_by_keys_and_by_the_hand(
    run: Run, open_page: OpenPage
) -> None:
    page = open_live(open_page, "?steps=5&other=2")
    first, second = (image_noise(seed, 1, TINY.image_shape)() for seed in (0, 2))
    noise = canvas_of(page, "noise")
    frame = noise.bounding_box()
    pixel = frame["width"] / SIZE
    noise.focus()
    noise.press("ArrowRight")
    noise.press("ArrowDown")
    expect(page.locator(".live[data-moved='1 1']")).to_be_visible()
    page.mouse.move(frame["x"] + 2.5 * pixel, frame["y"] + 2.5 * pixel)
    page.mouse.down()
    page.mouse.move(frame["x"] + 5.5 * pixel, frame["y"] + 1.5 * pixel, steps=6)
    page.mouse.up()
    expect(page.locator(".live[data-moved='4 0']")).to_be_visible()
    moved = torch.roll(first, 4, 3)
    expect_done(page, "5 steps in")
    expect_image(page, wanted(run, 5, x_T=moved))

    angle = page.get_by_role("slider", name=re.compile("^Angle"))
    angle.fill("90")
    expect_done(page, "5 steps in")
    expect_image(page, wanted(run, 5, x_T=second))
    angle.fill("0")
    page.get_by_role("button", name="Paint").click()
    page.get_by_role("slider", name="Diameter of the brush").fill("2")
    page.mouse.move(frame["x"] + 8.5 * pixel, frame["y"] + 0.5 * pixel)
    page.mouse.down()
    page.mouse.move(frame["x"] + 8.5 * pixel, frame["y"] + 15.5 * pixel, steps=20)
    page.mouse.up()
    painted = page.locator(".live").evaluate("box => [...box.live.painting.values]")
    mask = torch.tensor(painted).reshape(SIZE, SIZE)
    assert SIZE <= int(mask.sum()) < SIZE**2 / 2
    expect_done(page, "5 steps in")
    expect_image(page, wanted(run, 5, x_T=torch.where(mask == 1, second, moved)))
    page.get_by_role("button", name="Undo").click()
    expect_done(page, "5 steps in")
    expect_image(page, wanted(run, 5, x_T=moved))
    page.get_by_role("button", name="Reset").click()
    expect_done(page, "5 steps in")
    expect_image(page, wanted(run, 5))


@pytest.mark.long
def test_a_newer_request_takes_the_place_of_a_slow_one_and_the_page_stays_responsive(
    run: Run, open_page: OpenPage
) -> None:
    page = open_live(open_page, "?steps=1")
    worker = worker_of(page)
    worker.evaluate(SLOW)
    page.get_by_role("combobox", name="Steps").select_option("20")
    expect(page.locator(".what")).to_have_text(UNDER_WAY)
    page.get_by_role("combobox", name="Steps").select_option("3")
    expect_done(page, "3 steps in")
    assert worker.evaluate("self.evaluations") < 20
    expect_image(page, wanted(run, 3))

    page.get_by_role("combobox", name="Steps").select_option("20")
    expect(page.locator(".what")).to_have_text(UNDER_WAY)
    page.get_by_role("button", name="Stop").click()
    expect_done(page, "Stopped after")
    before = worker.evaluate("self.evaluations")
    page.wait_for_timeout(600)
    assert worker.evaluate("self.evaluations") <= before + 1  # the one that was under way
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    worker.evaluate("self.delay = 2500")
    page.get_by_role("combobox", name="Steps").select_option("1")
    assert page.evaluate(LONGEST_FRAME) < 1000
    worker.evaluate("self.delay = 150")
    page.get_by_role("combobox", name="Steps").select_option("20")
    expect_done(page, "20 steps in")
    # While the hand moves, fewer steps are taken.
    angle = page.get_by_role("slider", name=re.compile("^Angle"))
    worker.evaluate("self.evaluations = 0")
    for k in range(12):
        angle.press("ArrowRight")
        page.wait_for_timeout(100)
        if k == 11:
            assert worker.evaluate("self.evaluations") < 20
    expect(page.locator(".what")).to_have_text("The image, after 20 of 20 steps")


@pytest.mark.long
def test_what_fails_is_a_sentence(open_page: OpenPage) -> None:
    page = open_page("/live?steps=2")
    expect_done(page, "2 steps in")
    page.route("**/models/*", lambda route: route.abort())
    page.get_by_role("combobox", name="Compute with").select_option("processor")
    expect_done(page, "The run's weights could not be fetched")
    page.unroute("**/models/*")
    page.route("**/models/*", lambda route: route.fulfill(status=404, body="This link is old."))
    page.get_by_role("combobox", name="Compute with").select_option("graphics")
    expect_done(page, "This link is old.")
    page.unroute("**/models/*")
    page.get_by_role("combobox", name="Compute with").select_option("processor")
    expect_done(page, "2 steps in")
    worker_of(page).evaluate("lab.network = { predict: (x) => x.map(() => NaN) }")
    page.get_by_role("button", name="New noise").click()
    expect_done(page, "What the network predicts is not finite: its training has diverged.")


@pytest.mark.long
def test_the_image_is_saved_as_a_png(run: Run, open_page: OpenPage) -> None:
    page = open_live(open_page, "?steps=2")
    with page.expect_download() as found:
        page.get_by_role("button", name="Download image").click()
    assert found.value.suggested_filename == "live-seed-0.png"
    with Image.open(found.value.path()) as image:
        pixels = np.array(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.NEAREST))
        assert image.size == (512, 512)
    assert np.abs(pixels.astype(int) - wanted(run, 2)).max() <= 2


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_it_fits_a_phone(
    scheme: Literal["light", "dark"], open_page: OpenPage
) -> None:
    page = open_page("/live?steps=2", viewport=DESKTOP, color_scheme=scheme)
    expect_done(page, "2 steps in")
    assert not serious(page)
    page.set_viewport_size(PHONE)
    assert_not_too_wide(page)
    assert not serious(page)
