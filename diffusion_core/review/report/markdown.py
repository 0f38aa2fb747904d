"""Notes as HTML: the little of Markdown that people write in them, everything else as it stands.

The text is escaped first, so there is no HTML but what is put here, and no image. The tags are
those that ReportLab's paragraphs know too.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

# No emphasis contains that of a line before it, so that all tags are nested.
INLINE = (
    (re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*"), r"<b>\1</b>"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*<]+?)(?<=\S)\*(?![\w*])"), r"<i>\1</i>"),
    (re.compile(r"(?<!\w)_(?=[^\s_])([^_<]+?)(?<=\S)_(?!\w)"), r"<i>\1</i>"),
)
LINK = re.compile(r"\[([^\[\]]+)\]\((https?://[^\s()<>\"']+)\)")
CODE = re.compile(r"`([^`]+)`")
HEADING, BULLET, NUMBER = (
    re.compile(r"#{1,6}\s+"),
    re.compile(r"[-*+]\s+"),
    re.compile(r"\d+[.)]\s"),
)


class Block(NamedTuple):
    """A paragraph, list item, heading or piece of code, and its text as HTML."""

    tag: str  # p, li, h or pre
    text: str


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    lines: list[str] = []  # of the paragraph that is being read
    code: list[str] | None = None

    def end() -> None:
        if lines:
            found.append(Block("p", "<br/>".join(map(inline, lines))))
            lines.clear()

    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("```"):
            end()
            if code is not None:
                found.append(Block("pre", html.escape("\n".join(code))))
            code = [] if code is None else None
        elif code is not None:
            code.append(line)
        elif not bare:
            end()
        elif match := HEADING.match(bare):
            end()
            found.append(Block("h", inline(bare[match.end() :])))
        elif match := BULLET.match(bare):
            end()
            found.append(Block("li", inline(bare[match.end() :])))
        elif NUMBER.match(bare):
            end()
            found.append(Block("p", inline(bare)))
        else:
            lines.append(bare)
    end()
    if code:
        found.append(Block("pre", html.escape("\n".join(code))))
    return found


def inline(text: str) -> str:
    """A line with its emphasis, code and links to web addresses."""
    kept: list[str] = []

    def keep(tags: str) -> str:
        kept.append(tags)
        return f"\0{len(kept) - 1}\0"

    def link(match: re.Match[str]) -> str:
        return keep(f'<a href="{html.escape(match[2])}">{emphasised(match[1])}</a>')

    def code(match: re.Match[str]) -> str:
        return keep(f"<code>{html.escape(match[1])}</code>")

    text = LINK.sub(link, CODE.sub(code, text.replace("\0", "")))
    text = emphasised(text)
    while "\0" in text:
        text = re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)
    return text


def emphasised(text: str) -> str:
    text = html.escape(text, quote=False)
    for pattern, tags in INLINE:
        text = pattern.sub(tags, text)
    return text


def as_html(text: str) -> str:
    """A note as a piece of a page."""
    tags = {"p": "p", "h": "h5", "li": "li", "pre": "pre"}
    parts, inside = [], False
    for tag, content in blocks(text):
        if (tag == "li") != inside:
            parts.append("</ul>" if inside else "<ul>")
            inside = not inside
        parts.append(f"<{tags[tag]}>{content}</{tags[tag]}>")
    return "".join(parts) + ("</ul>" if inside else "")
