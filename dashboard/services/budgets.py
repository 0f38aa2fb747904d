"""What one visitor may use: the rule for the deed, and what the page says before it.

Viewers have budgets, operators only those that are set. A budget is the visitor's (see `visitors`),
and an hour begins with the first use after the one before. A new server begins with none used.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from dashboard.services import roles
from dashboard.services.settings import Settings

HOUR = 3600.0


class OverBudget(RuntimeError):
    """More than the visitor may use; the message says the limit, what is left and until when."""


@dataclass(frozen=True)
class Limits:
    """None: without limit."""

    evaluations_each: int | None = None  # of the network, in a request
    evaluations: int | None = None  # of the network, an hour
    series: int | None = None  # of one visitor, at a time
    series_hours: int | None = None  # until a series is deleted
    upload_mb: int | None = None  # of image files, an hour
    upload_megapixels: int | None = None  # decoded, an hour
    reports: int | None = None  # made as a file, an hour
    remarks: int | None = None  # written, edited and deleted, and votes, an hour


# At 10 ms an evaluation (preset `small`, 64 x 64, two cores) the hour's are 20 minutes of a device,
# and a request's 7: the lecture's DDPM of 300 steps with guidance for 64 images.
VIEWERS = Limits(
    evaluations_each=40_000,
    evaluations=120_000,
    series=5,
    series_hours=24,
    upload_mb=128,
    upload_megapixels=500,
    reports=60,
    remarks=2000,  # a room of reviewers may share an address
)


class Budget(StrEnum):
    """What is counted by the hour; the value is the unit in a sentence."""

    EVALUATIONS = "network evaluations"
    UPLOAD_BYTES = "MB of image files"
    PIXELS = "megapixels of images"
    REMARKS = "remarks and votes"
    REPORTS = "reports"


@dataclass
class _Used:
    amount: float
    until: float  # of the clock, when the hour is over


clock = time.monotonic
_used: dict[tuple[Budget, str], _Used] = {}
_lock = threading.Lock()


def limits(settings: Settings) -> Limits:
    """Those of the role, where the settings give no others."""
    usual = Limits() if roles.operates(settings) else VIEWERS
    return Limits(
        settings.max_evaluations or usual.evaluations_each,
        settings.hourly_evaluations or usual.evaluations,
        settings.max_series or usual.series,
        settings.series_hours or usual.series_hours,
        settings.hourly_upload_mb or usual.upload_mb,
        settings.hourly_upload_megapixels or usual.upload_megapixels,
        settings.hourly_reports or usual.reports,
        settings.hourly_remarks or usual.remarks,
    )


def left(budget: Budget, who: str, settings: Settings) -> tuple[float, int] | None:
    """What a visitor has left of an hour's, and the hour's; None without limit."""
    hourly = _hourly(budget, limits(settings))
    if hourly is None:
        return None
    with _lock:
        return max(0.0, hourly - _now(budget, who).amount), hourly


def refusal(budget: Budget, who: str, amount: float, settings: Settings) -> str:
    """Why a request of so much would be refused now, in a sentence; empty where it would not."""
    with _lock:
        return _refusal(budget, _now(budget, who), amount, limits(settings))


def charge(budget: Budget, who: str, amount: float, settings: Settings) -> None:
    """Count a request as used. Raises OverBudget, and counts nothing, where it is refused."""
    with _lock:
        used = _now(budget, who)
        if sentence := _refusal(budget, used, amount, limits(settings)):
            raise OverBudget(sentence)
        used.amount += amount
        _used[budget, who] = used


@contextmanager
def charged(
    amounts: Mapping[Budget, float], who: str, settings: Settings, refused: type[Exception]
) -> Iterator[None]:
    """Count the amounts as used, unless the block raises `refused`. Raises OverBudget."""
    counted = []
    try:
        for budget, amount in amounts.items():
            charge(budget, who, amount, settings)
            counted.append(budget)
        yield
    except (OverBudget, refused):
        with _lock:
            for budget in counted:
                _now(budget, who).amount -= amounts[budget]
        raise


def evaluations_sentence(who: str, settings: Settings) -> str:
    """What is said beside a button that samples; empty without limits."""
    each, found = limits(settings).evaluations_each, left(Budget.EVALUATIONS, who, settings)
    parts = []
    if each is not None:
        parts.append(f"at most {each:,} per request")
    if found is not None:
        parts.append(f"{found[0]:,.0f} of {found[1]:,} left this hour")
    return f"{Budget.EVALUATIONS.capitalize()}: {', '.join(parts)}." if parts else ""


def uploads_sentence(who: str, settings: Settings) -> str:
    """What is said beside a field for image files; empty without limits."""
    parts = []
    for budget, unit in ((Budget.UPLOAD_BYTES, "MB"), (Budget.PIXELS, "megapixels")):
        if (found := left(budget, who, settings)) is not None:
            parts.append(f"{found[0]:,.0f} of {found[1]:,} {unit}")
    return f"Uploads: {' and '.join(parts)} left this hour." if parts else ""


def _hourly(budget: Budget, of_role: Limits) -> int | None:
    return {
        Budget.EVALUATIONS: of_role.evaluations,
        Budget.UPLOAD_BYTES: of_role.upload_mb,
        Budget.PIXELS: of_role.upload_megapixels,
        Budget.REMARKS: of_role.remarks,
        Budget.REPORTS: of_role.reports,
    }[budget]


def _now(budget: Budget, who: str) -> _Used:
    """Called with the lock."""
    now = clock()
    for key in [key for key, used in _used.items() if used.until <= now]:
        del _used[key]
    return _used.get((budget, who)) or _Used(0.0, now + HOUR)


def _refusal(budget: Budget, used: _Used, amount: float, of_role: Limits) -> str:
    each, hourly = of_role.evaluations_each, _hourly(budget, of_role)
    needs = f"This needs {_number(amount)} {budget}"
    if budget is Budget.EVALUATIONS and each is not None and amount > each:
        return f"{needs}; the limit per request is {each:,}. Use fewer images or steps."
    if hourly is None or used.amount + amount <= hourly:
        return ""
    if amount > hourly:
        return f"{needs}; the limit per hour is {hourly:,}."
    left, minutes = max(0.0, hourly - used.amount), math.ceil((used.until - clock()) / 60)
    return (
        f"{needs}; {_number(left)} of {hourly:,} per hour are left. The limit resets in "
        f"{minutes} min."
    )


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 10 or amount == round(amount) else f"{amount:.1f}"
