"""How a folder of images is divided into splits and classes; the table is in `docs/data.md`.

Works on the paths alone, as tuples of names below the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Names of the system and of programs, which count nowhere; so does what begins with . or @.
SYSTEM = frozenset(
    {
        "__macosx",
        "__pycache__",
        "lost+found",
        "$recycle.bin",
        "recycler",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "system volume information",
        "network trash folder",
        "temporary items",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    }
)
SPLITS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
# Say nothing about what is in a folder.
NEUTRAL = frozenset(
    "image images img imgs photo photos picture pictures pic pics jpg jpeg jpegs jpegimages png "
    "pngs data dataset datasets set sets file files folder folders all split splits part parts "
    "raw full original originals archive download downloads input fold folds batch batches shard "
    "shards chunk chunks".split()
)
NUMBERED = frozenset("part fold batch shard chunk split".split())
# Drawn on images, or made from them: no images of their own where they are beside some.
ANNOTATIONS = frozenset(
    "mask masks label labels annotation annotations anno trimap trimaps segmentation segmentations "
    "groundtruth gt".split()
)
UNLABELLED = frozenset("unlabelled unlabeled unsup unsupervised devkit".split())
_JOINED = re.compile(rf"({'|'.join(SPLITS)})(set|data|images|imgs)?\d*")

Parts = tuple[str, ...]
Entry = tuple[Parts, int]  # the path of a file in the folder at hand, and the file's number
Groups = dict[str, list[Entry]]


def is_hidden(name: str) -> bool:
    return name.startswith((".", "@")) or name.casefold() in SYSTEM


def words(name: str) -> list[str]:
    """The words of a folder's name: "CarsTrain_64" has cars, train and 64."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return re.split(r"[\W_]+", apart.casefold().strip(" _-."))


def split_of(name: str) -> tuple[str, str] | None:
    """Which split a folder's name names, and what else it says: ("train", "cars").

    "train", "Testing", "train2017", "train_images", "cars_train"; but no "train_station".
    """
    first, *rest = words(name)
    if (match := _JOINED.fullmatch(first)) and all(w in NEUTRAL or w.isdecimal() for w in rest):
        return SPLITS[match[1]], ""
    *before, last = words(name)
    while before and (last in NEUTRAL or last.isdecimal()):
        last = before.pop()
    if (match := _JOINED.fullmatch(last)) and before:
        stem = " ".join(word for word in before if word not in NEUTRAL)
        return SPLITS[match[1]], stem
    return None


def is_neutral(name: str) -> bool:
    return all(word in NEUTRAL or word.isdecimal() for word in words(name))


def is_part(name: str) -> bool:
    """Whether a name says only that this is one of several parts: fold1, images_002, data."""
    bare = _without_digits(name)
    return any(bare) and all(not word or word in NEUTRAL for word in bare)


def _without_digits(name: str) -> list[str]:
    return [word.rstrip("0123456789") for word in words(name)]


def are_parts(names: Iterable[str]) -> bool:
    """Whether several folders are parts of one: also HAM_images_part_1 and HAM_images_part_2."""
    names = list(names)
    first = _without_digits(names[0])
    numbered = all(_without_digits(name) == first for name in names)
    return all(map(is_part, names)) or (numbered and not NUMBERED.isdisjoint(first))


def is_annotation(name: str) -> bool:
    """masks, train_masks, SegmentationClass; but no "with_mask"."""
    found = words(name)
    others = [word for word in found if word not in ANNOTATIONS]
    plain = (word in ("class", "object") or is_part(word) or split_of(word) for word in others)
    return len(others) < len(found) and all(plain)


def arrange(files: Iterable[Parts], root: str) -> tuple[dict[int, str], dict[int, str]]:
    """The class of each file, and the reason for each that is left out, by its number.

    `files`: their paths below the folder, which is called `root`.
    """
    entries, left_out = _without_annotations([*enumerate(files)])
    outer = root
    while True:
        direct, groups = _grouped(entries)
        splits = _splits(groups)
        if splits or not groups:
            break
        if len(groups) > 1 and not direct and are_parts(groups):
            entries = [entry for inner in groups.values() for entry in inner]
            continue
        # A folder around all others: dataset/train, data/images/cat, PetImages/cat.
        [name, *others] = groups
        images, deeper = _grouped(groups[name])
        known = name == outer or is_neutral(name) or [*deeper] == [name]
        around = not images and _lead_to_several(groups[name])
        if others or not deeper or not (known or around):
            break
        left_out |= dict.fromkeys((number for _, number in direct), "beside")
        entries, outer = groups[name], name
    if splits:
        classes, rest = _of_splits(direct, groups, splits, root)
        return classes, left_out | rest
    _merge_copy(groups, outer)
    left_out |= dict.fromkeys((number for _, number in direct), "beside")
    unlabelled = [name for name in groups if not UNLABELLED.isdisjoint(words(name))]
    if direct or len(unlabelled) < len(groups):
        for name in unlabelled:
            left_out |= dict.fromkeys((number for _, number in groups.pop(name)), "unlabelled")
    if not groups:
        for _, number in direct:
            del left_out[number]
        return {number: root for _, number in direct}, left_out
    return _classes(groups), left_out


