"""The controls of the Data page that choose a data set, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from dashboard.services import cached
from dashboard.services.roles import Deed, NotAllowed, check, may
from dashboard.services.settings import get_settings
from dashboard.services.shared_look import runs_of
from dashboard.ui import keys
from dashboard.ui.controls import Choice
from dashboard.ui.navigation import entry
from dashboard.ui.outside import plain
from dashboard.ui.pickers import pick_run
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import found, sentence
from diffusion_core.data.source import Source
from diffusion_core.data.sources import SOURCES, kind_of
from diffusion_core.data.sources.uploaded import names
from diffusion_core.runs.config import RunConfig

DATA_SET, RUN = "data set", "run"
OF = Choice(key="of", label="Images of", options=(DATA_SET, RUN), default=DATA_SET, segmented=True)
DATA = Choice(
    key="data",
    label="Data set",
    options=[source.name for source in SOURCES.values() if source.most],
    default="cars",
)
TYPED = [form for source in SOURCES.values() if not source.most for form in source.usage]


@dataclass(frozen=True)
class Shown:
    """A data set, and the settings with which it is read: those of the run, or the usual ones."""

    spec: str
    source: Source
    config: RunConfig


def pick_data_set() -> Shown | None:
    """The set that is chosen; where there is none, the page says why."""
    try:
        config = _pick_config()
        if config is None:
            return None
        kind = kind_of(config.data)
        if kind.is_path:
            check(Deed.READ_PATHS)
        source = cached.source(config.data)
    except (DataError, NotAllowed) as error:
        st.error(plain(error))
        return None
    _say_what_is_there(source, own=kind.most is None)
    if may(Deed.START):
        _offer_training(config.data)
    return Shown(config.data, source, config)


def _pick_config() -> RunConfig | None:
    """Raises DataError, NotAllowed."""
    if spec := st.session_state.pop(keys.NEXT_DATA, ""):
        st.session_state[OF.key], st.session_state[DATA.key] = DATA_SET, spec
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    with left:
        of = OF.ask()
    with right:
        if of == DATA_SET:
            return _usual_config(_pick_spec())
        runs = [run for run in runs_of(get_settings()) if run.config is not None]
        if not runs:
            st.info("There are no runs yet.")
            return None
        run = pick_run(runs, last_first=True)
    assert run.config is not None
    return run.config


def _pick_spec() -> str:
    typed = may(Deed.READ_PATHS)
    options = [*DATA.options, *(f"uploaded:{name}" for name in names())]
    help = f"Or type {', '.join(TYPED)}." if typed else None
    spec: str = DATA.now(options=options, help=help, typed=typed).ask()
    if spec not in options:
        check(Deed.READ_PATHS)
    return spec


def _usual_config(spec: str) -> RunConfig:
    """The settings that the training form would start with. Raises DataError."""
    kind = kind_of(spec)
    return RunConfig(data=spec, image_size=kind.size, channels=kind.channels)


def _offer_training(spec: str) -> None:
    """The form of a training run on these images."""
    kind, _, detail = spec.partition(":")
    page = entry("training.py")
    settings = {"data": kind} | ({kind: detail} if detail else {})
    st.page_link(page.path, label="Train on these images", icon=page.icon, query_params=settings)


def _say_what_is_there(source: Source, own: bool) -> None:
    """How many images and classes there are, and what is left out and why; `own`: the visitor can
    do something about that."""
    there = found(source.count, source.classes, source.left_out)
    (st.warning if own and there.left_out else st.caption)(plain(sentence(there)))
    if len(source.left_out) > sum(len(each.names) for each in there.left_out):
        with st.expander(f"All {len(source.left_out):,} that are left out"):
            import pandas as pd

            st.dataframe(pd.DataFrame(source.left_out, columns=["file", "reason"]), hide_index=True)
