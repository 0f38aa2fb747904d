"""What an operator can do with runs on the Training page: a run's buttons, the queue, deleting.

What `run_deeds` refuses is shown as a message.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import datetime

import streamlit as st

from dashboard.services import cached, roles, run_deeds
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import Settings, SettingsError, get_settings
from dashboard.services.shared_look import look_anew
from dashboard.training.events import edit
from dashboard.training.form_controls import (
    BY_FIELD,
    STEPS,
    data_spec,
    detail_control,
)
from dashboard.training.history import deleted_by
from dashboard.training.launch import can_distil
from dashboard.training.machines import show_commands
from dashboard.training.notify import show_notify_button
from dashboard.ui import keys, run_wording
from dashboard.ui.controls import Control
from dashboard.ui.outside import code, plain
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.files import folder_size
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import ACTIVE, RESUMABLE, RunState, same_place
from diffusion_core.text import value_text

WAITS = "The run has not answered the last request yet."  # why a button is disabled
# The settings that can be edited during training.
EDITABLE = (
    "learning_rate",
    "steps",
    "sample_every",
    "checkpoint_every",
    "validate_every",
    "evaluate_every",
    "stop_when_no_better",
)
SHOWN_DELETED = 10


def attempt(action: Callable[..., object], *args: object) -> None:
    """Call the action of a button; a refusal is shown once, in the next run of the page."""
    try:
        action(*args)
    except (jobs.JobError, ConfigError, DataError, NotAllowed, SettingsError) as error:
        st.session_state[keys.REFUSAL] = str(error)
    look_anew()


def show_refusal() -> None:
    if refusal := st.session_state.pop(keys.REFUSAL, None):
        st.toast(plain(refusal), icon=":material/error:", duration="long")


# ---------------------------------------------------------------- one run


def show_buttons(seen: RunSnapshot, runs: Sequence[RunSnapshot]) -> None:
    """What can be done with the run now, one of `runs`; a stop or pause replaces a request that
    waits.
    """
    run, state, config, waiting = seen.run, seen.state, seen.config, seen.pending
    with st.container(horizontal=True, gap="small"):
        if state in RESUMABLE and config is not None:
            show_resume(seen)
            show_commands(
                functools.partial(jobs.commands_for, run),
                str(cached.device()),
                f"more-{run.name}",
            )
        elif state == RunState.QUEUED:
            show_request(run, "stop", "Cancel", "close", waiting == "stop")
        elif state in (RunState.STARTING, RunState.RUNNING):
            show_request(run, "pause", "Pause", "pause", waiting in ("pause", "stop"))
            show_request(run, "stop", "Stop", "stop", waiting == "stop")
        if state == RunState.RUNNING:
            show_request(run, "sample", "Sample now", "image", waiting is not None)
            show_request(run, "checkpoint", "Checkpoint now", "save", waiting is not None)
        if config is not None:
            if state == RunState.FINISHED:
                show_more_steps(run, config)
            names = changeable_now(seen, config)
            if names and state not in (RunState.PAUSING, RunState.STOPPING):
                show_changes(run, config, names)
            if st.button("Duplicate run", icon=":material/content_copy:", key="ask-like"):
                st.session_state[keys.DUPLICATE] = run.name
                st.rerun()  # of the whole page, which has the form
            if can_distil(seen) and st.button(
                "Distil",
                icon=":material/compress:",
                help="Start a run that learns to sample in one or two steps what this one samples "
                "in many.",
                key="ask-distil",
            ):
                st.session_state[keys.DISTIL] = run.name
                st.rerun()
        if state not in ACTIVE and st.button("Delete", icon=":material/delete:", key="ask-delete"):
            st.session_state[keys.TO_DELETE] = run.name
            st.rerun()  # of the whole page: what this part shows is gone within a second
        show_notify_button(seen, runs)


def show_request(run: Run, action: str, label: str, icon: str, disabled: bool) -> None:
    st.button(
        label,
        icon=f":material/{icon}:",
        disabled=disabled,
        help=WAITS if disabled else None,
        on_click=attempt,
        args=(run_deeds.request, run, action),
        key=f"ask-{action}",
    )


def show_resume(seen: RunSnapshot) -> None:
    run, config = seen.run, seen.config
    st.button(
        "Start run" if run_wording.never_started(seen) else "Resume",
        icon=":material/play_arrow:",
        type="primary",
        on_click=attempt,
        args=(run_deeds.resume, run),
        key="ask-resume",
    )
    if config is not None and seen.status.not_finite:
        rate = float(f"{config.learning_rate / 10:.3g}")
        st.button(
            "Resume with a lower learning rate",
            icon=":material/trending_down:",
            help=f"{rate:g}, a tenth of the current one. With too high a learning rate, training "
            "diverges.",
            on_click=attempt,
            args=(run_deeds.resume, run, {"learning_rate": rate}),
            key="ask-resume-lower",
        )


def show_more_steps(run: Run, config: RunConfig) -> None:
    """Let a finished run continue."""
    label, icon = "Continue with more steps", ":material/fast_forward:"
    if not jobs.can_go_on(run):
        st.button(
            label,
            icon=icon,
            disabled=True,
            help="Only the weights of this run were kept, not its training state. Duplicate the "
            "run to train it again.",
            key="ask-more",
        )
        return
    with st.popover(label, icon=icon), st.form(f"continue-{run.name}", border=False):
        least = config.steps + 1
        most = max(least, get_settings().max_steps or int(STEPS.high))
        STEPS.now(
            key=(key := f"more-steps-{run.name}-{config.steps}"),
            low=least,
            high=most,
            default=min(2 * config.steps, most),
            help=f"{config.steps:,} steps are done.",
            bind=False,
        ).ask()
        st.form_submit_button("Continue", type="primary", on_click=attempt, args=(go_on, run, key))


def go_on(run: Run, key: str) -> None:
    run_deeds.resume(run, {"steps": st.session_state[key]})


def changeable_now(seen: RunSnapshot, config: RunConfig) -> tuple[str, ...]:
    """The settings that the page can edit in a run's present state."""
    names = () if seen.state == RunState.FINISHED else EDITABLE
    kind = SOURCES.get(config.data.partition(":")[0])
    movable = seen.state not in ACTIVE and kind is not None and kind.is_path
    return (*names, "data") if movable else names


