"""What a press of a button does with records saved by name: each asks first whether it is allowed.

All raise NotAllowed, SettingsError and OSError.
"""

from __future__ import annotations

from typing import Any

from dashboard.services import users
from dashboard.services.roles import Deed, NotAllowed, check, may_operate
from dashboard.services.settings import get_settings
from diffusion_core.saved import AnySaved, Saved, Shelf


def save(deed: Deed, shelf: Shelf[AnySaved], name: str, **values: Any) -> AnySaved:
    """Raises SaveError."""
    check(deed)
    taken = f"There is a {shelf.what} of this name by {{}}. Choose another name."
    _check_own(shelf, name.strip(), taken)
    return shelf.save(get_settings().runs_dir, name, users.name(), **values)


def delete(deed: Deed, shelf: Shelf[AnySaved], name: str) -> None:
    check(deed)
    not_own = f"This {shelf.what} was saved by {{}}, who can delete it, as operators can."
    _check_own(shelf, name, not_own)
    shelf.delete(get_settings().runs_dir, name)


def is_own(one: Saved) -> bool:
    """Whether the visitor may replace and delete it."""
    return may_operate() or one.by == users.name() != ""


def _check_own(shelf: Shelf[AnySaved], name: str, refusal: str) -> None:
    """Raise NotAllowed for another person's, unless an operator asks."""
    found, _ = shelf.read(get_settings().runs_dir)
    if name in found and not is_own(found[name]):
        raise NotAllowed(refusal.format(found[name].by or "an operator"))
