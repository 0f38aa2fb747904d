"""The shell of every page, run on each visit: page configuration, navigation and sidebar."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.explain.lecture import show_guide
from dashboard.services.garbage import TABLES, import_and_spare, is_imported
from dashboard.services.settings import Settings, SettingsError, get_settings
from dashboard.ui import keys
from dashboard.ui.addresses import PAGES
from dashboard.ui.navigation import HOME, SECTIONS, PageEntry
from dashboard.ui.outside import plain
from dashboard.ui.sign_in import show_role
from diffusion_core.files import why_no_list


def page(entry: PageEntry) -> st.Page:
    return st.Page(
        entry.path,
        title=entry.title,
        icon=entry.icon,
        url_path=entry.url_path,
        default=entry is HOME,
    )


def device_text(settings: Settings) -> str:
    """What the pages compute on. Raises ValueError."""
    from diffusion_core.device import describe, pick_device

    return f"Device: {plain(describe(pick_device(settings.device)))}"


def wait_for_device() -> None:
    """Until the server's start has imported PyTorch, which a page without it does not wait for."""
    if is_imported("torch"):
        st.rerun()
    st.caption("Device: PyTorch is loading …")


# Files of our own: Streamlit loads its icons for this from another host.
ARTWORK = Path(__file__).parent
st.set_page_config(page_title="Diffusion Lab", page_icon=ARTWORK / "icon.svg", layout="wide")
st.logo(ARTWORK / "logo.svg", size="large")
chosen = st.navigation(
    {"": [page(HOME)]}
    | {section: [page(entry) for entry in entries] for section, entries in SECTIONS.items()},
    expanded=True,  # else Streamlit hides those after the twelfth
)
light = any(entry.light for entry in PAGES if entry.url_path == chosen.url_path)
try:
    settings = get_settings()
    device = device_text(settings) if is_imported("torch") or not light else ""
except (SettingsError, ValueError) as error:
    st.error(plain(error))
    st.stop()
with st.sidebar:
    if device:
        st.caption(device)
    else:
        st.fragment(wait_for_device, run_every=1.0)()
    show_role(settings)
if why := why_no_list(settings.runs_dir):
    st.error(f"The runs folder {plain(why)}")
for sentence in st.session_state.get(keys.LEFT_OUT, ()):
    st.warning(f"{plain(sentence)} This part of the link is left out.")
# Before any page: Plotly takes a pandas that another visit is just importing for a whole one.
import_and_spare(TABLES)
st.session_state[keys.ARRIVED] = st.session_state.get(keys.PAGE) != chosen.url_path
st.session_state[keys.PAGE] = chosen.url_path
show_guide(chosen.url_path)
chosen.run()
st.session_state.pop(keys.LEFT_OUT, None)
