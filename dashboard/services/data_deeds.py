"""What a page does to data sets: the deed is checked first, then the core does it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import IO

from dashboard.services import users
from dashboard.services.roles import Deed, check
from diffusion_core.data import uploaded

_log = logging.getLogger(__name__)


def upload(archive: IO[bytes], name: str, progress: Callable[[int, int], object]) -> str:
    """Returns the spec of the new set. Raises ArchiveError, DataError, NotAllowed, OSError."""
    check(Deed.UPLOAD_DATA)
    made = uploaded.take(archive, name, progress)
    _log.info("data set uploaded", extra={"data": made.path.name, "by": users.name()})
    return f"uploaded:{made.path.name}"


def delete(name: str) -> None:
    """Raises DataError, NotAllowed, OSError."""
    check(Deed.DELETE_DATA)
    uploaded.delete(name)
    _log.info("data set deleted", extra={"data": name, "by": users.name()})
