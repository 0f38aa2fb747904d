"""A run's state, settings, numbers and durations as the pages write them."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from dashboard.ui.outside import code, plain
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.origin import origin_title
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.queue import at_work, queued_before
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import ACTIVE, RunState
from diffusion_core.text import duration as duration

# The icon and the predicate of a sentence.
STATES = {
    RunState.QUEUED: ("hourglass_empty", "is waiting for the device"),
    RunState.STARTING: ("hourglass_top", "is starting"),
    RunState.RUNNING: ("play_arrow", "is training"),
    RunState.PAUSING: ("pause", "is pausing"),
    RunState.PAUSED: ("pause", "is paused"),
    RunState.STOPPING: ("stop", "is stopping"),
    RunState.STOPPED: ("stop", "was stopped"),
    RunState.FINISHED: ("check", "has finished"),
    RunState.FAILED: ("error", "has failed"),
    RunState.LOST: ("link_off", "is lost"),
}
REQUESTED = {
    "pause": "Pause requested; it takes effect at the next step.",
    "stop": "Stop requested; it takes effect at the next step.",
    "sample": "Samples requested; they are generated at the next step.",
    "checkpoint": "Checkpoint requested; it is written at the next step.",
    "change": "Settings changed; they take effect at the next step.",
}
DISTANCES = {"l1": "mean absolute", "l2": "mean square", "huber": "mean Huber"}


def state_sentence(run: RunSnapshot, runs: Sequence[RunSnapshot]) -> str:
    """The icon of a run's state, and in one to three sentences what is going on with it, its name
    as code; `runs` has it too.
    """
    status = run.status
    icon, predicate = STATES[run.state][0], state_predicate(run)
    saved = status.checkpoint_step
    from_here = f"from step {saved:,}" if saved else "from the beginning"
    match run.state:
        case RunState.QUEUED:
            sentence = queue_sentence(run, runs)
        case RunState.STARTING:
            sentence = plain(status.message) or "This takes a few seconds."
        case RunState.RUNNING:
            sentence = plain(status.message)
        case RunState.PAUSING | RunState.STOPPING:
            sentence = "It writes a checkpoint first."
        case RunState.PAUSED | RunState.STOPPED if run.config is None:
            sentence = "It cannot be resumed without its settings."
        case RunState.STOPPED if never_started(run):
            sentence = "Start it here or on several machines."
        case RunState.PAUSED | RunState.STOPPED:
            sentence = f"Resume the run to continue {from_here}."
            if busy := at_work(run, runs):
                sentence = (
                    f"{code(busy[0].name)} is using the device. Resume the run to queue it "
                    f"{from_here}."
                )
            sentence = f"{_why_paused(run)} {sentence}".strip()
        case RunState.FAILED:
            sentence = (
                plain(status.error or "") or "No reason was recorded; see train.log in its folder."
            )
        case RunState.LOST if status.state is None:
            sentence = "Its status.json is missing or damaged, so its state is unknown."
        case RunState.LOST:
            way = f"resume the run to continue {from_here}"
            if run.config is None:
                way = "but it cannot be resumed without its settings"
            sentence = (
                "The training process ended unexpectedly (killed, or the machine went down). "
                f"Nothing on disk is lost; {way}."
            )
        case _:
            sentence = ""
    requested = REQUESTED[run.pending] if run.pending else ""
    head = f":material/{icon}: {code(run.name)} {predicate}."
    return " ".join(filter(None, [head, sentence, requested]))


def _why_paused(run: RunSnapshot) -> str:
    """Why a run has paused or stopped by itself; empty where a user has asked for it."""
    if run.status.message:
        return plain(run.status.message)
    config = run.config
    if run.state != RunState.PAUSED or config is None or run.status.step != config.pause_at:
        return ""
    if config.sweep:
        return f"It waits for the other runs of the sweep {code(config.sweep)}."
    return "It was to pause after this step."


def never_started(run: RunSnapshot) -> bool:
    """Whether a run was only created, or cancelled in the queue."""
    begun = run.begun or run.status.step > 0
    return run.state == RunState.STOPPED and run.config is not None and not begun


def state_predicate(run: RunSnapshot) -> str:
    """The predicate of a sentence about a run's state."""
    return "has not been started" if never_started(run) else STATES[run.state][1]


def headline(run: RunSnapshot) -> str:
    """The state of a run and how far it has come, its name as code."""
    status, head = run.status, f"{code(run.name)} {state_predicate(run)}"
    if run.state == RunState.FINISHED:
        return f"{head} ({count(status.step, 'step')})."
    return f"{head}, step {status.step:,} of {status.total:,}."


def tab_title(run: RunSnapshot) -> str:
    """What the browser's tab says of a run, with its progress while it is active."""
    status, done = run.status, ""
    if run.state in ACTIVE and status.total:
        done = f" {min(100, 100 * status.step // status.total)} %"
    return f"{run.name}{done} · Training"


