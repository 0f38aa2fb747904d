"""The document that the browser loads before all else, with what the pages will need in its head.

Streamlit sends a page's style among its elements, after it has drawn a page without it, and loads
the script of each kind of element when the first one is there. Both make the page jump.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import streamlit
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of a browser's conditions and wishes, those that a changed document must not meet: what Streamlit
# compares with is its own file, and what is compressed cannot be changed.
LEFT_OUT = (b"if-none-match", b"if-modified-since", b"accept-encoding", b"range")
# Elements that most pages have, as their scripts are called in Streamlit's own folder.
# Their formulas are wider in another font, until these are there.
FONTS = "KaTeX_Main-Regular KaTeX_Math-Italic KaTeX_Size1-Regular KaTeX_Caligraphic-Regular".split()
ELEMENTS = "rehype-katex BidiComponent Slider NumberInput Selectbox ButtonGroup Checkbox".split()


def head_of(style: Path) -> str:
    """A style, and early loading of Streamlit's scripts and fonts for what the pages consist of."""
    links = [_links('rel="modulepreload"', f"static/js/{name}.*.js") for name in ELEMENTS]
    kind = 'rel="preload" as="font" type="font/woff2"'
    links += [_links(kind, f"static/media/{name}.*.woff2") for name in FONTS]
    return f"<style>{style.read_text(encoding='utf-8')}</style>{''.join(links)}"


def _links(kind: str, pattern: str) -> str:
    """To Streamlit's files of a name, which has letters of its version in it; none where it has no
    such file."""
    static = Path(streamlit.__file__).parent / "static"
    files = (quote(path.relative_to(static).as_posix()) for path in static.glob(pattern))
    return "".join(f'<link {kind} crossorigin href="./{file}">' for file in files)


class Document:
    """ASGI middleware around the app: `head` is added to the head of Streamlit's document."""

    def __init__(self, app: ASGIApp, head: str) -> None:
        self.app, self.head = app, head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "text/html" not in Headers(scope=scope).get("accept", ""):
            await self.app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in LEFT_OUT]
        start: Message | None = None

        async def add_head(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:  # the first part of the body, or the whole
                if b'<div id="root">' in message.get("body", b""):
                    message["body"] = message["body"].replace(b"</head>", self.head + b"</head>", 1)
                    own = MutableHeaders(raw=start["headers"])
                    own["content-length"] = str(len(message["body"]))
                    del own["etag"], own["last-modified"]
                await send(start)
                start = None
            await send(message)

        await self.app(dict(scope, headers=headers), receive, add_head)
