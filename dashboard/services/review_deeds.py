"""What a press of a button says of a run: each asks first whether it is allowed.

`by` is the name of the visitor, see `people`. All raise NotAllowed, SettingsError, OverBudget and
OSError, and Unnamed for somebody without a name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dashboard.services import budgets, roles
from dashboard.services.budgets import Budget
from dashboard.services.roles import Deed
from dashboard.services.settings import get_settings
from dashboard.services.visitors import visitor
from diffusion_core.review import polls
from diffusion_core.review.polls import Entry, Poll, Turn
from diffusion_core.runs import remarks
from diffusion_core.runs.remarks import Kind, Remark, RemarkError, Subject

_lock = threading.Lock()  # two who do the same at once must know of each other


class Unnamed(ValueError):
    """The visitor has no name; the message says so."""

    def __init__(self) -> None:
        super().__init__("Type your name first.")


class EditedMeanwhile(RemarkError):
    """Somebody else has edited the note since the visitor began to; `remark` is what it is now."""

    def __init__(self, remark: Remark) -> None:
        super().__init__("Somebody else has edited this note meanwhile.")
        self.remark = remark


def say(run: Path, kind: Kind, text: str, subject: Subject, by: str) -> Remark:
    """Raises RemarkError."""
    _begin(Deed.REMARK, by)
    with _lock:
        return remarks.add(run, kind, text, subject, by)


def edit(run: Path, id: str, text: str, by: str, known: int) -> Remark:
    """Replace the text of a note. `known`: the number of its lines that the visitor has seen.

    Raises RemarkError, EditedMeanwhile.
    """
    _begin(Deed.REMARK, by)
    with _lock:
        now = _find(run, id)
        if now is None:
            raise RemarkError("This note was deleted meanwhile. Copy your text to keep it.")
        if len(now.lines) != known:
            raise EditedMeanwhile(now)
        return remarks.edit(run, id, text, by, roles.may_operate())


def delete(run: Path, id: str, by: str) -> None:
    """Where somebody else has deleted it meanwhile there is nothing to do. Raises RemarkError."""
    _begin(Deed.REMARK, by)
    with _lock:
        if _find(run, id) is not None:
            remarks.delete(run, id, by, roles.may_operate())


def star(run: Path, subject: Subject, by: str) -> None:
    """Give a star, or take one's own back. Raises RemarkError."""
    _begin(Deed.REMARK, by)
    with _lock:
        if own := _own(run, Kind.STAR, subject, by):
            remarks.delete(run, own.id, by)
        else:
            remarks.add(run, Kind.STAR, "", subject, by)


def decide(run: Path, decision: str, subject: Subject, by: str) -> None:
    """Decide, or take one's own decision back by saying it again. Raises RemarkError."""
    _begin(Deed.REMARK, by)
    with _lock:
        own = _own(run, Kind.DECISION, subject, by)
        if own is None:
            remarks.add(run, Kind.DECISION, decision, subject, by)
        elif own.text == decision == remarks.read_remarks(run).decision(subject):
            remarks.delete(run, own.id, by)
        else:
            remarks.edit(run, own.id, decision, by)


def _find(run: Path, id: str) -> Remark | None:
    return next((each for each in remarks.read_remarks(run).current if each.id == id), None)


def _own(run: Path, kind: Kind, subject: Subject, by: str) -> Remark | None:
    found = remarks.read_remarks(run).about(subject, kind)
    return next((each for each in found if each.by == by), None)


def ask(
    name: str,
    kind: polls.Kind,
    entries: Sequence[Entry],
    images: Mapping[str, Sequence[np.ndarray]],
    texts: Sequence[str],
    by: str,
) -> Poll:
    """See `polls.make`. Raises PollError."""
    _begin(Deed.ASK, by)
    with _lock:
        return polls.make(get_settings().runs_dir, name, kind, entries, images, texts, by)


def vote(poll: Poll, turn: Turn, place: int, by: str) -> None:
    """Raises PollError, VoteError."""
    _begin(Deed.VOTE, by)
    polls.vote(poll, turn, place, by)


def end_voting(poll: Poll, by: str) -> None:
    """Let the visitor see the results."""
    _begin(Deed.VOTE, by)
    polls.end(poll, by)


def _begin(deed: Deed, by: str) -> None:
    roles.check(deed)
    if not by:
        raise Unnamed
    budgets.charge(Budget.REMARKS, visitor(), 1, get_settings())