def show_changes(run: Run, config: RunConfig, names: tuple[str, ...]) -> None:
    """A small form of the settings that can be edited after a run's start."""
    opened = f"{keys.EDIT_OPEN}-{run.name}"
    if times := st.session_state.get(keys.EDIT_CLOSING, 0):
        st.session_state[opened] = False
        st.session_state[keys.EDIT_CLOSING] = times - 1
    with (
        # `on_change`: else it could not be closed.
        st.popover("Edit settings", icon=":material/tune:", key=opened, on_change="rerun"),
        st.form(f"change-{run.name}", border=False),
    ):
        # Side by side, so that the button is in view.
        columns = [each for _ in names[::3] for each in st.columns(min(3, len(names)))]
        for column, name in zip(columns, names, strict=False):
            key = _edit_key(run, config, name)
            control: Control
            if name == "data":
                kind, _, folder = config.data.partition(":")
                help = "Where the images are now, if they were moved. They must be the same images."
                control = detail_control(kind).now(default=folder, help=help)
            else:
                setting = getattr(config, name)
                control = BY_FIELD[name].now(default=setting, help=None, follows=False)
            with column:
                control.now(key=key, bind=False).ask()
        if names != ("data",):
            st.caption("Takes effect at the next step and is marked on the curves.")
        st.form_submit_button(
            "Apply", type="primary", on_click=attempt, args=(change, run, config, names)
        )


def _edit_key(run: Run, config: RunConfig, name: str) -> str:
    """A field's key. It changes with the setting, so that the field does not keep an old value."""
    return f"change-{run.name}-{name}-{getattr(config, name)}"


def change(run: Run, config: RunConfig, names: tuple[str, ...]) -> None:
    """Request the settings that differ from the current ones."""
    entries = {name: st.session_state[_edit_key(run, config, name)] for name in names}
    if "data" in entries:
        entries["data"] = data_spec(config.data.partition(":")[0], entries["data"])
    changes = {name: value for name, value in entries.items() if value != getattr(config, name)}
    run_deeds.change(run, changes)
    # In this run of the page and in the next: the browser may have requested it before it heard
    # that the form is closed, and would open it again.
    st.session_state[keys.EDIT_CLOSING] = 2
    if changes:
        st.session_state[keys.EDITED] = (run.name, config, changes)


