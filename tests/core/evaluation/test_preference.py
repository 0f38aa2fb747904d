"""Shares, Bradley–Terry strengths and agreement, against worked examples of the literature."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diffusion_core.evaluation.preference import (
    Agreement,
    Choices,
    agreement,
    agreement_of,
    bradley_terry,
    count_choices,
    shares,
)
from diffusion_core.runs.votes import Vote, cast


def choices(wins: dict[str, float]) -> Choices:
    """Of {"A>B": 2}: A was chosen over B twice; "A>BC": over both at once."""
    return {(key[0], frozenset(key.replace(">", ""))): count for key, count in wins.items()}


def logs(found: dict[str, float]) -> dict[str, float]:
    return {name: math.log(value) for name, value in found.items()}


def values(wins: Choices) -> dict[str, float]:
    return {name: each.value for name, each in bradley_terry(wins).by_name.items()}


# ---------------------------------------------------------------- shares


def test_the_share_of_two_and_wilsons_interval() -> None:
    # Newcombe (1998), Statistics in Medicine 17, 857: 81 of 263 and 0 of 20, Wilson's score method.
    found = shares(choices({"A>B": 81, "B>A": 182}))
    assert list(found) == ["B", "A"] and found["A"].n == found["B"].n == 263
    assert (found["A"].low, found["A"].high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert found["B"].low == pytest.approx(1 - found["A"].high)
    never = shares(choices({"B>A": 20}))["A"]
    assert (never.value, never.low) == (0, 0)
    assert never.high == pytest.approx(0.1611, abs=5e-5)


def test_a_share_is_of_the_votes_in_which_it_was_shown() -> None:
    found = shares(choices({"A>B": 3, "B>AC": 1, "C>B": 4}))
    assert {name: (each.value, each.n) for name, each in found.items()} == {
        "C": (4 / 5, 5),
        "A": (3 / 4, 4),
        "B": (1 / 8, 8),
    }


# ---------------------------------------------------------------- strengths


def test_the_baseball_season_of_1987() -> None:
    """Agresti, Categorical Data Analysis, 2nd edition, table 10.10, and the estimates below it.

    The standard errors against Baltimore are those of R's BradleyTerry2 for the same table.
    """
    names = "Milwaukee Detroit Toronto NewYork Boston Cleveland Baltimore".split()
    table = [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
    found = bradley_terry(
        {
            (one, frozenset((one, other))): table[i][j]
            for i, one in enumerate(names)
            for j, other in enumerate(names)
            if i != j
        }
    )
    assert list(found.by_name) == names and not found.penalised
    log = logs({name: each.value for name, each in found.by_name.items()})
    against = [log[name] - log["Baltimore"] for name in names[:-1]]
    assert against == pytest.approx([1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839], abs=5e-5)


def test_four_names_of_a_textbook() -> None:
    """The worked example of the article "Bradley–Terry model" of Wikipedia."""
    found = bradley_terry(
        choices({"A>B": 2, "A>D": 1, "B>A": 3, "B>C": 5, "C>B": 3, "C>D": 1, "D>A": 4, "D>C": 3})
    )
    strengths = {name: each.value for name, each in found.by_name.items()}
    assert strengths == pytest.approx({"D": 2.270, "B": 1.043, "C": 0.660, "A": 0.640}, abs=5e-4)


def test_two_names_have_a_closed_form() -> None:
    found = bradley_terry(choices({"A>B": 12, "B>A": 3})).by_name
    assert found["A"].value / found["B"].value == pytest.approx(4)
    # The logarithm of the odds has the variance 1/12 + 1/3; each strength is half of it.
    error = 1.959964 * (1 / 12 + 1 / 3) ** 0.5 / 2
    assert found["A"].low == pytest.approx(2 * math.exp(-error))
    assert found["A"].high == pytest.approx(2 * math.exp(error))


def test_the_best_of_three_has_a_closed_form() -> None:
    found = values(choices({"A>BC": 4, "B>AC": 2, "C>AB": 1}))  # Luce: the shares themselves
    assert found == pytest.approx({"A": 2, "B": 1, "C": 0.5})


@pytest.mark.parametrize(
    ("wins", "order"),
    [
        ({"A>B": 10}, "AB"),
        ({"A>B": 5, "A>C": 5, "B>C": 4, "C>B": 1}, "ABC"),
        ({"A>B": 5, "B>A": 4, "A>C": 5, "B>C": 5}, "ABC"),
        ({"A>B": 2, "B>A": 1, "C>D": 2, "D>C": 1}, "ACBD"),  # never compared with each other
        ({"A>BC": 1}, "ABC"),
    ],
)
def test_who_never_lost_is_strongest_by_a_finite_factor(wins: dict[str, float], order: str) -> None:
    found = bradley_terry(choices(wins))
    assert found.penalised
    assert "".join(found.by_name) == order
    for each in found.by_name.values():
        assert 0 < each.low < each.value < each.high < 1e3


def test_more_wins_without_a_loss_count_for_more() -> None:
    strengths = [values(choices({"A>B": count}))["A"] for count in (1, 5, 50)]
    assert strengths == sorted(strengths) and strengths[0] > 1
    # A single loss ends the penalty, and the strength does not jump up with it.
    assert values(choices({"A>B": 50, "B>A": 1}))["A"] < strengths[-1]


def test_a_penalised_strength_has_a_closed_form() -> None:
    """A won n times against B, and each half a time of one against the further opponent.

    With s = a / 1 = 1 / b the equation of A is n + 1/2 = n s² / (s² + 1) + s / (s + 1).
    """
    n, s = 10, values(choices({"A>B": 10}))["A"]
    assert n * s**2 / (s**2 + 1) + s / (s + 1) == pytest.approx(n + 1 / 2)


def test_nothing_was_chosen() -> None:
    assert bradley_terry({}).by_name == {} and shares({}) == {}


NAMES = "ABCD"
RANDOM = st.dictionaries(
    st.permutations(NAMES).flatmap(
        lambda order: st.integers(2, 4).map(lambda n: (order[0], frozenset(order[:n])))
    ),
    st.integers(1, 30),
    min_size=1,
    max_size=12,
)


@given(RANDOM)
def test_strengths_are_those_of_the_greatest_likelihood(wins: Choices) -> None:
    """Where they exist, each name was chosen as often as its strength makes one expect."""
    found = bradley_terry(wins)
    strength = {name: each.value for name, each in found.by_name.items()}
    assert all(0 < each < math.inf for each in strength.values())
    assert np.mean(list(logs(strength).values())) == pytest.approx(0, abs=1e-9)
    assume(not found.penalised)
    for name in strength:
        won = sum(count for (chosen, _), count in wins.items() if chosen == name)
        expected = sum(
            count * strength[name] / sum(strength[each] for each in shown)
            for (_, shown), count in wins.items()
            if name in shown
        )
        assert expected == pytest.approx(won, abs=1e-6)


@given(RANDOM, st.permutations(NAMES))
def test_other_names_change_nothing_else(wins: Choices, order: list[str]) -> None:
    new = dict(zip(NAMES, order, strict=True))
    renamed = {
        (new[chosen], frozenset(new[each] for each in shown)): count
        for (chosen, shown), count in wins.items()
    }
    again = values(renamed)
    assert {new[name]: value for name, value in values(wins).items()} == pytest.approx(again)


# ---------------------------------------------------------------- agreement


def test_krippendorffs_examples() -> None:
    """Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, sections A and C."""
    two = list(zip("0100000010", "1110010000", strict=True))
    assert agreement_of([two]).alpha == pytest.approx(0.095, abs=5e-4)
    four = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[value for value in unit if value != "."] for unit in zip(*four, strict=True)]
    assert sum(map(len, units)) == 41  # one of which stands alone
    assert agreement_of([units]).alpha == pytest.approx(0.743, abs=5e-4)


def test_all_the_same_and_nothing_in_common() -> None:
    assert agreement_of([["AA", "BB", "AAA"]]) == Agreement(1.0, 1.0, 5)
    assert agreement_of([["AB", "BA"]]).share == 0
    assert agreement_of([["AB", "BA"]]).alpha == pytest.approx(-0.5)  # 1 - 4 / (8 / 3)
    assert agreement_of([["AA", "AAA"]]) == Agreement(1.0, None, 4)  # no chance to differ
    assert agreement_of([["A", "B"], []]) == Agreement(None, None, 0)


def test_chance_is_that_among_what_was_shown(tmp_path: Path) -> None:
    """Tosses of a coin about A or B and about C or D agree by chance alone.

    Were all values taken together, half of agreeing would look like much.
    """
    coins = [list(unit) for unit in ("AA", "AB", "BA", "BB")] * 50
    others = [list(unit) for unit in ("CC", "CD", "DC", "DD")] * 50
    assert agreement_of([coins, others]).alpha == pytest.approx(0, abs=0.01)
    assert agreement_of([coins + others]).alpha > 0.3
    votes = [
        cast([tmp_path], "r", f"{number}", sorted("AB" if each in "AB" else "CD"), each, f"p{k}")
        for number, unit in enumerate([*coins[:4], *others[:4]])
        for k, each in enumerate(unit)
    ]
    assert agreement(votes) == agreement_of([coins[:4], others[:4]])


def test_votes_are_counted_by_what_was_shown_in_whatever_order(tmp_path: Path) -> None:
    def vote(shown: str, chosen: str, by: str) -> Vote:
        return cast([tmp_path], "r", "seed 1", list(shown), chosen, by)

    votes = [vote("AB", "A", "ann"), vote("BA", "A", "bob"), vote("BA", "B", "eve")]
    assert count_choices(votes) == Counter({("A", frozenset("AB")): 2, ("B", frozenset("AB")): 1})
    assert agreement(votes) == agreement_of([["AAB"]])
