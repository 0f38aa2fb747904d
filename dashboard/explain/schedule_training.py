"""Where training spends its samples."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from diffusion_core.process.tables import ScheduleTables


def show_training(schedules: Sequence[ScheduleTables]) -> None:
    st.caption("…")
