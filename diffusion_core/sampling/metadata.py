"""The settings that made an image: written into its PNG file, and read from one of any origin."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from PIL import Image, UnidentifiedImageError

from diffusion_core.runs.remarks import Subject
from diffusion_core.sampling.spec import SamplingSpec, SpecError

ENTRY = "diffusion_lab"  # of the file: a JSON record
MAX_MB = 64  # largest file that is read; a grid of 4,096 images of 64 pixels is below


class NoSettings(ValueError):
    """A file without settings that can be used; the message says why."""


class Kind(StrEnum):
    """What a file shows of a request's images."""

    GRID = "grid"  # all of them
    IMAGE = "image"  # one
    STRIP = "strip"  # steps of the way from noise to image
    FILM = "film"
    OTHER = "other"  # written by another version


@dataclass(frozen=True)
class Made:
    """What a file says about how it was made."""

    spec: SamplingSpec
    image: int | None = None  # its number in the request, from 0; None for all of them
    kind: Kind = Kind.GRID
    # Of the Sampling page, where the spec alone does not make the image; its values unchecked.
    page: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """Of the Sampling page; empty where the spec alone makes the image."""
        mode = self.page.get("mode")
        return mode if isinstance(mode, str) else ""


def entries(
    spec: SamplingSpec,
    image: int | None = None,
    what: str = "",
    page: Mapping[str, Any] | None = None,
    kind: Kind | None = None,
) -> dict[str, str]:
    """The entries of a PNG of image number `image`, from 0, or of all images of a request.

    `kind`: what the file shows; by default the image, or a grid of all. `what`: the same in words,
    for people. `page`: what the page's address must hold beside the spec to make it again, with
    its `mode`.
    """
    kind = kind or (Kind.GRID if image is None else Kind.IMAGE)
    record: dict[str, Any] = spec.to_dict() | {"kind": kind}
    if page is not None:
        record["page"] = dict(page)
    if image is not None:
        record |= {"picture": image, "class": spec.class_of(image)}
    what = what or (kind if image is None else f"image {image + 1:,}")
    return {
        "Software": "Diffusion Lab",
        "Description": f"{spec.describe()} ({what})",
        ENTRY: json.dumps(record, ensure_ascii=False),
    }


def subject_of(made: Made) -> Subject:
    """The image of a file as remarks name it: the same however many were generated with it, and
    whatever the run was called. Raises NoSettings for a file of several images."""
    spec = made.spec.without_unused()
    image = 0 if made.kind == Kind.GRID and spec.n == 1 else made.image
    if image is None:
        raise NoSettings("The file shows several images; a remark is about one.")
    how = spec.to_dict() | {"class": spec.class_of(image), "page": dict(made.page)}
    for name in ("run", "step", "n", "seed", "label"):  # the rest of the name, or no part of it
        del how[name]
    settings = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:12]
    return Subject(step=spec.step, image=image, seed=spec.seed, settings=settings)


def read(data: bytes) -> Made:
    """What a PNG file, which may come from anywhere, says about how it was made. Raises NoSettings.

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
        raise NoSettings("The file is no PNG image; only PNG files hold settings.") from error
    except Image.DecompressionBombError as error:
        raise NoSettings("The image has too many pixels to come from this app.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise NoSettings("The PNG file is damaged; its settings cannot be read.") from error
    if not isinstance(text, str):
        raise NoSettings(
            "The image carries no settings. Those downloaded from this page do, unless "
            "another program has saved them again."
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
        raise NoSettings("The image's settings cannot be used: the request has no such image.")
    return Made(spec, image, _kind(record), page if isinstance(page, dict) else {})


def _kind(record: dict[str, Any]) -> Kind:
    """The kind in a record. Files of earlier versions have it only in words, in `what`."""
    kind, what = record.get("kind"), record.get("what")
    if isinstance(kind, str):
        return Kind(kind) if kind in list(Kind) else Kind.OTHER
    if not isinstance(what, str) or not what:
        return Kind.GRID if record.get("picture") is None else Kind.IMAGE
    if what.startswith("film"):
        return Kind.FILM
    return Kind.STRIP if what.endswith("out of the noise") else Kind.OTHER
