"""Errors that explain themselves, and those that nobody has foreseen."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).parent
PREFIX = "diffusion-lab-"  # of the files with tracebacks


def explains_itself(error: BaseException) -> bool:
    """Whether the message of an error is a sentence of this project, for people to read.

    It is where the class is ours, or where our own code raised a plain ValueError.
    """
    if type(error).__module__.partition(".")[0] == HERE.name:
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return type(error) is ValueError and bool(frames) and HERE in Path(frames[-1].filename).parents


def keep_traceback(error: BaseException) -> str:
    """Write the traceback of an error to a new file; returns its path, "" where that fails."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=PREFIX, suffix=".log", delete=False, errors="backslashreplace"
        ) as log:
            log.writelines(traceback.format_exception(error))
    except OSError:
        return ""
    return log.name
