"""Who presents a page to others: its address, kept in this server's memory.

Another server does not know it, and it ends with the presenter's session.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from streamlit import runtime

from dashboard.services import roles
from dashboard.services.roles import Deed

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without those that are taken for others
MOST = 50  # presentations at a time
# A reload of the page has a moment in which its old session is over already.
GRACE_SECONDS = 5.0

Address = Mapping[str, Sequence[str]]


class PresentingError(ValueError):
    """What cannot be presented; the message says why."""


@dataclass(frozen=True)
class Presentation:
    code: str
    by: str
    session: str  # Streamlit's name of the presenter's
    address: Address = field(default_factory=dict)  # the settings of the page as a link has them
    changes: int = 0  # how often these have changed
    seen: float = 0.0  # when the session was last there


clock = time.monotonic
_presentations: dict[str, Presentation] = {}  # by their codes
_lock = threading.Lock()


def begin(by: str, session: str) -> Presentation:
    """Raises NotAllowed, PresentingError."""
    roles.check(Deed.PRESENT)
    with _lock:
        _forget_ended()
        if len(_presentations) >= MOST:
            raise PresentingError(f"{MOST} people are presenting; wait until one has ended.")
        code = _new_code()
        found = Presentation(code, by, session, seen=clock())
        _presentations[code] = found
        return found


def show(code: str, session: str, address: Address) -> None:
    """The presenter's page has these settings now."""
    with _lock:
        now = _presentations.get(code)
        if now is not None and now.session == session and now.address != address:
            _presentations[code] = replace(now, address=address, changes=now.changes + 1)


def end(code: str, session: str) -> None:
    with _lock:
        if (found := _presentations.get(code)) is not None and found.session == session:
            del _presentations[code]


def find(code: str) -> Presentation | None:
    """None where it has ended."""
    with _lock:
        _forget_ended()
        return _presentations.get(code.upper())


def every() -> list[Presentation]:
    with _lock:
        _forget_ended()
        return list(_presentations.values())


def _forget_ended() -> None:
    now = clock()
    for code, each in list(_presentations.items()):
        if _is_there(each.session):
            _presentations[code] = replace(each, seen=now)
        elif now - each.seen > GRACE_SECONDS:
            del _presentations[code]


def _is_there(session: str) -> bool:
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def _new_code() -> str:
    while (code := "".join(secrets.choice(LETTERS) for _ in range(4))) in _presentations:
        pass
    return code
