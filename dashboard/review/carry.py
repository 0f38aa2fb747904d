"""The view Carry: the chosen runs as archives and as ONNX, and a run out of an archive."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import streamlit as st

from dashboard.services import downloads, roles, run_deeds, uploads, users
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import SettingsError, get_settings
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Toggle
from dashboard.ui.outside import plain
from diffusion_core.files import os_sentence
from diffusion_core.review.index import Row
from diffusion_core.runs.archive import WEIGHTS as CHOICES
from diffusion_core.runs.archive import plan_archive
from diffusion_core.runs.checkpoint import CheckpointError
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.metrics import MetricsError
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.zips import ArchiveError

WEIGHTS = Choice(
    key="carry_weights",
    label="Weights",
    options=CHOICES,
    titles={name: name.capitalize() for name in CHOICES},
    default="best",
    segmented=True,
    help="Best: by the quality measured in training, else by the validation loss.",
)
WITH_STATE = Toggle(
    key="carry_state",
    label="Can be resumed",
    help="With what an exact resume needs: about three times the size of the weights.",
)
CONTROLS = (WEIGHTS, WITH_STATE)


def show_carry(chosen: Sequence[RunSnapshot], rows: Sequence[Row]) -> None:
    if roles.may(Deed.CARRY):
        _offer_archives(chosen)
    else:
        st.caption(roles.refusal(Deed.CARRY))
    st.subheader("Import")
    if roles.may(Deed.IMPORT):
        _offer_import()
    else:
        st.caption(roles.refusal(Deed.IMPORT))


def _offer_archives(chosen: Sequence[RunSnapshot]) -> None:
    if not chosen:
        st.info("Select runs in the table to download them.")
        return
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
        weights = WEIGHTS.ask(width="content")
        with_state = WITH_STATE.ask(width="content")
    for seen in chosen:
        try:
            plan = plan_archive(seen.run, weights, with_state)
        except (ArchiveError, CheckpointError, ConfigError, MetricsError) as error:
            st.warning(plain(f"{seen.name}: {error}"))
            continue
        steps = ", ".join(f"{step:,}" for step in plan.steps) or "none"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.link_button(
                plain(f"{seen.name}, at most {plan.size / 1e6:,.1f} MB"),
                downloads.offer(
                    (seen.path, weights, with_state),
                    Deed.CARRY,
                    f"{seen.name}.zip",
                    functools.partial(run_deeds.carry, seen.run, weights, with_state, users.name()),
                ),
                icon=":material/download:",
            )
            if plan.steps:
                _offer_onnx(seen.run, plan.steps[-1])
            st.caption(f"{len(plan.files):,} files, weights: {steps}")
    st.caption(
        "With settings, history, notes, votes, curves, samples and quality results, and the names "
        "of people in them. Without the training images and series of generated images. ONNX: the "
        "network with the newest of these weights, for other programs, and a script that samples."
    )


def _offer_onnx(run: Run, step: int) -> None:
    st.link_button(
        f"ONNX, step {step:,}",
        downloads.offer(
            (run.path, "onnx", step),
            Deed.CARRY,
            f"{run.name}-onnx.zip",
            functools.partial(run_deeds.carry_onnx, run, step, users.name()),
        ),
        icon=":material/download:",
    )


def _offer_import() -> None:
    if imported := st.session_state.pop(keys.IMPORTED, ""):
        st.success(f"{plain(imported)} is imported. It is in the table now.")
    limit = get_settings().upload_mb(operator=True)
    count = st.session_state.setdefault(keys.IMPORT_COUNT, 0)
    file = st.file_uploader(
        "Archive",
        type="zip",
        max_upload_size=limit,
        key=f"import-{count}",  # another one after each import: it is empty again
    )
    if file is not None:
        uploads.keep(file.file_id)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name", placeholder="as it was called", max_chars=80, key=f"import-name-{count}"
        )
        pressed = st.button("Import", icon=":material/upload:", key="import", disabled=file is None)
    st.caption(f"Larger than {limit} MB: `diffusion-lab import FILE` on the server.")
    if pressed and file is not None:
        try:
            with st.spinner("Checking the archive …"):
                run = run_deeds.import_run(file, name.strip())
        except (ArchiveError, JobError, NotAllowed, SettingsError) as error:
            st.error(plain(str(error)))
        except OSError as error:
            st.error(plain(os_sentence(error)))
        else:
            st.session_state[keys.IMPORT_COUNT] += 1
            st.session_state[keys.IMPORTED] = run.name
            st.rerun()
