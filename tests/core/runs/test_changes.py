"""Settings changed after a run's start: which may, from when they hold, what a way back means."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.runs.changes import add_change, check_changes, read_changes, with_changes
from diffusion_core.runs.config import ConfigError
from tests.tiny_runs import tiny


def test_a_change_holds_from_its_step_on(tmp_path: Path) -> None:
    add_change(tmp_path, 5, {"learning_rate": 0.1})
    changes = add_change(tmp_path, 9, {"learning_rate": 0.2, "steps": 50})
    assert changes == read_changes(tmp_path)
    config = tiny(learning_rate=0.3, steps=20)
    rates = [with_changes(config, changes, step).learning_rate for step in (4, 5, 8, 9)]
    assert rates == [0.3, 0.1, 0.1, 0.2]
    assert with_changes(config, changes).steps == 50
    assert with_changes(config, changes, 0) == config


def test_a_change_made_after_a_way_back_takes_the_place_of_later_ones(tmp_path: Path) -> None:
    add_change(tmp_path, 5, {"sample_every": 3})
    add_change(tmp_path, 20, {"learning_rate": 0.1, "steps": 50})
    changes = add_change(tmp_path, 10, {"learning_rate": 0.2})
    assert [(change.step, change.settings) for change in changes] == [
        (5, {"sample_every": 3}),
        (10, {"learning_rate": 0.2}),
        (20, {"steps": 50}),
    ]


def test_what_makes_another_run_of_it_cannot_change() -> None:
    with pytest.raises(ConfigError, match="seed cannot change in a run; start a new one"):
        check_changes(tiny(), {"seed": 3, "learning_rate": 0.1})
    with pytest.raises(ConfigError, match="learning_rate is -1; it must be more than 0 and less"):
        check_changes(tiny(), {"learning_rate": -1})
    with pytest.raises(ConfigError, match="learning_rate is 'fast'; it must be a number"):
        check_changes(tiny(), {"learning_rate": "fast"})
    assert check_changes(tiny(), {"sample_every": 7}).sample_every == 7


def test_a_run_without_changes_has_none(tmp_path: Path) -> None:
    assert read_changes(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", '{"changes": [{"step": 1}]}', '{"changes": 3}'])
def test_a_damaged_file_gets_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "changes.json").write_text(text)
    with pytest.raises(ConfigError, match=r"changes\.json(: .*| is not readable JSON)\."):
        read_changes(tmp_path)
