"""The settings in which runs differ: only those, in one order, with what was changed on the way."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.review.differences import differences, differing, settings_in
from diffusion_core.review.index import read_row, settings_of
from diffusion_core.runs.changes import add_change
from diffusion_core.runs.run import Run
from tests.tiny_runs import LECTURE, TINY, write_run


def test_only_what_differs_in_the_order_of_the_settings(runs_dir: Path) -> None:
    other = TINY.replace(
        seed=3, schedule={"kind": "linear", "timesteps": 20}, ema_decays={"long": 0.999}
    )
    paths = [write_run(runs_dir, "a"), write_run(runs_dir, "b", config=other)]
    found = differences([Run(path).snapshot() for path in paths])
    assert [(each.name, each.values) for each in found] == [
        ("schedule.kind", ("cosine", "linear")),
        ("seed", (0, 3)),
        ("ema_decays.long", (None, 0.999)),
    ]
    assert differences([Run(paths[0]).snapshot()] * 2) == []


def test_a_default_that_is_written_out_is_no_difference() -> None:
    written = TINY.replace(schedule={"kind": "cosine", "timesteps": 20, "beta_end": 0.02})
    assert differing([settings_of(TINY), settings_of(written)]) == []


def test_a_setting_that_one_network_lacks_differs() -> None:
    found = differing([settings_of(TINY), settings_of(LECTURE)])
    assert "network" in found and "network_args.blocks" in found


def test_changes_on_the_way_are_told(runs_dir: Path) -> None:
    paths = [write_run(runs_dir, name) for name in ("as-begun", "changed")]
    add_change(paths[1], 120, {"learning_rate": 1e-4})
    add_change(paths[1], 200, {"learning_rate": 1e-3})  # as the other one again
    [found] = differences([Run(path).snapshot() for path in paths])
    assert found.name == "learning_rate"
    assert found.texts() == ["0.001", "0.001, from step 120: 0.0001, from step 200: 0.001"]
    both = [Run(paths[1]).snapshot()] * 2
    assert differences(both) == []


def test_texts_of_different_values_differ(runs_dir: Path) -> None:
    decays = (0.9999999, 0.99999991)
    runs = [
        Run(write_run(runs_dir, str(decay), config=TINY.replace(ema_decay=decay)))
        for decay in decays
    ]
    [found] = differences([run.snapshot() for run in runs])
    assert found.texts() == ["0.9999999", "0.99999991"]


def test_a_damaged_run_has_no_settings_and_hides_none(runs_dir: Path) -> None:
    paths = [write_run(runs_dir, name) for name in ("a", "damaged", "c")]
    (paths[1] / "config.json").write_text("{")
    assert differences([Run(path).snapshot() for path in paths]) == []
    write_run(runs_dir, "d", config=TINY.replace(seed=1))
    paths.append(runs_dir / "d")
    [found] = differences([Run(path).snapshot() for path in paths])
    assert found.texts() == ["0", "none", "0", "1"]


def test_the_settings_of_a_row_are_those_of_its_run(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "run"))
    settings = settings_in(read_row(run).values)
    assert {"steps", "network_args.widths"} <= settings.keys()
    assert not {"step", "state", "images", "device"} & settings.keys()
    assert differing([settings, settings_of(TINY)]) == []
