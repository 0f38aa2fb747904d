"""Follow me: the page of a presenter, on the screens of those who want.

What is followed are the settings of the page, as a link to it has them. What somebody who follows
changes stays until the presenter changes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import streamlit as st
from streamlit.errors import StreamlitAPIException
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.remarks import ask_name, name_now, who
from dashboard.review.link import address_of, link_to, open_address
from dashboard.services import presenting
from dashboard.services.presenting import Presentation, PresentingError
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import SettingsError
from dashboard.ui import keys
from dashboard.ui.controls import Control
from dashboard.ui.outside import code, plain

FOLLOW = "follow"  # in a link, with the code of a presentation
# From one look to the next, of the presenter's page and of the others'.
PRESENTER_SECONDS, FOLLOWER_SECONDS = 0.5, 1.0


def show_follow(controls: Sequence[Control]) -> None:
    """Before all widgets of the page: it may set their values."""
    _take_link()
    if own := _own():
        _show_presenting(own, controls)
    elif followed := _followed():
        _show_following(followed, controls)


def offer_follow() -> None:
    """The button to present or to follow, for who does neither."""
    if not (_own() or _followed()):
        st.fragment(_offer)(name_now())


def _own() -> Presentation | None:
    """What the visitor presents."""
    found = presenting.find(st.session_state.get(keys.PRESENTED, ""))
    return found if found is not None and found.session == _session() else None


def _followed() -> Presentation | None:
    """What the visitor follows; says so where that has ended."""
    if (state := st.session_state.get(keys.FOLLOWED)) is None:
        return None
    found = presenting.find(state[0])
    if found is None:
        st.session_state.pop(keys.FOLLOWED)
        st.info("The presentation that you followed has ended.")
    return found


def _session() -> str:
    context = get_script_run_ctx()
    return context.session_id if context is not None else ""


def _take_link() -> None:
    if (given := st.query_params.get(FOLLOW)) is None:
        return
    with suppress(StreamlitAPIException):
        del st.query_params[FOLLOW]
    _follow(given[:20].upper())


def _follow(code: str) -> None:
    st.session_state[keys.FOLLOWED] = (code, -1)


def _stop_following() -> None:
    st.session_state.pop(keys.FOLLOWED, None)


# ---------------------------------------------------------------- the bar


def _show_presenting(own: Presentation, controls: Sequence[Control]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":material/cast: You are presenting. Code: {code(own.code)}", width="content")
        with st.popover("Link to follow", icon=":material/link:"):
            st.code(link_to({FOLLOW: [own.code]}), language=None, wrap_lines=True)
        st.button("Stop presenting", on_click=presenting.end, args=(own.code, own.session))
    st.fragment(_publish, run_every=PRESENTER_SECONDS)(own, controls)


def _publish(own: Presentation, controls: Sequence[Control]) -> None:
    """The fragment: what the presenter's page shows now is that of those who follow."""
    presenting.show(own.code, own.session, address_of(controls))


def _show_following(followed: Presentation, controls: Sequence[Control]) -> None:
    state = st.session_state
    if state[keys.FOLLOWED][1] != followed.changes:
        open_address(followed.address, controls)
        state[keys.FOLLOWED] = (followed.code, followed.changes)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f":material/cast_connected: You are following {who(followed.by)}.",
            width="content",
            help="What you change yourself stays until the presenter changes something.",
        )
        st.button("Stop following", on_click=_stop_following)
    st.fragment(_watch, run_every=FOLLOWER_SECONDS)(followed)


def _watch(followed: Presentation) -> None:
    """The fragment: the page is run again once the presenter's has changed."""
    now = presenting.find(followed.code)
    if now is None or now.changes != followed.changes:
        st.rerun()


def _offer(named: str) -> None:
    """The fragment. `named`: who the visitor was when the page was run."""
    if name_now() != named:
        st.rerun()
    popover = st.popover("Follow me", icon=":material/cast:", key="follow-me", on_change="rerun")
    with popover:
        if not popover.open:
            return
        for each in presenting.every():
            if st.button(f"Follow {who(each.by)} ({each.code})", key=f"follow-{each.code}"):
                _follow(each.code)
                st.rerun()
        st.caption("Those who follow you see this page as you do.")
        by = ask_name(Deed.PRESENT, "name-follow")
        if st.button("Present", disabled=not by, type="primary"):
            try:
                st.session_state[keys.PRESENTED] = presenting.begin(by, _session()).code
            except (NotAllowed, SettingsError, PresentingError) as error:
                st.error(plain(error))
            else:
                st.rerun()
