"""Looks that all sessions share, and how often each asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dashboard.services import shared_look
from dashboard.services.shared_look import Shared, kept_pace


def test_many_who_ask_at_once_share_one_look() -> None:
    looks, gate = list[int](), threading.Event()

    def look() -> int:
        gate.wait(10)
        looks.append(1)
        return len(looks)

    shared = Shared(most=4)
    with ThreadPoolExecutor(25) as people:
        asked = [people.submit(shared.get, "runs", look) for _ in range(25)]
        gate.set()
        assert {each.result() for each in asked} == {1}
    assert len(looks) == 1


def test_a_look_is_taken_again_after_its_time_and_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(shared_look.time, "monotonic", lambda: now)
    shared, answers = Shared(most=4, seconds=0.5), iter(range(9))

    def look() -> int:
        return shared.get("runs", lambda: next(answers))

    assert (look(), look()) == (0, 0)
    now += 0.49
    assert look() == 0
    now += 0.02
    assert look() == 1
    shared.forget()
    assert look() == 2


def test_an_error_is_not_kept_and_the_oldest_values_go() -> None:
    shared, made = Shared(most=2), list[str]()

    def get(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key

        return shared.get(key, make)

    with pytest.raises(ZeroDivisionError):
        shared.get("a", lambda: 1 // 0)
    assert get("a") == "a"
    get("b"), get("a"), get("c")  # b is the one that was not asked for the longest
    assert made == ["a", "b", "c"]
    get("a"), get("b")
    assert made == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("watchers", "now", "wanted"),
    [
        (1, None, 1.0),
        (10, 1.0, 1.0),
        (11, 1.0, 1.5),
        (25, None, 2.0),
        (9, 1.5, 1.5),  # kept, so that one who comes and goes does not switch all
        (7, 1.5, 1.0),
        (31, 1.5, 2.0),
        (41, 2.0, 3.0),
        (61, 3.0, 5.0),
        (1, 5.0, 1.0),
    ],
)
def test_more_watchers_ask_less_often(watchers: int, now: float | None, wanted: float) -> None:
    assert kept_pace(watchers, now) == wanted
