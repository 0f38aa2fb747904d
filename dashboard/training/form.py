"""The form that starts a run: its layout, and what a choice changes in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.services import cached, roles, run_deeds
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import Settings, SettingsError, get_settings
from dashboard.training.form_controls import (
    ADVANCED,
    CHANNELS,
    DATA,
    DATA_KEYS,
    DESIGN,
    KEYS,
    LOSS_ON,
    MAIN,
    MORE,
    ONLY_WITH,
    SEED,
    SIZE,
    STEPS,
    TARGET,
    data_spec,
    design_control,
    detail_control,
    entries_of,
    followed,
    make_config,
)
from dashboard.training.launch import Start, can_distil, estimate, queue_note
from dashboard.training.sweep_form import show_sweep_form
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Control, Text
from dashboard.ui.outside import code, plain
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import sentence
from diffusion_core.data.sources import SOURCES
from diffusion_core.runs import jobs
from diffusion_core.runs.checkpoint import CheckpointError
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError, RunConfig, split_origin
from diffusion_core.runs.designs import DESIGNS
from diffusion_core.runs.origin import settle_origin
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.run import RunSnapshot

START = Choice(
    key="preset",
    label="Start from",
    default=Start(preset="small"),
    help="A preset, or the settings of another run. small: for two CPU cores. tiny: two minutes on "
    "one core, at 32 px. lecture: the lecture's network and training, 62 million parameters, slow "
    "without a GPU. base: 52 million parameters, for a GPU. distillation of a run: its weights and "
    "settings, to sample in one or two steps.",
)
NAME = Text(key=keys.NAME, label="Run name")
INIT = Choice(
    key="init",
    label="Initial weights",
    default="",
    help="Random, or averaged weights of another run, which may have trained on other images. "
    "Its network must be the same: choose that run in Start from, too. Classes of the same name "
    "are kept; a new class starts as 'any class'.",
)
RANDOM = "none (random)"  # no run can have this name


def show_form(runs: list[RunSnapshot]) -> None:
    if why := roles.refusal(Deed.START):  # the role is another one than when the page was shown
        st.warning(plain(why))
        return
    try:
        settings = get_settings()
    except SettingsError as error:
        st.error(plain(error))
        return
    in_link = not (KEYS | {START.key, NAME.key, INIT.key}).isdisjoint(st.query_params)
    with st.expander(
        "Start a training run",
        expanded=not runs or in_link,
        icon=":material/add_circle:",
        key=keys.FORM_OPEN,
        on_change="rerun",
    ):
        _show_fields(settings, runs)


def take_settings(start: Start) -> None:
    """Copy the settings of a preset or a run to the form; a preset has no data and what suits it,
    and no seed."""
    settings = get_settings()
    try:
        config = start.config(settings.runs_dir)
    except ConfigError:
        return  # the form says why
    st.session_state[START.key] = start
    entries = entries_of(config, settings.max_steps)
    entries |= followed(config, entries)
    # Once more: checkpoints follow the samples, which follow the steps.
    for key, value in (entries | followed(config, entries)).items():
        if start.run or key not in DATA_KEYS:
            st.session_state[key] = value
    st.session_state[INIT.key], step = split_origin(config.init_from)
    if step is not None:
        st.session_state[_init_step_key(config.init_from)] = step
        st.session_state[_init_average_key(config.init_from)] = config.init_average


def _show_fields(settings: Settings, runs: list[RunSnapshot]) -> None:
    _read_old_links()
    left, right = st.columns(2)
    options = [
        *(Start(preset=name) for name in PRESETS),
        *(Start(run=run.name) for run in runs),
        *(Start(run=run.name, distils=True) for run in runs if can_distil(run)),
    ]
    with left:
        start: Start = START.now(
            options=options, titles={option: option.title for option in options}
        ).ask(on_change=lambda: take_settings(st.session_state[START.key]))
    try:
        config = start.config(settings.runs_dir)
    except ConfigError as error:
        st.error(plain(error))
        return
    entries = entries_of(config, settings.max_steps)
    with right:
        kind, detail = _pick_data(entries)
    hint = jobs.free_name(settings.runs_dir, start.name or f"{start.preset}-{kind}")
    with left:
        name = NAME.now(placeholder=hint).ask().strip() or hint
    _say_what_is_there(kind, detail)
    if start.distils:
        st.caption(
            f"Trains a copy of {code(start.run)} to answer any noise with the image that "
            f"{code(start.run)} reaches from it in many steps, so that one or two steps are enough."
        )
    if kind != entries[DATA.key]:
        entries |= {SIZE.key: SOURCES[kind].size, CHANNELS.key: SOURCES[kind].channels}
    init_from, init_average = _pick_weights(config, runs)
    for column, controls in zip(st.columns(len(MAIN)), MAIN, strict=True):
        with column:
            _ask(controls, entries, settings, config)
    origin = f"{'run' if start.run else 'preset'} {code(start.run or start.preset)}"
    with st.expander("More settings", icon=":material/tune:"):
        _ask_groups(MORE, entries, settings, config)
        st.caption(f"Other settings come from {origin}.")
    with st.expander("Advanced settings", icon=":material/science:"):
        _ask_groups(ADVANCED, entries, settings, config)
    with st.container(horizontal=True):
        start_now = st.button("Start", type="primary", icon=":material/play_arrow:")
        create_now = st.button(
            "Create without starting",
            icon=":material/create_new_folder:",
            help="For example to start it on several machines.",
        )
    pressed = start_now or create_now
    try:
        start_config = config.replace(init_from=init_from, init_average=init_average)
        config = make_config(start_config, data_spec(kind, detail), entries, settings.max_steps)
        settle_origin(config, settings.runs_dir)
        if pressed:
            roles.check(Deed.START)
            with st.spinner("Checking the data …"):
                jobs.check_name(name)
                jobs.check_data(config)
            if start_now:
                run_deeds.start(name, config)
            else:
                run_deeds.create(name, config)
            st.session_state[keys.NEW_RUN] = name
            st.rerun()
    except (ConfigError, DataError, jobs.JobError, NotAllowed, SettingsError) as error:
        # Before a click the visitor may still be typing.
        (st.error if pressed else st.caption)(plain(error))
        return
    device = str(cached.device())
    notes = f"{estimate(runs, config, device)} {queue_note(runs, device)}".strip()
    if notes:
        st.caption(notes)
    show_sweep_form(settings, config, runs)


def _pick_data(entries: dict[str, Any]) -> tuple[str, str | int]:
    """The kind of data and its detail: a number of images, a folder, a name."""
    kind = DATA.now(default=entries[DATA.key]).ask(on_change=_take_what_suits)
    control = detail_control(kind)
    detail = control.now(default=entries.get(kind, control.default)).ask()
    return kind, detail


def _say_what_is_there(kind: str, detail: str | int) -> None:
    if not str(detail).strip():
        return
    try:
        found = cached.found(data_spec(kind, detail))
    except DataError as error:
        st.caption(plain(error))
        return
    if isinstance(found, str):
        st.caption(plain(found))
    elif found is not None:
        (st.warning if found.left_out else st.caption)(plain(sentence(found)))


def _pick_weights(config: RunConfig, runs: list[RunSnapshot]) -> tuple[str, str]:
    """The weights to start from, as `init_from` and `init_average` of a run's settings."""
    name, step = split_origin(config.init_from)
    steps = {run.name: [step for step, _ in reversed(run.run.weights())] for run in runs}
    steps = {run: found for run, found in steps.items() if found}
    titles = {"": RANDOM} | {run: run for run in steps}
    if name and name not in steps:  # deleted, or in another folder
        titles[name] = f"{Path(name).name} (not in this list of runs)"
    known = steps.setdefault(name, []) if name else []
    if step is not None and step not in known:  # pruned meanwhile: the core says so
        known.append(step)
    left, right = st.columns(2)
    with left:
        chosen: str = INIT.now(options=["", *steps], titles=titles, default=name).ask()
    average = config.init_average if chosen and chosen == name else MAIN_AVERAGE
    if not chosen or not steps[chosen]:
        return chosen, average
    found = steps[chosen]
    with right, st.container(horizontal=True, vertical_alignment="bottom"):
        control = Choice(
            key=_init_step_key(chosen),
            label="Checkpoint",
            options=found,
            titles={each: f"step {each:,}" for each in found},
            default=step if chosen == name else found[0],
            bind=False,
        )
        init_from = f"{chosen}@{control.ask()}"
        return init_from, _pick_average(init_from, average, runs)


