"""The colours in `.streamlit/config.toml` can be told apart by everybody."""

from __future__ import annotations

import tomllib

import pytest

from tests.forks.client import ROOT

THEMES = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"]


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
    style = (ROOT / "dashboard" / "style.css").read_text()
    assert f"light-dark({', '.join(grounds)})" in style


@pytest.mark.parametrize("name", ["light", "dark"])
def test_a_name_in_a_caption_can_be_read(name: str) -> None:
    theme = THEMES[name]
    text, ground = theme["codeTextColor"], theme["backgroundColor"]
    # Streamlit shows captions, also code in them, at 60 % over the page.
    parts = [(int(text[k : k + 2], 16), int(ground[k : k + 2], 16)) for k in (1, 3, 5)]
    seen = "#" + "".join(f"{round(0.6 * own + 0.4 * under):02x}" for own, under in parts)
    assert contrast(seen, ground) >= 4


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_main_colour_can_be_read_as_text_and_under_white_text(name: str) -> None:
    theme = THEMES[name]
    assert contrast(theme["primaryColor"], theme["backgroundColor"]) >= 4
    assert contrast(theme["primaryColor"], "#ffffff") >= 4  # Streamlit's text on main buttons
    assert contrast(theme["textColor"], theme["secondaryBackgroundColor"]) >= 7
