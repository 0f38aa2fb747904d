"""What a killed process leaves on its way to a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_core.files import building_folder, remove_leftovers, replacing

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


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power leaves the old file or the new one, and after the return the new one."""
    done = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        sync(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        done.append("file" if name.endswith(".tmp") else name)

    def renamed(old: Path, new: Path) -> None:
        rename(old, new)
        done.append("renamed")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "rename", renamed)
    with replacing(tmp_path / "a") as file:
        file.write(b"a")
    assert done == ["file", "renamed", tmp_path.name]
    done.clear()
    with building_folder(tmp_path / "b") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "c").write_bytes(b"c")
    assert done == ["c", "file", "inner", "renamed", tmp_path.name]
