"""The upload of a zip file of images as a data set, and its deletion."""

from __future__ import annotations

import streamlit as st

from dashboard.explain.data_set import DATA
from dashboard.services import cached, data_deeds, roles, uploads
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import SettingsError, get_settings
from dashboard.ui import keys
from dashboard.ui.outside import plain
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import sentence
from diffusion_core.data.sources.uploaded import names
from diffusion_core.files import os_sentence
from diffusion_core.zips import ArchiveError


def show_upload() -> None:
    with st.expander("Your own images", icon=":material/upload:"):
        if not roles.may(Deed.UPLOAD_DATA):
            st.caption(roles.refusal(Deed.UPLOAD_DATA))
            return
        if spec := st.session_state.pop(keys.UPLOADED_DATA, ""):
            st.success(plain(f"{spec} is there now. {_there(spec)}"))
        _offer_upload()
        _offer_delete()


def _there(spec: str) -> str:
    try:
        found = cached.found(spec)
    except DataError as error:
        return str(error)
    return sentence(found) if found is not None and not isinstance(found, str) else ""


def _offer_upload() -> None:
    limit = get_settings().upload_mb(operator=True)
    count = st.session_state.setdefault(keys.DATA_COUNT, 0)
    file = st.file_uploader(
        "Zip file of images",
        type="zip",
        max_upload_size=limit,
        key=f"data-file-{count}",  # another one after each upload: it is empty again
        help="Its folders become classes.",
    )
    if file is not None:
        uploads.keep(file.file_id)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Name", max_chars=80, key=f"data-name-{count}").strip()
        pressed = st.button("Make a data set", key="upload-data", disabled=not (file and name))
    st.caption(f"Larger than {limit} MB: `diffusion-lab data import FILE` on the server.")
    if not pressed or file is None:
        return
    bar = st.progress(0.0, "Unpacking …")
    try:
        spec = data_deeds.upload(
            file, name, lambda done, total: bar.progress(done / total, f"{done:,} of {total:,}")
        )
    except (ArchiveError, DataError, NotAllowed, SettingsError) as error:
        st.error(plain(error))
    except OSError as error:
        st.error(plain(os_sentence(error)))
    else:
        st.session_state[keys.DATA_COUNT] += 1
        st.session_state[keys.UPLOADED_DATA] = st.session_state[keys.NEXT_DATA] = spec
        cached.forget_images()
        st.rerun()


def _offer_delete() -> None:
    there = names()
    if not there:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Uploaded data sets", there, key="data-to-delete")
        with st.popover("Delete", icon=":material/delete:"):
            st.write("Runs that were trained on it can then not be resumed.")
            pressed = st.button("Delete data set", key="delete-data", type="primary")
    if pressed:
        try:
            data_deeds.delete(name)
        except (DataError, NotAllowed) as error:
            st.error(plain(error))
            return
        except OSError as error:
            st.error(plain(os_sentence(error)))
            return
        if st.session_state.get(DATA.key) == f"uploaded:{name}":
            st.session_state[keys.NEXT_DATA] = DATA.default
        cached.forget_images()
        st.rerun()
