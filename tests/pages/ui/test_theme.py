"""The colours in `.streamlit/config.toml` can be told apart by everybody."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
import pytest

from dashboard.figures.theme import COLOURS, finish
from tests.forks.client import ROOT

THEMES = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"]
STYLE = (ROOT / "dashboard" / "style.css").read_text()


def luminance(colour: str) -> float:
    """The relative luminance of "#rrggbb", as WCAG 2 defines it."""
    values = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_the_bar_of_the_sampling_page_has_the_colours_of_the_page() -> None:
    grounds = [THEMES[name]["backgroundColor"] for name in ("light", "dark")]
    assert f"light-dark({', '.join(grounds)})" in STYLE


@pytest.mark.parametrize("name", ["light", "dark"])
def test_a_name_in_a_caption_can_be_read(name: str) -> None:
    theme = THEMES[name]
    text, ground = theme["codeTextColor"], theme["backgroundColor"]
    share = float(re.findall(r"opacity: ([\d.]+);", STYLE)[0])  # of captions, code in them too
    parts = [(int(text[k : k + 2], 16), int(ground[k : k + 2], 16)) for k in (1, 3, 5)]
    seen = "#" + "".join(f"{round(share * own + (1 - share) * under):02x}" for own, under in parts)
    assert contrast(seen, ground) >= 4.5


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_main_colour_can_be_seen_and_read_under_white_text(name: str) -> None:
    theme = THEMES[name]
    assert contrast(theme["primaryColor"], theme["backgroundColor"]) >= 3
    assert contrast(theme["primaryColor"], "#ffffff") >= 4.5  # Streamlit's text on main buttons
    assert contrast(theme["textColor"], theme["secondaryBackgroundColor"]) >= 7


def test_chosen_options_have_a_colour_that_can_be_read() -> None:
    colours = THEMES["light"]["primaryColor"], THEMES["dark"]["linkColor"]
    assert f"color: light-dark({', '.join(colours)})" in STYLE
    for name, colour in zip(("light", "dark"), colours, strict=True):
        assert contrast(colour, THEMES[name]["secondaryBackgroundColor"]) >= 4.5


# How linear RGB is seen without one kind of cone (Machado et al. 2009, table 1, severity 1).
VISIONS = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(  # of linear sRGB, D65
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def cielab(colour: str, vision: np.ndarray) -> np.ndarray:
    """L*, a*, b* of "#rrggbb" as it is seen."""
    values = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    share = TO_XYZ @ np.clip(vision @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_cielab_is_that_of_the_standard() -> None:
    found = cielab("#ff0000", VISIONS["all cones"])
    assert found == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    red, green = (cielab(colour, VISIONS["deuteranopia"]) for colour in ("#a04000", "#606000"))
    assert (
        np.linalg.norm(red - green)
        < 15
        < np.linalg.norm(
            np.subtract(*(cielab(c, VISIONS["all cones"]) for c in ("#a04000", "#606000")))
        )
    )


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", ["light", "dark"])
def test_curves_can_be_told_apart_without_a_kind_of_cone(name: str, vision: str) -> None:
    """2.3 is just noticeable; the first four are those that stand beside each other most."""
    theme = THEMES[name]
    seen = [cielab(colour, VISIONS[vision]) for colour in theme["chartCategoricalColors"]]
    for one, other in combinations(range(len(seen)), 2):
        least = 18 if other < 4 else 12
        assert np.linalg.norm(seen[one] - seen[other]) >= least, (one, other)
    for colour in theme["chartCategoricalColors"]:
        assert contrast(colour, theme["backgroundColor"]) >= 3


def test_of_more_than_two_curves_each_has_a_dash_and_a_symbol_of_its_own() -> None:
    def curves(count: int) -> list[tuple[str | None, str | None]]:
        figure = go.Figure()
        for colour in COLOURS[:count]:
            figure.add_scatter(y=[1, 2], mode="lines+markers", line={"color": colour})
        finish(figure, "x", "y")
        return [(curve.line.dash, curve.marker.symbol) for curve in figure.data]

    assert curves(2) == [(None, None)] * 2
    for number in range(2):
        assert len({each[number] for each in curves(len(COLOURS))}) == len(COLOURS)
