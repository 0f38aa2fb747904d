"""The image files that this server offers to the film: those of the `samples` folders of runs.

Streamlit would serve a folder with every file in it, as whatever type its name says.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from diffusion_core.media.animation import MEDIA_TYPES

ROUTE = "/samples/{path:path}"  # all of it: Streamlit answers what nobody knows with its own page
# Whatever a file holds, the browser takes it for an image or a film, and runs nothing in it.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}
_folders: dict[str, Path] = {}  # by the part of the address that stands for them


def samples_address(folder: Path) -> str:
    """Where the films of this server find the images of a folder, relative to the page.

    The same after a restart of the server.
    """
    folder = folder.absolute()
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    _folders[name] = folder
    return f"samples/{name}"


def serve(request: Request) -> Response:
    """One file, in a thread of the server's; nothing but images and films, and none elsewhere."""
    name, _, rest = request.path_params["path"].partition("/")
    file = _find(_folders[name], rest) if name in _folders else None
    try:
        if file is not None:
            kind = MEDIA_TYPES[file.suffix.lower()]
            return Response(file.read_bytes(), media_type=kind, headers=HEADERS)
    except OSError:  # removed since, or not to be read
        pass
    return PlainTextResponse("There is no such image.", status_code=404, headers=HEADERS)


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name in `folder` of a run, unless it, or the folder, is a link to some
    other place."""
    try:
        file = (folder / name).resolve(strict=True)
        inside = file.parent == folder.parent.resolve() / folder.name
        return file if inside and file.suffix.lower() in MEDIA_TYPES and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no such file or name, or a loop of links
        return None
