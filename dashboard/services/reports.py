"""Reports of runs that visitors download: how large each will be, and making one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dashboard.services import budgets, roles, users
from dashboard.services.budgets import Budget
from dashboard.services.settings import Settings
from dashboard.services.shared_look import Shared
from diffusion_core.review.report.content import Parts
from diffusion_core.review.report.write import expected_size, make_report
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.run import Run

PARTS = ("samples", "images", "remarks", "votes", "names")  # of `Parts`
_sizes = Shared(64, seconds=30.0)
_one_at_a_time = threading.Lock()  # each takes seconds of a core and holds its images


def parts_for(chosen: Sequence[str], person: str) -> Parts:
    """What the visitor may take along of the chosen parts, by their names in `Parts`.

    `person`: the name under which the visitor votes: nobody sees what others have voted before.
    """
    wanted = {name: name in chosen for name in PARTS}
    wanted["names"] &= roles.may_see_names()
    return Parts(**wanted, person=person)


def size(runs: Sequence[Run], format: str, parts: Parts) -> int:
    """About how many bytes the report will have. Raises ReportError."""

    def estimate() -> int:
        with _one_at_a_time:
            return expected_size(runs, format, parts)

    key = ("report", format, parts, *(run.path for run in runs))
    return _sizes.get(key, estimate)


def refusal(who: str, settings: Settings) -> str:
    """Why the visitor gets no report now, as a sentence; empty where one can be had."""
    return budgets.refusal(Budget.REPORTS, who, 1, settings)


def author() -> str | None:
    """Whose name the history of the runs gets, see `make`."""
    return users.name() if roles.may_operate() else None


def make(
    runs: Sequence[Run],
    format: str,
    parts: Parts,
    *,
    who: str,
    settings: Settings,
    by: str | None,
) -> bytes:
    """The file. Made by a thread of no visitor, so the page says who it is: `who` for the budget,
    `by` for the history; None: not in it. Raises OverBudget, ReportError."""
    budgets.charge(Budget.REPORTS, who, 1, settings)
    with _one_at_a_time:
        data = make_report(runs, format, parts)
    if by is not None:
        for run in runs:
            record(run.path, Event.EXPORTED, by, format=f"report{format}")
    return data
