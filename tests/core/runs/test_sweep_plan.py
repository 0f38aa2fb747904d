"""Which combinations of settings a sweep tries."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.sweep_plan import (
    METHODS,
    MOST_RUNS,
    Dimension,
    combinations,
    parse_dimension,
)

RATE = parse_dimension("learning_rate=1e-4..1e-2:log")
BATCH = parse_dimension("batch_size=16,32,64")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("batch_size=16,32, 64", (16, 32, 64)),
        ("optimizer=adam,adamw", ("adam", "adamw")),
        ("random_flip=true,false", (True, False)),
        ("schedule.kind=linear,cosine", ("linear", "cosine")),
        ("network_args.widths=[8, 16],[8]", ([8, 16], [8])),
        ("learning_rate=0.1..0.5:3", (0.1, 0.3, 0.5)),
        ("learning_rate=1e-4..1e-2:log:3", (0.0001, 0.001, 0.01)),
        ("steps=1..1000:log:4", (1, 10, 100, 1000)),
        ("steps=1..3:9", (1, 2, 3)),  # each once
    ],
)
def test_values_and_numbers_of_values(text: str, values: tuple[Any, ...]) -> None:
    assert parse_dimension(text).values == values


def test_a_range_has_its_ends_its_scale_and_the_kind_of_its_setting() -> None:
    assert Dimension("learning_rate", (), 1e-4, 1e-2, True, False) == RATE
    assert parse_dimension("steps=10..20") == Dimension("steps", (), 10, 20, False, True)
    # The middle of a logarithmic range is the geometric mean.
    assert [RATE.at(share) for share in (0, 0.25, 0.5)] == [1e-4, 0.000316228, 1e-3]
    whole = parse_dimension("steps=1..4")
    assert [whole.at(k / 8) for k in range(8)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [BATCH.at(share) for share in (0, 0.34, 0.999, 1)] == [16, 32, 64, 64]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_size", "'batch_size' varies nothing; write it as SETTING=VALUES."),
        ("batch=16", "There is no setting called batch; did you mean batch_size?"),
        ("batch_size=16,x", "batch_size takes a whole number, not 'x'."),
        ("batch_size=16,16", "batch_size is to be 16 twice; leave one of them out."),
        ("schedule={}", "schedule has several entries; name one of them, as in schedule.kind."),
        ("sweep=a,b", "sweep cannot vary in a sweep."),
        ("network_args.widths=8,16", "network_args.widths takes a JSON list, not '8'."),
        ("network_args.widths=[8", "network_args.widths takes lists such as [32,48],[64,96]."),
        ("learning_rate=1..0.1", "learning_rate cannot go from 1.0 to 0.1."),
        ("learning_rate=0.1..nan", "learning_rate cannot go from 0.1 to nan."),
        ("learning_rate=0.1..inf", "learning_rate cannot be more than 10."),
        ("steps=0..10", "steps cannot be less than 1."),
        ("learning_rate=0..1:log", "learning_rate goes from 0.0; log needs a number above 0."),
        ("steps=1..10:lag", "steps: '1..10:lag' is no range; write LOW..HIGH, LOW..HIGH:log or"),
        ("steps=1..10:1", "steps: '1..10:1' is no range; write LOW..HIGH, LOW..HIGH:log or"),
    ],
)
def test_what_cannot_vary_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_dimension(text)
    assert str(refused.value).startswith(said)


def test_a_grid_has_every_combination_in_order() -> None:
    flip = parse_dimension("random_flip=true,false")
    rows = combinations([BATCH, flip], "grid")
    assert rows == [
        {"batch_size": size, "random_flip": flip} for size in (16, 32, 64) for flip in (True, False)
    ]


def test_points_of_sobol_are_balanced() -> None:
    """Of 2^k points each of 2^k equal parts of each dimension has one."""
    ranges = [Dimension(f"ema_decays.{name}", (), 0, 1) for name in "abc"]
    rows = combinations(ranges, "sobol", 64, seed=5)
    for dimension in ranges:
        assert sorted(int(row[dimension.name] * 64) for row in rows) == list(range(64))
    # And of each two dimensions, each 8 by 8 square has one: a (0, 6, 2)-net.
    squares = {tuple(int(row[each.name] * 8) for each in ranges[:2]) for row in rows}
    assert len(squares) == 64


def test_a_logarithmic_range_has_as_many_values_in_each_decade() -> None:
    rates = [row["learning_rate"] for row in combinations([RATE], "sobol", 32)]
    assert sum(rate < 1e-3 for rate in rates) == 16


@given(st.sampled_from(METHODS[1:]), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_the_seed_decides_and_all_combinations_differ(method, count: int, seed: int) -> None:
    dimensions = [RATE, BATCH, parse_dimension("steps=10..12")]
    rows = combinations(dimensions, method, count, seed)
    assert rows == combinations(dimensions, method, count, seed)
    assert len({tuple(row.items()) for row in rows}) == count
    for row in rows:
        assert 1e-4 <= row["learning_rate"] <= 1e-2
        assert row["batch_size"] in (16, 32, 64)
        assert row["steps"] in (10, 11, 12)
        assert type(row["steps"]) is int


@given(st.integers(0, 2**40), st.integers(1, 2**40), st.floats(0, 1), st.booleans())
def test_a_value_lies_within_its_range(low: int, more: int, share: float, log: bool) -> None:
    low = max(low, 1)
    for whole in (True, False):
        value = Dimension("seed", (), low, low + more, log, whole).at(share)
        assert low <= value <= low + more
        assert math.isfinite(value)


def test_numbers_of_runs_that_cannot_be() -> None:
    many = parse_dimension("seed=0..1000:100")
    cases: list[tuple[tuple[Any, ...], str]] = [
        (([RATE], "grid"), "A grid needs values of learning_rate, or their number, as in "),
        (([many, BATCH], "grid"), "This grid has 300 runs; a sweep has at most 256."),
        (([BATCH], "grid", 5), "This grid has 3 runs; the number of runs is not chosen."),
        (([BATCH], "sobol"), "Say how many runs sobol makes."),
        (([BATCH, BATCH], "grid"), "batch_size varies twice; leave one of them out."),
        (([BATCH], "random", 4), "4 runs are too many: only 3 different combinations were found."),
    ]
    for arguments, said in cases:
        with pytest.raises(ConfigError) as refused:
            combinations(*arguments)
        assert str(refused.value).startswith(said)
    assert len(combinations([RATE], "random", MOST_RUNS)) == MOST_RUNS