def _pick_average(init_from: str, average: str, runs: list[RunSnapshot]) -> str:
    """Which averaged weights of a checkpoint to start from; one that is broken says so later."""
    name, step = split_origin(init_from)
    try:
        [run] = [run.run for run in runs if run.name == name]
        checkpoint = run.checkpoint(step or 0)
    except (CheckpointError, ValueError):
        return average
    averages = dict.fromkeys((*checkpoint.averages, average))
    return Choice(
        key=_init_average_key(init_from),
        label="Averaged weights",
        options=tuple(averages),
        titles={each: checkpoint.average_text(each) for each in checkpoint.averages},
        default=average,
        help="The average of the weights over the training of that run, by its decay per step. "
        "All averages of the new run start from it.",
        bind=False,
    ).ask()


def _init_step_key(init_from: str) -> str:
    return f"init-step-{split_origin(init_from)[0]}"


def _init_average_key(init_from: str) -> str:
    return f"init-average-{init_from}"


def _take_what_suits() -> None:
    """The size and the channels that suit the images that were chosen."""
    source = SOURCES[st.session_state[DATA.key]]
    st.session_state[SIZE.key], st.session_state[CHANNELS.key] = source.size, source.channels


def _ask_groups(
    columns: Sequence[Mapping[str, Iterable[Control]]],
    entries: dict[str, Any],
    settings: Settings,
    start: RunConfig,
) -> None:
    """As `_ask`, groups of controls under their titles, in columns."""
    for column, groups in zip(st.columns(len(columns), gap="medium"), columns, strict=True):
        with column:
            for title, group in groups.items():
                st.markdown(f"**{title}**")
                _ask(group, entries, settings, start)


