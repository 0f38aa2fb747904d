"""The tab History of a run: what was done to it, when and by whom."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dashboard.services import roles
from dashboard.services.shared_look import recent
from dashboard.training.events import edit
from dashboard.ui.outside import code, plain
from diffusion_core.runs.history import FILE, Entry, Event, read_history
from diffusion_core.runs.run import Run
from diffusion_core.runs.trash import Deleted

MOST_SHOWN = 50
WORDS = {
    Event.CREATED: "Created",
    Event.STARTED: "Started",
    Event.RESUMED: "Resumed",
    Event.PAUSE: "Pause requested",
    Event.STOP: "Stop requested",
    Event.SAMPLE: "Samples requested",
    Event.CHECKPOINT: "Checkpoint requested",
    Event.CHANGED: "Changed",
    Event.MOVED: "Moved in the queue",
    Event.UNQUEUED: "Taken out of the queue",
    Event.DELETED: "Deleted",
    Event.RESTORED: "Restored",
    Event.EXPORTED: "Exported",
    Event.SET_ASIDE: "Left paused",
    Event.IMPORTED: "Imported",
}


def show_history(run: Run, missing: str) -> None:
    """The newest first; `missing`: what stands there for a run without a history."""
    found = recent(("history", run.path), lambda: read_history(run.path))
    if found.problem:
        st.warning(f"The history cannot be read in full. {plain(found.problem)}")
    elif not found.entries:
        st.caption(missing)
    newest = found.entries[: -MOST_SHOWN - 1 : -1]
    named = roles.may_see_names()
    st.markdown("\n".join(f"- {sentence(entry, named)}" for entry in newest))
    if found.shortened or len(found.entries) > MOST_SHOWN:
        st.caption(f"Older entries are in {FILE} in the run folder.")


def sentence(entry: Entry, named: bool) -> str:
    """ "Changed by `ann@lab.org`, 2026-11-28 14:02: `learning rate 0.0002 → 0.0001`"."""
    by = f" by {code(entry.by)}" if entry.by and named else ""
    when = datetime.fromtimestamp(entry.time).strftime("%Y-%m-%d %H:%M")
    edits = [edit(name, *pair) for name, pair in entry.settings.items()]
    details = list(map(code, filter(None, [*edits, entry.format])))
    if entry.reason:
        details.append(plain(entry.reason))
    return f"{WORDS[entry.event]}{by}, {when}" + (f": {', '.join(details)}" if details else "")


def deleted_by(gone: Deleted) -> str:
    """ " by `ann@lab.org`", or nothing where that is not known."""
    entries = read_history(gone.path).entries
    last = next((each for each in reversed(entries) if each.event == Event.DELETED), None)
    return f" by {code(last.by)}" if last is not None and last.by else ""
