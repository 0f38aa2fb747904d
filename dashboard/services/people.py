"""The names under which visitors write remarks and vote; each stands for one person.

Who is signed in has the verified address. Every other name ends in a mark such as
`#8c1f0a2b5d3e4f60`, made from a secret of the person's browser, so nobody can write under the name
of another.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata

from dashboard.services.users import User
from diffusion_core.runs.remarks import MARK, shown_name
from diffusion_core.text import visible

__all__ = [
    "MARK",
    "BadName",
    "check_name",
    "is_address",
    "name_of_guest",
    "name_of_user",
    "shown_name",
]

LONGEST = 40  # characters of a name that is typed
SECRET = re.compile("[0-9a-f]{32}")


class BadName(ValueError):
    """A name that nobody can have here; the message says why."""


def check_name(text: str) -> str:
    """A name that somebody has typed, as it is kept. Raises BadName."""
    name = visible(" ".join(text.split()))
    if not name:
        raise BadName("Type a name.")
    if len(name) > LONGEST:
        raise BadName(f"The name has {len(name)} characters; use at most {LONGEST}.")
    # Also what only looks like them: an address is that of somebody who is signed in.
    if {"@", "#"} & set(unicodedata.normalize("NFKC", name)):
        raise BadName("A name must be without @ and #.")
    return name


def name_of_guest(name: str, secret: str) -> str:
    """The name of somebody who is not signed in, from what `check_name` and SECRET allow."""
    return f"{name} #{_mark(f'browser {secret}')}"


def name_of_user(user: User) -> str:
    """The name of somebody who is signed in."""
    if user.address:
        return user.address
    name = re.sub("[@#]", " ", unicodedata.normalize("NFKC", visible(user.name)))
    name = " ".join(name.split())[:LONGEST] or "Somebody"
    return f"{name} #{_mark(f'provider {user.key}')}"


@functools.lru_cache(maxsize=1024)
def _mark(secret: str) -> str:
    """Slow on purpose: pages show half of it, which must not be found by trying secrets."""
    key = hashlib.scrypt(secret.encode(), salt=b"diffusion-lab", n=2**14, r=8, p=1, dklen=8)
    return key.hex()


def is_address(name: str) -> bool:
    """Whether a name is the address of somebody who is signed in."""
    return "@" in name