def _without_annotations(files: list[tuple[int, Parts]]) -> tuple[list[Entry], dict[int, str]]:
    """The files without masks and labels that are beside images: images/1.jpg, masks/1.png."""
    folders = {parts[:depth] for _, parts in files for depth in range(1, len(parts))}
    beside = {folder[:-1] for folder in folders if is_part(folder[-1])}
    drawn = {folder for folder in folders if folder[:-1] in beside and is_annotation(folder[-1])}
    entries: list[Entry] = []
    left_out: dict[int, str] = {}
    for number, parts in files:
        if any(parts[:depth] in drawn for depth in range(1, len(parts))):
            left_out[number] = "annotation"
        else:
            entries.append((parts, number))
    return entries, left_out


def _lead_to_several(entries: list[Entry]) -> bool:
    """Whether there are splits, or several folders alone, below folders that hold one other."""
    direct, groups = _grouped(entries)
    while len(groups) == 1 and not direct and not _splits(groups):
        [inner] = groups.values()
        direct, groups = _grouped(inner)
    return bool(_splits(groups)) or (len(groups) > 1 and not direct)


def _merge_copy(groups: Groups, outer: str) -> None:
    """A folder as its parent with the same classes is another part of it: flowers/flowers/rose."""
    direct, inner = _grouped(groups.get(outer, []))
    if inner and not direct and inner.keys() <= groups.keys() - {outer}:
        del groups[outer]
        for name, entries in inner.items():
            groups[name] += entries


def _grouped(entries: Iterable[Entry]) -> tuple[list[Entry], Groups]:
    """The files that are in a folder itself, and those of each of its folders."""
    direct: list[Entry] = []
    groups: Groups = {}
    for parts, number in entries:
        if len(parts) == 1:
            direct.append((parts, number))
        else:
            groups.setdefault(parts[0], []).append((parts[1:], number))
    return direct, groups


def _classes(groups: Mapping[str, list[Entry]]) -> dict[int, str]:
    return {number: name for name, entries in groups.items() for _, number in entries}


def _splits(groups: Groups) -> list[str]:
    """The folders that are splits; none where a folder called train is a class among others."""
    named = {name: split for name in groups if (split := split_of(name))}
    # cars_train and cars_test are splits of one set, steam_train and bullet_train are not.
    if not named or len({stem for _, stem in named.values()}) > 1:
        return []
    others = [name for name in groups if name not in named and UNLABELLED.isdisjoint(words(name))]
    if not others or len({split for split, _ in named.values()}) > 1:
        return list(named)
    [*one] = named
    several = any(len(_inside(name, groups[name])[1]) > 1 for name in one)
    return one if several and not any(_grouped(groups[name])[1] for name in others) else []


def _inside(name: str, entries: list[Entry]) -> tuple[list[Entry], Groups]:
    """What is in a split, without folders that only hold another: cars_train/cars_train."""
    direct, groups = _grouped(entries)
    while not direct and len(groups) == 1:
        [(inner, below)] = groups.items()
        if not (inner == name or is_neutral(inner) or split_of(inner)):
            break
        direct, groups = _grouped(below)
    return direct, groups


def _of_splits(
    direct: list[Entry], groups: Groups, splits: list[str], root: str
) -> tuple[dict[int, str], dict[int, str]]:
    """As `arrange`: the splits are put together, and classes of the same name are one."""
    left_out = dict.fromkeys((number for _, number in direct), "outside")
    for name in groups.keys() - set(splits):
        left_out |= dict.fromkeys((number for _, number in groups[name]), "outside")
    inside = [_inside(name, groups[name]) for name in splits]
    classes: dict[int, str] = {}
    any_classes = any(below for _, below in inside)
    for flat, below in inside:
        classes |= _classes(below)
        numbers = [number for _, number in flat]
        if not any_classes:
            classes |= dict.fromkeys(numbers, root)
        else:
            left_out |= dict.fromkeys(numbers, "beside" if below else "split")
    return classes, left_out
