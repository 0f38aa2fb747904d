"""Texts from outside: shown as they are and cut short, never as Markdown, HTML or LaTeX."""

from __future__ import annotations

import pytest

from dashboard.figures.theme import label
from dashboard.ui.outside import code, plain

ODD = [
    "![x](https://x.example/y.png)",
    "[link](https://x.example)",
    "https://x.example",
    "www.x.example",
    "a@x.example",
    "<b>bold</b>",
    "<img src=x onerror=alert(1)>",
    "$x^2$",
    "$$",
    ":smile:",
    ":red[text]",
    ":material/delete:",
    "**bold**",
    "_word_",
    "__word__",
    "~~gone~~",
    "# heading",
    "> quote",
    "| a | b |",
    "- item",
    "1. item",
    "-- dash -> arrow",
    "`code`",
    "``",
    "&lt;",
    r"\(x\)",
]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_name_is_code_and_nothing_else(odd: str) -> None:
    shown = code(odd)
    fence = shown[: len(shown) - len(shown.lstrip("`"))]
    assert fence not in odd
    assert shown == f"{fence}{odd}{fence}" or shown == f"{fence} {odd} {fence}"


@pytest.mark.parametrize("odd", ODD)
def test_in_a_sentence_the_odd_words_alone_are_code(odd: str) -> None:
    shown = plain(f"The run {odd} is unreadable.")
    assert shown.startswith("The run ")
    assert shown.endswith(" is unreadable.")
    assert not set(outside_code(shown)) & set("`[]<$:_*#|&\\@/~")
    assert outside_code(plain(odd))[:2] not in ("- ", "1.")


def outside_code(markdown: str) -> str:
    """What is left of Markdown without its code, as CommonMark reads it."""
    left = ""
    while markdown:
        if markdown[0] != "`":
            left, markdown = left + markdown[0], markdown[1:]
            continue
        fence = markdown[: len(markdown) - len(markdown.lstrip("`"))]
        rest = markdown[len(fence) :]
        end = 0
        while True:
            end = rest.index(fence, end)
            stop = end + len(fence)
            if rest[stop : stop + 1] != "`":
                break
            while rest[stop : stop + 1] == "`":
                stop += 1
            end = stop
        markdown = rest[end + len(fence) :]
    return left


@pytest.mark.parametrize(
    "sentence",
    [
        "config.json: batch_size is 0; it must be at least 1.",
        "Resume the run to continue from step 1,200.",
        "The step is 3: too far (2 %).",
        "σ and η, “any class”, it's 64×64 px.",
    ],
)
def test_an_ordinary_sentence_stays_as_it_is(sentence: str) -> None:
    assert plain(sentence) == sentence


def test_neighbouring_odd_words_are_one_piece_of_code_and_a_full_stop_stays_outside() -> None:
    assert plain("There is no folder /a/b [c d], see /x.") == (
        "There is no folder `/a/b [c d]`, see `/x`."
    )


def test_texts_are_cut_short_and_in_one_line_without_what_cannot_be_seen() -> None:
    assert code("x" * 5000) == f"`{'x' * 80}…`"
    assert len(plain("y" * 5000)) < 1100
    assert code("a\nb\tc") == "`a b c`"
    assert code("a\0b\u202ec\ud800") == "`a\ufffdb\ufffdc\ufffd`"
    assert code("") == code(" ") == "(empty)"
    assert code(None) == "`None`"


def test_a_text_of_a_figure_holds_nothing_that_plotly_reads() -> None:
    assert label("<a href='x'>$y$ %{x} &amp;</a>") == (
        "&#60;a href='x'&#62;&#36;y&#36; &#37;&#123;x&#125; &#38;amp;&#60;/a&#62;"
    )
    assert label("plain run-1") == "plain run-1"
    assert label("x" * 5000) == f"{'x' * 80}…"
