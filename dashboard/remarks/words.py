"""How pages write who said what of what, and when."""

from __future__ import annotations

from datetime import datetime

from dashboard.services import people, roles
from dashboard.ui.outside import code
from diffusion_core.runs.remarks import Deed, Kind, Line, Remark

DECISION_ICONS = {
    "keep": ":material/check:",
    "drop": ":material/close:",
    "promote": ":material/rocket_launch:",
}
OLD_SECONDS = 12 * 3600  # from which on a time has its date
WORDS = {
    Kind.NOTE: "a note",
    Kind.TAG: "the tag",
    Kind.STAR: "a star",
    Kind.DECISION: "the decision",
}


def who(by: str) -> str:
    """A name, but no address for visitors whom nobody knows."""
    if not by or (people.is_address(by) and not roles.may_see_names()):
        return "somebody"
    return code(people.shown_name(by))


def when(time: float) -> str:
    moment = datetime.fromtimestamp(time)
    recent = datetime.now().timestamp() - time < OLD_SECONDS
    return moment.strftime("%H:%M" if recent else "%Y-%m-%d %H:%M")


def about(remark: Remark) -> str:
    """ "step 4,000", or nothing for the run."""
    return "" if remark.subject.step is None else str(remark.subject)


def in_words(line: Line) -> str:
    """ "2026-11-28 20:41: `Ann #8c1f0a2b` edited a note of step 4,000: `Round.`"."""
    text = f": {code(line.text)}" if line.text else ""
    at = datetime.fromtimestamp(line.time).strftime("%Y-%m-%d %H:%M")
    done = {Deed.ADDED: "added", Deed.EDITED: "edited", Deed.DELETED: "deleted"}[line.deed]
    return f"{at}: {who(line.by)} {done} {WORDS[line.kind]} of {line.subject}{text}"
