"""The Playground page in a real browser: the core's numbers, drawing, the gallery, files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from dashboard.explain import playground
from diffusion_core.playground import Settings, make_data, python_code, sample, train
from diffusion_core.playground.drawing import write_drawing
from diffusion_core.playground.settings import SAMPLERS
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide

CLOSE = 1e-4


def open_playground(open_page: OpenPage, **settings: Any) -> Page:
    """The page, when the networks of these settings are trained."""
    page = open_page(f"/playground?{urlencode(playground.to_link(settings), doseq=True)}")
    expect_trained(page)
    return page


def expect_trained(page: Page) -> None:
    expect(page.get_by_role("button", name="Trained", exact=True)).to_be_visible()


def download(page: Page, name: str) -> Path:
    with page.expect_download() as found:
        page.get_by_role("button", name=name).click()
    return found.value.path()


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"data": "two moons", "steps": 500},
        {"data": "spiral", "kind": "cosine", "timesteps": 200, "sampling_steps": 33, "seed": 5},
        {"data": "rings", "classes": True, "guidance_scale": 2.5, "width": 32, "layers": 2},
        {
            "data": "drawing",
            "drawing": write_drawing(
                np.array([[-1.5, 1.0], [0.3, -0.7], [1, 1]]), np.arange(3) % 2
            ),
            "classes": True,
            "batch": 32,
            "learning_rate": 0.01,
        },
        {"data": "images", "images": "digits", "kind": "sigmoid", "timesteps": 100},
    ],
    ids=["moons", "spiral", "rings", "drawing", "images"],
)
def test_the_browser_computes_what_the_core_computes(
    settings: dict[str, Any], open_page: OpenPage
) -> None:
    """Losses and weights after all steps, and the samples of every sampler; so does the code that
    the page shows."""
    settings = {"steps": 200, **settings}
    page = open_playground(open_page, panels=list(SAMPLERS), **settings)
    found = json.loads(download(page, "JSON").read_text())
    ours = Settings(**settings)
    data = make_data(ours)
    models = {objective: train(ours, data, objective) for objective in set(SAMPLERS.values())}
    for objective, model in models.items():
        theirs = found["models"][objective]
        assert len(theirs["losses"]) == ours.steps
        np.testing.assert_allclose(theirs["losses"], model.losses, atol=CLOSE)
        for weight, expected in zip(theirs["weights"], model.weights, strict=True):
            np.testing.assert_allclose(weight, expected.ravel(), atol=CLOSE)
    code = python_code(ours, list(SAMPLERS))
    page.get_by_text("The same in Python").click()
    expect(page.get_by_test_id("stCode")).to_contain_text(code.splitlines()[-1].strip())
    ran: dict[str, Any] = {}
    exec(page.get_by_test_id("stCode").inner_text(), ran)
    for sampler, objective in SAMPLERS.items():
        expected = sample(ours, models[objective], data, sampler)[-1]
        np.testing.assert_allclose(found["samples"][sampler], expected.ravel(), atol=CLOSE)
        np.testing.assert_allclose(ran["samples"][sampler], expected, atol=CLOSE)


@pytest.mark.long
def test_points_are_drawn_by_mouse_and_keys_and_stand_in_the_link(open_page: OpenPage) -> None:
    page = open_page("/playground?steps=200&data=drawing")
    expect(page.locator(".said")).to_have_text("Draw some points.")
    pad = page.locator(".pad canvas")
    frame = pad.bounding_box()
    assert frame is not None
    page.mouse.move(frame["x"] + 0.2 * frame["width"], frame["y"] + 0.5 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.8 * frame["width"], frame["y"] + 0.5 * frame["height"], steps=30)
    page.mouse.up()
    drawn = page.locator(".drawn")
    expect(drawn).to_have_text(re.compile(r"^\d\d points\.$"))
    stroke = int(drawn.inner_text().split()[0])
    pad.focus()
    pad.press("ArrowUp")
    pad.press("Space")
    expect(drawn).to_have_text(f"{stroke + 1} points.")
    expect_trained(page)
    page.wait_for_url(re.compile("drawing=[A-Za-z0-9_-]{40,}"))
    colleague = open_page("/playground" + page.url.partition("/playground")[2])
    expect(colleague.locator(".drawn")).to_have_text(f"{stroke + 1} points.")
    page.get_by_role("button", name="Undo").click()
    expect(drawn).to_have_text(f"{stroke} points.")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".said")).to_have_text("Draw some points.")


@pytest.mark.long
def test_time_training_and_gallery_answer_to_keys_and_clicks(open_page: OpenPage) -> None:
    page = open_page("/playground?steps=200&level=100")
    panels = page.get_by_role("group", name=re.compile("^Particles"))
    time = page.get_by_role("slider", name="Noise steps")
    panels.press("ArrowLeft")
    expect(time).to_have_attribute("aria-valuetext", "t = 98: 99 of 300 noise steps")
    page.wait_for_url(re.compile("level=99"))
    expect_trained(page)
    panels.press("r")
    panels.press("t")
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_visible()
    page.get_by_role("button", name="Train", exact=True).click()
    expect_trained(page)
    page.get_by_role("combobox", name="Particles").select_option("100")  # needs no training
    page.wait_for_url(re.compile("particles=100"))
    expect_trained(page)
    page.get_by_role("link", name=re.compile("^But its way back bends")).click()
    page.wait_for_url(re.compile("panels=ddim&panels=flow"))
    expect(page.locator(".panels figure")).to_have_count(2)
    expect(page.get_by_role("button", name="Flow")).to_have_attribute("aria-pressed", "true")


@pytest.mark.long
def test_the_picture_is_a_png_and_an_svg(open_page: OpenPage) -> None:
    page = open_playground(open_page, steps=200, level=50, paths=True, classes=True)
    with Image.open(download(page, "PNG")) as image:
        assert image.size == (1280, 640)
        assert len(image.convert("RGB").getcolors(10**6)) > 100
    root = ElementTree.parse(download(page, "SVG")).getroot()
    assert root.get("viewBox") == "0 0 1280 640"
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["DDPM", "DDIM"]
    assert "NaN" not in ElementTree.tostring(root, "unicode")


@pytest.mark.long
def test_the_playground_fits_a_phone(open_page: OpenPage) -> None:
    page = open_page("/playground?steps=200&data=drawing&classes=true", viewport=PHONE)
    expect(page.locator(".pad canvas")).to_be_visible()
    assert_not_too_wide(page)
