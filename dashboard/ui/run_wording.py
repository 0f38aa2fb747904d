"""What a run's state, settings, numbers and times are called on the pages."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.queue import at_work, queued_before
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import RunState, StatusRecord, place_of

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
STATE_WORDS = {
    "queued": "waits for the device",
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
ASKED = {
    "pause": "It was asked to pause, and will at its next step.",
    "stop": "It was asked to stop, and will at its next step.",
    "sample": "It was asked for samples, and draws them at its next step.",
    "checkpoint": "It was asked for a checkpoint, and writes it at its next step.",
    "change": "Its settings were changed; the change holds from its next step on.",
}
DISTANCES = {"l1": "mean absolute", "l2": "mean square", "huber": "mean Huber"}


def state_sentence(run: RunSnapshot, runs: Sequence[RunSnapshot]) -> str:
    """What is going on with a run, one of `runs`, in one to three sentences, its name in bold."""
    status = run.status
    saved = status.checkpoint_step
    from_here = f"from step {saved:,}" if saved else "from the beginning"
    match run.state:
        case RunState.QUEUED:
            sentence = queue_sentence(run, runs)
        case RunState.STARTING:
            sentence = status.message or "This takes a few seconds."
        case RunState.PAUSING | RunState.STOPPING:
            sentence = "It writes a checkpoint first."
        case RunState.PAUSED | RunState.STOPPED:
            sentence = rest_sentence(run, runs, from_here)
        case RunState.FAILED:
            sentence = status.error or "Nobody knows why; see train.log in its folder."
        case RunState.LOST:
            sentence = lost_sentence(run, from_here)
        case _:
            sentence = ""
    asked = ASKED[run.pending] if run.pending else ""
    head = f"**{run.name}** {STATE_WORDS[run.state]}."
    return " ".join(filter(None, [head, sentence, asked]))


def rest_sentence(run: RunSnapshot, runs: Sequence[RunSnapshot], from_here: str) -> str:
    """How a run that was paused or stopped can go on."""
    if busy := at_work(run, runs):
        return f"{busy[0].name} is on the device; resumed, it waits and then goes on {from_here}."
    return f"The device is free; resume it to go on {from_here}."


def queue_sentence(run: RunSnapshot, runs: Sequence[RunSnapshot]) -> str:
    """Who is on the device and how many wait before this run."""
    if (host := run.status.host) != socket.gethostname():
        return f"It waits on {host}. To start it on this machine instead, cancel and resume it."
    before = len(queued_before(run, runs))
    turn = f"{before} more before it." if before else "It is next."
    busy = at_work(run, runs)
    return f"{busy[0].name} is on it. {turn}" if busy else turn


def place(status: StatusRecord) -> tuple[str, str]:
    """The host and the device that a status names; runs of one place wait for each other."""
    return status.host, place_of(status.device)


def device(run: RunSnapshot) -> str:
    """The device of a run, with its host where that is not this machine."""
    host = run.status.host
    return run.status.device + ("" if host == socket.gethostname() else f" on {host}")


def lost_sentence(run: RunSnapshot, from_here: str) -> str:
    if run.status.state is None:
        return "Its status.json is missing or damaged, so nobody can say what it is doing."
    return (
        "Its process is gone without a word (killed, or the machine went down). Nothing that is "
        f"on disk is lost; it can be resumed {from_here}."
    )


def settings_line(config: RunConfig) -> str:
    """The settings that a person asks for first."""
    return (
        f"Preset {config.preset} · data {config.data} · "
        f"{config.image_size}×{config.image_size} pixels · batches of {config.batch_size} · "
        f"learning rate {config.learning_rate:g} · seed {config.seed}"
    )


def objective_sentence(config: RunConfig) -> str:
    """What the loss of a run measures, and why its validation loss may lie elsewhere."""
    what = PREDICTION_TYPES[config.prediction_type].title
    sentence = (
        f"The loss is the {DISTANCES[config.loss]} difference between the true and the "
        f"predicted {what}"
    )
    if config.min_snr_gamma:
        return (
            f"{sentence}, weighted by min-SNR (γ = {config.min_snr_gamma:g}). The validation loss "
            "is not weighted and lies higher: it is for comparing with itself."
        )
    return f"{sentence}."


def lecture_sentence(config: RunConfig) -> str:
    """What the lecture's printed losses are beside a run of its preset."""
    sentence = (
        "Grey: the loss that the lecture printed, 2 epochs of 126 batches of 128 from Stanford Cars"
    )
    if config.data.startswith("folder:"):
        return f"{sentence}. On the same images this run should follow it."
    return f"{sentence}. This run learns {config.data}, so the two need not meet."


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
