"""Views saved by name: opened, saved and deleted."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.review.link import address_of, open_address
from dashboard.services import saved_deeds
from dashboard.services.roles import Deed, NotAllowed, may
from dashboard.services.saved_deeds import is_own
from dashboard.services.settings import SettingsError, get_settings
from dashboard.services.shared_look import look_anew, recent
from dashboard.ui import keys
from dashboard.ui.controls import Control
from dashboard.ui.outside import code, plain
from diffusion_core.files import os_sentence
from diffusion_core.review.saved_views import SHELF, SavedView, read_views
from diffusion_core.saved import LONGEST_NAME, SaveError

ERRORS = (NotAllowed, SettingsError, SaveError, OSError)


def offer_saved(controls: Sequence[Control]) -> None:
    """`controls`: those of the page."""
    folder = get_settings().runs_dir
    found = recent(("views", folder), lambda: read_views(folder))
    allowed = may(Deed.SAVE_VIEW)
    if not (found.views or allowed):
        return
    with st.popover("Saved views", icon=":material/bookmarks:"):
        if why := st.session_state.pop(keys.VIEW_ERROR, ""):
            st.error(plain(why))
        for problem in found.problems:
            st.caption(f":material/warning: {plain(problem)}")
        for view in found.views.values():
            _show_view(view, controls, may_delete=allowed and is_own(view))
        if not found.views:
            st.caption("No view is saved yet.")
        if allowed:
            with st.form("save-view", border=False):
                st.text_input("Name", max_chars=LONGEST_NAME, key=keys.VIEW_NAME)
                st.form_submit_button("Save this view", on_click=_save, args=(controls,))


def _show_view(view: SavedView, controls: Sequence[Control], *, may_delete: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            plain(view.name),
            key=f"open-{view.name}",
            help=f"Saved by {plain(view.by)}." if view.by else None,
            on_click=open_address,
            args=(view.address, controls),
            width="stretch",
        )
        if may_delete:
            st.button(
                ":material/delete:",
                key=f"delete-{view.name}",
                help=f"Delete {code(view.name)}",
                type="tertiary",
                on_click=_delete,
                args=(view.name,),
            )


def save(name: str, address: dict[str, list[str]]) -> None:
    """Raises ERRORS."""
    saved_deeds.save(Deed.SAVE_VIEW, SHELF, name, address=address)


def delete(name: str) -> None:
    """Raises ERRORS."""
    saved_deeds.delete(Deed.SAVE_VIEW, SHELF, name)


def _save(controls: Sequence[Control]) -> None:
    state = st.session_state
    try:
        save(state[keys.VIEW_NAME], address_of(controls))
    except ERRORS as error:
        _refuse(error)
    else:
        state[keys.VIEW_NAME] = ""
    look_anew()


def _delete(name: str) -> None:
    try:
        delete(name)
    except ERRORS as error:
        _refuse(error)
    look_anew()


def _refuse(error: Exception) -> None:
    why = os_sentence(error) if isinstance(error, OSError) else str(error)
    st.session_state[keys.VIEW_ERROR] = why
