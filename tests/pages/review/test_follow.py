"""Follow me: who follows has the presenter's settings, until one of them stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.services import presenting
from dashboard.ui import keys
from tests.pages.app import button, buttons, open_page, press, words
from tests.tiny_runs import write_run

HERS = "her session"


@pytest.fixture(autouse=True)
def runs(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs_dir, "run-a")
    write_run(runs_dir, "run-b")
    monkeypatch.setattr(presenting, "_presentations", {})
    monkeypatch.setattr(presenting, "_is_there", lambda session: True)


def test_who_follows_has_the_presenters_settings_until_she_stops() -> None:
    code = presenting.begin("Ann #0123456789abcdef", HERS).code
    presenting.show(code, HERS, {"view": ["Vote"], "runs": ["run-b"], "filter": ["step > 1"]})
    app = open_page("review.py", follow=code.lower())
    assert "You are following Ann #01234567." in words(app)
    shown = {key: app.session_state[key] for key in ("view", "runs", "filter", "search")}
    assert shown == {"view": "Vote", "runs": ["run-b"], "filter": "step > 1", "search": ""}
    assert "follow" not in app.query_params

    app.text_input(key="search").set_value("own").run()
    assert app.text_input(key="search").value == "own"
    presenting.show(code, HERS, {"runs": ["run-b", "no run"], "step": ["1"]})  # not her own doing
    app.run()
    assert app.text_input(key="search").value == "" and app.multiselect(key="runs").value == [
        "run-b"
    ]

    presenting.end(code, HERS)
    app.run()
    assert "The presentation that you followed has ended." in words(app)
    assert "Stop following" not in buttons(app)


def test_one_who_stops_following_keeps_the_page() -> None:
    code = presenting.begin("Ann", HERS).code
    presenting.show(code, HERS, {"runs": ["run-b"]})
    app = press(open_page("review.py", follow=code), "Stop following")
    presenting.show(code, HERS, {"runs": ["run-a"]})
    app.run()
    assert app.multiselect(key="runs").value == ["run-b"]
    assert "has ended" in words(open_page("review.py", follow="ZZZZ"))


def test_a_presenter_shows_the_page_and_a_viewer_cannot_present(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = open_page("review.py", view="Vote", runs="run-a")
    app.session_state[keys.GUEST] = ("Ann", "0" * 32)
    app.session_state["follow-me"] = True
    press(app.run(), "Present")
    assert "You are presenting." in words(app)
    [found] = presenting.every()
    assert found.by.startswith("Ann #")
    assert found.address["runs"] == ["run-a"] and found.address["view"] == ["Vote"]
    press(app, "Stop presenting")
    assert not presenting.every()

    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_page("review.py")
    app.session_state["follow-me"] = True
    app.run()
    assert button(app, "Present").disabled
    assert "people who are signed in can present." in words(app)
