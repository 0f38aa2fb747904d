"""What a killed process leaves on its way to a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from diffusion_core.files import remove_leftovers

GONE = 99_999_999  # more than any process has as its number


def test_leftovers_are_removed_files_and_folders_but_nothing_that_is_being_written(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    below = run / "drawings"
    (below / f".many.{GONE}-1.tmp" / "pictures").mkdir(parents=True)
    (below / f".many.{GONE}-1.tmp" / "order.json").write_text("{}")
    (run / f".status.json.{GONE}-1.tmp").write_text("half")
    (run / f".request.json.{GONE}-1.tmp").write_text("half")
    (run / "status.json").write_text("{}")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        written = run / f".result.json.{other.pid}-1.tmp"
        written.write_text("half")
        remove_leftovers(run, but="request.json")
        assert sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) == [
            f".request.json.{GONE}-1.tmp",
            written.name,
            "drawings",
            "status.json",
        ]
        other.communicate(b"\n")
    remove_leftovers(run, but="request.json")
    assert not written.exists()
