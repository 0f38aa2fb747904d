"""Texts that come from outside, as Markdown that shows them and does nothing else.

Streamlit takes nearly every text for Markdown with HTML entities, LaTeX, icons, colours and emoji
codes: a name such as `![x](https://…)` would fetch an image. Only in code is all of that off, so
whatever this app did not write itself goes through `code` or `plain` on its way to the page, and
through `figures.theme.label` on its way to a figure.
"""

from __future__ import annotations

import re

from diffusion_core.text import visible

MOST_CHARACTERS = 80  # characters of a name or a value
LONGEST_SENTENCE = 1000
# A word without a character that means something in Markdown; two colons may be an emoji's.
HARMLESS = re.compile(r"""[\w.,;!?'"()%+×…–—“”‘’·-]*:?[\w.,;!?'"()%+×…–—“”‘’·-]*|[<=>]=?""")
SPECIAL = re.compile(r"--|(?<![^\W_])_|_(?![^\W_])|^www\.", re.IGNORECASE)
MARK = re.compile(r"[-+=>]|\d+[.)]")  # of a list or a quotation, at the beginning of a text


def code(value: object) -> str:
    """A name or a value as code, cut short."""
    text = readable(str(value))
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}…"
    if not text.strip():
        return "(empty)"
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def plain(sentence: object) -> str:
    """A sentence in which something is quoted: every word of it that is not harmless as code."""
    text = readable(str(sentence))
    if len(text) > LONGEST_SENTENCE:
        text = f"{text[:LONGEST_SENTENCE]}…"
    parts: list[tuple[bool, list[str]]] = []  # neighbours of one kind together
    for k, word in enumerate(text.split()):
        odd = not HARMLESS.fullmatch(word) or bool(SPECIAL.search(word))
        odd |= k == 0 and bool(MARK.fullmatch(word))
        if not parts or parts[-1][0] != odd:
            parts.append((odd, []))
        parts[-1][1].append(word)
    return " ".join(_quoted(" ".join(words)) if odd else " ".join(words) for odd, words in parts)


def readable(text: str) -> str:
    """The text in one line, without characters that cannot be seen or that turn others around."""
    return visible(" ".join(text.split()))


def _quoted(text: str) -> str:
    """As code, with what ends a sentence behind it."""
    end = text[-1] if len(text) > 1 and text[-1] in ".,;" else ""
    return code(text.removesuffix(end) if end else text) + end
