"""The colours in `.streamlit/config.toml` can be told apart by everybody."""

from __future__ import annotations

import re
import tomllib

import pytest

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
