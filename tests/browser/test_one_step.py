"""The One step page in a real browser: the sweep follows t there, a pixel is clicked, a phone."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from diffusion_core.data.store import load_image
from diffusion_core.media.images import to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.process.noising import image_to_x_0
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling import one_step
from diffusion_core.sampling.one_step import Asked
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server
from tests.tiny_runs import TINY, write_run

TABS = {
    "Prediction": ".gallery canvas",
    "Over t": ".flipbook canvas",
    "One pixel": ".pixel canvas",
    "One step back": ".pixel canvas",
}
# What t = 1 shows and what the address has, before the server is told.
MOVED = """
(input, shown) => new Promise(done => {
  input.value = 1;
  input.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => requestAnimationFrame(
    () => requestAnimationFrame(() => done([shown.textContent, location.search]))
  ));
})
"""
READ = """
canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from(data);
}
"""


def frame(page: Page) -> str:
    return page.locator(".flipbook output").inner_text()


@pytest.mark.long
def test_the_sweep_and_the_timestep_move_each_other_in_the_browser(
    open_page: OpenPage, server: Server
) -> None:
    write_run(server.runs_dir, "tiny", 20)
    page = open_page("/one_step?tab=Over+t&t=7")
    slider = page.get_by_role("slider", name="Timestep t")
    expect(page.locator(".flipbook output")).to_have_text("t = 7")
    shown, address = slider.evaluate(MOVED, page.locator(".flipbook output").element_handle())
    assert shown == "t = 1" and "t=7" in address
    page.wait_for_url(re.compile(r"[?&]t=1(&|$)"))
    page.get_by_role("slider", name="Frame of the film").press("ArrowRight")
    expect(slider).to_have_value("2")
    page.wait_for_url(re.compile(r"[?&]t=2(&|$)"))
    assert frame(page) == "t = 2"


@pytest.mark.long
def test_a_small_runs_prediction_follows_t_in_the_browser(
    open_page: OpenPage, server: Server
) -> None:
    run = Run(write_run(server.runs_dir, "tiny", 20))
    page = open_page("/one_step?t=7&label=bus&guidance=2&seed=4")
    slider = page.get_by_role("slider", name="Timestep t")
    loaded = load_model(run.latest_checkpoint(), exact=True)
    x_0 = image_to_x_0(load_image("cars", 0, TINY.image_size)[0])
    noise = image_noise(4, 1, TINY.image_shape)()
    for t in (7, 15):
        slider.fill(str(t))
        expect(page.locator(f".predictor[data-t='{t}']")).to_be_visible()
        found = one_step.predict(loaded, x_0, noise, Asked(t, 1, 2.0))
        for name, wanted in (("noisy", found.x_t), ("predicted", found.predicted_x_0)):
            pixels = np.array(page.locator(f".predictor .{name}").evaluate(READ))
            pixels = pixels.reshape(TINY.image_size, TINY.image_size, 4)[..., :3]
            assert np.abs(pixels - to_uint8(wanted)[0].astype(int)).max() <= 2


@pytest.mark.long
def test_a_clicked_pixel_is_in_the_address(open_page: OpenPage, server: Server) -> None:
    write_run(server.runs_dir, "tiny", 20)
    page = open_page("/one_step?tab=One+pixel&t=7")
    canvas = page.locator(".pixel canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    assert box is not None
    side = box["width"] / TINY.image_size
    canvas.click(position={"x": 4.5 * side, "y": 2.5 * side})
    page.wait_for_url(re.compile("row=2"))
    page.wait_for_url(re.compile("column=4"))
    expect(page.get_by_role("spinbutton", name="Row")).to_have_value("2")
    expect(page.get_by_role("spinbutton", name="Column")).to_have_value("4")


@pytest.mark.long
def test_all_tabs_fit_a_phone(open_page: OpenPage, server: Server) -> None:
    write_run(server.runs_dir, "tiny", 20)
    for tab, there in TABS.items():
        page = open_page(f"/one_step?tab={tab.replace(' ', '+')}&t=7", viewport=PHONE)
        page.locator(there).first.wait_for()
        assert_not_too_wide(page)
