"""What a visitor may use: counted by the hour, refused with what is left and until when."""

from __future__ import annotations

import pytest

from dashboard.services import budgets
from dashboard.services.budgets import HOUR, Budget, OverBudget, charge, charged, left
from dashboard.services.settings import Settings, get_settings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budgets, "clock", clock)
    monkeypatch.setattr(budgets, "_used", {})
    return clock


def chosen(**values: object) -> Settings:
    return Settings().model_copy(update=values)


VIEWER = chosen(role="viewer", max_evaluations=50, hourly_evaluations=100)
EVALUATIONS = Budget.EVALUATIONS


def test_an_operator_has_no_limit_unless_one_is_set(clock: Clock) -> None:
    operator = chosen(role="operator")
    charge(EVALUATIONS, "me", 10**12, operator)
    assert left(EVALUATIONS, "me", operator) is None
    assert budgets.evaluations_sentence("me", operator) == ""
    assert budgets.uploads_sentence("me", operator) == ""
    with pytest.raises(OverBudget, match=r"the limit per request is 7\."):
        charge(EVALUATIONS, "me", 8, chosen(role="operator", max_evaluations=7))


def test_a_viewer_has_limits_that_nobody_has_set(clock: Clock) -> None:
    viewer = chosen(role="viewer")
    assert budgets.limits(viewer) == budgets.VIEWERS
    charge(EVALUATIONS, "me", 8000, viewer)
    assert budgets.evaluations_sentence("me", viewer) == (
        "Network evaluations: at most 40,000 per request, 112,000 of 120,000 left this hour."
    )
    assert budgets.uploads_sentence("me", viewer) == (
        "Uploads: 128 of 128 MB and 500 of 500 megapixels left this hour."
    )


def test_an_order_above_the_limit_of_one_is_refused_and_costs_nothing(clock: Clock) -> None:
    with pytest.raises(OverBudget) as refused:
        charge(EVALUATIONS, "me", 320_000, VIEWER)
    assert str(refused.value) == (
        "This needs 320,000 network evaluations; the limit per request is 50. Use fewer images or "
        "steps."
    )
    assert left(EVALUATIONS, "me", VIEWER) == (100, 100)


def test_the_hours_are_renewed_an_hour_after_the_first_and_each_visitor_has_their_own(
    clock: Clock,
) -> None:
    charge(EVALUATIONS, "me", 50, VIEWER)
    clock.now += HOUR / 2
    charge(EVALUATIONS, "me", 40, VIEWER)
    with pytest.raises(OverBudget) as refused:
        charge(EVALUATIONS, "me", 20, VIEWER)
    assert str(refused.value) == (
        "This needs 20 network evaluations; 10 of 100 per hour are left. The limit resets in "
        "30 min."
    )
    charge(EVALUATIONS, "me", 10, VIEWER)
    charge(EVALUATIONS, "another", 50, VIEWER)
    clock.now += HOUR / 2
    assert left(EVALUATIONS, "me", VIEWER) == (100, 100)
    assert left(EVALUATIONS, "another", VIEWER) == (50, 100)


def test_what_is_refused_costs_nothing_and_what_fails_later_costs_all(clock: Clock) -> None:
    amounts = {EVALUATIONS: 50, Budget.PIXELS: 4}
    few = VIEWER.model_copy(update={"hourly_upload_megapixels": 3})
    with pytest.raises(OverBudget), charged(amounts, "me", few, KeyError):
        raise AssertionError("It is refused before.")
    assert left(EVALUATIONS, "me", few) == (100, 100)
    with pytest.raises(KeyError), charged(amounts, "me", VIEWER, KeyError):
        raise KeyError
    assert left(EVALUATIONS, "me", VIEWER) == (100, 100)
    with pytest.raises(ValueError, match="later"), charged(amounts, "me", VIEWER, KeyError):
        raise ValueError("later")
    assert left(EVALUATIONS, "me", VIEWER) == (50, 100)


def test_what_is_more_than_the_limit_of_an_hour_is_refused_without_a_time(clock: Clock) -> None:
    with pytest.raises(OverBudget, match=r"the limit per hour is 3\."):
        charge(Budget.UPLOAD_BYTES, "me", 4.5, chosen(role="viewer", hourly_upload_mb=3))


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_HOURLY_EVALUATIONS", "7")
    monkeypatch.setenv("DIFFUSION_LAB_SERIES_HOURS", "2")
    limits = budgets.limits(get_settings())
    assert (limits.evaluations, limits.series_hours, limits.series) == (7, 2, 5)
