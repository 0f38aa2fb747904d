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
# What a file shows where it is neither an image of the spec nor a grid of all of them.
KINDS = ("strip", "film", "edit", "comparison", "other")
MAX_MB = 64  # of a file that is looked into; a grid of 4,096 images of 64 pixels is below


class NoSettings(ValueError):
    """A file that holds no settings which can be used; the message says why."""


@dataclass(frozen=True)
class Made:
    """What a file says of how it was made."""

    spec: SamplingSpec
    image: int | None = None  # its number in the spec, from 0; None for all of them
    kind: str = ""  # one of KINDS; empty for a grid or one image
    # Of the Sampling page, if the spec alone does not make the image; its values are unchecked.
    page: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """Of the Sampling page; empty if the spec alone makes the image."""
        mode = self.page.get("mode")
        return mode if isinstance(mode, str) else ""


def entries(
    spec: SamplingSpec,
    image: int | None = None,
    kind: str = "",
    page: Mapping[str, Any] | None = None,
    what: str = "",
) -> dict[str, str]:
    """The entries of a PNG that is the spec's image of that number, or a grid of all of them.

    `kind`: one of KINDS where it is neither. `page`: the values of the Sampling page's controls, by
    their keys, that make the same again together with the spec. `what`: describes it for people.
    """
    record: dict[str, Any] = json.loads(spec.to_json())
    if kind:
        record["kind"] = kind
    if page is not None:
        record["page"] = dict(page)
    which = kind or "grid"
    if image is not None:
        record |= {"picture": image, "class": spec.class_of(image)}
        which = f"{kind} of image {image + 1:,}" if kind else f"image {image + 1:,}"
    return {
        "Software": "Diffusion Lab",
        "Description": f"{spec.words()} ({what or which})",
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
    image, page = record.get("picture"), record.get("page")
    if image is not None and not (type(image) is int and 0 <= image < spec.n):
        raise NoSettings("The image's settings cannot be used: its image number is out of range.")
    return Made(
        spec,
        image,
        _kind(record),
        page if isinstance(page, dict) else {},
    )


def _kind(record: Mapping[str, Any]) -> str:
    kind, what = record.get("kind", ""), record.get("what")
    if isinstance(what, str) and not kind:  # earlier versions described it only for people
        if what.startswith("film"):
            return "film"
        return "strip" if what.endswith("out of the noise") else "other"
    return kind if kind in ("", *KINDS) else "other"
