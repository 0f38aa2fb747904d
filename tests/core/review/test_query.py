"""Filters, order and groups of runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.review.index import Row, Value, read_row, settings_of
from diffusion_core.review.query import (
    DEEPEST,
    LONGEST,
    RESULTS,
    FilterError,
    group_rows,
    kind_of,
    parse_filter,
    sort_rows,
)
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import Run
from tests.tiny_runs import TINY, write_run

AT = time.mktime((2026, 11, 28, 18, 5, 0, 0, 0, -1))
VALUES: dict[str, Value] = {
    "name": "Sedans two",
    "state": "finished",
    "batch_size": 64,
    "learning_rate": 1e-3,
    "tensorboard": False,
    "schedule.kind": "cosine",
    "network_args.widths": "64, 96, 160",
    "best_validation_loss": 0.25,
    "ema_decays.short": 0.99,
    "created": AT,
    "tags": "For the talk, good",
    "stars": 2,
    "decision": "promote",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("batch_size >= 64 and state = finished", True),
        ("batch_size ≥ 64 AND state == Finished", True),
        ("batch_size>64", False),
        ("batch_size ≠ 64 or batch_size ≤ 64", True),
        ("batch_size != 64 or batch_size < 64", False),
        ("learning_rate = 0.001", True),
        ("tensorboard = false", True),
        ("tensorboard != false", False),
        ("name ~ sedan", True),
        ("name = 'sedans two' and name = \"Sedans two\" and name = “sedans two”", True),
        ("name ~ 'and'", False),
        ("schedule.kind = cosine and network_args.widths = [64,96,160]", True),
        ("network_args.widths ~ 96", True),
        ("ema_decays.short < 1 and not ema_decays.long < 1", True),
        ("created = 2026-11 and created >= 2026-11-28 and created < 2026-11-29", True),
        ("created > 2026-11-28", False),
        ("tags = good and tags = 'for the talk' and tags ~ talk", True),
        ("tags = talk or tags != good", False),
        ("tags != bad and stars >= 1 and decision = Promote", True),
        ("created = '2026-11-28 18:05' and created = 2026-11-28T18:05", True),
        # `and` binds more tightly than `or`, `not` more tightly than both.
        ("state = finished or state = failed and batch_size = 1", True),
        ("(state = finished or state = failed) and batch_size = 1", False),
        ("not state = failed and batch_size = 64", True),
        ("not (state = finished and batch_size = 64)", False),
        # Of what a run does not have nothing is true but that it is missing.
        ("quality.fid < 10 or quality.fid >= 10 or quality.fid != 10", False),
        ("quality.fid = none and batch_size != none", True),
        ("name = 'none'", False),
    ],
)
def test_a_filter_holds(text: str, expected: bool) -> None:
    assert parse_filter(text)(VALUES) is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "batchsize = 4",
            "There is no setting or result called batchsize; did you mean batch_size?",
        ),
        ("zzz = 4", "There is no setting or result called zzz; use a setting of --set, quality"),
        ("quality.zzz = 4", "There is no metric called zzz; use frechet, frechet_general,"),
        ("schedule.zzz = 4", "There is no setting called schedule.zzz; there are schedule.kind,"),
        ("schedule = 4", "schedule has several entries; name one of them, as in schedule.kind."),
        ("batch_size = many", "batch_size is a number, which many is not."),
        ("batch_size = inf", "batch_size is a number, which inf is not."),
        ("batch_size = ''", "batch_size is a number, which an empty text is not."),
        ("tensorboard = 1", "tensorboard is true or false, which 1 is not."),
        ("created > today", "created is a date such as 2026-11-28, which today is not."),
        ("state = done", "state is never done; it is one of queued, starting, running, pausing,"),
        ("decision = later", "decision is never later; it is one of keep, drop, promote."),
        ("tags > 1", "tags is a list of tags; compare it with =, !=, ~, not >."),
        ("optimizer = sgd", "optimizer is never sgd; it is one of adam, adamw, muon."),
        ("loss = l3", "loss is never l3; it is one of l1, l2"),
        (
            "batch_size ~ 4",
            "batch_size is a number; compare it with =, !=, <, <=, >, >=, not ~.",
        ),
        ("name < b", "name is text; compare it with =, !=, ~, not <."),
        ("batch_size > none", "batch_size can be = none or != none, not > none."),
        ("batch_size", "batch_size needs a comparison after it: =, !=, <, <=, >, >=."),
        ("batch_size = and", "batch_size = needs a value after it; write texts in quotation"),
        ("step = 1 step = 2", "Write and or or before step."),
        ("(step = 1 step = 2)", "Write and or or before step."),
        ("step = 1 and", "The filter is not complete; a condition is, for example, step > 100."),
        ("and step = 1", "A condition cannot begin with and; write, for example, step > 100."),
        ("'step' = 1", "A condition cannot begin with step; write"),
        ("(step = 1", "A ( is not closed."),
        ("step = 1)", "A ) has no ( before it."),
        ("name = 'a", "A quotation mark (') is not closed."),
        ("step ! 1", "! is no comparison; use =, !=, <, <=, >, >=, ~."),
        ("(" * 1000, f"The filter has more than {DEEPEST} parentheses inside each other."),
        ("x" * 3000, f"The filter has 3,000 characters; use at most {LONGEST:,}."),
    ],
)
def test_a_filter_that_cannot_be_used_says_what_would_be_allowed(text: str, said: str) -> None:
    with pytest.raises(FilterError) as error:
        parse_filter(text)
    assert str(error.value).startswith(said)


def test_many_parentheses_and_conditions_are_read() -> None:
    deep = "(" * DEEPEST + "batch_size = 64" + ")" * DEEPEST
    assert parse_filter(deep)(VALUES)
    assert parse_filter(" and ".join(["batch_size = 64"] * 90))(VALUES)


names = st.sampled_from([*RESULTS, *settings_of(TINY), "quality.fid", "ema_decays.a"])


@st.composite
def filters(draw: st.DrawFn) -> tuple[str, Callable[[int], bool]]:
    """A filter on `step`, and what it means."""
    number = draw(st.integers(0, 9))
    meanings: dict[str, Callable[[int], bool]] = {
        "<": lambda step: step < number,
        ">=": lambda step: step >= number,
        "=": lambda step: step == number,
        "!=": lambda step: step != number,
    }
    sign = draw(st.sampled_from(list(meanings)))
    return f"step {sign} {number}", meanings[sign]


def joined(parts: st.SearchStrategy[tuple[str, Callable[[int], bool]]]) -> st.SearchStrategy:
    both = st.tuples(parts, parts)
    return st.one_of(
        both.map(lambda p: (f"({p[0][0]} and {p[1][0]})", lambda x: p[0][1](x) and p[1][1](x))),
        both.map(lambda p: (f"({p[0][0]} or {p[1][0]})", lambda x: p[0][1](x) or p[1][1](x))),
        parts.map(lambda p: (f"not {p[0]}", lambda x: not p[1](x))),
    )


@given(st.recursive(filters(), joined, max_leaves=12), st.integers(0, 9))
def test_a_filter_means_what_it_says(made: tuple[str, Callable[[int], bool]], step: int) -> None:
    text, meaning = made
    assert parse_filter(text)({"step": step}) is meaning(step)


words = st.one_of(
    names, st.sampled_from("and or not none ( ) = != < ~ ≥ ! ' \" true 64 1e999".split()), st.text()
)


@given(st.one_of(st.text(), st.lists(words, max_size=12).map(" ".join)))
def test_a_text_is_a_filter_or_is_refused(text: str) -> None:
    try:
        holds = parse_filter(text)
    except FilterError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    else:
        assert holds(VALUES) in (True, False)
        assert holds(dict.fromkeys(VALUES, "odd")) in (True, False)
        assert holds(dict.fromkeys(VALUES, 10**19)) in (True, False)


def test_every_value_of_a_run_can_be_asked_for(runs_dir: Path) -> None:
    run = write_run(runs_dir, "run", config=RunConfig(ema_decays={"short": 0.9}))
    values = read_row(Run(run)).values
    assert {"ema_decays.short", "schedule.beta_start", "network_args.widths"} < values.keys()
    for name in values:
        assert kind_of(name)


def rows(name: str, *values: Value | None) -> list[Row]:
    return [
        Row(values={name: value, "name": f"run {k}"} if value is not None else {"name": f"run {k}"})
        for k, value in enumerate(values)
    ]


def order(found: list[Row]) -> list[int]:
    return [int(str(row.values["name"])[4:]) for row in found]


def test_runs_are_sorted_by_a_value_and_those_without_it_are_last() -> None:
    some = rows("batch_size", 8, None, 16, 4, 8)
    assert order(sort_rows(some, "batch_size")) == [3, 0, 4, 2, 1]
    assert order(sort_rows(some, "batch_size", reverse=True)) == [2, 0, 4, 3, 1]
    assert order(sort_rows(rows("data", "b", "A", "c"), "data")) == [1, 0, 2]
    assert order(sort_rows(rows("created", 3e8, 1e8, 2e8), "created")) == [1, 2, 0]
    with pytest.raises(FilterError, match="There is no setting or result called colour; use"):
        sort_rows([], "colour")


def test_runs_are_grouped_by_a_value() -> None:
    groups = group_rows(rows("data", "b", None, "a", "b"), "data")
    assert {value: order(members) for value, members in groups.items()} == {
        "a": [2],
        "b": [0, 3],
        None: [1],
    }
    assert list(groups) == ["a", "b", None]
