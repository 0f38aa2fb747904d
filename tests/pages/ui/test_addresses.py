"""Older addresses, and addresses below a page, lead to the page; all others are Streamlit's."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette

from dashboard.ui import addresses


def get(path: str, query: str = "", root: str = "") -> tuple[int, str]:
    """Status and place of the answer to a request."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost:8501")],
        "server": ("localhost", 8501),
        "scheme": "http",
    }
    app = Starlette(routes=addresses.routes(root))
    app.router.redirect_slashes = False  # Streamlit's own routes leave nothing over
    # In a thread of its own: the one of the browser tests has a loop that runs already.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, app(scope, receive, send)).result()
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"location", b"").decode()


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
    assert get(path) == (307, place)
    assert get(f"/part{path}", root="/part") == (307, place)


def test_the_settings_of_an_older_address_stay() -> None:
    query = "network=run+demo-cars&size=48&a=%C3%A4"
    assert get("/unet", query) == (307, f"./network?{query}")


@pytest.mark.parametrize(
    "path", ["/", "/network", "/static/js/index.js", "/_stcore/health", "/training/_stcore/health"]
)
def test_a_page_itself_and_what_the_browser_loads_for_it_are_left_alone(path: str) -> None:
    assert get(path)[0] == 404
