"""Roles: what a viewer is refused in each deed, and who is an operator without being told so."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit as st

from dashboard.explain import noising
from dashboard.quality import measure
from dashboard.review import saved
from dashboard.services import (
    data_deeds,
    downloads,
    presenting,
    review_deeds,
    roles,
    run_deeds,
    saved_deeds,
    series_jobs,
    settings,
    users,
)
from dashboard.services.roles import Deed, NotAllowed
from diffusion_core.process.tables import USUAL_POINTS
from diffusion_core.review import polls
from diffusion_core.review.polls import Poll, Question, Turn
from diffusion_core.runs import remarks, trash
from diffusion_core.runs.designs import DESIGNS
from diffusion_core.runs.presets import preset
from diffusion_core.runs.remarks import Kind
from diffusion_core.runs.run import Run
from diffusion_core.runs.sweep_file import Plan
from diffusion_core.sampling.series import Series
from tests.tiny_runs import write_run

RUN = Run(Path("no such run"))
SERIES = Series(Path("no such series"))
GONE = trash.Deleted(Path("no such folder"), "gone", 0.0)
QUESTION = Question.model_construct(text="image 1", files={"a": "a.png", "b": "b.png"})
POLL = Poll(Path("no such vote"), polls.PollRecord.model_construct())
SPEC = measure.SamplingSpec(run="x", step=1)

# What does each deed; none may come so far as to notice that its run does not exist.
DEEDS: dict[Deed, list[Callable[[], object]]] = {
    Deed.START: [
        lambda: run_deeds.start("new", preset("small")),
        lambda: run_deeds.start_sweep("new", preset("small"), Plan(vary=["seed=1,2"])),
    ],
    Deed.CREATE: [lambda: run_deeds.create("new", preset("small"))],
    Deed.RESUME: [
        lambda: run_deeds.resume(RUN),
        lambda: run_deeds.resume(RUN, {"steps": 9}),
        lambda: run_deeds.resume_sweep("lr"),
    ],
    Deed.PAUSE: [lambda: run_deeds.request(RUN, "pause")],
    Deed.STOP: [lambda: run_deeds.request(RUN, "stop"), lambda: run_deeds.stop_sweep("lr")],
    Deed.SAMPLE_NOW: [lambda: run_deeds.request(RUN, "sample")],
    Deed.CHECKPOINT_NOW: [lambda: run_deeds.request(RUN, "checkpoint")],
    Deed.CHANGE: [lambda: run_deeds.change(RUN, {"steps": 9})],
    Deed.REORDER: [lambda: run_deeds.move(RUN, 1)],
    Deed.DELETE: [lambda: run_deeds.delete(RUN)],
    Deed.RESTORE: [lambda: run_deeds.restore(GONE)],
    Deed.CARRY: [lambda: downloads.offer("x", Deed.CARRY, "x.zip", lambda: iter(()))],
    Deed.IMPORT: [lambda: run_deeds.import_run(io.BytesIO(), "")],
    Deed.MEASURE: [lambda: roles.check(Deed.MEASURE)],  # shown, not raised: see below
    Deed.CHANGE_SERIES: [
        lambda: series_jobs.cancel(SERIES, own=False),
        lambda: series_jobs.resume(RUN, SERIES, SPEC, own=False),
    ],
    Deed.DELETE_SERIES: [lambda: series_jobs.remove(SERIES)],
    Deed.UPLOAD_DATA: [lambda: data_deeds.upload(io.BytesIO(), "new", lambda done, total: None)],
    Deed.DELETE_DATA: [lambda: data_deeds.delete("gone")],
    Deed.READ_PATHS: [lambda: noising.pick_from_data_set(32)],
}
OF_REVIEWERS: dict[Deed, list[Callable[[], object]]] = {
    Deed.REMARK: [
        lambda: review_deeds.say(RUN.path, Kind.STAR, "", remarks.RUN, "Ann"),
        lambda: review_deeds.edit(RUN.path, "1", "text", "Ann", 1),
        lambda: review_deeds.delete(RUN.path, "1", "Ann"),
        lambda: review_deeds.star(RUN.path, remarks.RUN, "Ann"),
        lambda: review_deeds.decide(RUN.path, "keep", remarks.RUN, "Ann"),
    ],
    Deed.VOTE: [
        lambda: review_deeds.vote(POLL, Turn(QUESTION, ("a", "b"), ""), 0, "Ann"),
        lambda: review_deeds.end_voting(POLL, "Ann"),
    ],
    Deed.ASK: [lambda: review_deeds.ask("wheels", polls.Kind.ALL, [], {}, [], "Ann")],
    Deed.PRESENT: [lambda: presenting.begin("Ann", "session")],
    Deed.SAVE_VIEW: [lambda: saved.save("mine", {}), lambda: saved.delete("mine")],
    Deed.SAVE_SCHEDULE: [
        lambda: saved_deeds.save(Deed.SAVE_SCHEDULE, DESIGNS, "mine", points=USUAL_POINTS),
        lambda: saved_deeds.delete(Deed.SAVE_SCHEDULE, DESIGNS, "mine"),
    ],
}


def test_every_deed_is_tried() -> None:
    assert set(Deed) == DEEDS.keys() | OF_REVIEWERS.keys()
    assert tuple(OF_REVIEWERS) == roles.OF_REVIEWERS


@pytest.mark.parametrize("deed", OF_REVIEWERS)
def test_a_reviewers_deed_refuses_who_is_not_known(
    deed: Deed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    for act in OF_REVIEWERS[deed]:
        with pytest.raises(NotAllowed) as said:
            act()
        known = "Only operators and people who are signed in"
        assert str(said.value) == f"{known} can {deed.value}."
    monkeypatch.setattr(users, "user", lambda: users.User("key", "eve@lab.org", "eve@lab.org"))
    assert roles.may(deed)
    monkeypatch.setattr(users, "user", lambda: None)
    monkeypatch.setenv("DIFFUSION_LAB_GUESTS_REVIEW", "1")
    assert roles.may(deed) == (deed in roles.OF_GUESTS)


@pytest.mark.parametrize("deed", DEEDS)
def test_every_deed_refuses_a_viewer_with_a_sentence(
    deed: Deed, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = functools.partial(SimpleNamespace, ask=lambda: "folder:/etc")
    monkeypatch.setattr(noising, "DATA", SimpleNamespace(now=lambda **_: typed(), options=["cars"]))
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    for act in DEEDS[deed]:
        with pytest.raises(NotAllowed) as said:
            act()
        assert str(said.value) == f"Only the operator can {deed.value}; your role is viewer."


def test_measuring_says_why_it_is_refused(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(st, "error", shown.append)
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    config = preset("small")
    checkpoint = SimpleNamespace(config=config, step=1)
    plan = measure.Plan(Run(runs_dir / "x"), [measure.Part(checkpoint, SPEC, 1)], False)  # type: ignore[arg-type]
    measure.start(plan)
    [sentence] = shown
    assert sentence == "Only the operator can measure the quality of a run; your role is viewer."


def test_a_deed_reads_the_settings_of_its_moment(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(runs_dir, "kept", state="stopped")
    settings.SECRETS_FILE.write_text('DIFFUSION_LAB_ROLE = "viewer"')
    with pytest.raises(NotAllowed):
        run_deeds.delete(Run(path))
    assert path.is_dir()
    settings.SECRETS_FILE.write_text('DIFFUSION_LAB_ROLE = "operator"')
    run_deeds.delete(Run(path))
    assert not path.exists()


def test_settings_that_cannot_be_read_allow_nothing() -> None:
    settings.SECRETS_FILE.write_text('DIFFUSION_LAB_ROLE = "operator')
    with pytest.raises(NotAllowed, match="cannot be read"):
        roles.check(Deed.START)


def test_viewers_change_their_own_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    assert roles.may(Deed.CHANGE_SERIES, own=True)
    assert not roles.may(Deed.DELETE_SERIES, own=True)


# ---------------------------------------------------------------- without a role in the settings

HERE = {"Host": "localhost:8501", "Origin": "http://localhost:8501"}


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`visit(headers, ip)`: the role of a visitor with this connection, where none was chosen."""
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")

    def role(headers: dict[str, str], ip: str | None = None) -> str:
        monkeypatch.setattr(roles, "get_script_run_ctx", lambda **_: object())
        context = SimpleNamespace(headers=headers, ip_address=ip)
        monkeypatch.setattr(st, "context", context)
        return roles.role()

    return role


