"""A disk that can be full or read-only: a real one of a few MB where this process may mount one.

Where it may not, a limit on the size of files stands in for the full disk: the same calls fail.
"""

from __future__ import annotations

import os
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# Of a file, where the limit stands in: enough for a status, not for a checkpoint.
LIMIT = 16_384


@dataclass(frozen=True)
class Disk:
    """A folder on a small disk. `pid`: of the process that is to find it full."""

    path: Path
    mounted: bool

    def fill(self, pid: int) -> None:
        """Leave not a byte free."""
        if not self.mounted:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LIMIT, hard))
            return
        file = os.open(self.path / "filling", os.O_WRONLY | os.O_CREAT)
        try:
            for size in (65_536, 4096, 1):
                self._write_all(file, size)
        finally:
            os.close(file)

    def free(self, pid: int) -> None:
        """Give the space back."""
        if self.mounted:
            (self.path / "filling").unlink()
        else:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def make_read_only(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,ro", self.path], check=True)
        else:
            for folder in [self.path, *(p for p in self.path.rglob("*") if p.is_dir())]:
                folder.chmod(0o555)

    @staticmethod
    def _write_all(file: int, size: int) -> None:
        block = bytes(size)
        try:
            while True:
                os.write(file, block)
        except OSError:
            return


def need_mounted(disk: Disk, why: str) -> None:
    """Leave a test out where root may not mount a disk; where CI runs it must."""
    if disk.mounted:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"A mounted disk is needed: {why}")
    pytest.skip(why)


def mount(path: Path, megabytes: int) -> Disk:
    """A disk of that size at `path`, which is made."""
    path.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True)
        return Disk(path, mounted=done.returncode == 0)
    except FileNotFoundError:
        return Disk(path, mounted=False)


def unmount(disk: Disk) -> None:
    if disk.mounted:
        subprocess.run(["umount", "--lazy", disk.path], check=True)
        return
    for folder in [disk.path, *(p for p in disk.path.rglob("*") if p.is_dir())]:
        folder.chmod(0o755)
