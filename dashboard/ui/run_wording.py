"""How the pages put a run's state, settings, numbers and durations into words."""

from __future__ import annotations

import socket
from typing import Any

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.jobs import pending_request
from diffusion_core.runs.run import ACTIVE, Run, at_work, place_of, queue_position

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
STATES = {
    "queued": "is waiting for the device",
    "starting": "is starting",
    "running": "is training",
    "pausing": "is pausing",
    "paused": "is paused",
    "stopping": "is stopping",
    "stopped": "was stopped",
    "finished": "has finished",
    "failed": "has failed",
    "lost": "is lost",
}
REQUESTED = {
    "pause": "Pause requested; it takes effect at the next step.",
    "stop": "Stop requested; it takes effect at the next step.",
    "sample": "Samples requested; they are generated at the next step.",
    "checkpoint": "Checkpoint requested; it is written at the next step.",
    "change": "Settings changed; they take effect at the next step.",
}
PREDICTIONS = {
    "epsilon": "noise ε",
    "v_prediction": "velocity v",
    "x_0": "image x₀",
    "flow_prediction": "flow ε − x₀",
}
DISTANCES = {"l1": "mean absolute", "l2": "mean square", "huber": "mean Huber"}


def state_sentence(run: Run, state: str) -> str:
    """What is going on with a run, in one to three sentences, its name in bold."""
    status = run.status
    saved = status.get("checkpoint_step")
    from_here = f"from step {saved:,}" if saved else "from the beginning"
    match state:
        case "queued":
            sentence = queue_sentence(run)
        case "starting":
            sentence = status.get("message") or "This takes a few seconds."
        case "pausing" | "stopping":
            sentence = "It writes a checkpoint first."
        case "paused" | "stopped":
            sentence = rest_sentence(run, from_here)
        case "failed":
            sentence = status.get("error") or "No reason was recorded; see train.log in its folder."
        case "lost":
            sentence = lost_sentence(run, from_here)
        case _:
            sentence = ""
    asked = pending_request(run) if state in ACTIVE else None
    head = f"**{run.name}** {STATES[state]}."
    return " ".join(filter(None, [head, sentence, REQUESTED[asked] if asked else ""]))


def rest_sentence(run: Run, from_here: str) -> str:
    """How a run that was paused or stopped can continue."""
    busy = at_work(run.path, run.status)
    if busy:
        return f"{busy[0].name} is using the device. Resume the run to queue it; it continues {from_here}."
    return f"Resume the run to continue {from_here}."


def queue_sentence(run: Run) -> str:
    """Who uses the device and how many runs wait before this one."""
    status = run.status
    host = status.get("host", "")
    if host != socket.gethostname():
        return f"It is queued on {host}. To start it on this machine instead, cancel and resume it."
    busy = at_work(run.path, status)
    before = queue_position(run)
    turn = "It is next." if before == 0 else f"{count(before, 'run')} before it."
    return f"{busy[0].name} is using it. {turn}" if busy else turn


def place(status: dict[str, Any]) -> tuple[str, str]:
    """The host and the device that a status names; runs of one place wait for each other."""
    return status.get("host", ""), place_of(status.get("device", ""))


def device(run: Run) -> str:
    """The device of a run, with its host where that is not this machine."""
    status = run.status
    host = status.get("host", "")
    return status.get("device", "") + ("" if host == socket.gethostname() else f" on {host}")


def lost_sentence(run: Run, from_here: str) -> str:
    if not run.status:
        return "Its status.json is missing or damaged, so its state is unknown."
    return (
        "The training process ended unexpectedly (killed, or the machine went down). Nothing on "
        f"disk is lost; resume the run to continue {from_here}."
    )


def settings_line(config: RunConfig) -> str:
    """The settings that matter most."""
    return (
        f"Preset {config.preset} · data {config.data} · "
        f"{config.image_size}×{config.image_size} px · batch size {config.batch_size} · "
        f"learning rate {config.learning_rate:g} · seed {config.seed}"
    )


def objective_sentence(config: RunConfig) -> str:
    """What the loss of a run measures, and why its validation loss may lie elsewhere."""
    what = PREDICTIONS[config.prediction_type]
    sentence = (
        f"The loss is the {DISTANCES[config.loss]} difference between the true and the "
        f"predicted {what}"
    )
    if config.min_snr_gamma:
        return (
            f"{sentence}, weighted by min-SNR (γ = {config.min_snr_gamma:g}). The validation loss "
            "is unweighted and higher; compare it only across steps or runs."
        )
    return f"{sentence}."


def lecture_sentence(config: RunConfig) -> str:
    """What the lecture's printed losses mean beside a run of its preset."""
    sentence = (
        "Grey: the loss printed in the lecture, 2 epochs of 126 batches of 128 from Stanford Cars"
    )
    if config.data.startswith("folder:"):
        return f"{sentence}. On the same images this run should follow it."
    return f"{sentence}. This run trains on {config.data}, so the curves need not match."


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


def size(count: float) -> str:
    """Bytes as MB or GB."""
    if count < 1e6:
        return "less than 1 MB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def count(number: int, noun: str) -> str:
    """1 checkpoint, 2 checkpoints, no checkpoints."""
    return f"{f'{number:,}' if number else 'no'} {noun}{'' if number == 1 else 's'}"
