"""The app with a secrets file of the tests' own, so that a test can change it while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

import streamlit_app
from dashboard.services import settings

settings.SECRETS_FILE = Path(os.environ["TESTS_SECRETS_FILE"])
app = st.App(settings.REPOSITORY / "dashboard" / "shell.py", lifespan=streamlit_app.lifespan)
