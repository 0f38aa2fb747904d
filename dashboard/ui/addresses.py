"""Addresses beside those of the pages: older ones, and any below a page's, lead to the page.

Streamlit would answer an older one with Home and a dialog that says "Page not found", and one below
a page with an empty document, whose scripts it looks for in the wrong folder.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dashboard.ui.navigation import HOME, SECTIONS

PAGES = [HOME, *(page for pages in SECTIONS.values() for page in pages)]


def routes(root: str) -> list[Route]:
    """For a server whose pages lie below `root`, an empty text or "/part"."""
    found = []
    for page in PAGES:
        lead = partial(redirect, "" if page is HOME else page.url_path)
        # Streamlit names a page by its file where the app does not; so did this app once.
        names = {page.path.stem, page.url_path}
        found += [Route(f"{root}/{name}/{{rest:path}}", lead) for name in names]
        if page is HOME or page.path.stem != page.url_path:
            found.append(Route(f"{root}/{page.path.stem}", lead))
    return found


def redirect(target: str, request: Request) -> Response:
    """To the page at `target`, with the settings of the address.

    The way is a relative one, which holds behind a proxy that takes a prefix away.
    """
    rest = request.path_params.get("rest")
    if rest is not None and rest.startswith("_stcore/"):  # where the browser looks for the server
        return PlainTextResponse("Not found", 404)
    up = "./" if rest is None else "../" * (1 + rest.count("/"))
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(up + target + query)
