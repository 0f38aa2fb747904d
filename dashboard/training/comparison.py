"""Several runs beside each other: their figures, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from dashboard.components.comparison.comparison import Line, show_table
from dashboard.services import cached
from dashboard.ui import run_wording
from diffusion_core.review.differences import differences
from diffusion_core.runs.config import meaning
from diffusion_core.runs.run import RunSnapshot

SETTINGS = "Settings that differ"
CORNER = "Run"
NOT_READABLE = "not readable"
NONE_DIFFER = "The settings of these runs are the same."


def show_comparison(runs: Sequence[RunSnapshot]) -> None:
    """A table with a column for each of at least two runs."""
    figures = [{"Step": f"{run.status.step:,}"} | numbers_of(run) for run in runs]
    settings = setting_lines(runs)
    parts = {"Figures": lines_of(figures), SETTINGS: settings}
    show_table([run.name for run in runs], parts, "Comparison", "comparison", CORNER)
    if not settings:
        st.caption(NONE_DIFFER)


def lines_of(
    columns: Sequence[Mapping[str, str]], meanings: Mapping[str, str] | None = None
) -> list[Line]:
    """A line for each label that one of the columns has a text for."""
    labels = dict.fromkeys(label for column in columns for label in column)
    return [
        Line(label, (meanings or {}).get(label, ""), [column.get(label, "") for column in columns])
        for label in labels
        if any(column.get(label) for column in columns)
    ]


def setting_lines(runs: Sequence[RunSnapshot]) -> list[Line]:
    """The settings in which the runs differ; marked where one is not as in the first of them."""
    lines = []
    for each in differences(runs):
        texts = [
            text if run.config else NOT_READABLE
            for run, text in zip(runs, each.texts(), strict=True)
        ]
        marked = [text not in (texts[0], NOT_READABLE) for text in texts]
        lines.append(Line(each.name, meaning(each.name), texts, marked))
    return lines


def numbers_of(run: RunSnapshot) -> dict[str, str]:
    """The figures of a run by their labels; empty where it has not recorded them."""
    last = {name: f"{value:.4f}" for name, (_, value) in cached.last_values(run.run).items()}
    speed, memory = run.status.images_per_second, run.status.memory_bytes
    return {
        "Loss": last.get("loss", ""),
        "Validation loss": last.get("validation_loss", ""),
        "Images per second": "" if speed is None else f"{speed:,.1f}",
        "Memory": "" if memory is None else run_wording.size(memory),
    }
