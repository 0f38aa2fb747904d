"""Saved views are files beside the runs: any name, any process, and nothing of it is a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffusion_core.review import saved_views
from diffusion_core.review.saved_views import delete_view, read_views, save_view
from diffusion_core.runs.run import list_runs
from diffusion_core.saved import SaveError


def test_views_are_kept_by_name_whatever_its_letters(runs_dir: Path) -> None:
    names = ["b", "A", "a", "../x", "süß / 車", "x" * 60]
    for name in names:
        save_view(runs_dir, f" {name} ", {"filter": [name]}, by="ann")
    save_view(runs_dir, "b", {"filter": ["again"]})
    found = read_views(runs_dir)
    assert sorted(found.views) == sorted(names)
    assert found.views["b"].address == {"filter": ["again"]}
    assert not found.problems
    assert not list_runs(runs_dir)
    assert not (runs_dir.parent / "x.json").exists()
    for name in [*names, "never there"]:
        delete_view(runs_dir, name)
    assert read_views(runs_dir).views == {}


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        (" ", {}, "Give the view a name"),
        ("a\nb", {}, "Give the view a name"),
        ("x" * 61, {}, "name"),
        ("x", {"k": ["y" * 5000]}, "address"),
        ("x", {str(k): [] for k in range(101)}, "address"),
    ],
)
def test_what_cannot_be_a_view_is_refused(
    name: str, address: dict[str, list[str]], said: str, runs_dir: Path
) -> None:
    with pytest.raises(SaveError, match=said):
        save_view(runs_dir, name, address)
    assert not read_views(runs_dir).views


def test_the_number_of_views_is_bounded(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_views, "SHELF", replace(saved_views.SHELF, most=1))
    save_view(runs_dir, "one", {})
    save_view(runs_dir, "one", {"a": ["b"]})
    with pytest.raises(SaveError, match="Delete one first"):
        save_view(runs_dir, "two", {})


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"name": "x", "address": {"a": "b"}})])
def test_a_file_that_cannot_be_read_is_named_and_the_others_stay(text: str, runs_dir: Path) -> None:
    save_view(runs_dir, "one", {})
    (runs_dir / ".views" / "odd.json").write_text(text)
    found = read_views(runs_dir)
    assert list(found.views) == ["one"]
    [problem] = found.problems
    assert "odd.json" in problem
