"""The settings that made an image, kept in its PNG file, and read again from one of any origin."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

from diffusion_core.sampling.spec import SamplingSpec, SpecError

ENTRY = "diffusion_lab"  # of the file: a JSON record
MAX_MB = 64  # of a file that is looked into; a grid of 4,096 images of 64 pixels is below


class NoSettings(ValueError):
    """A file that holds no settings which can be used; the message says why."""


@dataclass(frozen=True)
class Made:
    """What a file says of how it was made."""

    spec: SamplingSpec
    image: int | None = None  # its number in the order, from 0; None for all of them
    what: str = ""  # the part or the film of them that it is; empty for a grid or one image
    # Of the Sampling page, where the order alone does not make the image; its values unchecked.
    page: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """Of the Sampling page; empty where the order alone makes the image."""
        mode = self.page.get("mode")
        return mode if isinstance(mode, str) else ""


def entries(
    spec: SamplingSpec,
    image: int | None = None,
    what: str = "",
    page: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The entries of a PNG that is the order's image of that number, or a grid of all of them.

    `what`: for people, what the file shows where it is neither of these two. `page`: what the
    page's address must hold beside the order to make the same again, with its `mode`.
    """
    record: dict[str, Any] = json.loads(spec.to_json())
    if what:
        record["what"] = what
    if page is not None:
        record["page"] = dict(page)
    if image is None:
        what = what or "grid"
    else:
        record |= {"picture": image, "class": spec.class_of(image)}
        what = what or f"image {image + 1:,}"
    return {
        "Software": "Diffusion Lab",
        "Description": f"{spec.words()} ({what})",
        ENTRY: json.dumps(record, ensure_ascii=False),
    }


def read(data: bytes) -> Made:
    """What a PNG file says of how it was made, believed in nothing. Raises NoSettings.

    The pixels are not decoded, so their number does not matter; Pillow refuses entries that grow
    beyond 1 MB when they are decompressed.
    """
    if len(data) > MAX_MB * 2**20:
        raise NoSettings(f"The file is larger than {MAX_MB} MB; no image of this app is.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as pil_image:
                text = pil_image.info.get(ENTRY)
    except UnidentifiedImageError as error:
        raise NoSettings("The file is no PNG image; settings are only in those.") from error
    except Image.DecompressionBombError as error:
        raise NoSettings("The image has too many pixels to be one of this app.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise NoSettings("The PNG file is damaged; its settings cannot be read.") from error
    if not isinstance(text, str):
        raise NoSettings(
            "The image carries no settings. Those downloaded from this page do, unless "
            "another program has saved them anew."
        )
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoSettings("The settings in the image are damaged.") from error
    try:
        spec = SamplingSpec.from_dict(record)
    except SpecError as error:
        raise NoSettings(f"The image's settings cannot be used. {error}") from error
    image, what, page = (record.get(name) for name in ("picture", "what", "page"))
    if image is not None and not (type(image) is int and 0 <= image < spec.n):
        raise NoSettings("The image's settings cannot be used: its number is none of the order.")
    return Made(
        spec,
        image,
        what if isinstance(what, str) else "",
        page if isinstance(page, dict) else {},
    )
