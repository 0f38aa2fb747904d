"""How a message quotes text and values that come from outside: cut short."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_SHOWN = 40  # characters of a value that a sentence quotes
MOST_NAMED = 12  # names that a sentence lists
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # kinds of characters


def shown(value: object) -> str:
    """A value as a message quotes it: cut short, and never a whole file."""
    if isinstance(value, str):
        text = repr(value)
        return text if len(text) <= MAX_SHOWN else cut(text) + text[-1]
    if value is None or isinstance(value, bool):  # as JSON and the command line write them
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return cut(repr(value))
    return "an object" if isinstance(value, dict) else "a list"


def cut(text: str, most: int = MAX_SHOWN) -> str:
    """The text as a message quotes it: at most so many characters of it, in one line."""
    return printable(text if len(text) <= most else f"{text[:most]}…")


def printable(text: str) -> str:
    """The text with escapes for what is not to be seen, breaks lines or turns others around."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def limit(number: float) -> str:
    """A bound as a message names it: 1,000, 0.05, and 20 for 20.0."""
    return f"{int(number):,}" if float(number).is_integer() else f"{number:,}"


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 2 h 5 min, 3 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{round(hours / 24):,} days"
    return f"{hours} h {minutes} min"


def some(names: Sequence[str]) -> str:
    """The names, all of them or the first of many, each cut short: "van, bus, coupé"."""
    first = [cut(name) for name in names[:MOST_NAMED]]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")


def either(names: Sequence[str]) -> str:
    """The names as a choice: "van, bus or coupé"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def value_text(value: object) -> str:
    """The value of a setting: "on", "1,000", "5e-05", "none"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def has_control_characters(text: str) -> bool:
    """Whether a text has line breaks or other characters that are none to read."""
    return any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in text)


def visible(text: str, *, keep: str = "") -> str:
    """The text with a mark for each character that cannot be seen or turns others around."""
    if text.isprintable():
        return text
    kinds = map(unicodedata.category, text)
    return "".join(
        each if each in keep or kind not in UNSEEN else "\N{REPLACEMENT CHARACTER}"
        for each, kind in zip(text, kinds, strict=True)
    )


def harmless_markdown(text: str) -> str:
    """Markdown without images and HTML: a space is put where one would begin.

    Links stay; whatever turns the text into HTML must allow web addresses only.
    """
    lines = text.expandtabs(4).strip().splitlines()
    seen = "\n".join(visible(line, keep="\N{ZERO WIDTH JOINER}") for line in lines)
    return re.sub(r"!(?=\[)|<(?=[A-Za-z/!?])", r"\g<0> ", seen)