@pytest.mark.parametrize(
    ("headers", "ip"),
    [
        (HERE, None),
        ({"Host": "127.0.0.1:8501"}, None),
        ({"Host": "[::1]:8501", "Origin": "http://[::1]:8501"}, "::ffff:127.0.0.1"),
        ({"Host": "LOCALHOST."}, "127.0.0.2"),
    ],
)
def test_a_visitor_from_this_machine_is_an_operator(
    headers: dict[str, str], ip: str | None, visit: Callable[..., str]
) -> None:
    assert visit(headers, ip) == "operator"


@pytest.mark.parametrize(
    ("headers", "ip"),
    [
        (HERE, "192.168.1.7"),
        (HERE, "::ffff:10.0.0.1"),
        ({}, None),
        ({"Host": ""}, None),
        ({"Host": "lab.example"}, None),
        ({"Host": "localhost.evil.example"}, None),
        ({"Host": "localhost@evil.example"}, None),
        ({"Host": "[::1"}, None),
        ({"Host": "0.0.0.0:8501"}, None),
        (HERE | {"Origin": "https://lab.example"}, None),
        (HERE | {"Origin": "null"}, None),
        *((HERE | {name: "127.0.0.1"}, None) for name in roles.OF_PROXIES),
    ],
)
def test_any_sign_of_another_machine_makes_a_viewer(
    headers: dict[str, str], ip: str | None, visit: Callable[..., str]
) -> None:
    assert visit(headers, ip) == "viewer"
    with pytest.raises(NotAllowed, match=r"set DIFFUSION_LAB_ROLE=operator on the server\.$"):
        roles.check(Deed.START)


def test_behind_a_unix_socket_everybody_comes_through_a_proxy(
    visit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "get_option", lambda name: "unix:///run/lab.sock")
    assert visit(HERE) == "viewer"


def test_a_thread_of_no_visitor_has_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    monkeypatch.setattr(roles, "get_script_run_ctx", lambda **_: None)
    assert not roles.may_operate()
