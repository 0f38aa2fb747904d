"""The controls of the mode Compare, and the rows that their values combine to."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.sampling.choose import Chosen
from dashboard.sampling.controls import (
    CORRECT,
    GUIDANCE,
    LECTURE,
    LECTURE_SAMPLER,
    SEED,
    STEPS,
    VARIANCE,
    WAY,
)
from dashboard.services.settings import get_settings
from dashboard.ui.controls import MultiChoice, Number, Text
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.metadata import NoSettings
from diffusion_core.sampling.solvers import VARIANCES
from diffusion_core.sampling.spec import SamplingSpec

FEWEST, MOST = 2, 6
USUAL_STEPS = (2, 5, 10, 20, 30, 50, 100, 250, 1000)
NAME = Text(key="", label="")  # of a run, a sampler, …: one that is gone is left out, not refused
SAMPLED_AT = "drawn_at"  # in a file: {run: step}
USUAL = "usual"  # of the spacings: each sampler's own

COUNT = Number(key="vs_n", field="n", label="Images per row", low=1, high=8, default=4)
# By key, in the order in which the rows vary.
LISTS: dict[str, MultiChoice] = {
    control.key: control
    for control in (
        MultiChoice(key="vs_run", label="Runs", one=NAME, most=MOST),
        MultiChoice(key="vs_step", label="Checkpoint steps", one=NAME, most=MOST),
        MultiChoice(
            key="vs_average", label="Averaged weights", field="average", one=NAME, most=MOST
        ),
        MultiChoice(key="vs_sampler", label="Samplers", field="sampler", one=NAME, most=MOST),
        MultiChoice(key="vs_spacing", label="Step spacings", field="spacing", one=NAME, most=MOST),
        MultiChoice(key="vs_steps", label="Steps", field="steps", one=STEPS, typed=True, most=MOST),
        MultiChoice(
            key="vs_guidance",
            label="Guidance scales",
            field="guidance_scale",
            one=GUIDANCE,
            options=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
            most=MOST,
        ),
        MultiChoice(
            key="vs_seed",
            label="Seeds",
            field="seed",
            one=SEED,
            options=tuple(range(10)),
            typed=True,
            most=MOST,
        ),
        MultiChoice(
            key="vs_variance",
            label="Variances of the noise",
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
    )
}
RUNS, AT = LISTS["vs_run"], LISTS["vs_step"]


@dataclass(frozen=True)
class Row:
    """What one row of the comparison shows."""

    spec: SamplingSpec
    checkpoint: Checkpoint


def choose_noise_terms(timesteps: int) -> None:
    """The preset: ddpm over all timesteps with each of the noise terms, and all else the same."""
    st.session_state.update({key: [] for key in LISTS})
    st.session_state["vs_sampler"] = [LECTURE_SAMPLER]
    st.session_state["vs_steps"] = [timesteps]
    st.session_state["vs_variance"] = list(VARIANCES)


def lists_for(
    run: Run, checkpoint: Checkpoint, can: Capabilities, runs: list[str]
) -> dict[str, MultiChoice]:
    """The lists with what they offer for a checkpoint, by key."""
    fitted = LISTS | {
        "vs_run": RUNS.now(options=runs),
        "vs_step": AT.now(options=[str(each.step) for each in run.checkpoints()[0]]),
        "vs_average": LISTS["vs_average"].now(options=can.averages),
        "vs_sampler": LISTS["vs_sampler"].now(options=can.samplers),
        "vs_spacing": LISTS["vs_spacing"].now(options=(USUAL, *can.spacings)),
        "vs_steps": LISTS["vs_steps"].now(
            one=STEPS.now(high=can.timesteps, optional=False),
            options=[*(k for k in USUAL_STEPS if k < can.timesteps), can.timesteps],
        ),
    }
    if can.flow:
        fitted |= {key: LISTS[key].now(options=()) for key in ("vs_variance", "vs_way")}
    return fitted


def pick_lists(chosen: Chosen) -> tuple[SamplingSpec, dict[str, list], str]:
    """What all rows have in common, the values of each list, and a sentence if one is wrong."""
    spec, can = chosen.spec.replace(n=COUNT.ask()), chosen.can
    lists: dict[str, list] = {}
    problem = ""
    runs = [run.name for run in chosen.runs]
    for key, control in lists_for(chosen.run, chosen.checkpoint, can, runs).items():
        off = (
            not control.options
            or (key == AT.key and len(lists[RUNS.key]) > 0)
            or (key == "vs_guidance" and (not can.any_class or spec.label == ANY_CLASS))
        )
        limits = ""
        if control.typed and isinstance(control.one, Number):
            limits = f"{control.one.low:,} to {control.one.high:,}"
            control = control.now(help=f"Type others: {limits}.")
        options = {"on_change": space_as_usual, "args": (spec, can)} if key == "vs_sampler" else {}
        given = control.ask(placeholder="as above", disabled=off, **options)
        lists[key] = [] if off else given
        if limits:
            numbers = control.numbers(given)
            lists[key] = numbers or []
            if numbers is None:
                problem = f"{control.label}: only whole numbers from {limits} are possible."
    return spec, lists, problem


def space_as_usual(above: SamplingSpec, can: Capabilities) -> None:
    """Give each of the chosen samplers its usual spacing, where they are not all one and the
    spacing above is only the usual one of the sampler above."""
    named = [can.usual_spacing.get(name) for name in st.session_state["vs_sampler"]]
    chosen = above.spacing != can.usual_spacing[above.method] or st.session_state["vs_spacing"]
    if not chosen and set(named) - {above.spacing}:
        st.session_state["vs_spacing"] = [USUAL]


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
    spec = spec.replace(run=place.path.parent.parent.name, step=place.step, flow=can.flow)
    if can.flow:
        spec = spec.replace(spacing=can.spacings[0])
    if spec.classes != can.classes:
        # Other classes: each in turn, if there are any.
        label = EACH_IN_TURN if can.classes else ""
        spec = spec.replace(classes=can.classes, label=label, guidance_scale=1.0)
        spec = spec.without_unused()
    own = dict(changes)
    if own.get("spacing") == USUAL:
        name = own.get("sampler", spec.method)
        own["spacing"] = can.usual_spacing.get(name, can.spacings[0])
    if "sampler" in own:
        own.setdefault("as_lecture", False)
    if "as_lecture" in changes:
        own["spacing"] = "trailing"
        if changes["as_lecture"] or "sampler" not in own:
            own["sampler"] = LECTURE_SAMPLER
    # What was chosen above may mean nothing here; what was chosen for the rows stays, and
    # `SamplingSpec.problems` says if it means nothing.
    return spec.replace(**own).without_unused().replace(**own)


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
        given = page.get(key, [])
        page[key] = control.kept(given)
        gone |= page[key] != list(dict.fromkeys(given))
    lost = ["Some of what was compared no longer exists and is left out."] if gone else []
    for each, step in latest.items():
        # The run that is chosen above the lists is sampled at its own step.
        if each != run and each.name in page[RUNS.key] and steps.get(each.name) != step:
            lost.append(f"{each.name} has a newer checkpoint than this image was made with.")
    return lost
