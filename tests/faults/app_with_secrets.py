"""The app with the secrets file of the tests alone, so that a test can change it while it runs."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

import streamlit_app
from dashboard.services import settings

[secrets_file] = st.get_option("secrets.files")
settings.SECRETS_FILE = Path(secrets_file)
app = st.App(settings.REPOSITORY / "dashboard" / "shell.py", lifespan=streamlit_app.lifespan)
