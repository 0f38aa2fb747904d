"""Every figure as PNG, SVG and CSV, by the keyboard and on a phone."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from dashboard.components.assemble import inline, scripts
from dashboard.figures.embedding import rows_figure
from dashboard.figures.network import cost_figure
from dashboard.figures.review import Axis, Dot, interval_figure, parallel_figure
from dashboard.figures.training import evaluation_figure
from diffusion_core.models.trace import trace
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.presets import network_plan
from tests.browser.conftest import PHONE, OpenPage
from tests.forks.client import ROOT


def menu(page: Page, at: int) -> Locator:
    """The menu of a figure, opened by the keyboard."""
    found = page.locator(".chart-frame").nth(at).locator(".chart-files")
    found.get_by_label("Download this figure").press("Enter")
    return found


def save(page: Page, button: Locator, folder: Path) -> Path:
    with page.expect_download() as download:
        button.press("Enter")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.long
def test_a_figure_is_saved_as_image_drawing_and_numbers(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page("/schedule?kinds=linear&kinds=cosine&T=50", viewport=PHONE)
    expect(page.locator(".chart .main-svg .scatterlayer")).to_have_count(7)  # one is the legend
    files = menu(page, 1)
    paths = [save(page, button, tmp_path) for button in files.get_by_role("button").all()]
    assert [path.name for path in paths] == [f"schedule-betas.{e}" for e in ("png", "svg", "csv")]
    png, svg, numbers = paths
    width, height = Image.open(png).size
    box = page.locator(".chart").nth(1).bounding_box()
    assert (width, height) == (2 * round(box["width"]), 2 * round(box["height"]))
    assert Image.open(png).convert("RGB").getpixel((0, height - 1)) == (0xFB, 0xFB, 0xF9)
    assert ElementTree.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    header, *rows = csv.reader(numbers.open())
    assert header == ["curve", "timestep t", "betas"]
    assert [row[0] for row in rows] == ["linear"] * 50 + ["cosine"] * 50
    wanted = [NoiseSchedule(kind, 50).betas.numpy() for kind in ("linear", "cosine")]
    assert np.array_equal(np.array([row[2] for row in rows], np.float32), np.concatenate(wanted))


def as_csv(page: Page, figure: go.Figure, key: str) -> list[list[str]]:
    """The numbers that the browser makes of a figure."""
    files = scripts(ROOT / "dashboard/components/chart/files.js")
    source = "".join(inline(file.read_text("utf-8")) for file in files)
    script = f"([figure, key]) => {{ {source}; return csvOf(table(JSON.parse(figure), key)); }}"
    return list(csv.reader(page.evaluate(script, [figure.to_json(), key]).splitlines()))


@pytest.mark.long
def test_the_numbers_of_each_kind_of_figure_are_all_there(open_page: OpenPage) -> None:
    page = open_page("/")
    cells = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    heatmap = as_csv(page, rows_figure(cells, np.array([0, 5, 9])), "rows")
    assert heatmap[0] == ["dimension", "timestep t", "value"]
    assert [*map(float, heatmap[4])] == pytest.approx([1, 5, cells[1, 1]], rel=1e-6)  # float32
    assert len(heatmap) == 7

    dots = [Dot("a, <b>", 2.5, 2.0, 4.0, 0)]
    assert as_csv(page, interval_figure(dots, "FID", None), "intervals") == [
        ["curve", "FID", "intervals", "low", "high"],
        ["a, <b>", "2.5", "0", "2", "4"],
    ]
    axes = [Axis("lr", [1e-3, 1e-4]), Axis("loss", ["l1", "l<2"])]
    parallel = as_csv(page, parallel_figure(axes, Axis("FID", [3.0, 5.0])), "parallel")
    assert parallel == [["lr", "loss", "FID"], ["0.001", "l1", "3"], ["0.0001", "l<2", "5"]]
    step = np.array([10, 20])
    value, low, high = ({"step": step, "value": np.array([v, v + 1])} for v in (2.0, 1.0, 3.0))
    assert as_csv(page, evaluation_figure({"run": (value, low, high)}, "FID"), "fid") == [
        ["curve", "step", "FID", "low", "high"],
        ["run", "10", "2", "1", "3"],
        ["run", "20", "3", "2", "4"],
    ]
    network = trace(network_plan("lecture", {}), 64)
    costs = as_csv(page, cost_figure(network, "parameters"), "parameters")
    assert costs[0] == ["parameters", "name"] and ["488448", "downs.0"] in costs
