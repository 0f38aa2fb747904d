"""The tab History of a run: what was done, by whom, and what is shown of a name from outside."""

from __future__ import annotations

from pathlib import Path

from dashboard.services import run_deeds
from diffusion_core.runs.history import FILE, Event, read_history, record
from diffusion_core.runs.run import Run
from tests.pages.app import press, words
from tests.pages.training.test_training import open_training, write_run

TWO_RATES = {"learning_rate": (2e-4, 1e-4), "steps": (400, 9000)}


def test_what_was_done_is_listed_with_the_newest_first(runs_dir: Path) -> None:
    path = write_run(runs_dir, "mine")
    record(path, Event.STARTED, "ann@lab.org")
    record(path, Event.CHANGED, "bob", settings=TWO_RATES)
    record(path, Event.EXPORTED, "", format="csv")
    shown = words(open_training(more="History"))
    places = [
        shown.index("- Exported, 20"),
        shown.index("- Changed by bob, 20"),
        shown.index("- Started by ann@lab.org, 20"),
    ]
    assert places == sorted(places)
    assert ": learning rate 0.0002 → 0.0001, steps 400 → 9,000\n" in shown


def test_a_deed_on_the_page_without_a_login_has_no_name(runs_dir: Path) -> None:
    path = write_run(runs_dir, "busy", "running")
    press(open_training(), "Pause")
    [line] = filter(None, (path / FILE).read_text().splitlines())
    assert '"event":"pause"' in line and '"by"' not in line


def test_an_export_is_in_the_history_of_the_run_unless_a_viewer_has_asked(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "mine"))
    assert run_deeds.export(run, "csv", "ann@lab.org") == run_deeds.export(run, "csv", None)
    [entry] = read_history(run.path).entries
    assert (entry.event, entry.by, entry.format) == ("exported", "ann@lab.org", "csv")


def test_a_name_from_outside_is_code_and_cut_short(runs_dir: Path) -> None:
    record(write_run(runs_dir, "mine"), Event.STARTED, "![x](http://x/y.png)" + "w" * 200)
    [line] = [m.value for m in open_training(more="History").markdown if "Started by" in m.value]
    name = line.split("`")[1]
    assert name.startswith("![x](http://x/y.png)w") and len(name) == 81 and name.endswith("…")


def test_a_run_of_an_earlier_version_has_none_and_a_broken_one_a_reason(runs_dir: Path) -> None:
    path = write_run(runs_dir, "mine")
    assert "Not recorded for this run." in words(open_training(more="History"))
    (path / FILE).write_text('{"time": 1, "event": "moved"}\n[]\n')
    shown = words(open_training(more="History"))
    assert "The history cannot be read in full. history.jsonl: it is a list; it must be" in shown
    assert "- Moved in the queue, 1970-01-01" in shown


def test_of_many_deeds_the_newest_are_shown(runs_dir: Path) -> None:
    path = write_run(runs_dir, "mine")
    for number in range(60):
        record(path, Event.MOVED, f"person-{number}")
    shown = words(open_training(more="History"))
    assert shown.count("Moved in the queue") == 50 and "person-59" in shown
    assert "Older entries are in history.jsonl in the run folder." in shown
