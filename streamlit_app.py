"""The dashboard's server: start it with `streamlit run streamlit_app.py`.

Each visit runs `dashboard/shell.py`. It does not lie here because Streamlit takes a folder called
`pages` beside the script for its older kind of pages until a visit has called `st.navigation`: the
first visitor's link to a page would go astray.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.queue_watch import watching

app = st.App(Path(__file__).parent / "dashboard" / "shell.py", lifespan=watching)
