"""What was said of a run, shown to everybody who looks within two seconds, and written there.

The lists are shown again every second or two; what somebody types stands outside of them, so that
it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboard.remarks.name import ask_name, name_now
from dashboard.remarks.words import DECISION_ICONS, about, in_words, when, who
from dashboard.services import review_deeds, roles
from dashboard.services.budgets import OverBudget
from dashboard.services.review_deeds import EditedMeanwhile, Unnamed
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import SettingsError
from dashboard.services.shared_look import look_anew, once, pace, recent
from dashboard.ui import keys
from dashboard.ui.outside import code, plain
from diffusion_core.files import os_sentence
from diffusion_core.runs.remarks import (
    DECISIONS,
    FILE,
    LONGEST_NOTE,
    LONGEST_TAG,
    RUN,
    Kind,
    Remark,
    RemarkError,
    Remarks,
    Subject,
    may_change,
    read_remarks,
)
from diffusion_core.runs.run import Run

MOST_SHOWN = 20  # notes, and lines of the history
MOST_TAGS = 8  # that the summary names
# From one look to the next, unless so many watch that their pace is longer than LONGEST_PACE.
SECONDS, LONGEST_PACE = 1.0, 2.0
ERRORS = (NotAllowed, SettingsError, OverBudget, RemarkError, Unnamed, OSError)


def read(run: Run) -> Remarks:
    """What was said of a run; the file is read again only where it has changed."""
    stamp = recent(("said", run.path), lambda: _stamp(run.path / FILE))
    return once(("remarks", run.path, stamp), lambda: read_remarks(run.path))


def _stamp(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def show_summary(run: Run) -> None:
    """One line of what was said of a run; nothing where nothing was."""
    found = read(run)
    notes = sum(each.kind == Kind.NOTE for each in found.current)
    parts = [f"Decision: {found.decision()}" if found.decision() else ""]
    parts += [f":material/star: {found.stars()}" if found.stars() else ""]
    if tags := found.tags():
        more = f" and {len(tags) - MOST_TAGS:,} more" if len(tags) > MOST_TAGS else ""
        parts.append(f"Tags: {', '.join(map(code, tags[:MOST_TAGS]))}{more}")
    parts += [f"{notes} {'note' if notes == 1 else 'notes'}" if notes else ""]
    if any(parts):
        st.caption(" · ".join(filter(None, parts)))


def say_about(run: Run, subject: Subject = RUN, label: str = "Say", key: str = "") -> None:
    """A button that opens what was said of a run, a step or an image, and where it is written.

    `key`: where the page has several for one subject.
    """
    button = f"say-{run.name}-{subject}-{key}"
    with st.popover(label, icon=":material/forum:", key=button, on_change="rerun") as popover:
        if popover.open:  # what is closed costs nothing
            if subject != RUN:
                st.caption(f"{code(run.name)}, {subject}")
            show_said(run, subject, every_subject=False, place=key)


def show_said(
    run: Run, subject: Subject, *, every_subject: bool, history: bool = False, place: str = ""
) -> None:
    """What was said of a subject, with `every_subject` also the notes of all others of the run;
    and where it is written about the subject. `history`: also what was edited and deleted.
    `place`: tells it from others of the page about the same subject."""
    key = f"{run.name}-{subject}{place}"
    by = ask_name(Deed.REMARK, f"name-{key}")
    if by:
        _write_note(run, subject, key)
        _write_tag(run, subject, key)
    seconds = pace()
    refresh = st.fragment(_show_list, run_every=seconds if seconds > LONGEST_PACE else SECONDS)
    refresh(run, subject, key, by, _editing(key), every_subject, history)


# ---------------------------------------------------------------- writing


def _write_note(run: Run, subject: Subject, key: str) -> None:
    """The field for a new note, or for the one that is edited."""
    editing = _editing(key)
    text = f"note-{key}-{editing.id if editing else ''}"
    with st.form(f"form-{text}", border=False):
        st.text_area(
            f"Edit the note of {about(editing) or 'the run'}" if editing else "Note",
            key=text,
            max_chars=LONGEST_NOTE,
            height=110,
            placeholder="Markdown, without images and HTML",
        )
        with st.container(horizontal=True):
            if editing:
                st.form_submit_button("Save", on_click=_save, args=(run, editing, text, key))
                st.form_submit_button("Cancel", on_click=_stop_editing, args=(text,))
            else:
                given = (run, subject, text, Kind.NOTE)
                st.form_submit_button("Add note", on_click=_add, args=given)
    if (error := st.session_state.get(keys.REMARK_ERROR)) is not None and error[0] == text:
        st.error(error[1])
        if error[2]:
            st.code(error[2], language=None, wrap_lines=True)


def _write_tag(run: Run, subject: Subject, key: str) -> None:
    text = f"tag-{key}"
    with (
        st.form(f"form-{text}", border=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        st.text_input("Tag", key=text, max_chars=LONGEST_TAG, width=200)
        st.form_submit_button("Add tag", on_click=_add, args=(run, subject, text, Kind.TAG))


def _editing(key: str) -> Remark | None:
    """The note that the visitor is editing here, as it was when the visitor saw it last."""
    found = st.session_state.get(keys.EDITED_NOTE)
    return found[1] if found is not None and found[0] == key else None


def _edit(remark: Remark, key: str) -> None:
    st.session_state[keys.EDITED_NOTE] = (key, remark)
    st.session_state[f"note-{key}-{remark.id}"] = remark.text


def _stop_editing(text: str) -> None:
    st.session_state.pop(keys.EDITED_NOTE, None)
    st.session_state.pop(text, None)


def _add(run: Run, subject: Subject, text: str, kind: Kind) -> None:
    state = st.session_state
    _attempt(review_deeds.say, run.path, kind, state[text], subject, name_now(), where=text)
    if keys.REMARK_ERROR not in state:
        state[text] = ""


def _save(run: Run, remark: Remark, text: str, key: str) -> None:
    state = st.session_state
    given = (run.path, remark.id, state[text], name_now(), len(remark.lines))
    try:
        _attempt(review_deeds.edit, *given, where=text)
    except EditedMeanwhile as error:
        state[keys.EDITED_NOTE] = (key, error.remark)
        state[keys.REMARK_ERROR] = (
            text,
            f"{who(error.remark.lines[-1].by)} has edited this note meanwhile. Your text is still "
            "here; Save puts it in the place of theirs, which is:",
            error.remark.text,
        )
    if keys.REMARK_ERROR not in state:
        _stop_editing(text)


def _attempt(deed: Callable[..., object], *given: object, where: str = "") -> None:
    """A refusal is shown at the field `where`, or for some seconds.

    Raises EditedMeanwhile.
    """
    st.session_state.pop(keys.REMARK_ERROR, None)
    try:
        deed(*given)
    except EditedMeanwhile:
        raise
    except ERRORS as error:
        why = os_sentence(error) if isinstance(error, OSError) else str(error)
        st.session_state[keys.REMARK_ERROR] = (where, plain(why), "")
    finally:
        look_anew()


# ---------------------------------------------------------------- the list


def _show_list(
    run: Run,
    subject: Subject,
    key: str,
    by: str,
    editing: Remark | None,
    every_subject: bool,
    history: bool,
) -> None:
    """The fragment. `editing`: the note that is in the field above it."""
    pace()
    if _editing(key) != editing:
        st.rerun()  # the whole page, with another field
    error = st.session_state.get(keys.REMARK_ERROR)
    if error is not None and not error[0]:
        st.toast(error[1], icon=":material/error:", duration="long")
        del st.session_state[keys.REMARK_ERROR]
    found = read(run)
    if found.problem:
        st.warning(
            f"The remarks of {code(run.name)} cannot be read in full. {plain(found.problem)}"
        )
    _show_marks(run, subject, key, by, found)
    notes = [each for each in found.current if each.kind == Kind.NOTE]
    if not every_subject:
        notes = [each for each in notes if each.subject == subject]
    for note in notes[: -MOST_SHOWN - 1 : -1]:
        _show_note(run, key, by, note)
    if not notes:
        st.caption("No notes yet.")
    elif len(notes) > MOST_SHOWN:
        st.caption(f"The newest {MOST_SHOWN} of {len(notes):,} notes.")
    if history:
        _show_history(found, None if every_subject else subject)


def _show_marks(run: Run, subject: Subject, key: str, by: str, found: Remarks) -> None:
    """Stars, decision and tags of the subject."""
    decision = found.decision(subject)
    stars = found.about(subject, Kind.STAR)
    own = any(each.by == by for each in stars)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            str(len({each.by for each in stars})),
            icon=":material/star:",
            key=f"star-{key}",
            type="primary" if own and by else "secondary",
            help="Take your star back" if own and by else "Give a star",
            disabled=not by,
            on_click=_attempt,
            args=(review_deeds.star, run.path, subject, by),
        )
        for each in DECISIONS:
            st.button(
                each.capitalize(),
                icon=DECISION_ICONS[each],
                key=f"{each}-{key}",
                type="primary" if each == decision else "secondary",
                disabled=not by,
                on_click=_attempt,
                args=(review_deeds.decide, run.path, each, subject, by),
            )
    if decision:
        last = max(found.about(subject, Kind.DECISION), key=lambda each: each.lines[-1].time)
        st.caption(f"{decision.capitalize()}: {who(last.by)}, {when(last.lines[-1].time)}")
    _show_tags(run, subject, key, by, found)


def _show_tags(run: Run, subject: Subject, key: str, by: str, found: Remarks) -> None:
    tags = {each.text: each for each in found.about(subject, Kind.TAG)}
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for text, tag in sorted(tags.items()):
            if may_change(tag, by, roles.may_operate()) and by:
                st.button(
                    plain(text),
                    icon=":material/close:",
                    icon_position="right",
                    key=f"tag-{key}-{tag.id}",
                    help=f"Delete the tag {code(text)}",
                    on_click=_attempt,
                    args=(review_deeds.delete, run.path, tag.id, by),
                )
            else:
                st.badge(plain(text), color="gray")


def _show_note(run: Run, key: str, by: str, note: Remark) -> None:
    with st.container(border=True, gap="xsmall"):
        parts = [who(note.by), when(note.time), about(note), "edited" if note.edited else ""]
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(" · ".join(filter(None, parts)), width="stretch")
            if by and may_change(note, by, roles.may_operate()):
                st.button(
                    "Edit",
                    icon=":material/edit:",
                    key=f"edit-{key}-{note.id}",
                    type="tertiary",
                    on_click=_edit,
                    args=(note, key),
                )
                st.button(
                    "Delete",
                    icon=":material/delete:",
                    key=f"delete-{key}-{note.id}",
                    type="tertiary",
                    on_click=_attempt,
                    args=(review_deeds.delete, run.path, note.id, by),
                )
        st.markdown(note.text)


def _show_history(found: Remarks, subject: Subject | None) -> None:
    lines = [
        line for remark in found.every if subject in (None, remark.subject) for line in remark.lines
    ]
    lines.sort(key=lambda line: line.time, reverse=True)
    st.markdown("\n".join(f"- {in_words(line)}" for line in lines[:MOST_SHOWN]))
    if len(lines) > MOST_SHOWN:
        st.caption(f"The newest {MOST_SHOWN} of {len(lines):,} entries; all are in {FILE}.")
