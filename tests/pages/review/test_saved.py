"""Saved views: by name, for everybody, opened as a link would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from dashboard.review import saved
from dashboard.review.link import address_of, open_address
from dashboard.services import users
from dashboard.services.roles import NotAllowed
from dashboard.ui import controls, keys
from dashboard.ui.controls import Choice, Control, MultiChoice, Number, Range, Text, Toggle
from diffusion_core.review.saved_views import read_views, save_view
from tests.pages.app import buttons, open_page, press, words
from tests.tiny_runs import write_run

ADDRESS = {"filter": ["step >= 0"], "runs": ["one", "deleted"], "columns": ["seed"]}


def test_a_view_is_saved_opened_and_deleted(runs_dir: Path) -> None:
    write_run(runs_dir, "one")
    app = open_page("review.py", filter="step >= 0", runs="one", columns="seed")
    app.text_input(key=keys.VIEW_NAME).set_value("  Wheels  ")
    press(app, "Save this view")
    view = read_views(runs_dir).views["Wheels"]
    assert view.address == ADDRESS | {"runs": ["one"]}

    app = open_page("review.py", search="x", group="seed")
    press(app, "Wheels")
    assert app.text_input(key="search").value == ""
    assert app.text_input(key="filter").value == "step >= 0"
    assert app.multiselect(key="runs").value == ["one"]
    assert app.multiselect(key="columns").value == ["seed"]
    assert app.selectbox(key="group").value == ""

    press(app, ":material/delete:")
    assert read_views(runs_dir).views == {}
    assert "No view is saved yet." in words(app)


def test_a_viewer_opens_views_and_saves_none(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "one")
    save_view(runs_dir, "Wheels", ADDRESS)
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_page("review.py")
    assert "Save this view" not in buttons(app)
    press(app, "Wheels")
    assert app.multiselect(key="runs").value == ["one"]


def test_only_who_has_saved_a_view_and_operators_replace_and_delete_it(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "one")
    save_view(runs_dir, "Wheels", ADDRESS, by="ann@lab.org")
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setattr(users, "user", lambda: users.User("key", "eve", "eve@lab.org"))
    saved.save("Mine", {})
    saved.save("Mine", {"search": ["x"]})
    with pytest.raises(NotAllowed, match=r"by ann@lab.org. Choose another name"):
        saved.save(" Wheels ", {})
    with pytest.raises(NotAllowed, match=r"saved by ann@lab.org"):
        saved.delete("Wheels")
    saved.delete("Mine")
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "operator")
    saved.delete("Wheels")
    assert read_views(runs_dir).views == {}


def test_a_view_without_a_name_is_refused_and_one_that_cannot_be_read_is_named(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "one")
    app = press(open_page("review.py"), "Save this view")
    assert "Give the view a name" in words(app)
    save_view(runs_dir, "Wheels", ADDRESS)
    [path] = (runs_dir / ".views").iterdir()
    path.write_text('{"name": "x", "address": {"a": 1}}')
    assert "A saved view is skipped" in words(open_page("review.py"))


def test_every_kind_of_control_is_the_same_after_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Text(key="text", label="")
    values: list[tuple[Control, Any]] = [
        (Choice(key="choice", label="", options=(16, 32), titles={32: "thirty-two"}), 32),
        (Number(key="whole", label="", low=0, high=9), 7),
        (Number(key="real", label="", low=0.0, high=1.0), 0.25),
        (Number(key="empty", label="", low=1, high=9, default=3, optional=True), None),
        (Range(key="range", label="", low=0, high=9), (2, 5)),
        (Toggle(key="toggle", label=""), True),
        (text, "a & b=ü"),
        (MultiChoice(key="many", label="", one=text, options=(1, 2), most=2), [2]),
    ]
    all_kinds = {control for control in vars(controls).values() if _is_kind(control)}
    assert {type(control) for control, _ in values} == all_kinds
    state = {control.key: value for control, value in values}
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(st, "query_params", {})
    page = [control for control, _ in values]
    address = address_of(page)
    state |= dict.fromkeys(state, "something else")
    open_address(address, page)
    assert state == {control.key: value for control, value in values}


def _is_kind(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Control) and thing is not Control