def _ask(
    controls: Iterable[Control], entries: dict[str, Any], settings: Settings, start: RunConfig
) -> None:
    """Show controls that start at `entries`, the settings of `start`, and write their values
    back."""
    for control in controls:
        default = followed(start, entries).get(control.key, entries[control.key])
        now = control.now(default=default)
        if control is SEED:  # empty where the seed has more digits than a browser keeps
            now = now.now(placeholder=str(start.seed))
        other, values = ONLY_WITH.get(control.key, (None, ()))
        if other is not None and entries[other.key] not in values:
            if control is LOSS_ON:  # which would be refused
                entries[control.key] = control.default
            continue
        if control is DESIGN:
            designs, _ = DESIGNS.read(settings.runs_dir)
            now = design_control(default, designs)
        if control is STEPS and settings.max_steps:
            now = now.now(high=settings.max_steps)
        entries[control.key] = now.ask()


def _read_old_links() -> None:
    """Rewrite the values of links of earlier versions and rerun the page; what is in the session
    owns its part of the address."""
    new = {}
    start = st.query_params.get(START.key, "")
    if start.startswith("as ") and START.key not in st.session_state:
        new[START.key] = Start(run=start.removeprefix("as ")).title
    if st.query_params.get(TARGET.key) == "picture" and TARGET.key not in st.session_state:
        new[TARGET.key] = "image"
    if new:
        st.query_params.update(new)
        st.rerun()
