"""The controls of the mode Compare, and the rows that their values combine to."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.sampling.choose import Chosen
from dashboard.sampling.controls import (
    CORRECT,
    LECTURE,
    LECTURE_SAMPLER,
    SEED,
    STEPS,
    VARIANCE,
    WAY,
)
from dashboard.services.settings import get_settings
from dashboard.ui import keys
from dashboard.ui.controls import Choice, MultiChoice, Number, Text
from dashboard.ui.guidance import GUIDANCE
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.levels import LEARNED
from diffusion_core.sampling.metadata import NoSettings
from diffusion_core.sampling.solvers import VARIANCES
from diffusion_core.sampling.spec import SamplingSpec

FEWEST, MOST = 2, 6
SETTINGS = 2  # that are offered at once; old links and presets have more
PRESELECTED = 3, 2  # values of the first setting, and of each further one
USUAL_STEPS = (2, 5, 10, 20, 30, 50, 100, 250, 1000)
NAME = Text(key="", label="")  # of a run, a sampler, …: one that is gone is left out, not refused
SAMPLED_AT = "drawn_at"  # in a file: {run: step}
USUAL = "usual"  # of the spacings: each sampler's own

COUNT = Number(key="vs_n", field="n", label="Images per row", low=1, high=8, default=4)
# By key, in the order in which the rows vary. `default` are values to begin with; without them they
# are the first options.
LISTS: dict[str, MultiChoice] = {
    control.key: control
    for control in (
        MultiChoice(key="vs_run", label="Run", one=NAME, most=MOST),
        MultiChoice(key="vs_step", label="Checkpoint", one=NAME, most=MOST),
        MultiChoice(
            key="vs_average", label="Averaged weights", field="average", one=NAME, most=MOST
        ),
        MultiChoice(key="vs_sampler", label="Sampler", field="sampler", one=NAME, most=MOST),
        MultiChoice(
            key="vs_steps",
            label="Steps",
            field="steps",
            one=STEPS,
            default=(10, 20, 50),
            typed=True,
            most=MOST,
        ),
        MultiChoice(
            key="vs_guidance",
            label="Guidance scale",
            field="guidance_scale",
            one=GUIDANCE,
            options=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
            default=(1.0, 2.0, 4.0),
            most=MOST,
        ),
        MultiChoice(
            key="vs_seed",
            label="Seed",
            field="seed",
            one=SEED,
            options=tuple(range(10)),
            typed=True,
            most=MOST,
        ),
        MultiChoice(
            key="vs_variance",
            label="Variance of the noise",
            field="variance",
            one=VARIANCE,
            options=VARIANCES,
            most=MOST,
        ),
        MultiChoice(
            key="vs_way",
            label="Noise term and BatchNorm",
            field="as_lecture",
            one=WAY,
            options=(CORRECT, LECTURE),
            most=MOST,
        ),
        MultiChoice(
            key="vs_spacing",
            label="Step spacing",
            field="spacing",
            one=NAME,
            default=("trailing", "karras", "exponential"),
            most=MOST,
        ),
    )
}
RUNS, AT, SAMPLERS = LISTS["vs_run"], LISTS["vs_step"], LISTS["vs_sampler"]
SPACINGS = LISTS["vs_spacing"]
BY = Choice(
    key="by",
    label="Compare by",
    titles={key: control.label for key, control in LISTS.items()},
    bind=False,  # the link has the lists
)


@dataclass(frozen=True)
class Row:
    """What one row of the comparison shows."""

    spec: SamplingSpec
    checkpoint: Checkpoint


def choose_noise_terms(timesteps: int) -> None:
    """The preset: ddpm over all timesteps with each of the noise terms, and all else the same."""
    st.session_state["vs_sampler"] = [LECTURE_SAMPLER]
    st.session_state["vs_steps"] = [timesteps]
    st.session_state["vs_variance"] = list(VARIANCES)
    st.session_state[keys.COMPARED] = [SAMPLERS.key, "vs_steps", "vs_variance"]


def lists_for(
    run: Run, checkpoint: Checkpoint, can: Capabilities, runs: list[str]
) -> dict[str, MultiChoice]:
    """The lists with what they offer for a checkpoint, by key."""
    steps = [str(each.step) for each in run.checkpoints()[0]]
    fitted = LISTS | {
        "vs_run": RUNS.now(options=runs),
        "vs_step": AT.now(options=steps, default=steps[::-1]),
        "vs_average": LISTS["vs_average"].now(options=can.averages),
        "vs_sampler": LISTS["vs_sampler"].now(options=can.samplers),
        "vs_spacing": SPACINGS.now(
            options=(USUAL, *([LEARNED] if can.learned else []), *can.spacings)
        ),
        "vs_steps": LISTS["vs_steps"].now(
            one=STEPS.now(high=can.timesteps, optional=False),
            options=[*(k for k in USUAL_STEPS if k < can.timesteps), can.timesteps],
        ),
    }
    if can.flow:
        fitted |= {key: LISTS[key].now(options=()) for key in ("vs_variance", "vs_way")}
    return fitted


# ---------------------------------------------------------------- the controls


def pick_lists(chosen: Chosen) -> tuple[SamplingSpec, dict[str, list], str]:
    """What all rows have in common, the values of each list, and a sentence if one is wrong."""
    can, shown, problem = chosen.can, shown_lists(), ""
    fitted = lists_for(chosen.run, chosen.checkpoint, can, [run.name for run in chosen.runs])
    by_class = can.any_class and chosen.spec.label != ANY_CLASS
    unguided = not (by_class or chosen.spec.autoguided)
    out = {"vs_guidance": unguided, "vs_way": not can.takes_lecture}
    without = [key for key, is_out in out.items() if is_out]
    lists: dict[str, list] = {key: [] for key in LISTS}
    for place, key in enumerate(shown):
        others = [*shown[:place], *shown[place + 1 :]]
        pick_setting(place, len(shown), offered(fitted, [*without, *others]), fitted[key])
        preselect(fitted[key], PRESELECTED[min(place, 1)])
        off = (key == AT.key and RUNS.key in shown) or (key == "vs_guidance" and unguided)
        follow = {"on_change": space_as_usual, "args": (chosen.spec, can)}
        values = ask_values(fitted[key], off, **(follow if key == SAMPLERS.key else {}))
        lists[key] = values or []
        if values is None:
            problem = f"{LISTS[key].label}: only whole numbers {limits(fitted[key])} are possible."
    more = offered(fitted, [*without, *shown])
    own = lists[SPACINGS.key] == [USUAL]  # nothing that was asked for
    if len(shown) - own < SETTINGS and more:
        st.button("Add another", icon=":material/add:", on_click=add_list, args=(more[0],))
    return chosen.spec.replace(n=COUNT.ask()), lists, problem


def shown_lists() -> list[str]:
    """The keys of the lists that are shown; at first those with values in the link."""
    given = [key for key in LISTS if any(st.query_params.get_all(key))]
    shown = st.session_state.setdefault(keys.COMPARED, given or [SAMPLERS.key])
    if f"{BY.key}_0" not in st.session_state:  # the mode opens
        shown += [key for key in given if key not in shown]
    return shown


def offered(fitted: dict[str, MultiChoice], without: list[str]) -> list[str]:
    """The keys of the lists that have something to compare, without some and what these exclude."""
    if RUNS.key in without or AT.key in without:  # each run has its own checkpoints
        without = [*without, RUNS.key, AT.key]
    return [key for key, each in fitted.items() if key not in without and len(each.options) > 1]


def pick_setting(place: int, places: int, options: list[str], control: MultiChoice) -> None:
    """Which list is at a place."""
    key = f"{BY.key}_{place}"
    st.session_state[key] = control.key
    by = BY.now(
        key=key,
        label=BY.label if place == 0 else "and by",
        options=[each for each in LISTS if each == control.key or each in options],
        help=f"You can type other values {limits(control)}." if control.typed else None,
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by.ask(on_change=change_list, args=(place,))
        if places > 1:
            st.button(
                "Remove",
                icon=":material/close:",
                key=f"remove_{place}",
                on_click=st.session_state[keys.COMPARED].remove,
                args=(control.key,),
            )


def change_list(place: int) -> None:
    st.session_state[keys.COMPARED][place] = st.session_state[f"{BY.key}_{place}"]


def add_list(key: str) -> None:
    st.session_state[keys.COMPARED].append(key)


def preselect(control: MultiChoice, count: int) -> None:
    """Begin with so many values, where nothing is chosen yet. They are in the link."""
    if control.key in st.query_params:
        return
    if control.key not in st.session_state:
        usual = control.kept(control.default or control.options)
        st.session_state[control.key] = usual[:count]
    with suppress(StreamlitAPIException):  # a list that was shown before writes its values itself
        st.query_params[control.key] = [str(value) for value in st.session_state[control.key]]


def ask_values(control: MultiChoice, off: bool, **options: Any) -> list | None:
    """The values of a list, none where it is off; None where a typed one is not possible."""
    options |= {"label_visibility": "collapsed", "placeholder": "Choose values", "disabled": off}
    given = control.ask(**options)
    if off:
        return []
    return control.numbers(given) if control.typed else given


def limits(control: MultiChoice) -> str:
    assert isinstance(control.one, Number)  # as of all that can be typed
    return f"from {control.one.low:,} to {control.one.high:,}"


def space_as_usual(above: SamplingSpec, can: Capabilities) -> None:
    """Space each of the chosen samplers' steps as usual for it, where one is unusual and the
    spacing above is only the usual one of the sampler above."""
    how = (above.steps, above.average)
    spacings = {can.spacings_for(name, *how)[0] for name in st.session_state[SAMPLERS.key]}
    usual = can.spacings_for(above.method, *how)[0]
    given = above.spacing != usual or SPACINGS.key in shown_lists()
    if not given and spacings - {above.spacing}:
        st.session_state[SPACINGS.key] = [USUAL]
        add_list(SPACINGS.key)


# ---------------------------------------------------------------- the rows


def make_rows(chosen: Chosen, spec: SamplingSpec, lists: dict[str, list]) -> tuple[list[Row], str]:
    """Every combination of the values, and a sentence if they cannot be compared."""
    by_name = {run.name: run for run in chosen.runs}
    places = checkpoints_of(chosen, [by_name[name] for name in lists[RUNS.key]], lists[AT.key])
    varied = {
        control.field: [control.one.to_field(value) for value in lists[key]]
        for key, control in LISTS.items()
        if control.field and lists[key]
    }
    count = len(places) * math.prod(map(len, varied.values()))
    if count < FEWEST:
        return [], "Pick at least two values to compare."
    if count > MOST:
        return [], f"These are {count:,} combinations; choose at most {MOST}."
    rows: list[Row] = []
    for place, *values in itertools.product(places, *varied.values()):
        can = Capabilities.of(place)
        row = Row(changed(spec, place, can, dict(zip(varied, values, strict=True))), place)
        if problems := row.spec.problems(can):
            return rows, problems[0]
        if row.spec in [other.spec for other in rows]:
            return rows, f"Two of the rows would be the same: {row.spec.describe()}."
        rows.append(row)
    return rows, ""


def checkpoints_of(chosen: Chosen, runs: list[Run], at: list[str]) -> list[Checkpoint]:
    """The chosen one, or of the same run those of the steps, or the latest of each of the runs;
    of the run that is chosen above, the checkpoint that is chosen there."""
    if runs:
        latest = (
            chosen.checkpoint if run.name == chosen.run.name else run.latest_checkpoint()
            for run in runs
        )
        return [found for found in latest if found is not None]
    if at:
        return [each for each in chosen.run.checkpoints()[0] if str(each.step) in at]
    return [chosen.checkpoint]


def changed(
    spec: SamplingSpec, place: Checkpoint, can: Capabilities, changes: dict[str, Any]
) -> SamplingSpec:
    """The spec of a row: that of all with its checkpoint and its own values of some fields."""
    above = spec
    run = place.path.parent.parent.name
    # Autoguided rows all have the same guide.
    guide = (spec.guide_run or spec.run) if spec.autoguided else spec.guide_run
    spec = spec.replace(run=run, step=place.step, flow=can.flow, guide_run=guide)
    if can.flow and spec.spacing != LEARNED:
        spec = spec.replace(spacing=can.spacings[0])
    if spec.classes != can.classes:
        # Other classes: each in turn, if there are any.
        label = EACH_IN_TURN if can.classes else ""
        spec = spec.replace(classes=can.classes, label=label, guidance_scale=1.0)
        spec = spec.without_unused()
    own = dict(changes)
    if "sampler" in own:
        own.setdefault("as_lecture", False)
    if "as_lecture" in changes:
        own["spacing"] = "trailing"
        if changes["as_lecture"] or "sampler" not in own:
            own["sampler"] = LECTURE_SAMPLER
    own |= spaced(spec.replace(**own), above, can, "spacing" in changes)
    # What was chosen above may mean nothing here; what was chosen for the rows stays, and
    # `SamplingSpec.problems` says if it means nothing.
    return spec.replace(**own).without_unused().replace(**own)


def spaced(
    row: SamplingSpec, above: SamplingSpec, can: Capabilities, chosen: bool
) -> dict[str, Any]:
    """The spacing of a row and its timesteps. `above`: what all rows have in common; where its
    learned timesteps are not those of the row, and learned ones were not `chosen` for it, the row
    has its own usual spacing."""
    if row.spacing not in (LEARNED, USUAL):
        return {"spacing": row.spacing, "timesteps": ()}
    same = {"spacing": above.spacing, "timesteps": above.timesteps}
    fields = ("run", "step", "method", "steps", "average")
    alike = all(getattr(row, name) == getattr(above, name) for name in fields)
    if alike and above.spacing == LEARNED:
        return same
    name = LEARNED if chosen and row.spacing == LEARNED else None
    return can.spaced(row.method, row.steps, row.average, name)


def page_settings(spec: SamplingSpec, lists: dict[str, list], rows: list[Row]) -> dict[str, Any]:
    """Of the controls by their keys, and of which checkpoint each of the runs was sampled."""
    page = {"mode": "Compare", COUNT.key: spec.n}
    page |= {key: values for key, values in lists.items() if values}
    if lists[RUNS.key]:
        page[SAMPLED_AT] = {row.spec.run: row.spec.step for row in rows}
    return page


def restore_lists(
    page: dict[str, Any], steps: Any, run: Run, checkpoint: Checkpoint, can: Capabilities
) -> list[str]:
    """Keep in `page` what can be chosen now; returns sentences about the rest.

    `steps`: SAMPLED_AT of the file. Raises NoSettings.
    """
    if not isinstance(steps, dict) or not all(type(step) is int for step in steps.values()):
        raise NoSettings(f"The image's settings cannot be used. {SAMPLED_AT} must hold steps.")
    found = ((each, each.latest_checkpoint()) for each in list_runs(get_settings().runs_dir))
    latest = {each: newest.step for each, newest in found if newest is not None}
    gone = False
    for key, control in lists_for(run, checkpoint, can, [each.name for each in latest]).items():
        if given := page.get(key):
            page[key] = control.kept(given)
            gone |= page[key] != list(dict.fromkeys(given))
    st.session_state[keys.COMPARED] = [key for key in LISTS if page.get(key)] or [SAMPLERS.key]
    lost = ["Some of the compared values no longer exist and are left out."] if gone else []
    for each, step in latest.items():
        # The run that is chosen above the lists is sampled at its own step.
        if each != run and each.name in page.get(RUNS.key, []) and steps.get(each.name) != step:
            lost.append(f"{each.name} has a newer checkpoint than this image was made with.")
    return lost
