"""What an operator can do with runs on the Training page: a run's buttons, the queue, deleting.

Everything goes through `jobs.py` and `trash.py`; a refusal is shown as a message.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import streamlit as st

from dashboard.services import cached
from dashboard.services.settings import Settings, get_settings
from dashboard.training.machines import show_commands
from dashboard.ui import run_wording
from diffusion_core.files import folder_size
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import ACTIVE, RESUMABLE, same_place

# The settings that a run can change on its way, with their labels.
CHANGES = {
    "learning_rate": "Learning rate",
    "steps": "Steps in all",
    "sample_every": "Samples every",
    "checkpoint_every": "Checkpoints every",
    "validate_every": "Validations every",
}
SHOWN_DELETED = 10


def attempt(deed: Callable[[], Any]) -> None:
    """Do what a button asks for. A refusal is shown as a message that outlives the next update."""
    try:
        deed()
    except (jobs.JobError, ConfigError) as error:
        st.session_state["refusal"] = str(error)


def show_refusal() -> None:
    if refusal := st.session_state.pop("refusal", None):
        st.toast(refusal, icon=":material/error:", duration="long")


# ---------------------------------------------------------------- one run


def ask(run: Run, action: str) -> None:
    attempt(lambda: jobs.request(run, action))


def resume(run: Run, changes: dict[str, Any] | None = None) -> None:
    attempt(lambda: jobs.resume(run, get_settings().device, changes))


def show_buttons(seen: RunSnapshot, settings: Settings) -> None:
    """What can be asked of the run now; a later stop or pause takes the place of what waits."""
    run, state, config, waiting = seen.run, seen.state, seen.config, seen.pending
    with st.container(horizontal=True, gap="small"):
        if state in RESUMABLE:
            show_resume(seen)
            show_commands(
                lambda machines, processes: jobs.commands_for(run, machines, processes),
                run.path,
                str(cached.device()),
                f"more-{run.name}",
            )
        elif state == "queued":
            show_button("Cancel", ":material/close:", "stop", waiting == "stop", ask, run, "stop")
        elif state in ("starting", "running"):
            for action, icon in (("pause", "pause"), ("stop", "stop")):
                taken = waiting in (action, "stop")
                label = action.capitalize()
                show_button(label, f":material/{icon}:", action, taken, ask, run, action)
        if state == "running":
            for action, icon in (("sample", "image"), ("checkpoint", "save")):
                label = f"{action.capitalize()} now"
                taken = waiting is not None
                show_button(label, f":material/{icon}:", action, taken, ask, run, action)
        if config is not None:
            if state == "finished":
                show_more_steps(run, config, settings)
            elif state not in ("pausing", "stopping"):
                show_changes(run, config, settings)
            if st.button("Start another like this", icon=":material/content_copy:", key="ask-like"):
                st.session_state["like"] = run.name
                st.rerun()  # of the whole page, which has the form
        if state not in ACTIVE and st.button("Delete", icon=":material/delete:", key="ask-delete"):
            st.session_state["to_delete"] = run.name
            st.rerun()  # of the whole page: what this part shows is gone within a second


def show_button(
    label: str, icon: str, action: str, disabled: bool, deed: Callable[..., None], *args: Any
) -> None:
    st.button(label, icon=icon, disabled=disabled, on_click=deed, args=args, key=f"ask-{action}")


def show_resume(seen: RunSnapshot) -> None:
    run, config = seen.run, seen.config
    st.button(
        "Resume",
        icon=":material/play_arrow:",
        type="primary",
        on_click=resume,
        args=(run,),
        key="ask-resume",
    )
    if config is not None and seen.status.not_finite:
        rate = float(f"{config.learning_rate / 10:.3g}")
        st.button(
            "Resume with a lower rate",
            icon=":material/trending_down:",
            help=f"With a learning rate of {rate:g}, a tenth of what it was: the numbers of a "
            "training that is too fast grow beyond all bounds.",
            on_click=resume,
            args=(run, {"learning_rate": rate}),
            key="ask-resume-lower",
        )


def show_more_steps(run: Run, config: RunConfig, settings: Settings) -> None:
    """Let a finished run go on."""
    with (
        st.popover("Continue with more steps", icon=":material/fast_forward:"),
        st.form(f"continue-{run.name}", border=False),
    ):
        if not jobs.can_go_on(run):
            st.write(
                "Of this run only the weights were kept, not the state to go on from. Start "
                "another like it instead."
            )
            st.form_submit_button("Continue", disabled=True)
            return
        least = config.steps + 1
        most = max(least, settings.max_steps or 10**7)
        st.number_input(
            "Steps in all",
            min_value=least,
            max_value=most,
            value=min(2 * config.steps, most),
            step=100,
            help=f"It has made {config.steps:,}.",
            key=(key := f"more-steps-{run.name}-{config.steps}"),
        )
        st.form_submit_button("Continue", type="primary", on_click=go_on, args=(run, key))


def go_on(run: Run, key: str) -> None:
    changes = {"steps": st.session_state[key]}

    def deed() -> None:
        check_steps(changes, settings := get_settings())
        jobs.resume(run, settings.device, changes)

    attempt(deed)


def check_steps(changes: dict[str, Any], settings: Settings) -> None:
    """Raises ConfigError for more steps than this installation allows."""
    if settings.max_steps is not None and changes.get("steps", 0) > settings.max_steps:
        raise ConfigError(f"This installation allows {settings.max_steps:,} steps.")


def show_changes(run: Run, config: RunConfig, settings: Settings) -> None:
    """A small form of the settings that can change on the way."""
    with (
        st.popover("Change", icon=":material/tune:"),
        st.form(f"change-{run.name}", border=False),
    ):
        for name, label in CHANGES.items():
            value = getattr(config, name)
            whole = isinstance(value, int)
            st.number_input(
                label,
                min_value=(1 if name == "steps" else 0) if whole else 0.0,
                max_value=10**7 if whole else 10.0,
                value=value,
                step=(100 if name == "steps" else 25) if whole else 1e-4,
                format=None if whole else "%.5g",
                key=change_key(run, config, name),
            )
        st.caption("Changes hold from the next step on; the curves show where.")
        st.form_submit_button(
            "Change", type="primary", on_click=change, args=(run, config, settings)
        )


def change_key(run: Run, config: RunConfig, name: str) -> str:
    """Of a field: another one when the setting has changed, so that the old value is not kept."""
    return f"change-{run.name}-{name}-{getattr(config, name)}"


def change(run: Run, config: RunConfig, settings: Settings) -> None:
    """Ask for what is other in the form than in the settings."""
    entries = {name: st.session_state[change_key(run, config, name)] for name in CHANGES}
    changes = {name: value for name, value in entries.items() if value != getattr(config, name)}

    def deed() -> None:
        check_steps(changes, settings)
        if changes:
            jobs.change(run, changes)

    attempt(deed)


# ---------------------------------------------------------------- the queue


def show_queue(runs: list[RunSnapshot], settings: Settings) -> None:
    """Which of `runs` wait, in order; nothing where none does."""
    queue = read_queue(settings.runs_dir, runs)
    if not queue:
        return
    st.header("SamplingQueue")
    for number, run in enumerate(queue, 1):
        peers = [other for other in queue if same_place(other.status, run.status)]
        at = peers.index(run)
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            where = f" for {run_wording.device(run)}" if len(peers) < len(queue) else ""
            st.markdown(f"{number}. **{run.name}**{where}", width="stretch")
            if not settings.may_operate:
                continue
            for label, icon, places, disabled in (
                ("Up", "arrow_upward", -1, at == 0),
                ("Down", "arrow_downward", 1, at == len(peers) - 1),
            ):
                st.button(
                    label,
                    icon=f":material/{icon}:",
                    disabled=disabled,
                    on_click=move,
                    args=(run.run, places),
                    key=f"move-{places}-{run.name}",
                )
            st.button(
                "Cancel",
                icon=":material/close:",
                on_click=ask,
                args=(run.run, "stop"),
                key=f"cancel-{run.name}",
            )


def move(run: Run, places: int) -> None:
    attempt(lambda: jobs.move(run, places))


# ---------------------------------------------------------------- deleting


def forget_deletion() -> None:
    st.session_state.pop("to_delete", None)


@st.dialog("Delete this run?", on_dismiss=forget_deletion)
def confirm_deletion(run: Run) -> None:
    checkpoints, strips = len(run.weights()), len(run.samples())
    st.write(
        f"**{run.name}** goes with all that is in its folder: "
        f"{run_wording.count(checkpoints, 'checkpoint')}, "
        f"{run_wording.count(strips, 'sample strip')}, its settings, curves and notes, "
        f"{run_wording.size(folder_size(run.path))} in all. For {trash.KEEP_DAYS} days it can be "
        "restored at the end of this page."
    )
    with st.container(horizontal=True):
        if st.button("Delete it", type="primary", icon=":material/delete:"):
            attempt(lambda: st.session_state.update(deleted=trash.delete(run)))
            forget_deletion()
            st.rerun()
        if st.button("Keep it"):
            forget_deletion()
            st.rerun()


def show_undo() -> None:
    """Says what has just been deleted, and takes it back."""
    gone = st.session_state.get("deleted")
    if gone is None:
        return
    with st.container(
        horizontal=True, border=True, vertical_alignment="center", gap="small", key="undo"
    ):
        st.markdown(f":material/delete: **{gone.name}** is deleted.", width="stretch")
        st.button("Undo", icon=":material/undo:", on_click=restore, args=(gone,))


def show_deleted(settings: Settings) -> None:
    gone = trash.deleted(settings.runs_dir)
    if not gone:
        return
    with st.expander("Recently deleted", icon=":material/restore_from_trash:"):
        for each in gone[:SHOWN_DELETED]:
            when = datetime.fromtimestamp(each.time).strftime("%Y-%m-%d %H:%M")
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                st.markdown(f"**{each.name}**, deleted {when}", width="stretch")
                st.button(
                    "Restore", on_click=restore, args=(each,), key=f"restore-{each.path.name}"
                )
        if len(gone) > SHOWN_DELETED:
            st.caption(f"And {len(gone) - SHOWN_DELETED} more in the folder .trash of the runs.")


def restore(gone: trash.Deleted) -> None:
    def deed() -> None:
        st.session_state["started"] = trash.restore(gone).name
        st.session_state.pop("deleted", None)

    attempt(deed)
