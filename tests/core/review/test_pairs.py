"""Pairs that differ in one setting alone: none is missed, none has a second difference, and none is
compared that cannot be."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.review.index import Measured, Row, settings_of
from diffusion_core.review.pairs import (
    MOST_ALIKE,
    Pair,
    chance,
    change_of,
    find_pairs,
    notes_on,
    settings_that_matter,
    why_not_comparable,
    worse_first,
)
from tests.tiny_runs import TINY

FRECHET = "quality.frechet"


def row(
    name: str,
    frechet: float | None = None,
    *,
    width: float = 1.0,
    step: int = 40,
    images: int = 1024,
    changes: tuple[tuple[int, str, float], ...] = (),
    **settings: Any,
) -> Row:
    values = settings_of(TINY.replace(**settings)) | {"name": name, "step": step}
    measured = None
    if frechet is not None:
        values[FRECHET] = frechet
        estimate = Estimate(frechet, frechet - width, frechet + width, images, images)
        measured = Measured(
            step=step, way="ddim", images=images, content="a", estimates={"frechet": estimate}
        )
    return Row(values=values, measured=measured, changes=changes)


def names(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    return [
        (pair.name, str(pair.first.values["name"]), str(pair.second.values["name"]))
        for pair in pairs
    ]


def test_pairs_are_those_of_all_comparisons_one_by_one() -> None:
    rng = random.Random(0)
    rows = [
        row(
            str(k),
            batch_size=rng.choice([4, 8]),
            learning_rate=rng.choice([1e-3, 1e-4]),
            loss=rng.choice(["l1", "l2"]),
            seed=rng.choice([0, 1]),
            threads=k,  # changes nothing that is learned
        )
        for k in range(30)
    ]
    expected = set()
    for first, second in itertools.combinations(rows, 2):
        one, other = (settings_that_matter(each, FRECHET) for each in (first, second))
        differ = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
        if len(differ) == 1 and differ != ["seed"]:
            expected.add((*differ, first.values["name"], second.values["name"]))
    assert set(names(find_pairs(rows, FRECHET))) == expected
    assert expected


def test_of_very_many_values_of_a_setting_neighbours_are_pairs() -> None:
    rates = [1e-5 * (k + 1) for k in range(MOST_ALIKE + 1)]
    rows = [row(str(k), learning_rate=rate) for k, rate in enumerate(rates)]
    random.Random(0).shuffle(rows)
    expected = [("learning_rate", str(k), str(k + 1)) for k in range(MOST_ALIKE)]
    assert names(find_pairs(rows, FRECHET)) == expected


def test_what_follows_from_a_setting_is_no_second_difference() -> None:
    classes = TINY.network_args | {"num_classes": 10}
    rows = [row("cars"), row("digits", data="digits", network_args=classes)]
    assert names(find_pairs(rows, FRECHET)) == [("data", "cars", "digits")]


def test_settings_of_the_machine_count_where_the_result_is_a_time() -> None:
    rows = [row("a"), row("b", threads=2)]
    assert find_pairs(rows, FRECHET) == []
    assert names(find_pairs(rows, "hours")) == [("threads", "a", "b")]


def test_a_rate_that_was_changed_on_the_way_is_another_run() -> None:
    changed = row("changed", changes=((20, "learning_rate", 1e-3),), seed=1)
    rows = [row("a", 9.0), changed, row("longer", changes=((20, "steps", 40),), batch_size=8)]
    assert names(find_pairs(rows, FRECHET)) == [("batch_size", "a", "longer")]
    assert chance(rows, FRECHET) is None


def test_runs_that_differ_in_the_seed_say_what_is_chance() -> None:
    # Differences of 2 and 4 between two: the variance of a run is (2 + 8) / 2.
    rows = [row("a", 10.0), row("b", 12.0, seed=1)]
    rows += [row("c", 20.0, batch_size=8), row("d", 24.0, batch_size=8, seed=1)]
    rows.append(row("not so far", 90.0, step=10, seed=2))
    found = chance(rows, FRECHET)
    assert found is not None and (found.runs, found.groups) == (4, 2)
    assert found.spread == pytest.approx(4.3027 * (2 * 5) ** 0.5, rel=1e-4)  # Student's t, 2 dof
    assert names(find_pairs(rows, FRECHET)) == [
        ("batch_size", "a", "c"),
        ("batch_size", "b", "d"),
    ]


def test_a_pair_is_said_from_the_worse_to_the_better() -> None:
    rows = [row("good", 24.6, learning_rate=3e-4), row("bad", 31.2, learning_rate=1e-3)]
    [pair] = [worse_first(each, FRECHET) for each in find_pairs(rows, FRECHET)]
    assert change_of(pair, FRECHET) == (
        "learning_rate 0.001 → 0.0003: Fréchet distance 31.2 → 24.6"
    )
    assert notes_on(pair, FRECHET, None) == ["intervals do not overlap"]
    repeats = chance([row("a", 1.0), row("b", 9.0, seed=1)], FRECHET)
    assert notes_on(pair, FRECHET, repeats)[1:] == ["no more than the seed changes"]
    wide = [row("a", 24.6, width=9), row("b", 31.2, width=9, step=20, batch_size=8)]
    [pair] = [worse_first(each, FRECHET) for each in find_pairs(wide, FRECHET)]
    assert change_of(pair, FRECHET) == "batch_size 8 → 32: Fréchet distance 31.2 → 24.6"
    assert notes_on(pair, FRECHET, None) == ["at steps 20 and 40", "intervals overlap"]


def test_what_was_measured_differently_is_not_compared() -> None:
    rows = [row("a", 9.0), row("b", 3.0, images=256, batch_size=8)]
    [pair] = find_pairs(rows, FRECHET)
    assert why_not_comparable(pair, FRECHET).startswith("Not comparable: the images")
    [pair] = find_pairs([row("a"), row("b", loss="l1")], "validation_loss")
    assert why_not_comparable(pair, "validation_loss") == (
        "Not comparable: loss changes what the loss measures."
    )
    [pair] = find_pairs([row("a", 9.0), row("b", 3.0, loss="l1")], FRECHET)
    assert why_not_comparable(pair, FRECHET) == ""
