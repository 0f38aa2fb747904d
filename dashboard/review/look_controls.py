"""The controls of the view Look: what rows and columns are, sliders for the rest, what is large."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import streamlit as st

from dashboard.components.swipe.swipe import FACTORS, INTERVALS, VIEWS, ZOOMS
from dashboard.ui.controls import Choice, MultiChoice, Number, Text, Toggle, whole_bounds
from diffusion_core.review.grid import GUIDANCE, RUN, SAMPLER, SETTING, STEP, STEPS
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.spec import SamplingSpec

MOST = 12  # values of an axis
FIRST = 6  # of the steps, to begin with
SLIDER = 260  # screen pixels
TRAINED, GENERATED = "From training", "Generated"
# What the page and the link call an axis; a setting by its own name, which has no capitals.
AXES = {
    RUN: "Run",
    STEP: "Step",
    SAMPLER: "Sampler",
    STEPS: "Sampling steps",
    GUIDANCE: "Guidance scale",
}
NAME = Text(key="", label="")

NUMBER_OF_STEPS = Number(key="", label="", low=1, high=whole_bounds(SamplingSpec, "steps")[1])

FROM = Choice(
    key="look_from",
    label="Images",
    options=(TRAINED, GENERATED),
    default=TRAINED,
    segmented=True,
    help="From training: the samples that each run has written. Generated: any checkpoint, sampled "
    "as you choose, always from the same noise.",
)
# The options depend on the chosen runs; here a link may say anything.
ROWS = Choice(
    key="look_rows", label="Rows", options=tuple(AXES.values()), default="Run", typed=True
)
COLUMNS = ROWS.now(key="look_columns", label="Columns", default="Step")
# Of the axes whose values are chosen.
LISTS = {
    STEP: MultiChoice(key="look_at_steps", label="Steps", one=NAME, typed=True, most=MOST),
    SAMPLER: MultiChoice(key="look_samplers", label="Samplers", one=NAME, typed=True, most=MOST),
    STEPS: MultiChoice(
        key="look_counts",
        label="Numbers of sampling steps",
        one=NUMBER_OF_STEPS,
        typed=True,
        most=MOST,
    ),
    GUIDANCE: MultiChoice(
        key="look_scales", label="Guidance scales", one=NAME, typed=True, most=MOST
    ),
}
# Of what is no axis.
ONES = {
    RUN: Choice(
        key="look_run",
        label="Run",
        typed=True,
        slider=True,
        help="Where several runs have the settings of a cell, it shows the one that differs least "
        "from this run.",
    ),
    STEP: Choice(
        key="look_step",
        label="Step",
        typed=True,
        slider=True,
        help="Of each run the newest images until this step.",
    ),
    SAMPLER: Choice(key="look_sampler", label="Sampler", typed=True, slider=True),
    STEPS: Choice(key="look_count", label="Sampling steps", typed=True, slider=True),
    GUIDANCE: Choice(key="look_scale", label="Guidance scale", typed=True, slider=True),
}
IMAGE = Number(
    key="look_image",
    label="Image",
    low=1,
    high=whole_bounds(RunConfig, "sample_count")[1],
    default=1,
    slider=True,
    help="Each number has its own noise, the same in all cells.",
)
COUNT = Number(
    key="look_n",
    label="Images per cell",
    low=1,
    high=8,
    default=4,
    help="The slider Image moves over them.",
)
SEED = Number(
    key="look_seed", label="Seed", low=0, high=whole_bounds(SamplingSpec, "seed")[1], default=0
)
NEAREST = Toggle(
    key="look_nearest",
    label="Nearest training images",
    help="Those that one of the two images looks most like, and how near held-out images are to "
    "theirs.",
)
NEAREST_OF = Choice(
    key="look_nearest_of", label="Image", options=("A", "B"), default="A", segmented=True
)
# What the browser chooses; by the names of the state of `swipe`.
VIEWER = {
    "a": Text(key="look_a", label="Image A"),
    "b": Text(key="look_b", label="Image B"),
    "view": Choice(key="look_view", label="View of A and B", options=VIEWS, default=VIEWS[0]),
    "zoom": Choice(key="look_zoom", label="Zoom", options=ZOOMS, default=ZOOMS[0]),
    "factor": Choice(key="look_factor", label="Factor", options=FACTORS, default=4),
    "signed": Toggle(key="look_signed", label="Signed"),
    "interval": Choice(key="look_interval", label="Interval", options=INTERVALS, default=1000),
}
CONTROLS = (
    FROM,
    ROWS,
    COLUMNS,
    *LISTS.values(),
    *ONES.values(),
    IMAGE,
    COUNT,
    SEED,
    *VIEWER.values(),
    NEAREST,
    NEAREST_OF,
)


def ask_axes(names: Sequence[str]) -> tuple[str, str]:
    """What rows and columns are, of the axes with these names."""
    titles = {name: AXES.get(name, name.removeprefix(SETTING)) for name in names}
    by_title = {title: name for name, title in titles.items()}
    rows = ROWS.now(options=tuple(by_title), typed=False).ask(width=220)
    others = tuple(title for title in by_title if title != rows)
    columns = COLUMNS.now(options=others, typed=False).ask(width=220)
    return by_title[rows], by_title[columns]


def ask_values(name: str, options: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The chosen ones of an axis, in the order of the options."""
    control, state = LISTS[name].now(options=options, typed=name == STEPS), st.session_state
    if state.get(control.key) == control.default:  # of a saved view without values
        state[control.key] = list(usual)
    first: dict[str, Any] = {"default": list(usual)}
    if control.key in state:
        first = {}
        if not control.typed:
            state[control.key] = control.kept(state[control.key])[:MOST]
    with st.container(width=460):
        chosen = control.ask(max_selections=MOST, placeholder="Choose values", **first)
    if name == STEPS:
        numbers = control.numbers(chosen)
        if numbers is None:
            st.caption(
                f"Only whole numbers of steps from 1 to {NUMBER_OF_STEPS.high:,} are possible."
            )
        return [str(number) for number in sorted(numbers or [])]
    return [option for option in options if option in chosen]


def ask_one(name: str, options: Sequence[str], usual: str) -> str:
    """The one for all cells; no slider where there is no choice."""
    if len(options) < 2:
        return options[0]
    with st.container(width=SLIDER):
        chosen: str = ONES[name].now(options=tuple(options), default=usual, typed=False).ask()
    return chosen


def spread(values: Sequence[str], most: int = FIRST) -> list[str]:
    """At most so many of the values, evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]


def viewer_state(there: Collection[str]) -> dict[str, Any]:
    """What the browser shows large; `there`: the cells with an image, in order."""
    state = {}
    for name, control in VIEWER.items():
        control.check_link()
        if control.key not in st.session_state:
            texts = st.query_params.get_all(control.key)
            st.session_state[control.key] = control.of_link(texts) if texts else control.default
        state[name] = st.session_state[control.key]
    cells = list(there)
    if state["a"] not in cells:
        state["a"] = next((cell for cell in cells if cell != state["b"]), "")
    if state["b"] not in cells:
        state["b"] = next((cell for cell in cells if cell != state["a"]), state["a"])
    return state


def take_state(told: dict[str, Any]) -> None:
    """What the visitor has chosen in the browser. It may say anything."""
    for name, control in VIEWER.items():
        value = told.get(name, control.default)
        if control.problem(value):
            continue
        st.session_state[control.key] = value
        if value != control.default:
            st.query_params[control.key] = control.to_link(value)
        else:
            with suppress(KeyError):
                del st.query_params[control.key]
