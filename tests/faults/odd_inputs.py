"""Strategies for what comes from outside: odd JSON, odd texts, damaged files, odd trees."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

LONG = "x" * 5000
ODD_TEXTS = (
    "",
    " ",
    "a\nb",
    "\0",
    "\x1b[31m",
    "\ud800",
    "\u202eabc",
    "\u2028",
    "é",
    "e\u0301",
    "﷽" * 80,
    "![x](http://x.example/y.png)",
    "<img src=x onerror=alert(1)>",
    "$x$ :smile: `a` # b",
    "~nobody-here",
    "../../etc/passwd",
    "a@b@1",
    "{0}%s",
    "١٢",
    "nan",
    "-inf",
    "1e999",
    "-0",
    "0x10",
    "1_0",
    "1" * 400,
    "1" * 5000,
    LONG,
)
ODD_JSON = (
    "null",
    "true",
    "-1",
    "0",
    "1.0",
    "0.5",
    "1e308",
    "1e400",
    "-1e400",
    "NaN",
    "-Infinity",
    "1" + "0" * 400,
    "1" * 5000,
    str(2**63),
    "[]",
    "{}",
    "[null]",
    '{"": null}',
    "[[0, 0], [0, 0]]",
    "[" * 150 + "]" * 150,
    "[" * 900 + "]" * 900,
    '{"a":' * 1500 + "1" + "}" * 1500,
    "[" * 20_000,
    "[" + "0," * 3000 + "0]",
    "{" + ",".join(f'"k{k}": 0' for k in range(2000)) + "}",
    *(json.dumps(text) for text in ODD_TEXTS),
)
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=30))
numbers = st.one_of(
    st.integers().map(str), st.floats().map(repr), st.integers(0, 300).map(lambda n: str(n / 100))
)
AS_JSON = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
json_texts = st.one_of(
    st.sampled_from(ODD_JSON),
    numbers.map(lambda text: AS_JSON.get(text, text)),
    st.text(max_size=30).map(json.dumps),
)
places = st.integers(0, 2**16)
Place = tuple[str | int, ...]


def paths_of(value: Any, before: Place = ()) -> list[Place]:
    """The place of every value inside a JSON value, from the outside in."""
    found = [before]
    if isinstance(value, (dict, list)):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in inside:
            found += paths_of(each, (*before, key))
    return found


def spoiled(*valid: Any, most: int = 3) -> st.SearchStrategy[str]:
    """JSON texts of one of the values, of which up to `most` values are other ones or new."""

    def make(which: int, changes: list[tuple[int, str, str, bool]]) -> str:
        tree = {"": copy.deepcopy(valid[which])}
        for number, (place, key, _, new) in enumerate(changes):
            full: Place = ("", *paths[which][place % len(paths[which])])
            outer, last = full[:-1], full[-1]
            parent: Any = tree
            for part in outer:
                parent = parent[part]
                if not isinstance(parent, (dict, list)):
                    break
            else:
                if new and isinstance(parent, dict) and outer:
                    last = key
                parent[last] = f"@{number}@"
        text = json.dumps(tree[""])
        for number, (*_, value, _) in enumerate(changes):
            text = text.replace(f'"@{number}@"', value)
        return text

    paths = [paths_of(each) for each in valid]
    change = st.tuples(places, st.sampled_from(ODD_TEXTS), json_texts, st.booleans())
    changes = st.lists(change, max_size=most)
    return st.builds(make, st.integers(0, len(valid) - 1), changes)


def damaged(*files: bytes) -> st.SearchStrategy[bytes]:
    """One of the files with bytes changed, cut away, added or doubled; or other bytes."""

    def make(which: int, flips: list[tuple[int, int]], cut: int, kind: str, more: bytes) -> bytes:
        data = bytearray(files[which])
        for place, value in flips:
            data[place % len(data)] = value
        at = cut % (len(data) + 1)
        if kind == "cut":
            del data[at:]
        elif kind == "out":
            del data[at : at + len(more) + 1]
        elif kind == "in":
            data[at:at] = more
        elif kind == "twice":
            data[at:at] = data[at : at + 64]
        elif kind == "other":
            data[at:] = more
        return bytes(data)

    flips = st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 255)), max_size=4)
    kinds = st.sampled_from(("flip", "cut", "out", "in", "twice", "other"))
    which = st.integers(0, len(files) - 1)
    return st.builds(make, which, flips, st.integers(0, 2**32), kinds, st.binary(max_size=60))


def json_files(*valid: Any) -> st.SearchStrategy[bytes]:
    """The bytes of a JSON file: mostly odd values in the right form."""
    return st.one_of(
        spoiled(*valid).map(str.encode),
        spoiled(*valid).map(str.encode),
        damaged(*(json.dumps(each).encode() for each in valid)),
    )


def some_of(values: Sequence[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), max_size=most)


def head_damaged(data: bytes, size: int = 2000) -> st.SearchStrategy[bytes]:
    """Damage in the whole file, or in its beginning."""
    head = damaged(data[:size]).map(lambda start: start + data[size:])
    return st.one_of(damaged(data), head)
