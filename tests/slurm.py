"""Stand-ins for Slurm: a script for `sbatch` is run as a job of the first of its machines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Without its own options the command is run here.
SRUN = """\
#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = """\
#!/bin/bash
case "$1 $2" in
"show hostnames") printf 'node-1\\nnode-2\\n' ;;
requeue*) echo "$2" >>"$REQUEUED" ;;
esac
"""


class Job:
    """A job script with what stands in for Slurm, in `folder`."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("job.sh", script)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def submit(self, settings: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Run the script, once more after it was requeued."""
        search = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_NODEID": "0"}
        own = {"PATH": search, "REQUEUED": str(self.folder / "requeued"), **slurm}
        return subprocess.Popen(
            ["bash", self.folder / "job.sh"], env={**os.environ, **own, **(settings or {})}
        )

    def requeued(self) -> list[str]:
        """The jobs that were put in the queue again."""
        file = self.folder / "requeued"
        return file.read_text().split() if file.exists() else []
