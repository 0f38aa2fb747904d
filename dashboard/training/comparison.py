"""Several runs beside each other: their figures, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard.services import cached
from dashboard.training.form_controls import BY_FIELD
from dashboard.ui import run_wording
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.text import value_text


def show_comparison(runs: list[RunSnapshot]) -> None:
    """Two tables with a column for each of at least two runs."""
    numbers = {run.name: {"Step": f"{run.status.step:,}"} | numbers_of(run) for run in runs}
    settings = {run.name: settings_of(run.config) if run.config else {} for run in runs}
    _show_table("Figures", numbers)
    if differ := differing([each for each in settings.values() if each]):
        kept = {
            name: {label: value for label, value in own.items() if label in differ}
            for name, own in settings.items()
        }
        _show_table("Settings that differ", kept)
    else:
        st.caption("The settings of these runs are the same.")


def _show_table(title: str, columns: Mapping[str, Mapping[str, str]]) -> None:
    labels = dict.fromkeys(label for column in columns.values() for label in column)
    rows = [
        # No run has an empty name.
        {"": label} | {name: column.get(label, "") for name, column in columns.items()}
        for label in labels
        if any(column.get(label) for column in columns.values())
    ]
    st.markdown(f"**{title}**")
    st.dataframe(rows, hide_index=True, height="content", alt=title)


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


def settings_of(config: RunConfig) -> dict[str, str]:
    """The settings as text by the labels of the form; of a dictionary each entry by itself."""
    found = {}
    for field, value in dict(config).items():
        entries = value if isinstance(value, Mapping) else {"": value}
        for entry, each in entries.items():
            name = f"{field}.{entry}".rstrip(".")
            control = BY_FIELD.get(name)
            words = name.removeprefix("network_args.").replace("_", " ").replace(".", ": ")
            found[control.label if control else words.capitalize()] = value_text(each)
    return found


def differing(settings: list[dict[str, str]]) -> set[str]:
    """The labels whose value is not the same in all of these settings."""
    return {
        label
        for each in settings[1:]
        for label in settings[0].keys() | each.keys()
        if settings[0].get(label) != each.get(label)
    }
