"""The view Vote: ask people which images are better without saying what made them, and count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from dashboard.components.ballot.ballot import BACK, SKIP, show_ballot
from dashboard.remarks import ask_name
from dashboard.review.ask import CONTROLS as ASKED
from dashboard.review.ask import ERRORS, show_form
from dashboard.review.link import link_to
from dashboard.review.vote_results import show_results
from dashboard.services import review_deeds
from dashboard.services.roles import Deed
from dashboard.services.settings import get_settings
from dashboard.services.shared_look import look_anew, once, recent
from dashboard.ui import keys
from dashboard.ui.controls import Choice
from dashboard.ui.outside import plain
from diffusion_core.files import os_sentence
from diffusion_core.review import polls
from diffusion_core.review.index import Row
from diffusion_core.review.polls import Poll, Turn
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.votes import FILE, Votes

NEW = ""
VOTE = Choice(key="vote", label="Vote", options=(NEW,), titles={NEW: "New vote"}, default=NEW)
CONTROLS = (VOTE, *ASKED)


def is_open() -> bool:
    """Whether a vote is open, which needs no table of runs: asked before the control is shown."""
    return bool(st.session_state.get(VOTE.key, st.query_params.get(VOTE.key, NEW)))


def show_vote(chosen: Sequence[RunSnapshot], rows: Sequence[Row]) -> None:
    folder = get_settings().runs_dir
    names = recent(("polls", folder), lambda: polls.names(folder))
    name = VOTE.now(options=(NEW, *names)).ask(width=260)
    if name == NEW:
        show_form(chosen, VOTE.key)
        return
    try:
        poll = polls.read(folder, name)
    except ERRORS as error:
        st.error(plain(error))
        return
    if by := ask_name(Deed.VOTE, "name-vote"):
        st.fragment(_show_poll)(poll, by)
    else:
        count = len(poll.record.questions)
        st.info(f"{count} questions. The results are shown to those who have voted.")
    with st.popover("Link to this vote", icon=":material/link:"):
        st.caption("Opens it directly, also on a phone.")
        st.code(link_to({"view": ["Vote"], VOTE.key: [name]}), language=None, wrap_lines=True)


def votes_of(poll: Poll) -> Votes:
    """Read again only where a file has changed."""
    runs = poll.runs

    def look() -> list[tuple[int, int]]:
        files = [run / FILE for run in runs]
        stats = [file.stat() for file in files if file.exists()]
        return [(stat.st_mtime_ns, stat.st_size) for stat in stats]

    stamp = recent(("votes", poll.path), look)
    key = ("votes", poll.path, poll.record.created, tuple(stamp))
    return once(key, lambda: polls.votes(poll))


def _show_poll(poll: Poll, by: str) -> None:
    """The fragment."""
    if error := st.session_state.pop(keys.VOTE_ERROR, ""):
        st.error(error)
    if polls.has_ended(poll, by):
        st.fragment(show_results, run_every=2.0)(poll, votes_of)
        return
    found = votes_of(poll)
    turns = polls.turns(poll, by, found.entries)
    session = _session(poll, by, turns)
    at = session.now(turns)
    if at is None:
        _show_end(poll, by, turns, session)
    else:
        _show_question(poll, by, turns, session, at)


class Session:
    """Where one visitor is in a poll."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.trail = [k for k, turn in enumerate(turns) if turn.chosen]  # what Back goes through
        self.skipped: set[int] = set()
        self.back: int | None = None  # the question that Back has come to
        self.answers = 0  # of any kind; the browser's must be to the question that it shows

    def now(self, turns: Sequence[Turn]) -> int | None:
        """The number of the question to show, from 0; None after the last."""
        if self.back is not None:
            return self.back
        rest = (k for k, turn in enumerate(turns) if not turn.chosen and k not in self.skipped)
        return next(rest, None)

    def go_back(self) -> None:
        if self.trail:
            self.back = self.trail.pop()

    def go_on(self, at: int, *, skip: bool) -> None:
        self.trail.append(at)
        self.back = None
        (self.skipped.add if skip else self.skipped.discard)(at)


def _session(poll: Poll, by: str, turns: Sequence[Turn]) -> Session:
    found = st.session_state.setdefault(keys.VOTING, {})
    return found.setdefault((poll.name, poll.record.created, by), Session(turns))


def _show_question(poll: Poll, by: str, turns: Sequence[Turn], session: Session, at: int) -> None:
    turn = turns[at]
    try:
        images = [polls.image(poll, turn.question, entry) for entry in turn.shown]
    except OSError as error:
        st.error(f"The images of this vote cannot be read: {plain(os_sentence(error))}")
        return
    asked = f"{at}-{session.answers}"

    def answer(question: str, place: int) -> None:
        if question != asked:
            return
        session.answers += 1
        if place == BACK:
            session.go_back()
            return
        if place != SKIP:
            _attempt(review_deeds.vote, poll, turn, place, by)
        if keys.VOTE_ERROR not in st.session_state:
            session.go_on(at, skip=place == SKIP)

    chosen = turn.shown.index(turn.chosen) if turn.chosen else None
    place = at + 1, len(turns)
    show_ballot(images, asked, place, chosen, bool(session.trail), "ballot", answer)
    sides = ", ← and →" if len(images) == 2 else ""
    st.caption(f"Keys: 1 to {len(images)}{sides}, S to skip, Backspace to go back.")


def _show_end(poll: Poll, by: str, turns: Sequence[Turn], session: Session) -> None:
    answered = sum(bool(turn.chosen) for turn in turns)
    st.markdown(f"You have answered {answered} of {len(turns)} questions.")
    st.caption("When you have seen the results, you cannot vote here any more.")
    with st.container(horizontal=True):
        st.button(
            "Show the results",
            type="primary",
            on_click=_attempt,
            args=(review_deeds.end_voting, poll, by),
        )
        if session.skipped:
            st.button("Answer the skipped ones", on_click=session.skipped.clear)
        st.button("Back", on_click=session.go_back, disabled=not session.trail)


def _attempt(deed: Callable[..., object], *given: object) -> None:
    """A refusal is shown above the question."""
    try:
        deed(*given)
    except ERRORS as error:
        why = os_sentence(error) if isinstance(error, OSError) else str(error)
        st.session_state[keys.VOTE_ERROR] = plain(why)
    finally:
        look_anew()
