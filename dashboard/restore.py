"""Dropping a downloaded picture on the Sampling page sets the controls as they were for it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.sampling_controls import CORRECT, LATEST, LECTURE, max_pictures, url_settings
from dashboard.sampling_many import most_pictures
from dashboard.settings import get_settings
from diffusion_core.checkpoint import Checkpoint
from diffusion_core.config import MAIN_AVERAGE
from diffusion_core.flow import FlowSchedule
from diffusion_core.levels import OF_SIGMA
from diffusion_core.order import ANY_CLASS, Order
from diffusion_core.picture_settings import MAX_MB, Made, NoSettings, read
from diffusion_core.presets import build_schedule
from diffusion_core.runs import list_runs
from diffusion_core.samplers import samplers_for

MAX_GUIDANCE = 8.0  # of the page's slider


def offer() -> None:
    """The place to drop a picture on, and what came of the last one. Draw it above the controls:
    the settings are taken before the page is drawn again."""
    count = st.session_state.setdefault("restored_count", 0)
    with st.popover(
        "Restore settings from a picture",
        icon=":material/settings_backup_restore:",
        key=f"restoring-{count}",  # another one each time: it is closed again
    ):
        st.file_uploader(
            "A PNG that was downloaded here",
            help="Grids and single pictures carry the settings that made them.",
            key=(key := f"restore-{count}"),  # another one each time: it is empty again
            max_upload_size=min(MAX_MB, get_settings().max_upload_mb),
            on_change=take,
            args=(key,),
        )
    kind, sentence = st.session_state.pop("restored", ("", ""))
    if sentence:
        {"error": st.error, "warning": st.warning, "success": st.success}[kind](sentence)


def take(key: str) -> None:
    """Set the controls as the dropped file says, or say why not."""
    file = st.session_state.get(key)
    if file is None:
        return
    st.session_state["restored_count"] += 1
    try:
        made = read(file.getvalue())
        checkpoint, missing = find(made.order)
        values = controls(made, checkpoint, missing)
        # A control that stands on the page only from now on does not write its value into the
        # address; one that stood there does, and nobody else may.
        known: dict[str, Any] = url_settings(made.order) | {"many": made.order.n}
        if missing:
            del known["step"]
        new = [name for name in known if name in values and name not in st.session_state]
        st.query_params.update({name: known[name] for name in new})
        st.session_state.update(values)
    except NoSettings as error:
        st.session_state["restored"] = ("error", str(error))
        return
    order = made.order
    what = "The grid" if made.picture is None else f"Picture {made.picture + 1:,}"
    if missing:
        st.session_state["restored"] = (
            "warning",
            f"{what} is of {order.words()}. That checkpoint is not here any more; the newest is "
            f"chosen, which draws other pictures.",
        )
    elif made.mode:
        st.session_state["restored"] = (
            "warning",
            f"The settings of {order.words()} are restored. The picture was not made of them "
            f"alone but under {made.mode}; choose again there what it started from.",
        )
    else:
        st.session_state["restored"] = (
            "success",
            f"The settings of this picture are restored. {what} is of {order.words()}; drawn "
            f"again, it is the same.",
        )


def find(order: Order) -> tuple[Checkpoint, bool]:
    """The order's checkpoint or, where that is gone, the newest of its run, and whether it is.
    Raises NoSettings."""
    runs = {run.name: run for run in list_runs(get_settings().runs_dir)}
    if order.run not in runs:
        raise NoSettings(f"The picture was drawn from the run {order.run}, which is not here.")
    usable, _ = runs[order.run].checkpoints()
    if not usable:
        raise NoSettings(f"The picture's run, {order.run}, has no checkpoint to draw from.")
    for checkpoint in usable:
        if checkpoint.step == order.step:
            return checkpoint, False
    return usable[-1], True


def controls(made: Made, checkpoint: Checkpoint, missing: bool) -> dict[str, Any]:
    """The value of each control of the page, by its key. Raises NoSettings where the run is not
    the one that the file means, or the controls do not reach so far."""
    order = made.order
    schedule = build_schedule(checkpoint.config)
    last = schedule.timesteps - 1
    guided, knows_any = order.guidance_scale != 1, checkpoint.config.label_dropout > 0
    fits = (
        order.classes == checkpoint.classes
        and order.average in checkpoint.averages
        and order.flow == isinstance(schedule, FlowSchedule)
        and order.method in (names := samplers_for(schedule))
        and (order.spacing not in OF_SIGMA or "dpmpp_2m" in names)
        and order.steps <= schedule.timesteps
        and (not order.as_lecture or checkpoint.config.network == "lecture")
        and (knows_any or (order.label != ANY_CLASS and (not guided or order.negative != "")))
    )
    if not fits:
        raise NoSettings(f"The picture was drawn from another run that was called {order.run} too.")
    if not 1 <= order.guidance_scale <= MAX_GUIDANCE:
        raise NoSettings(
            f"The picture has guidance {order.guidance_scale:g}, and this page goes from 1 to "
            f"{MAX_GUIDANCE:g}."
        )
    low, high = order.guidance_interval or (0, last)
    if high > last or any(not float(end).is_integer() for end in (low, high)):
        raise NoSettings("The picture's guided timesteps are none that this page can set.")
    many = order.n > max_pictures(checkpoint.config.image_size)
    if many and order.n > (most := most_pictures(get_settings())):
        raise NoSettings(f"The picture is of {order.n:,}, and here {most:,} at most are drawn.")
    values: dict[str, Any] = {
        "mode": "Many" if many else "Draw",
        "many" if many else "n": order.n,
        "run": order.run,
        "step": LATEST if missing else str(order.step),
        "way": LECTURE if order.as_lecture else CORRECT,
        "flow_sampler" if order.flow else "sampler": order.method,
        "spacing": order.spacing,
        "steps": order.steps,
        "seed": order.seed,
        "eta": float(order.eta),
        "variance": order.variance,
        "average": order.average or MAIN_AVERAGE,
    }
    if order.classes:
        values |= {"label": order.label, "guidance": float(order.guidance_scale)}
    if guided:
        values |= {"negative": order.negative or ANY_CLASS, "guided": (round(low), round(high))}
    if made.picture is not None:
        values["picture"] = made.picture + 1
    return values
