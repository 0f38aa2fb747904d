"""Older addresses, and addresses below a page, lead to the page; all others are Streamlit's."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from dashboard.ui import addresses
from tests.pages.asgi import get


def place_of(path: str, query: str = "", root: str = "") -> tuple[int, str]:
    """Status and place of the answer to a request."""
    app = Starlette(routes=addresses.routes(root))
    app.router.redirect_slashes = False  # Streamlit's own routes leave nothing over
    status, headers, _ = get(app, path, query)
    return status, headers.get("location", "")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/unet", "./network"),
        ("/home", "./"),
        ("/network/", "../network"),
        ("/unet/deep", "../network"),
        ("/training/deep/page", "../../training"),
        ("/home/deep", "../"),
    ],
)
def test_the_address_leads_to_the_page(path: str, place: str) -> None:
    assert place_of(path) == (307, place)
    assert place_of(f"/part{path}", root="/part") == (307, place)


def test_the_settings_of_an_older_address_stay() -> None:
    query = "network=run+demo-cars&size=48&a=%C3%A4"
    assert place_of("/unet", query) == (307, f"./network?{query}")


@pytest.mark.parametrize(
    "path", ["/", "/network", "/static/js/index.js", "/_stcore/health", "/training/_stcore/health"]
)
def test_a_page_itself_and_what_the_browser_loads_for_it_are_left_alone(path: str) -> None:
    assert place_of(path)[0] == 404
