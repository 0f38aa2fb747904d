"""What a run's state, numbers and times are called on the pages."""

from __future__ import annotations

import time

from diffusion_core.jobs import pending_request
from diffusion_core.runs import ACTIVE, Run, queue_position

ICONS = {
    "queued": ":material/hourglass_empty:",
    "starting": ":material/hourglass_top:",
    "running": ":material/play_arrow:",
    "pausing": ":material/pause:",
    "paused": ":material/pause:",
    "stopping": ":material/stop:",
    "stopped": ":material/stop:",
    "finished": ":material/check:",
    "failed": ":material/error:",
    "lost": ":material/link_off:",
}
ASKED = {
    "pause": "It was asked to pause, and will at its next step.",
    "stop": "It was asked to stop, and will at its next step.",
    "sample": "It was asked for samples, and draws them at its next step.",
    "checkpoint": "It was asked for a checkpoint, and writes it at its next step.",
}


def state_sentence(run: Run, state: str) -> str:
    """What is going on with a run, in one or two sentences."""
    status = run.status
    saved = status.get("checkpoint_step")
    from_here = f"from step {saved:,}" if saved else "from the beginning"
    sentence = {
        "queued": queue_sentence(run) if state == "queued" else "",
        "starting": status.get("message") or "Starting; this takes a few seconds.",
        "running": "Training.",
        "pausing": "Writing a checkpoint, then pausing.",
        "paused": f"Paused. The device is free; resume to go on {from_here}.",
        "stopping": "Writing a checkpoint, then stopping.",
        "stopped": f"Stopped by request. It can be resumed {from_here}.",
        "finished": "Finished.",
        "failed": f"Failed: {status.get('error') or 'see train.log in its folder.'}",
        "lost": f"Its process is gone without a word (killed, or the machine went down). Nothing "
        f"on disk is lost; resume it {from_here}.",
    }[state]
    asked = pending_request(run) if state in ACTIVE else None
    return f"{sentence} {ASKED.get(asked or '', '')}".strip()


def queue_sentence(run: Run) -> str:
    before = queue_position(run)
    place = "It is next." if before == 0 else f"{before} more before it."
    return f"Waiting: another run uses the device. {place}"


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def ago(when: float) -> str:
    """How long since a moment, in seconds since 1970."""
    return f"{duration(max(0.0, time.time() - when))} ago"


def size(count: float) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
