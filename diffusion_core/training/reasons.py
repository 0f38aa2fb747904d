"""Why a training ended before its time, as one sentence for the user."""

from __future__ import annotations

import traceback
from pathlib import Path

from diffusion_core.device import is_out_of_memory
from diffusion_core.errors import explains_itself, keep_traceback
from diffusion_core.files import complain, open_log, os_sentence
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.distributed import ProcessLost
from diffusion_core.training.nan_report import first_layer
from diffusion_core.training.step_log import NotFinite


class TrainingError(RuntimeError):
    """Training could not start or continue; the message is one sentence for the user."""


def reason(error: Exception) -> str:
    """The sentence for the status and the terminal."""
    return _explanation(error) or (
        "An unexpected error occurred during training; train.log in the run's folder says "
        "where. Please report it with that file."
    )


def _explanation(error: Exception) -> str:
    """What is wrong, as far as a sentence can say it; empty for what nobody has foreseen."""
    if explains_itself(error):
        return str(error)
    if isinstance(error, OSError):
        return os_sentence(error)
    if is_out_of_memory(error):
        return "The device has not enough memory for a single image of this size and network."
    return ""


def not_finite_reason(error: NotFinite, context: TrainingContext, saved: int | None) -> str:
    """`saved`: the step of the last checkpoint, if there is one."""
    rate = f"a lower learning rate than {context.config.learning_rate:g}"
    if saved:
        way = f"The checkpoint of step {saved:,} is intact: resume from it with {rate}."
    else:
        way = f"There is no checkpoint before it: start again with {rate}."
    return f"{error} It shows first in {first_layer(context, error.step)}. {way}"


def lost_reason(loss: ProcessLost, saved: int | None) -> str:
    if saved:
        return f"{loss} Resume the run to continue from step {saved:,}."
    return f"{loss} Resume the run to start again; it has no checkpoint yet."


def log_traceback(path: Path, error: Exception) -> None:
    """Add the traceback to `train.log`: the terminal gets the sentence alone."""
    try:
        with open_log(path / "train.log") as log:
            log.write("".join(traceback.format_exception(error)).encode(errors="replace"))
    except OSError:  # a full disk, most likely
        if not _explanation(error) and (kept := keep_traceback(error)):
            complain(f"train.log cannot be written; the traceback is in {kept}.")