def queue_sentence(run: RunSnapshot, runs: Sequence[RunSnapshot]) -> str:
    """Who uses the device and how many runs wait before this one."""
    if (host := run.status.host) != socket.gethostname():
        return (
            f"It is queued on {code(host)}. To start it on this machine instead, cancel and resume "
            "it."
        )
    before = len(queued_before(run, runs))
    turn = f"{count(before, 'run')} before it." if before else "It is next."
    busy = at_work(run, runs)
    return f"{code(busy[0].name)} is using it. {turn}" if busy else turn


def device(run: RunSnapshot) -> str:
    """The device of a run, with its host where that is not this machine."""
    host = run.status.host
    return code(run.status.device) + ("" if host == socket.gethostname() else f" on {code(host)}")


def preset_title(config: RunConfig) -> str:
    """The preset of a run, with its version where that is not today's."""
    now, version = PRESETS.get(config.preset), config.preset_version
    same = now is None or now.preset_version == version
    return config.preset if same else f"{config.preset}, version {version}"


def settings_line(config: RunConfig) -> str:
    """The settings that matter most."""
    return (
        f"Preset {code(preset_title(config))} · data {code(config.data)} · "
        f"{config.image_size}×{config.image_size} px · batch size {config.batch_size} · "
        f"learning rate {config.learning_rate:g} · seed {config.seed}"
    )


def origin_sentence(config: RunConfig) -> str:
    """Which weights a run has started from."""
    return f"Started from the weights of {code(origin_title(config))}."


def objective_sentence(config: RunConfig, *, validated: bool) -> str:
    """What the loss of a run measures; `validated`: and why its validation loss lies elsewhere."""
    if config.distilled and not config.learns_from_paths:
        return (
            "The loss compares the images that the network predicts at two noise levels, which "
            "come closer during training. The validation loss is unweighted."
        )
    what = PREDICTION_TYPES[config.prediction_type].title
    if config.loss_on == "v":
        what += ", each divided by the share of noise"
    true = "the teacher's" if config.learns_from_paths else "the true"
    sentence = (
        f"The loss is the {DISTANCES[config.loss]} difference between {true} and the "
        f"predicted {what}"
    )
    if config.perceptual_weight:
        sentence += f", plus {config.perceptual_weight:g} times that of the images in features"
    if config.matching_share:
        sentence += (
            f"; after step {config.follows_until:,} it is in every other step the squared distance "
            "from a sample to where it is led"
        )
    if config.learned_weighting:
        return f"{sentence}, without the weights that training has learned for the noise levels."
    if config.min_snr_gamma:
        sentence += f", weighted by min-SNR (γ = {config.min_snr_gamma:g})"
        if validated:
            return (
                f"{sentence}. The validation loss is unweighted and higher; compare it only across "
                "steps or runs."
            )
    return f"{sentence}."


def lecture_sentence(config: RunConfig) -> str:
    """What the lecture's printed losses mean beside a run of its preset."""
    sentence = (
        "Grey: the loss printed in the lecture, 2 epochs of 126 batches of 128 from Stanford Cars"
    )
    if config.data.startswith("folder:"):
        return f"{sentence}. On the same images this run should follow it."
    return f"{sentence}. This run trains on {code(config.data)}, so the curves need not match."


def no_samples(run: RunSnapshot) -> str:
    """What stands in the place of samples that a run has not written."""
    if run.state in ACTIVE or never_started(run):
        return "The first samples appear here during training."
    if run.state == RunState.FINISHED or run.config is None:
        return "This run has no samples."
    return "This run has no samples yet. They appear here once it is resumed."


def no_losses(run: RunSnapshot) -> str:
    """What stands in the place of losses that a run has not written."""
    if run.state in ACTIVE or never_started(run):
        return "The losses appear here after the first steps."
    if run.state == RunState.FINISHED or run.config is None:
        return "This run has no losses."
    return "This run has no losses yet. They appear here once it is resumed."


def decimal(value: float) -> str:
    """Three decimals, with a minus sign instead of a hyphen; no negative zero."""
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def size(count: float) -> str:
    """Bytes as MB or GB."""
    if count < 1e6:
        return "less than 1 MB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def energy(joules: float) -> str:
    """In kilowatt hours, 1 kWh being 3.6 million joules; small ones in watt hours."""
    hours = joules / 3600
    return f"{hours / 1000:.3g} kWh" if hours >= 100 else f"{hours:.3g} Wh"


def count(number: int, noun: str) -> str:
    """1 checkpoint, 2 checkpoints, no checkpoints."""
    return f"{f'{number:,}' if number else 'no'} {noun}{'' if number == 1 else 's'}"
