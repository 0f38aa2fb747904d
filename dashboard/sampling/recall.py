"""The strip of this session's results above the newest one, and an earlier one shown again."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.gallery.gallery import show_gallery
from dashboard.components.thumbnails.thumbnails import Thumbnail, show_thumbnails
from dashboard.sampling import restore
from dashboard.sampling.history import Result, results
from dashboard.sampling.sharing import offer_link
from dashboard.ui import keys
from dashboard.ui.outside import plain
from dashboard.ui.progress import session_jobs


def show_history(mode: str) -> None:
    """Nothing where all there is stands below: the one result of this mode."""
    kept = results()
    if len(kept) < 2 and all(result.mode == mode for result in kept.values()):
        return
    newest = {job.number for job in session_jobs().values()}
    below = next((n for n in reversed(kept) if n in newest and kept[n].mode == mode), None)
    chosen = chosen_number()
    texts = differences(list(kept.values()))
    thumbnails = [
        Thumbnail(number, result.face, result.mode, text, result.text)
        for (number, result), text in zip(kept.items(), texts, strict=True)
    ]
    show_thumbnails(
        thumbnails[::-1],
        "Results of this session",
        below if chosen is None else chosen,
        "history",
        on_pick=lambda number: choose(None if number in (below, chosen) else number),
    )
    if chosen is not None:
        with st.container(border=True):
            show_again(kept[chosen])


def chosen_number() -> int | None:
    """The job of the earlier result that is shown; none any more once another job was started."""
    number, at = st.session_state.get(keys.EARLIER, (None, -1))
    return number if number in results() and at == newest_job() else None


def choose(number: int | None) -> None:
    st.session_state[keys.EARLIER] = number, newest_job()


def newest_job() -> int:
    return max((job.number for job in session_jobs().values()), default=-1)


def show_again(result: Result) -> None:
    st.markdown(plain(f"Earlier result, {result.mode}: {result.text}"))
    show_gallery(result.rows, result.text, "earlier")
    with st.container(horizontal=True):
        st.button(
            "Use these settings",
            icon=":material/settings_backup_restore:",
            on_click=restore.use,
            args=(result.made,),
        )
        offer_link(result.made.spec, result.made.page, result.not_linked)
        st.button("Close", icon=":material/close:", on_click=choose, args=(None,))


def differences(kept: Sequence[Result]) -> list[str]:
    """Of each result what not all have; all of it where they have the same."""
    parts = [result.parts() for result in kept]
    shared = set.intersection(*(set(each.items()) for each in parts))
    found = []
    for each in parts:
        own = [text for field, text in each.items() if text and (field, text) not in shared]
        found.append(", ".join(own or filter(None, each.values())))
    return found
