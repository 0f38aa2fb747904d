"""Every odd run folder at once: the pages, the list and the queue say so, and lose no other."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard.ui.navigation import FOLDER
from diffusion_core.cli.main import main
from diffusion_core.runs import jobs
from diffusion_core.runs.status import RunState, read_status
from tests.odd_runs import ODD, UNREADABLE, bound_by_permissions, write_odd_run
from tests.pages.app import open_page
from tests.tiny_runs import write_run

PAGES = sorted(path.name for path in FOLDER.glob("*.py"))


class Started:
    """In place of a process that is started: this one."""

    pid = os.getpid()
    count = 0

    def __init__(self, *_: object, **__: object) -> None:
        Started.count += 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of every odd kind and a whole one."""
    runs_dir = tmp_path_factory.mktemp("runs")
    for k, (spoil, _) in enumerate(UNREADABLE.values()):
        write_odd_run(runs_dir, f"unreadable-{k}", spoil, created=1e9)
    for k, spoil in enumerate(ODD.values()):
        write_odd_run(runs_dir, f"odd-{k}", spoil, created=1e9)
    write_run(runs_dir, "whole", 40, created=2e9)
    return runs_dir


@pytest.fixture
def odd_runs(made: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The reasons that are to be said, by the name of the run."""
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(made))
    return {f"unreadable-{k}": reason for k, (_, reason) in enumerate(UNREADABLE.values())}


def test_the_list_names_every_reason(odd_runs: dict[str, str], capsys) -> None:
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if " finished " in line]) > len(ODD)
    assert not any("1970" in line for line in lines)  # of a run that says no time
    for name, reason in odd_runs.items():
        assert any(line.startswith(f"{name} cannot be read in full: {reason}") for line in lines)
    curves = sum(" cannot be read in full: metrics.sqlite " in line for line in lines)
    assert curves == sum("metrics" in kind for kind in ODD)
    assert len(lines) == 1 + 2 * len(UNREADABLE) + len(ODD) + 1 + curves


def test_the_training_page_names_every_reason(odd_runs: dict[str, str]) -> None:
    page = open_page("training.py", run="whole")
    table = page.dataframe[0].value.set_index("Run")
    for name, reason in odd_runs.items():
        assert str(table.loc[name, "Problem"]).startswith(reason)
    assert table.loc["whole", "Problem"] == "" and len(table) == len(UNREADABLE) + len(ODD) + 1


@pytest.mark.parametrize("page", [page for page in PAGES if page != "training.py"])
def test_the_other_pages_are_whole(page: str, odd_runs: dict[str, str]) -> None:
    assert not open_page(page, run="whole").exception


@pytest.mark.parametrize("page", ["home.py", "training.py", "sampling.py", "unet.py"])
def test_a_folder_without_permission_takes_no_page_down(page: str, runs_dir: Path) -> None:
    write_run(runs_dir, "whole", 40, created=1.0)
    write_odd_run(runs_dir, "closed", lambda run: run.chmod(0), created=2.0)
    with bound_by_permissions():
        shown = open_page(page, run="closed")
    assert not shown.exception
    if page == "training.py":
        [said] = [w.value for w in shown.warning if "cannot be read in full" in w.value]
        assert said.startswith("`closed` ") and said.endswith("Permission denied.")


@pytest.fixture(params=["closed", "file"])
def unlisted(request: pytest.FixtureRequest, runs_dir: Path) -> Iterator[str]:
    """Why the runs in the folder cannot be listed."""
    write_run(runs_dir, "whole", 40)
    if request.param == "closed":
        runs_dir.chmod(0)
    else:
        runs_dir.rename(runs_dir.with_name("elsewhere"))
        runs_dir.write_text("no folder")
    with bound_by_permissions():
        yield {
            "closed": "cannot be read: Permission denied.",
            "file": "is a file; the runs need a folder.",
        }[request.param]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("unlisted", ["closed"], indirect=True)
def test_a_folder_of_runs_that_cannot_be_read_is_said_on_every_page(
    page: str, unlisted: str
) -> None:
    shown = open_page(page)
    assert [said.value for said in shown.error] == [f"The runs folder {unlisted}"]


@pytest.mark.parametrize("words", ["runs", "queue", "queue up whole", "restore whole"])
def test_a_folder_of_runs_that_cannot_be_read_is_said_by_every_command(
    words: str, unlisted: str, runs_dir: Path, capsys
) -> None:
    assert main(words.split()) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"{runs_dir} {unlisted}"


def test_the_queue_starts_the_run_that_waits_among_them(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", Started)
    monkeypatch.setattr(Started, "count", 0)
    wait: dict[str, Any] = {"state": "queued", "host": socket.gethostname(), "device": "cpu"}
    write_odd_run(runs_dir, "log", ODD["pipe as train.log"], queued_at=1.0, **wait)
    write_odd_run(runs_dir, "settings", UNREADABLE["deep"][0], queued_at=2.0, **wait)
    write_run(runs_dir, "whole", 40, queued_at=3.0, **wait)
    jobs.start_next(runs_dir)
    said = {name: read_status(runs_dir / name).error for name in ("log", "settings", "whole")}
    assert said == {
        "log": "log cannot be started: train.log is not a file.",
        "settings": "settings cannot be started: config.json is not readable JSON.",
        "whole": "",
    }
    assert Started.count == 1 and read_status(runs_dir / "whole").state == RunState.STARTING
