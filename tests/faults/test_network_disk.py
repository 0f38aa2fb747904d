"""A run on a network disk: its numbers take no memory that other machines would have to share.

A mounted disk in memory counts as one here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from diffusion_core import disks
from diffusion_core.disks import on_network_disk
from diffusion_core.runs import metrics
from diffusion_core.runs.metrics import MetricsWriter, read_last
from tests.faults.disks import Disk, need_mounted


@pytest.fixture
def network(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on it."""
    need_mounted(disk, "it stands in for a network disk.")
    assert not on_network_disk(disk.path)
    monkeypatch.setattr(disks, "NETWORK", disks.NETWORK | {"tmpfs"})
    disks._is_network.cache_clear()
    (disk.path / "run").mkdir()
    yield disk.path / "run"
    disks._is_network.cache_clear()


def mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_is_on_the_disk_that_is_mounted_nearest_above_it(
    network: Path, tmp_path: Path
) -> None:
    assert on_network_disk(network) and on_network_disk(network.parent)
    (tmp_path / "link").symlink_to(network)
    assert on_network_disk(tmp_path / "link")
    assert not on_network_disk(network / "nowhere")


def test_numbers_on_a_network_disk_are_written_and_read_without_shared_memory(
    network: Path,
) -> None:
    path = network / "metrics.sqlite"
    writer = MetricsWriter(path)
    for step in range(1, 4):
        writer.add([(step, "loss", 0.5, 1.0)])
        writer.commit()
        assert read_last(path) == {"loss": (step, 0.5)}
        assert files(network) == ["metrics.sqlite"]
    writer.close()
    assert read_last(path) == {"loss": (3, 0.5)}


def test_a_killed_run_that_is_moved_to_a_network_disk_keeps_its_numbers(
    network: Path, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.sqlite"
    writer = MetricsWriter(path)
    writer.add([(1, "loss", 0.5, 1.0)])
    writer.commit()
    for name in ("metrics.sqlite", "metrics.sqlite-wal"):  # as they are without a close
        (network / name).write_bytes((tmp_path / name).read_bytes())
    writer.close()
    moved = MetricsWriter(network / "metrics.sqlite", keep_up_to_step=1)
    moved.add([(2, "loss", 0.25, 2.0)])
    moved.commit()
    assert files(network) == ["metrics.sqlite"]
    assert read_last(moved.path) == {"loss": (2, 0.25)}
    moved.close()


def test_a_reader_over_the_network_leaves_the_memory_of_the_writer_alone(network: Path) -> None:
    path = network / "metrics.sqlite"
    # The writer is on the machine that has the disk.
    with closing(metrics._opened(path, wal=True)) as writer:
        writer.execute("INSERT INTO scalars VALUES (1, 'loss', 0.5, 1.0)")
        writer.commit()
        before = (network / "metrics.sqlite-shm").read_bytes()
        assert read_last(path) == {"loss": (1, 0.5)}
        assert (network / "metrics.sqlite-shm").read_bytes() == before


def test_a_disk_that_turns_out_to_have_no_shared_memory_gets_the_older_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoSharedMemory(sqlite3.Connection):
        """As on a FUSE disk with direct_io: the setting is accepted and the next look fails."""

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "sqlite_schema" in sql:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorname = "SQLITE_IOERR_SHMMAP"
                raise error
            return super().execute(sql, *values)

    path, connect = tmp_path / "metrics.sqlite", sqlite3.connect
    monkeypatch.setattr(
        metrics.sqlite3, "connect", lambda *a, **k: connect(*a, factory=NoSharedMemory, **k)
    )
    writer = MetricsWriter(path)
    writer.add([(1, "loss", 0.5, 1.0)])
    writer.commit()
    monkeypatch.undo()
    assert mode(path) == "delete"
    assert read_last(path) == {"loss": (1, 0.5)}
    writer.close()
