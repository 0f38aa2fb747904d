"""The environment that has the peers: our own packages, and theirs beside them."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")


def prepare(folder: Path) -> str:
    """The Python of an environment at `folder` with the peers; made and filled where needed.

    It sees the packages of the environment that runs this, so that torch is the same and is not
    installed again. Raises RuntimeError where pip fails.
    """
    wanted = f"{sysconfig.get_path('purelib')}\n{REQUIREMENTS.read_text()}"
    python = folder / ("Scripts" if sysconfig.get_platform().startswith("win") else "bin")
    python /= "python"
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    venv.create(folder)
    ours = sysconfig.get_path("purelib")
    theirs = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    Path(theirs, "ours.pth").write_text(f"{ours}\n")
    install = [str(python), "-m", "pip", "install", "-r", str(REQUIREMENTS)]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The peers could not be installed: {done.stderr.strip()[-500:]}")
    stamp.write_text(wanted)
    return str(python)
