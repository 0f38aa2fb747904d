"""The view Say: what people say of a run and its steps."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.remarks import show_said
from dashboard.services.shared_look import recent
from dashboard.ui.controls import Choice, Toggle
from diffusion_core.review.index import Row
from diffusion_core.runs.remarks import RUN, Subject
from diffusion_core.runs.run import Run, RunSnapshot

WHOLE = "the run"
OF = Choice(key="say_run", label="Run")
ABOUT = Choice(key="say_about", label="About", default=WHOLE)
HISTORY = Toggle(key="say_history", label="History", help="Also what was edited and deleted.")
CONTROLS = (OF, ABOUT, HISTORY)


def show_say(chosen: Sequence[RunSnapshot], rows: Sequence[Row]) -> None:
    if not chosen:
        st.info("Select a run in the table to read and write what people say of it.")
        return
    runs = {run.name: run.run for run in chosen}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = list(runs)
        run = runs[OF.now(options=names).ask(width=260) if len(names) > 1 else names[0]]
        steps = recent(("said-steps", run.path), lambda: _steps(run))
        texts = [WHOLE, *map(str, steps)]
        about = ABOUT.now(options=texts, titles={text: _title(text) for text in texts})
        text = about.ask(width=200)
        history = HISTORY.ask()
    subject = RUN if text == WHOLE else Subject(step=int(text))
    show_said(run, subject, every_subject=True, history=history)


def _steps(run: Run) -> list[int]:
    """With samples or weights, the newest first."""
    return sorted({step for step, _ in [*run.samples(), *run.weights()]}, reverse=True)


def _title(text: str) -> str:
    return "The run" if text == WHOLE else f"Step {int(text):,}"
