"""The table of all runs: found, filtered, sorted and grouped; some are chosen in it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from dashboard.services.roles import may_train
from dashboard.services.settings import Settings, SettingsError, get_settings
from dashboard.services.shared_look import keep_pace, look_anew, once, pace, recent
from dashboard.ui import keys
from dashboard.ui.controls import Choice, MultiChoice, Text, Toggle
from dashboard.ui.navigation import entry
from dashboard.ui.outside import code, plain
from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.review.index import QUALITY, Index, Row, settings_of
from diffusion_core.review.query import (
    RESULTS,
    FilterError,
    Kind,
    comparable,
    group_rows,
    kind_of,
    parse_filter,
    sort_rows,
)
from diffusion_core.runs.config import RunConfig, meaning
from diffusion_core.runs.run import Run, RunSnapshot

MOST_CHOSEN = 8
MOST_COLUMNS = 20
MOST_GROUPS = 50
LEAST_SECONDS = 2.0  # from one look at the table to the next
NOTHING = ""  # of a list whose choice may be empty
FIRST_COLUMNS = ("state", "step", "latest_loss", "validation_loss", "created")
SAID = ("decision", "stars", "tags")  # columns at first, where a run has any
SEARCHED = ("name", "creator", "state", "data", "preset", "tags")
SETTINGS = sorted(settings_of(RunConfig()))
NAMES = [
    *(name for name in RESULTS if name != "name"),
    *(f"{QUALITY}.{metric}" for metric in METRICS),
    *SETTINGS,
]

SEARCH = Text(
    key="search",
    label="Search",
    longest=200,
    placeholder="Name, data, tag …",
    help="Part of a name, creator, state, data set, preset or tag.",
)
FILTER = Text(
    key="filter",
    label="Filter",
    longest=2000,
    placeholder="batch_size >= 64 and state = finished",
    help="Conditions on any setting or result, joined by `and`, `or`, `not` and parentheses. "
    "Compare with `=`, `!=`, `<`, `<=`, `>`, `>=`, and `~` for a part of a text; `= none` finds "
    "runs without a value. The columns of the table have the names to use.",
)
GROUP = Choice(
    key="group",
    label="Group by",
    options=(NOTHING, *NAMES),
    titles={NOTHING: "none"},
    default=NOTHING,
)
SORT = Choice(
    key="sort",
    label="Sort by",
    options=(NOTHING, "name", *NAMES),
    titles={NOTHING: "newest first"},
    default=NOTHING,
)
REVERSE = Toggle(key="reverse", label="Reverse the order")
COLUMNS = MultiChoice(
    key="columns",
    label="Columns",
    one=Text(key="", label=""),
    options=NAMES,
    default=FIRST_COLUMNS,
    most=MOST_COLUMNS,
)
CHOSEN = MultiChoice(
    key="runs", label="Runs to review", one=Text(key="", label=""), most=MOST_CHOSEN
)
CONTROLS = (SEARCH, FILTER, GROUP, SORT, REVERSE, COLUMNS, CHOSEN)


def pick_runs() -> tuple[list[RunSnapshot], list[Row]]:
    """The table with its controls; returns the chosen runs and the rows of all that it lists."""
    look_anew()
    settings = get_settings()
    every = rows_of(settings)
    if not every:
        _say_how_to_begin()
        return [], []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        SEARCH.ask(width=200)
        FILTER.ask(width="stretch")
        with st.popover("Table", icon=":material/table_rows:"):
            GROUP.ask()
            SORT.ask()
            REVERSE.ask()
            COLUMNS.ask(default=first_columns(every), max_selections=MOST_COLUMNS)
    table = st.container()
    names = [str(row.values["name"]) for row in every]
    chosen = _ask_chosen(names)
    with table:
        seconds = max(LEAST_SECONDS, pace())
        st.fragment(_show_table, run_every=seconds)(seconds, chosen)
    return [snapshot(settings, name) for name in chosen], _listed(every)[0]


def _say_how_to_begin() -> None:
    who = "Start one" if may_train() else "The app's operator starts one"
    st.info(f"There are no runs yet. {who} on the Training page.")
    page = entry("training.py")
    st.page_link(page.path, label=page.title, icon=page.icon)


def first_columns(rows: Sequence[Row]) -> list[str]:
    """The columns before anybody has chosen others."""
    said = (name for name in SAID if any(row.values.get(name) for row in rows))
    return [*FIRST_COLUMNS, *said]


def rows_of(settings: Settings) -> list[Row]:
    """All runs, newest first; see `Index.rows`."""
    index = once(("index", settings.runs_dir), lambda: Index(settings.runs_dir))
    return recent(("rows", settings.runs_dir), index.rows)


def snapshot(settings: Settings, name: str) -> RunSnapshot:
    """A run as it is now; only this one is read."""
    run = Run(settings.runs_dir / name)
    return recent(("snapshot", run.path), run.snapshot)


def _ask_chosen(names: Sequence[str]) -> list[str]:
    """The names of the chosen runs."""
    state = st.session_state
    control = CHOSEN.now(options=names)
    if CHOSEN.key in state:  # one of them may have been deleted
        state[CHOSEN.key] = control.kept(state[CHOSEN.key])[:MOST_CHOSEN]
    return control.ask(
        max_selections=MOST_CHOSEN, placeholder="Select rows in the table, or type a name"
    )


def _listed(every: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows that fit the search and the filter, in order; and why the filter cannot be used."""
    state = st.session_state
    problem, rows = "", list(every)
    if words := state.get(SEARCH.key, "").casefold().split():
        rows = [row for row in rows if _has(row, words)]
    try:
        holds = parse_filter(state.get(FILTER.key, ""))
    except FilterError as error:
        problem = str(error)
    else:
        rows = [row for row in rows if holds(row.values)]
    reverse = state.get(REVERSE.key, False)
    if sort := state.get(SORT.key, NOTHING):
        rows = sort_rows(rows, sort, reverse)
    elif reverse:
        rows.reverse()
    return rows, problem


