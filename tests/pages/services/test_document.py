"""What is added to the head of the document that the browser loads first."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dashboard.services.document import ELEMENTS, FONTS, Document, head_of
from tests.forks.client import ROOT
from tests.pages.asgi import get

STATIC = Path(streamlit.__file__).parent / "static"
HEAD = head_of(ROOT / "dashboard" / "style.css")
BROWSER = {"accept": "text/html,*/*", "accept-encoding": "gzip"}
REPORT = "<head></head>" + 5000 * "<p>A report</p>"
# As in Streamlit: what compresses is inside what we add.
APP = Document(
    Starlette(
        routes=[
            Route("/report", lambda _: HTMLResponse(REPORT)),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[Middleware(GZipMiddleware)],
    ),
    HEAD,
)


def test_the_document_comes_with_our_style_and_is_never_taken_for_streamlit_s() -> None:
    plain = (STATIC / "index.html").read_bytes()
    status, headers, body = get(APP, "/", headers=BROWSER)
    assert status == 200 and body == plain.replace(b"</head>", HEAD.encode() + b"</head>")
    assert int(headers["content-length"]) == len(body)
    assert not {"etag", "last-modified"} & headers.keys()
    known = get(APP, "/index.html")[1]["etag"]  # as a browser has it from a server without ours
    assert get(APP, "/", headers=BROWSER | {"if-none-match": known})[0] == 200


def test_the_scripts_and_fonts_of_the_elements_are_those_that_streamlit_has() -> None:
    found = re.findall(r'<link rel="[^>]+" crossorigin href="\./([^"]+)">', HEAD)
    assert [path.split("/")[-1].split(".")[0] for path in found] == ELEMENTS + FONTS
    assert all((STATIC / path).exists() for path in found)


def test_other_answers_are_left_as_they_are() -> None:
    assert get(APP, "/report", headers=BROWSER)[2] == REPORT.encode()
    status, headers, body = get(APP, "/favicon.png", headers={"accept": "image/*"})
    assert status == 200 and "etag" in headers
    assert body == (STATIC / "favicon.png").read_bytes()
