"""Restoring the controls of the Sampling page from a downloaded image."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import streamlit as st

from dashboard.sampling import edit_controls
from dashboard.sampling.compare_lists import SAMPLED_AT, restore_lists
from dashboard.sampling.controls import (
    AVERAGE,
    COUNT,
    ETA,
    EXACT,
    FLOW_SAMPLER,
    LATEST,
    SAMPLER,
    SEED,
    SPACING,
    STEP,
    STEPS,
    TIMESTEPS,
    VARIANCE,
    WAY,
    controls_for,
    link_settings,
    max_images,
)
from dashboard.sampling.modes import BATCH, COMPARE, EDIT, GENERATE, MODE, MODES
from dashboard.sampling.spacing import set_timesteps
from dashboard.sampling.trajectory import IMAGE
from dashboard.services import cached, roles, uploads
from dashboard.services.series_jobs import most_images
from dashboard.services.settings import get_settings
from dashboard.ui import keys
from dashboard.ui.image_source import FIT
from dashboard.ui.older_names import now_called
from dashboard.ui.outside import plain
from diffusion_core.data.decode import SQUASH
from diffusion_core.data.errors import DataError
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.metadata import MAX_MB, Kind, Made, NoSettings, read
from diffusion_core.sampling.spec import SamplingSpec

ALWAYS = (WAY, SPACING, STEPS, SEED, ETA, VARIANCE, AVERAGE, EXACT)
# Kinds of files of the mode Generate: the images, and what is offered below them.
WHOLE, BELOW = (Kind.GRID, Kind.IMAGE), (Kind.STRIP, Kind.FILM)


def offer() -> None:
    """The field for an image, and the result of the last one. Show it above the controls: the
    settings are taken before the page is rerun."""
    count = st.session_state.setdefault(keys.RESTORED_COUNT, 0)
    with st.popover(
        "Restore settings from an image",
        icon=":material/settings_backup_restore:",
        key=f"restoring-{count}",  # another one each time: it is closed again
    ):
        st.file_uploader(
            "PNG downloaded from this page",
            help="Every PNG of this page contains the settings that made it.",
            key=(key := f"restore-{count}"),  # another one each time: it is empty again
            max_upload_size=min(MAX_MB, get_settings().upload_mb(roles.may_operate())),
            on_change=take,
            args=(key,),
        )
    level, text = st.session_state.pop(keys.RESTORED, ("", ""))
    if text:
        {"error": st.error, "warning": st.warning, "success": st.success}[level](plain(text))


def take(key: str) -> None:
    """Set the controls as the uploaded file says, or say why not."""
    file = st.session_state.get(key)
    if file is None:
        return
    uploads.keep(file.file_id)
    st.session_state[keys.RESTORED_COUNT] += 1
    try:
        made = read(file.getvalue())
    except NoSettings as error:
        st.session_state[keys.RESTORED] = "error", str(error)
        return
    use(made)


def use(made: Made) -> None:
    """Set the controls as `made` says, or say why not. Call it before the page's script runs."""
    try:
        run, checkpoint, missing = find(made.spec)
        values = spec_values(made, Capabilities.of(checkpoint), missing)
        page, lost = mode_values(made, run, checkpoint)
    except NoSettings as error:
        st.session_state[keys.RESTORED] = "error", str(error)
        return
    values |= page
    # A control that is not on the page yet does not write its value into the address; one that is
    # does, and nobody else may.
    known = link_settings(made.spec) | {BATCH.controls[0].key: made.spec.n} | page
    if missing:
        del known[STEP.key]
    known.pop(TIMESTEPS.key, None)
    new = [name for name in known if name in values and name not in st.session_state]
    st.query_params.update({name: known[name] for name in new if known[name] != []})
    st.session_state.update(values)
    set_timesteps(made.spec.timesteps)
    for key in (keys.DEFAULTS, keys.USUAL_SPACING):  # what is restored follows no other control
        st.session_state.pop(key, None)
    st.session_state[keys.RESTORED] = what_came_back(made, page[MODE.key], missing, lost)


def what_came_back(made: Made, mode: str, missing: bool, lost: list[str]) -> tuple[str, str]:
    """The level of the message and the message; `lost`: what did not come back, in sentences."""
    spec = made.spec
    what = spec.describe()
    if mode == COMPARE.name:  # each row has its own settings
        what = f"a comparison by {spec.run} at step {spec.step:,}"
    elif made.image is not None:
        what = f"image {made.image + 1:,} of {what}"
    if missing:
        lost = ["That checkpoint no longer exists; the newest one generates other images.", *lost]
    again = ""
    if mode not in (GENERATE.name, BATCH.name) or made.kind in WHOLE:
        again = "Generating gives the same result."
    elif made.kind in BELOW:
        again = f"The {made.kind} appears below the generated images."
    text = [f"Settings restored: {what}.", *(lost or [again])]
    return "warning" if lost else "success", " ".join(text).strip()