def _has(row: Row, words: Sequence[str]) -> bool:
    text = "\n".join(str(row.values.get(name, "")) for name in SEARCHED).casefold()
    return all(word in text for word in words)


def _show_table(seconds: float, was_chosen: list[str]) -> None:
    """The fragment: what the runs do shows in it by itself."""
    try:
        every = rows_of(get_settings())
    except SettingsError as error:
        st.error(plain(error))
        return
    state = st.session_state
    if state.get(CHOSEN.key, was_chosen) != was_chosen:
        st.rerun()  # the whole page: other runs are chosen
    if pace() > seconds:
        keep_pace(seconds)
    rows, problem = _listed(every)
    if problem:
        st.error(f"{plain(problem)} Until then the table shows all runs.")
    if not rows:
        st.info("No run fits the search and the filter.")
        return
    columns = list(dict.fromkeys(state.get(COLUMNS.key, first_columns(every))))
    if group := state.get(GROUP.key, NOTHING):
        groups = group_rows(rows, group)
        rows = [row for members in groups.values() for row in members]
        columns = [group, *(name for name in columns if name != group)]
        _show_groups(group, groups, columns)
    _show_rows(rows, columns, was_chosen)
    if state.pop(keys.TOO_MANY, False):
        st.warning(f"You can review at most {MOST_CHOSEN} runs at a time.")
    count = f"{len(rows):,} of {len(every):,} runs" if len(rows) < len(every) else ""
    damaged = [str(row.values["name"]) for row in rows if row.problem]
    if damaged:
        count = f"{count} · Not readable in full: {', '.join(map(code, damaged[:5]))}".strip(" ·")
    if count:
        st.caption(count)


def _show_rows(rows: Sequence[Row], columns: Sequence[str], chosen: list[str]) -> None:
    names = [str(row.values["name"]) for row in rows]
    kinds = {name: kind_of(name) for name in columns}
    # Another table, which starts with the chosen runs selected, when they were chosen elsewhere.
    if chosen != st.session_state.get(keys.SELECTED):
        st.session_state[keys.TABLE] = st.session_state.get(keys.TABLE, 0) + 1
        st.session_state[keys.SELECTED] = chosen
    key = f"review-{st.session_state[keys.TABLE]}-{hash(tuple(names))}"
    st.dataframe(
        [
            {"name": row.values["name"]}
            | {name: _cell(kind, row.values.get(name)) for name, kind in kinds.items()}
            for row in rows
        ],
        hide_index=True,
        column_config={
            name: st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")
            if kind == Kind.TIME
            else st.column_config.Column(help=meaning(name) if name in SETTINGS else None)
            for name, kind in kinds.items()
        }
        | {"name": st.column_config.TextColumn(pinned=True)},
        placeholder="",
        on_select=lambda: _take_selection(key, names),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [names.index(n) for n in chosen if n in names]}},
        key=key,
        alt="All runs",
    )


def _take_selection(key: str, names: Sequence[str]) -> None:
    """The callback of the table: its selected runs, and the chosen ones that it does not list."""
    state = st.session_state
    selected = [names[row] for row in state[key]["selection"]["rows"] if row < len(names)]
    before = state.get(CHOSEN.key, [])
    chosen = [name for name in before if name in selected or name not in names]
    chosen += [name for name in selected if name not in chosen]
    if len(chosen) > MOST_CHOSEN:
        state[keys.TOO_MANY] = True
        state.pop(keys.SELECTED, None)  # the table starts again without the last one
        chosen = chosen[:MOST_CHOSEN]
    else:
        state[keys.SELECTED] = chosen
    state[CHOSEN.key] = chosen


def _cell(kind: Kind, value: Any) -> Any:
    if kind == Kind.TIME:
        return None if comparable(kind, value) is None else datetime.fromtimestamp(value)
    # A value of another type than its column's, from a run of an older version.
    return None if comparable(kind, value) is None else value


def _show_groups(name: str, groups: dict[Any, list[Row]], columns: Sequence[str]) -> None:
    """A row for each group: how many runs it has, and the median of each column of numbers."""
    numbers = [each for each in columns if each != name and kind_of(each) == Kind.NUMBER]
    found = [
        {name: "none" if value is None else str(value), "runs": len(members)}
        | {f"median {each}": _median(members, each) for each in numbers}
        for value, members in list(groups.items())[:MOST_GROUPS]
    ]
    st.dataframe(found, hide_index=True, placeholder="", alt=f"Groups by {name}")
    if len(groups) > MOST_GROUPS:
        st.caption(f"The first {MOST_GROUPS} of {len(groups):,} groups.")


def _median(rows: Sequence[Row], name: str) -> float | None:
    values = (row.values.get(name) for row in rows)
    numbers = [value for value in values if isinstance(value, (int, float))]
    return statistics.median(numbers) if numbers else None
