"""How a message quotes what comes from outside."""

from __future__ import annotations

MAX_SHOWN = 40  # characters of a value that a sentence quotes


def cut(text: str, most: int = MAX_SHOWN) -> str:
    """The text as a message quotes it, at most so many characters of it."""
    return text if len(text) <= most else f"{text[:most]}…"
