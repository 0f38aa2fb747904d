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
    "raw full original originals".split()
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


def arrange(files: Iterable[Parts], root: str) -> tuple[dict[int, str], dict[int, str]]:
    """The class of each file, and the reason for each that is left out, by its number.

    `files`: their paths below the folder, which is called `root`.
    """
    entries: list[Entry] = [(parts, number) for number, parts in enumerate(files)]
    outer = root
    while True:
        direct, groups = _grouped(entries)
        splits = _splits(groups)
        if splits or direct or len(groups) != 1:
            break
        # A folder that only holds another one: dataset/train, data/images/cat.
        [(name, inner)] = groups.items()
        deeper = _grouped(inner)[1]
        holds = name == outer or is_neutral(name) or [*deeper] == [name] or _splits(deeper)
        if not deeper or not holds:
            break
        entries, outer = inner, name
    if splits:
        return _of_splits(direct, groups, splits, root)
    left_out = dict.fromkeys((number for _, number in direct), "beside")
    unlabelled = [name for name in groups if not UNLABELLED.isdisjoint(words(name))]
    if direct or len(unlabelled) < len(groups):
        for name in unlabelled:
            left_out |= dict.fromkeys((number for _, number in groups.pop(name)), "unlabelled")
    if not groups:
        return {number: root for _, number in direct}, {
            number: why for number, why in left_out.items() if why != "beside"
        }
    return _classes(groups), left_out


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
