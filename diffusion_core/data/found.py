"""What was found in a data set: how many images and classes, what was left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from diffusion_core.records import Count, Record, ShortText
from diffusion_core.text import cut

SHOWN_CLASSES, SHOWN_NAMES = 8, 3  # that a sentence names


class Reason(NamedTuple):
    """Why files are left out, as the end of a sentence about one and about several."""

    one: str
    several: str


# In the order in which a sentence gives them.
REASONS = {
    "unreadable": Reason("of {files} files cannot be read", "of {files} files cannot be read"),
    "folder": Reason("folder cannot be read", "folders cannot be read"),
    "large": Reason("image is too large and left out", "images are too large and left out"),
    "format": Reason(
        "image in a format that cannot be read is left out",
        "images in formats that cannot be read are left out",
    ),
    "beside": Reason(
        "image beside the class folders is left out",
        "images beside the class folders are left out",
    ),
    "split": Reason(
        "image of a split without class folders is left out",
        "images of splits without class folders are left out",
    ),
    "outside": Reason(
        "image outside the split folders is left out",
        "images outside the split folders are left out",
    ),
    "annotation": Reason(
        "mask or label beside the images is left out",
        "masks or labels beside the images are left out",
    ),
    "unlabelled": Reason(
        "image without a class is left out", "images without a class are left out"
    ),
    "alike": Reason(
        "image is nearly the same as another and left out",
        "images are nearly the same as others and left out",
    ),
    "again": Reason(
        "file is another link to an image and does not count",
        "files are other links to an image and do not count",
    ),
}


class LeftOut(Record):
    """Files that are left out for one reason."""

    reason: ShortText
    count: Count
    names: Annotated[tuple[ShortText, ...], Field(strict=False)] = ()  # of the first few


class Found(Record):
    """What was found in a data set."""

    images: Count
    classes: Count
    class_names: Annotated[tuple[ShortText, ...], Field(strict=False)] = ()  # the first few
    left_out: Annotated[tuple[LeftOut, ...], Field(strict=False)] = ()


def found(images: int, classes: Sequence[str], left_out: Iterable[tuple[str, str]]) -> Found:
    """`left_out`: the name and the reason of each file that is."""
    names: dict[str, list[str]] = {reason: [] for reason in REASONS}
    for name, reason in left_out:
        names[reason].append(name)
    return Found(
        images=images,
        classes=len(classes),
        class_names=tuple(classes[:SHOWN_CLASSES]),
        left_out=tuple(
            LeftOut(reason=reason, count=len(each), names=tuple(each[:SHOWN_NAMES]))
            for reason, each in names.items()
            if each
        ),
    )


def sentence(found: Found) -> str:
    """ "2,400 images in 2 classes (cat, dog). 40 of 2,440 files cannot be read: 000.jpg, …" """
    images = f"{found.images:,} {'image' if found.images == 1 else 'images'}"
    classes = f"{found.classes:,} {'class' if found.classes == 1 else 'classes'}"
    total = sum(each.count for each in found.left_out)
    several = f"; {total:,} left out" if len(found.left_out) > 1 else ""
    parts = [f"{images} in {classes} ({_listed(found.class_names, found.classes)}){several}."]
    unreadable = (each.count for each in found.left_out if each.reason in ("unreadable", "large"))
    files = found.images + sum(unreadable)
    for each in found.left_out:
        reason = REASONS.get(each.reason, Reason("file is left out", "files are left out"))
        what = (reason.one if each.count == 1 else reason.several).format(files=f"{files:,}")
        names = _listed(each.names, each.count)
        parts.append(f"{each.count:,} {what}: {names}" + ("" if names.endswith("…") else "."))
    return " ".join(parts)


def _listed(names: Sequence[str], count: int) -> str:
    return ", ".join([*map(cut, names), *(["…"] if count > len(names) else [])])
