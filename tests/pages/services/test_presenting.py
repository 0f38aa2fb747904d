"""Presentations: who may change and end one, and when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from dashboard.services import presenting
from dashboard.services.presenting import Presentation, PresentingError


class Server:
    now = 100.0

    def __init__(self) -> None:
        self.there = {"s1", "s2"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(presenting, "clock", lambda: server.now)
    monkeypatch.setattr(presenting, "_is_there", lambda session: session in server.there)
    monkeypatch.setattr(presenting, "_presentations", {})
    return server


def shown(code: str) -> tuple[Mapping[str, Sequence[str]], int]:
    found = presenting.find(code)
    assert found is not None
    return found.address, found.changes


def test_only_the_presenter_changes_and_ends_it(server: Server) -> None:
    code = presenting.begin("Ann", "s1").code
    assert shown(code.lower()) == ({}, 0)
    presenting.show(code, "s1", {"view": ["Vote"]})
    presenting.show(code, "s1", {"view": ["Vote"]})
    presenting.show(code, "s2", {"view": ["Say"]})
    presenting.end(code, "s2")
    assert shown(code) == ({"view": ["Vote"]}, 1)
    presenting.end(code, "s1")
    assert presenting.find(code) is None


def test_it_ends_some_seconds_after_the_presenter_has_left(server: Server) -> None:
    code = presenting.begin("Ann", "s1").code
    server.now += 1000
    assert presenting.find(code)
    server.there.clear()
    server.now += presenting.GRACE_SECONDS
    assert presenting.every()
    server.now += 1
    assert not presenting.every()


def test_two_of_a_name_have_different_codes_and_there_are_only_so_many(server: Server) -> None:
    found: list[Presentation] = [presenting.begin("Ann", "s1") for _ in range(presenting.MOST)]
    assert len({each.code for each in found}) == presenting.MOST
    with pytest.raises(PresentingError, match="50 people are presenting"):
        presenting.begin("Ann", "s1")