def show_edited(seen: RunSnapshot) -> None:
    """Confirm what this session has edited, once the run has taken it."""
    name, before, changes = st.session_state.get(keys.EDITED, ("", None, {}))
    taken = seen.config is not None and all(
        getattr(seen.config, field) == value for field, value in changes.items()
    )
    if name != seen.name or not taken:
        return
    del st.session_state[keys.EDITED]
    text = ", ".join(
        edit(field, *(plain(value_text(each)) for each in (getattr(before, field), value)))
        for field, value in changes.items()
    )
    # A run that has not begun is only rewritten, and data has no step.
    if seen.changes and not changes.keys() - seen.changes[-1].settings.keys():
        text += f" from step {seen.changes[-1].step:,}"
    st.toast(text[0].upper() + text[1:], icon=":material/check:", duration="long")


# ---------------------------------------------------------------- the queue


def show_queue(runs: list[RunSnapshot]) -> None:
    """The waiting ones of `runs`, in order; nothing without any."""
    queue = read_queue(get_settings().runs_dir, runs)
    if not queue:
        return
    st.header("Queue")
    for number, run in enumerate(queue, 1):
        peers = [other for other in queue if same_place(other.status, run.status)]
        at = peers.index(run)
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            where = f" for {run_wording.device(run)}" if len(peers) < len(queue) else ""
            st.markdown(f"{number}. {code(run.name)}{where}", width="stretch")
            if not roles.may(Deed.REORDER):
                continue
            for label, icon, places, end in (
                ("Up", "arrow_upward", -1, "first" if at == 0 else ""),
                ("Down", "arrow_downward", 1, "last" if at == len(peers) - 1 else ""),
            ):
                st.button(
                    label,
                    icon=f":material/{icon}:",
                    disabled=bool(end),
                    help=f"This run is {end} in the queue." if end else None,
                    on_click=attempt,
                    args=(run_deeds.move, run.run, places),
                    key=f"move-{places}-{run.name}",
                )
            st.button(
                "Cancel",
                icon=":material/close:",
                on_click=attempt,
                args=(run_deeds.request, run.run, "stop"),
                key=f"cancel-{run.name}",
            )


# ---------------------------------------------------------------- deleting


def forget_deletion() -> None:
    st.session_state.pop(keys.TO_DELETE, None)


@st.dialog("Delete this run?", on_dismiss=forget_deletion)
def confirm_deletion(run: Run) -> None:
    checkpoints, strips = len(run.weights()), len(run.samples())
    st.write(
        f"{code(run.name)} and all its files will be deleted: "
        f"{run_wording.count(checkpoints, 'checkpoint')}, "
        f"{run_wording.count(strips, 'sample strip')}, settings, curves and notes, "
        f"{run_wording.size(folder_size(run.path))} in total. You can restore it at the bottom of "
        f"this page for {trash.KEEP_DAYS} days."
    )
    with st.container(horizontal=True):
        confirmed = st.button("Delete run", type="primary", icon=":material/delete:")
        if confirmed:
            attempt(delete, run)
        if st.button("Cancel") or confirmed:
            forget_deletion()
            st.rerun()


def delete(run: Run) -> None:
    st.session_state[keys.DELETED] = run_deeds.delete(run)


def show_undo() -> None:
    """Say what has just been deleted, with a button that restores it."""
    gone = st.session_state.get(keys.DELETED)
    if gone is None:
        return
    with st.container(
        horizontal=True, border=True, vertical_alignment="center", gap="small", key="undo"
    ):
        st.markdown(f":material/delete: {code(gone.name)} was deleted.", width="stretch")
        st.button("Undo", icon=":material/undo:", on_click=attempt, args=(restore, gone))


def show_deleted(settings: Settings) -> None:
    gone = trash.deleted(settings.runs_dir)
    if not gone:
        return
    with st.expander("Recently deleted", icon=":material/restore_from_trash:"):
        for each in gone[:SHOWN_DELETED]:
            when = datetime.fromtimestamp(each.time).strftime("%Y-%m-%d %H:%M")
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                st.markdown(f"{code(each.name)}, deleted {when}{deleted_by(each)}", width="stretch")
                key = f"restore-{each.path.name}"
                st.button("Restore", on_click=attempt, args=(restore, each), key=key)
        if len(gone) > SHOWN_DELETED:
            st.caption(f"{len(gone) - SHOWN_DELETED} more are in the folder .trash of the runs.")


def restore(gone: trash.Deleted) -> None:
    st.session_state[keys.NEW_RUN] = run_deeds.restore(gone).name
    st.session_state.pop(keys.DELETED, None)