def find(spec: SamplingSpec) -> tuple[Run, Checkpoint, bool]:
    """The run with the checkpoint or, if that is gone, with the newest, and whether it is gone.
    Raises NoSettings."""
    runs = {run.name: run for run in list_runs(get_settings().runs_dir)}
    if spec.run not in runs:
        raise NoSettings(f"The image's run, {spec.run}, does not exist here.")
    usable, _ = runs[spec.run].checkpoints()
    if not usable:
        raise NoSettings(f"The image's run, {spec.run}, has no checkpoint.")
    for checkpoint in usable:
        if checkpoint.step == spec.step:
            return runs[spec.run], checkpoint, False
    return runs[spec.run], usable[-1], True


def spec_values(made: Made, can: Capabilities, missing: bool) -> dict[str, Any]:
    """The value of each control of the spec, by its key.

    Raises NoSettings where the spec does not fit the run or is beyond the controls.
    """
    spec = made.spec
    if problems := spec.problems(can):
        raise NoSettings(f"The image was not made with this {spec.run}. {problems[0]}")
    # Of those that do not apply the defaults: something else may be left of an earlier choice.
    values = {each.key: each.of_field(getattr(spec, each.field)) for each in ALWAYS}
    values[(FLOW_SAMPLER if spec.flow else SAMPLER).key] = spec.method
    values |= {"run": spec.run, STEP.key: LATEST if missing else str(spec.step)}
    guided = False
    for control in controls_for(can, dict(spec), count=False):
        value = values[control.key] = control.of_field(getattr(spec, control.field))
        if problem := control.problem(value):
            raise NoSettings(f"This page cannot restore the image. {problem}")
        guided |= control.field == "guidance_scale"
    if spec.guidance_scale != 1 and not guided:
        raise NoSettings("This page cannot restore the image. Guidance needs “any class” here.")
    if made.image is not None:
        values[IMAGE.key] = made.image + 1
    return values


def mode_values(made: Made, run: Run, checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """The mode, the values of its controls by their keys, and what does not come back, in
    sentences. Raises NoSettings where they are none that can be set."""
    spec, config = made.spec, checkpoint.config
    page = now_called(made.page)
    mode = MODES.get(page.get(MODE.key, "")) if isinstance(page.get(MODE.key, ""), str) else None
    if mode is None or mode in (GENERATE, BATCH):
        lost = ["It was made in a mode that this version does not have."] if made.page else []
        if spec.n <= max_images(config.image_size):
            return {MODE.key: GENERATE.name, COUNT.key: spec.n}, lost
        if spec.n > (most := most_images()):
            raise NoSettings(f"The image is one of {spec.n:,}; at most {most:,} are possible here.")
        return {MODE.key: BATCH.name, BATCH.controls[0].key: spec.n}, lost
    values: dict[str, Any] = {MODE.key: mode.name}
    for control in mode.controls:
        if control.key in page:
            if problem := control.problem(page[control.key]):
                raise NoSettings(f"The image's settings cannot be used. {problem}")
            values[control.key] = control.of_field(page[control.key])
    if mode is EDIT:
        return values, restore_edit(values, spec, config.data)
    if mode is COMPARE:
        can = Capabilities.of(checkpoint)
        return values, restore_lists(values, page.get(SAMPLED_AT, {}), run, checkpoint, can)
    return values, []


def restore_edit(page: dict[str, Any], spec: SamplingSpec, data: str) -> list[str]:
    """Complete the values of the mode Edit; returns sentences about what does not come back."""
    kind = page.get(edit_controls.TASK.key)
    if kind != edit_controls.INVERT:
        if problem := edit_controls.VARIANTS.problem(spec.n):
            raise NoSettings(f"This page cannot restore the image. {problem}")
        page[edit_controls.VARIANTS.key] = spec.n
    source = page.setdefault(edit_controls.SOURCE.key, edit_controls.GENERATED)
    example = page.get(edit_controls.EXAMPLE.key)
    if source != edit_controls.DATA:
        page.pop(edit_controls.EXAMPLE.key, None)
        if source != edit_controls.GENERATED:
            page.setdefault(FIT.key, SQUASH)  # as earlier versions did
    elif example is not None:
        with suppress(DataError):  # the page itself says what is wrong with the data
            last = cached.image_count(data) - 1
            if problem := edit_controls.EXAMPLE.now(high=last).problem(example):
                raise NoSettings(f"This page cannot restore the image. {problem}")
    return edit_controls.not_in_settings(page)
