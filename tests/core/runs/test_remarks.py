"""What people say of a run: on disk, by whom it may be changed, and what a broken line does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from diffusion_core.runs import remarks
from diffusion_core.runs.remarks import (
    FILE,
    RUN,
    Kind,
    Line,
    Remark,
    RemarkError,
    Remarks,
    Subject,
    add,
    delete,
    edit,
    may_change,
    read_remarks,
)
from diffusion_core.text import harmless_markdown

ANN, BOB = "ann@lab.org", "bob@lab.org"
STEP = Subject(step=400)
IMAGE = Subject(step=400, image=3, seed=7, settings="0123456789ab")


def texts(run: Path) -> list[str]:
    found = read_remarks(run)
    assert not found.problem
    return [remark.text for remark in found.current]


def test_a_run_of_which_nothing_was_said_has_no_remarks(tmp_path: Path) -> None:
    assert read_remarks(tmp_path) == Remarks()


@pytest.mark.parametrize("subject", [RUN, STEP, IMAGE])
def test_each_kind_is_about_its_subject_alone(tmp_path: Path, subject: Subject) -> None:
    add(tmp_path, Kind.NOTE, "Wheels are **round**.", subject, ANN)
    add(tmp_path, Kind.TAG, "good", subject, ANN)
    add(tmp_path, Kind.STAR, "", subject, ANN)
    add(tmp_path, Kind.STAR, "", subject, BOB)
    add(tmp_path, Kind.DECISION, "drop", subject, ANN)
    add(tmp_path, Kind.DECISION, "keep", subject, BOB)
    found = read_remarks(tmp_path)
    [note] = found.about(subject, Kind.NOTE)
    assert (note.text, note.by, note.subject) == ("Wheels are **round**.", ANN, subject)
    assert found.tags(subject) == ["good"]
    assert found.stars(subject) == 2
    assert found.decision(subject) == "keep"
    for other in {RUN, STEP, IMAGE} - {subject}:
        assert not found.about(other) and not found.tags(other)
        assert not found.stars(other) and not found.decision(other)


def test_a_tag_and_a_star_are_not_added_twice(tmp_path: Path) -> None:
    first = add(tmp_path, Kind.TAG, " good  wheels ", by=ANN)
    assert add(tmp_path, Kind.TAG, "good wheels", by=BOB) == first
    star = add(tmp_path, Kind.STAR, by=ANN)
    assert add(tmp_path, Kind.STAR, by=ANN) == star
    delete(tmp_path, star.id, by=ANN)
    assert add(tmp_path, Kind.STAR, by=ANN) != star
    assert [each.kind for each in read_remarks(tmp_path).current] == ["tag", "star"]


def test_editing_and_deleting_keep_what_was(tmp_path: Path) -> None:
    note = add(tmp_path, Kind.NOTE, "one", STEP, ANN)
    edit(tmp_path, note.id, "two", by=ANN)
    assert texts(tmp_path) == ["two"]
    gone = delete(tmp_path, note.id, by=BOB, operates=True)
    assert texts(tmp_path) == []
    [kept] = read_remarks(tmp_path).every
    assert kept == gone and kept.deleted and kept.edited and kept.text == "two"
    assert [(each.deed, each.text, each.by, each.subject) for each in kept.lines] == [
        ("added", "one", ANN, STEP),
        ("edited", "two", ANN, STEP),
        ("deleted", "", BOB, STEP),
    ]
    with pytest.raises(RemarkError, match=r"^There is no remark '"):
        edit(tmp_path, note.id, "three", by=ANN)


def test_an_edited_decision_is_the_last_one(tmp_path: Path) -> None:
    first = add(tmp_path, Kind.DECISION, "keep", by=ANN)
    add(tmp_path, Kind.DECISION, "drop", by=BOB)
    edit(tmp_path, first.id, "promote", by=ANN)
    assert read_remarks(tmp_path).decision() == "promote"
    delete(tmp_path, first.id, by=ANN)
    assert read_remarks(tmp_path).decision() == "drop"


@pytest.mark.parametrize(
    ("author", "caller", "operates", "allowed"),
    [
        (ANN, ANN, False, True),
        (ANN, BOB, False, False),
        (ANN, BOB, True, True),
        (ANN, "", False, False),
        (ANN, "ANN@lab.org", False, False),
        ("", "", False, False),
        ("", "", True, True),
    ],
)
def test_a_remark_is_changed_by_its_author_or_an_operator_alone(
    tmp_path: Path, author: str, caller: str, operates: bool, allowed: bool
) -> None:
    note = add(tmp_path, Kind.NOTE, "one", by=author)
    assert may_change(note, caller, operates) == allowed
    if allowed:
        edit(tmp_path, note.id, "two", by=caller, operates=operates)
        delete(tmp_path, note.id, by=caller, operates=operates)
        assert texts(tmp_path) == []
    else:
        for change in (
            lambda: edit(tmp_path, note.id, "two", by=caller),
            lambda: delete(tmp_path, note.id, by=caller),
        ):
            with pytest.raises(RemarkError, match=r"only they or an operator can do that\.$"):
                change()
        assert texts(tmp_path) == ["one"]


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (Kind.NOTE, " \n", "The note is empty; it needs a text."),
        (Kind.NOTE, "a" * 4001, "The note has 4,001 characters; it must have at most 4,000."),
        (Kind.NOTE, "a" * 70_000, "Text is 'aaa"),
        (Kind.TAG, "", "The tag is ''; it must be 1 to 40 characters without commas."),
        (Kind.TAG, "a,b", "The tag is 'a,b'; it must be"),
        (Kind.TAG, "a" * 41, "The tag is 'aaa"),
        (Kind.STAR, "x", "A star has no text."),
        (Kind.DECISION, "sell", "The decision is 'sell'; it must be one of keep, drop, promote."),
    ],
)
def test_what_a_remark_cannot_be_is_refused(
    tmp_path: Path, kind: Kind, text: str, sentence: str
) -> None:
    with pytest.raises(RemarkError) as refused:
        add(tmp_path, kind, text, by=ANN)
    assert str(refused.value).startswith(sentence)
    assert not (tmp_path / FILE).exists()


def test_there_is_a_limit_to_their_number(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remarks, "MOST_REMARKS", 2)
    first = add(tmp_path, Kind.NOTE, "one", by=ANN)
    add(tmp_path, Kind.NOTE, "two", by=ANN)
    with pytest.raises(RemarkError, match="has 2 remarks, as many as it can have"):
        add(tmp_path, Kind.NOTE, "three", by=ANN)
    delete(tmp_path, first.id, by=ANN)
    add(tmp_path, Kind.NOTE, "three", by=ANN)
    assert texts(tmp_path) == ["two", "three"]


def test_there_is_a_limit_to_what_is_said_in_all(tmp_path: Path, monkeypatch) -> None:
    note = add(tmp_path, Kind.NOTE, "one", by=ANN)
    monkeypatch.setattr(remarks, "FULL", (tmp_path / FILE).stat().st_size)
    with pytest.raises(RemarkError, match="nothing can be added"):
        edit(tmp_path, note.id, "two", by=ANN)
    assert texts(tmp_path) == ["one"]


@pytest.mark.parametrize("half", ['{"id": "0123', "", "\n", "\x00\xff", "[" * 5000])
def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path: Path, half: str) -> None:
    add(tmp_path, Kind.NOTE, "one", by=ANN)
    with open(tmp_path / FILE, "a") as file:
        file.write(half)  # without its end, as a killed writer or a full disk leaves it
    add(tmp_path, Kind.NOTE, "two", by=BOB)
    found = read_remarks(tmp_path)
    assert [each.text for each in found.current] == ["one", "two"]
    assert found.problem == (f"{FILE} is not readable JSON." if half.strip() else "")


ID = "0123456789abcdef"


def line(**changes: object) -> dict[str, object]:
    return {"id": ID, "deed": "added", "kind": "note", "text": "x", "time": 1} | changes


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (line(id="../../etc"), "id is '../../etc'; it cannot be used."),
        (line(kind="song"), "kind is 'song'; it must be note, tag, star or decision."),
        (line(time=1e400), "time is inf; it must be a finite number."),
        (line(text="a" * 4001), "the note has 4,001 characters; it must have at most 4,000."),
        (line(kind="decision"), "the decision is 'x'; it must be one of keep, drop, promote."),
        (line(by="a" * 321), "by is 'aaa"),
        (line(subject={"step": -1}), "subject.step is -1; it must be from 0 to"),
        (line(subject={"step": 1, "seed": 1}), "an image needs step, image, seed and settings."),
        (line(deed="edited", id="f" * 16), f"a line of remark {'f' * 16} does not go with others."),
        (line(), f"a line of remark {ID} does not go with others."),
        (line(deed="edited", kind="tag"), f"a line of remark {ID} does not go with others."),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_count(
    tmp_path: Path, wrong: dict[str, object], problem: str
) -> None:
    lines = [line(text="one"), wrong, line(id="1" * 16, text="two")]
    (tmp_path / FILE).write_text("\n".join(map(json.dumps, lines)))
    found = read_remarks(tmp_path)
    assert [each.text for each in found.current] == ["one", "two"]
    assert found.problem.startswith(f"{FILE}: {problem}")


def test_of_two_who_delete_at_once_the_first_counts(tmp_path: Path) -> None:
    lines = [line(), line(deed="deleted", by=ANN), line(deed="deleted", by=BOB)]
    (tmp_path / FILE).write_text("\n".join(map(json.dumps, lines)))
    [remark] = read_remarks(tmp_path).every
    assert [each.by for each in remark.lines] == ["", ANN] and remark.deleted


def test_something_else_in_the_place_of_the_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert read_remarks(tmp_path).problem == f"{FILE} cannot be read: Not a regular file."
    with pytest.raises(OSError, match="not a file"):
        add(tmp_path, Kind.NOTE, "one", by=ANN)


# ---------------------------------------------------------------- Markdown

# Of what images, links, HTML and code are made.
PIECES = st.sampled_from(
    [
        *("!", "[", "]", "(http://x.y/z.png)", "[a]: http://x.y/z.png\n", "<", ">", "<img src=x>"),
        *("a", "\\", "`", "``", "&#33;", "&lt;", "<!--", "-->", "<?", "</p>", "\n", "\n\n"),
        *("    ", "> ", "\t", "\u200b", "\u2028", "- ", "<http://x.y>", "![a](b)", "![a][a]"),
    ]
)
MARKDOWN = MarkdownIt("commonmark", {"html": True})


def kinds(markdown: str) -> set[str]:
    tokens = MARKDOWN.parse(markdown)
    return {each.type for token in tokens for each in (token, *(token.children or ()))}


@given(st.lists(PIECES, max_size=14).map("".join))
def test_a_note_has_no_image_and_no_html(text: str) -> None:
    clean = harmless_markdown(text)
    assert not kinds(clean) & {"image", "html_inline", "html_block"}
    assert harmless_markdown(clean) == clean


def test_the_parser_that_judges_finds_both() -> None:
    assert {"image", "html_inline"} <= kinds("![a](b) <b>")
    assert "html_block" in kinds("<!-- a -->")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("**bold** [link](https://x.y) `a < b`", "**bold** [link](https://x.y) `a < b`"),
        ("![eye](http://x.y/z.png)", "! [eye](http://x.y/z.png)"),
        ("\\![eye](b)", "\\! [eye](b)"),
        ("<script>alert(1)</script>", "< script>alert(1)< /script>"),
        ("a\r\nb\u202ec\ufeff", "a\nb\ufffdc\ufffd"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_what_is_left_of_markdown(text: str, clean: str) -> None:
    assert harmless_markdown(text) == clean


def test_a_file_that_somebody_else_wrote_is_cleaned_too(tmp_path: Path) -> None:
    lines = [line(text="![x](http://x.y/z.png)", by="\u202eann"), line(id="1" * 16, kind="star")]
    lines[1]["text"] = ""
    (tmp_path / FILE).write_text("\n".join(map(json.dumps, lines)))
    [note, _] = read_remarks(tmp_path).current
    assert (note.text, note.by) == ("! [x](http://x.y/z.png)", "\ufffdann")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
FIELDS = {name: JSON | st.just(value) for name, value in line(by=ANN, subject={}).items()}


@given(st.lists(st.fixed_dictionaries({}, optional=FIELDS) | JSON, max_size=4))
def test_no_file_stops_a_reader(tmp_path_factory: pytest.TempPathFactory, lines: list) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / FILE).write_text("\n".join(map(json.dumps, lines)))
    found = read_remarks(folder)
    for remark in found.every:
        assert isinstance(remark, Remark) and all(isinstance(each, Line) for each in remark.lines)
    assert found.every or found.problem or not lines
