"""Which setting goes with which result: parallel coordinates, and pairs that differ in one setting
alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.figures.review import Axis, parallel_figure
from dashboard.services.shared_look import once
from dashboard.ui.controls import Choice, MultiChoice, Text
from dashboard.ui.outside import plain
from diffusion_core.review.differences import differing, settings_in
from diffusion_core.review.index import Row
from diffusion_core.review.pairs import (
    OUTCOMES,
    SEED,
    Chance,
    Pair,
    chance,
    change_of,
    find_pairs,
    matters,
    notes_on,
    outcome_of,
    outcome_text,
    settings_that_matter,
    title_of,
    why_not_comparable,
    worse_first,
)

ALL, CHOSEN = "all runs in the table", "the chosen runs"
FIRST_AXES = 6  # of the settings that differ
MOST_AXES = 12
MOST_PAIRS = 200  # in the table
LEAST_WIDTH = 90  # pixels of an axis, for its name

TITLES = {name: title_of(name)[0].upper() + title_of(name)[1:] for name in OUTCOMES}
OUTCOME = Choice(
    key="outcome",
    label="Result",
    options=OUTCOMES,
    titles=TITLES,
)
AMONG = Choice(key="among", label="Among", options=(ALL, CHOSEN), default=ALL, segmented=True)
AXES = MultiChoice(key="axes", label="Settings", one=Text(key="", label=""), most=MOST_AXES)
GOES_WITH = (OUTCOME, AMONG, AXES)


def show_goes_with(rows: Sequence[Row], chosen: Collection[str]) -> None:
    """`rows`: of the table, with those of the chosen runs that it lists."""
    st.subheader("Which setting goes with which result")
    there = [name for name in OUTCOMES if any(outcome_of(row, name) for row in rows)]
    if len(rows) < 2 or not there:
        st.caption("This needs two runs in the table with a result.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        outcome = OUTCOME.now(options=there).ask(width=240)
        if AMONG.ask() == CHOSEN:
            rows = [row for row in rows if row.values["name"] in chosen]
    measured = [row for row in rows if outcome_of(row, outcome) and settings_in(row.values)]
    if len(measured) < 2:
        st.caption(f"Fewer than two of these runs have this result: {title_of(outcome)}.")
        return
    _show_axes(measured, outcome)
    if missing := len(rows) - len(measured):
        st.caption(f"Without this result and not shown: {missing:,} of {len(rows):,} runs.")
    _show_pairs(measured, outcome)


def _show_axes(rows: Sequence[Row], outcome: str) -> None:
    settings = [settings_that_matter(row, outcome) for row in rows]
    known = [settings_in(row.values) for row in rows]
    names = [name for name in differing(known) if matters(name, outcome)]
    if not names:
        st.caption("The settings of these runs are the same.")
        return
    control, state = AXES.now(options=names), st.session_state
    if AXES.key in state:  # other runs may not differ in it
        state[AXES.key] = control.kept(state[AXES.key])[:MOST_AXES]
    axes = control.ask(max_selections=MOST_AXES, placeholder="The first that differ")
    axes = axes or names[:FIRST_AXES]
    title = TITLES[outcome]
    values = [found.value for row in rows if (found := outcome_of(row, outcome))]
    figure = parallel_figure(
        [Axis(name, [each.get(name) for each in settings]) for name in axes], Axis(title, values)
    )
    alt = f"{title} and settings of {len(rows):,} runs; the table below has them"
    show_live(figure, "parallel", alt, least_width=LEAST_WIDTH * (len(axes) + 1))
    st.caption(
        "A line for each run, coloured by its result. Drag along an axis to keep only the lines "
        "that pass there; click the axis to keep all again."
    )
    with st.expander("The same as a table", icon=":material/table_rows:"):
        st.dataframe(
            [
                {"name": row.values["name"]}
                | {name: each.get(name) for name in axes}
                | {title: value}
                for row, each, value in zip(rows, settings, values, strict=True)
            ],
            hide_index=True,
            placeholder="",
            alt=f"{title} and settings",
        )


class Found(NamedTuple):
    """The pairs of some runs."""

    pairs: list[Pair]  # that can be compared, the worse run first, the largest difference first
    not_comparable: list[str]  # why others cannot be, each sentence once
    by_chance: Chance | None


def look_for_pairs(rows: Sequence[Row], outcome: str) -> Found:
    pairs = find_pairs(rows, outcome)
    why = [why_not_comparable(pair, outcome) for pair in pairs]
    comparable = [
        worse_first(pair, outcome) for pair, reason in zip(pairs, why, strict=True) if not reason
    ]
    comparable.sort(key=lambda pair: _difference(pair, outcome), reverse=True)
    return Found(comparable, list(dict.fromkeys(filter(None, why))), chance(rows, outcome))


def _show_pairs(rows: Sequence[Row], outcome: str) -> None:
    st.markdown("**Pairs that differ in one setting alone**")
    # Rows are read anew all the time, and are mostly the same.
    key = ("pairs", outcome, hash(tuple(map(repr, rows))))
    found = once(key, lambda: look_for_pairs(rows, outcome))
    if found.pairs:
        st.dataframe(
            [
                {
                    "What became better": change_of(pair, outcome),
                    "Notes": "; ".join(notes_on(pair, outcome, found.by_chance)),
                    "Worse run": pair.first.values["name"],
                    "Better run": pair.second.values["name"],
                }
                for pair in found.pairs[:MOST_PAIRS]
            ],
            hide_index=True,
            alt="Pairs of runs that differ in one setting alone",
        )
    sentences = [_count(len(found.pairs)), *map(plain, found.not_comparable)]
    if found.by_chance is not None:
        spread = outcome_text(outcome, found.by_chance.spread)
        sentences.append(
            f"By the seed alone results differ by less than {spread} in 95 % of pairs "
            f"({found.by_chance.runs:,} runs that differ in the seed alone)."
        )
    elif found.pairs:
        sentences.append(
            f"No two of these runs differ in `{SEED}` alone, so it is not known how much of a "
            "difference is chance."
        )
    sentences.append("Settings that change only what is written, or the machine, do not count.")
    st.caption(" ".join(sentences))


def _count(number: int) -> str:
    if not number:
        return "There are no such pairs to compare."
    if number > MOST_PAIRS:
        return f"The {MOST_PAIRS} pairs of {number:,} with the largest differences."
    return "The largest difference first."


def _difference(pair: Pair, outcome: str) -> float:
    first, second = (outcome_of(row, outcome) for row in pair[1:])
    assert first is not None and second is not None
    return abs(first.value - second.value)
