"""Training: one process, or several under accelerate, one run folder.

It writes the run folder and reads `request.json`; it knows nothing of who asks or who watches.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffusion_core import checkpoint, strips
from diffusion_core.batches import held_out_count, load_pictures, make_batch, mixed_seed
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.data.store import DataError, ImageStore, build_store
from diffusion_core.device import describe, has_fast_bfloat16
from diffusion_core.diffusion import loss_per_image, make_target, min_snr_weight
from diffusion_core.files import DiskFull, complain, os_sentence, remove_leftovers, write_json
from diffusion_core.metrics import MetricsWriter
from diffusion_core.presets import as_arguments, build_network
from diffusion_core.runs import load_run
from diffusion_core.schedule import NoiseSchedule
from diffusion_core.status import Asked, RunStatus, device_turn, only_trainer
from diffusion_core.step_log import NotFinite, StepLog


class TrainingError(RuntimeError):
    """Training could not start or go on; the message is one sentence for the user."""


def train(
    path: Path,
    config: RunConfig | None = None,
    *,
    resume: bool = False,
    device: torch.device,
    on_step: Callable[[int, int, float | None], None] | None = None,
) -> str:
    """Train the run at `path` until it is finished or asked to stop; returns the final state.

    A new run needs `config`; a resumed one takes its own. `on_step(step, steps, loss)` is called
    after every step (loss only when it was fetched). Returns `finished`, `stopped` or `paused`.
    Raises TrainingError, after writing the state `failed`, the reason and the traceback; Busy
    where another process trains the run.
    """
    path = Path(path)
    config = _open_folder(path, config, resume)
    lead = int(os.environ.get("RANK", "0")) == 0  # of the processes, the one that writes
    with only_trainer(path) if lead else nullcontext():
        if lead:
            remove_leftovers(path, but="request.json")
        return _train_alone(path, config, resume, device, lead, on_step)


def _train_alone(
    path: Path,
    config: RunConfig,
    resume: bool,
    device: torch.device,
    lead: bool,
    on_step: Callable[[int, int, float | None], None] | None,
) -> str:
    """As `train`, with the run's folder to itself: keeps its status true, come what may."""
    words = None if resume else as_arguments(config)
    status = RunStatus(path, device=str(device), total=config.steps, lead=lead, arguments=words)
    try:
        with status, device_turn(status, path.parent, device):
            state = _train(path, config, resume, device, status, on_step)
            status.update(state=state, message="")
            return state
    except Asked as asked:  # while it waited or prepared: nothing to keep
        state = "stopped" if asked.action == "stop" else "paused"
        status.update(state=state, message="")
        return state
    except KeyboardInterrupt:
        status.update(state="stopped", message="")
        raise
    except Exception as error:
        reason = _sentence(error)
        if not isinstance(error, DiskFull):  # which the sentence says all about
            _log_traceback(path)
        status.update(state="failed", error=reason)
        raise TrainingError(reason) from error


@dataclass
class Setting:
    """Everything that a step needs, made once."""

    config: RunConfig
    store: ImageStore
    train_index: np.ndarray  # positions in the store, shape (N,)
    validation_index: np.ndarray
    schedule: NoiseSchedule
    accelerator: Accelerator
    model: nn.Module  # as accelerate prepared it
    optimizer: torch.optim.Optimizer
    ema: AveragedModel

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def labelled(self) -> bool:
        return bool(self.config.network_args.get("num_classes"))


def _train(
    path: Path,
    config: RunConfig,
    resume: bool,
    device: torch.device,
    status: RunStatus,
    on_step: Callable[[int, int, float | None], None] | None,
) -> str:
    status.update(state="starting", message="Preparing the pictures.")
    store = _prepare_pictures(config, status)
    config = _settle_classes(config, store)
    setting = _make_setting(config, store, device)
    lead = setting.accelerator.is_main_process
    done, warning = _restore(path, setting) if resume else (0, None)
    if lead and not (path / "config.json").exists():
        write_json(path / "config.json", _record(setting))
    status.update(state="running", message="", step=done, resumed_from=done)
    status.update(checkpoint_step=done or None, error=None, warning=warning)
    metrics = MetricsWriter(path / "metrics.sqlite", keep_up_to_step=done) if lead else None
    log = StepLog(config, setting.accelerator, setting.schedule.timesteps, metrics, status)
    try:
        for step in range(done + 1, config.steps + 1):
            log.add(step, *_one_step(setting, step))
            last = step == config.steps
            action = _agree(setting.accelerator, status.poll())
            ending = last or action in ("stop", "pause")
            check = _due(step, config.validate_every, last) and len(setting.validation_index) > 0
            draw = _due(step, config.sample_every, last) or action == "sample"
            keep = _due(step, config.checkpoint_every, ending) or action == "checkpoint" or ending
            loss = None
            if check or draw or keep or step == done + 1 or log.due(step):
                loss = log.flush()  # raises on a broken step, before anything is made of it
            if ending and not last:
                status.update(state="stopping" if action == "stop" else "pausing")
            if check and lead:
                log.write(step, validate(setting))
            if metrics is not None:
                metrics.commit()  # before the checkpoint: a resume at it must not miss a step
            if draw and lead:
                write_strip(path, step, setting, status)
            if keep and lead:
                _save(path, step, setting, status, must=ending)
            if check or draw or keep:
                log.restart_clock()
            if on_step is not None:
                on_step(step, config.steps, loss)
            if ending and not last:
                return "stopped" if action == "stop" else "paused"
        return "finished"
    finally:
        if metrics is not None:
            metrics.close()
        setting.accelerator.end_training()
        # The state is global to the process: the next run in it may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)


def _one_step(setting: Setting, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """One update. Returns what is logged, all on the device: the objective, the plain error per
    picture, the timesteps, the gradient norm; and the learning rate."""
    config = setting.config
    accelerator = setting.accelerator
    x_0, labels, t, noise = make_batch(
        config,
        setting.store,
        setting.train_index,
        step,
        timesteps=setting.schedule.timesteps,
        device=setting.device,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    x_t, _ = setting.schedule.add_noise(x_0, t, noise)
    target = make_target(setting.schedule, x_0, noise, t, config.prediction_type)
    args = (x_t, t) if labels is None else (x_t, t, labels)
    prediction = setting.model(*args)
    errors = loss_per_image(prediction.float(), target, config.loss)
    objective = errors
    if config.min_snr_gamma:
        weight = min_snr_weight(setting.schedule, t, config.min_snr_gamma, config.prediction_type)
        objective = errors * weight
    loss = objective.mean()
    accelerator.backward(loss)
    limit = config.gradient_clip or float("inf")
    norm = accelerator.clip_grad_norm_(setting.model.parameters(), limit)
    rate = learning_rate(config, step)
    for group in setting.optimizer.param_groups:
        group["lr"] = rate
    setting.optimizer.step()
    setting.optimizer.zero_grad(set_to_none=True)
    # The usual warm-up of the average: a short run is not held to its random start.
    decay = min(config.ema_decay, (1 + step) / (10 + step))
    setting.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)
    setting.ema.update_parameters(accelerator.unwrap_model(setting.model))
    return loss.detach(), errors.detach(), t, norm, rate


def learning_rate(config: RunConfig, step: int) -> float:
    """Of step `step` (from 1): a linear rise over the warm-up, then constant."""
    return config.learning_rate * min(1.0, step / max(1, config.warmup_steps))


@torch.inference_mode()
def validate(setting: Setting) -> dict[str, float]:
    """The plain error of the EMA weights on the held-out pictures, at fixed (t, epsilon).

    Timesteps are spread evenly over the schedule, so that the mean does not jump with the draw.
    """
    config, device, schedule = setting.config, setting.device, setting.schedule
    model = setting.ema.module
    model.eval()
    count = len(setting.validation_index)
    spread = (torch.arange(count, device=device) * schedule.timesteps) // count
    generator = torch.Generator(device).manual_seed(mixed_seed(config.seed, 0))
    errors = []
    for first in range(0, count, config.batch_size):
        rows = setting.validation_index[first : first + config.batch_size]
        x_0 = load_pictures(setting.store, rows, device)
        t = spread[first : first + config.batch_size]
        noise = torch.randn(x_0.shape, generator=generator, device=device)
        x_t, _ = schedule.add_noise(x_0, t, noise)
        args = [x_t, t]
        if setting.labelled:
            args.append(torch.from_numpy(setting.store.labels[rows]).to(device))
        with setting.accelerator.autocast():
            prediction = model(*args)
        target = make_target(schedule, x_0, noise, t, config.prediction_type)
        errors.append(loss_per_image(prediction.float(), target, config.loss))
    return {"validation_loss": float(torch.cat(errors).mean())}


def write_strip(path: Path, step: int, setting: Setting, status: RunStatus) -> None:
    """Draw the samples of this step; a full disk costs the samples, not the training."""
    model, schedule = setting.ema.module, setting.schedule
    try:
        with setting.accelerator.autocast():
            strips.write_strip(path, step, model, schedule, setting.config)
    except DiskFull as error:
        complain(str(error))
        status.update(warning=str(error))


# ---------------------------------------------------------------- before and after the steps


def _open_folder(path: Path, config: RunConfig | None, resume: bool) -> RunConfig:
    if resume:
        try:
            found = load_run(path).config
        except FileNotFoundError as error:
            raise TrainingError(f"There is no run at {path} to resume.") from error
        config = found or config
        if config is None:
            raise TrainingError(f"{path} has no config.json yet; start it anew instead.")
        _check_writable(path)
        return config
    if config is None:
        raise TrainingError("A new run needs settings.")
    if (path / "config.json").exists():
        raise TrainingError(
            f"{path} already holds a run. Continue it with --resume, or choose another name."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be made: {error.strerror}.") from error
    _check_writable(path)
    return config


def _check_writable(path: Path) -> None:
    """The run's files are written into its folder, the locks into the one above."""
    for folder in (path.resolve().parent, path):
        if not os.access(folder, os.W_OK):
            raise TrainingError(f"{folder} cannot be written to, and training writes there.")


def _prepare_pictures(config: RunConfig, status: RunStatus) -> ImageStore:
    def progress(ready: int, count: int) -> None:
        status.raise_if_asked()
        status.update(message=f"Preparing the pictures: {ready:,} of {count:,}.", quick=True)

    workers = None if config.num_workers < 0 else config.num_workers
    return build_store(config.data, config.image_size, workers=workers, progress=progress)


def _settle_classes(config: RunConfig, store: ImageStore) -> RunConfig:
    """Tell the network how many classes there are, where it is to learn them."""
    teach = config.class_conditional and config.network == "unet" and len(store.classes) > 1
    args = {**config.network_args}
    args.pop("num_classes", None)
    if teach:
        args["num_classes"] = len(store.classes)
    return config.replace(network_args=args)


def _make_setting(config: RunConfig, store: ImageStore, device: torch.device) -> Setting:
    order = np.random.default_rng([config.seed, len(store)]).permutation(len(store))
    held_out = held_out_count(config, len(store))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    precision = "bf16" if config.mixed_precision == "bf16" else "no"
    if config.mixed_precision == "auto" and has_fast_bfloat16(device):
        precision = "bf16"
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    if config.batch_size % accelerator.num_processes:
        raise TrainingError(
            f"A batch of {config.batch_size} cannot be shared evenly by "
            f"{accelerator.num_processes} processes."
        )
    torch.manual_seed(config.seed)
    model = build_network(config.network, config.network_args).to(accelerator.device)
    if use_channels_last(config, accelerator):
        model = model.to(memory_format=torch.channels_last)
    maker = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    optimizer = maker(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    # Its counter stays on the CPU, so that counting never waits for the device.
    ema = AveragedModel(model, use_buffers=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Setting(
        config=config,
        store=store,
        train_index=np.sort(order[held_out:]),
        validation_index=np.sort(order[:held_out]),
        schedule=NoiseSchedule(**config.schedule).to(accelerator.device),
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        ema=ema,
    )


def use_channels_last(config: RunConfig, accelerator: Accelerator) -> bool:
    """Where it was measured to help: tensor cores, and the lecture's wide convolutions on the CPU.

    The small network on a CPU is slower with it (its group norms and attention pay more than the
    convolutions gain).
    """
    return accelerator.device.type == "cuda" or config.network == "lecture"


def _record(setting: Setting) -> dict[str, Any]:
    """What `config.json` holds: the settings, and what they came to on this machine."""
    config, store, accelerator = setting.config, setting.store, setting.accelerator
    resolved = {
        "classes": list(store.classes) if setting.labelled else [],
        "pictures": len(store),
        "training_pictures": len(setting.train_index),
        "validation_pictures": len(setting.validation_index),
        "data_fingerprint": store.fingerprint,
        "parameters": sum(p.numel() for p in setting.model.parameters()),
        "mixed_precision": accelerator.mixed_precision,
        "device": describe(accelerator.device),
        "processes": accelerator.num_processes,
        "command": " ".join(["python -m diffusion_core", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "accelerate": accelerate.__version__,
            "numpy": np.__version__,
        },
    }
    return {**json.loads(config.to_json()), "resolved": resolved}


def _save(path: Path, step: int, setting: Setting, status: RunStatus, must: bool) -> None:
    """Write state and weights.

    `must`: the last chance to keep these steps, so a full disk ends the run as failed; else
    training goes on with a warning and tries again at the next checkpoint.
    """
    config = setting.config
    state = {
        "step": step,
        "model": setting.accelerator.unwrap_model(setting.model).state_dict(),
        "optimizer": setting.optimizer.state_dict(),
        "n_averaged": setting.ema.n_averaged,
        "data_fingerprint": setting.store.fingerprint,
    }
    classes = setting.store.classes if setting.labelled else ()
    try:
        checkpoint.save_state(path, step, state)
        checkpoint.save_weights(path, step, setting.ema.module.state_dict(), config, classes)
    except DiskFull as error:
        # A state alone cannot be resumed, and takes the space that the next one needs.
        if not checkpoint.weights_path(path, step).exists():
            checkpoint.state_path(path, step).unlink(missing_ok=True)
        if must:
            raise
        complain(str(error))
        status.update(warning=str(error))
        return
    checkpoint.remove_old(path, config.keep_checkpoints)
    status.update(checkpoint_step=step, warning=None)


def _restore(path: Path, setting: Setting) -> tuple[int, str | None]:
    """Load the newest step of which both state and weights are whole.

    Returns it, 0 where the run has no checkpoint yet, and what is to be said of newer ones.
    Raises TrainingError where it has some and none can be used: starting anew would lose them.
    """
    skipped = []
    for step, _ in reversed(load_run(path).weights()):
        try:
            found = load_run(path).checkpoint(step)
            state = checkpoint.load_state(path, step)
            averaged = checkpoint.load_weights(found)
        except checkpoint.CheckpointError as error:
            skipped.append(f"Step {step} cannot be resumed: {error}")
            complain(skipped[-1])
            continue
        if state["data_fingerprint"] != setting.store.fingerprint:
            raise TrainingError(
                f"The pictures of {setting.config.data} have changed since this run was started; "
                f"start a new run on them."
            )
        setting.accelerator.unwrap_model(setting.model).load_state_dict(state["model"])
        setting.optimizer.load_state_dict(state["optimizer"])
        setting.ema.module.load_state_dict(averaged)
        setting.ema.n_averaged.copy_(state["n_averaged"])
        return step, f"{' '.join(skipped)} Went on from step {step}." if skipped else None
    if skipped:
        raise TrainingError(f"None of the checkpoints can be resumed. {' '.join(skipped)}")
    return 0, None


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (last or step % every == 0)


def _agree(accelerator: Accelerator, action: str | None) -> str | None:
    """All processes do what the first one was asked."""
    if accelerator.num_processes == 1:
        return action
    return accelerate.utils.broadcast_object_list([action])[0]


def _log_traceback(path: Path) -> None:
    """Add the traceback to `train.log`: the terminal gets the sentence alone."""
    try:
        with open(path / "train.log", "a") as log:
            log.write(traceback.format_exc())
    except OSError:  # a full disk, most likely
        complain(traceback.format_exc())


def _sentence(error: Exception) -> str:
    """The reason in one sentence for the status and the terminal."""
    if isinstance(error, (TrainingError, NotFinite, ConfigError, DataError)):
        return str(error)
    if isinstance(error, OSError):
        return os_sentence(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "The device has not enough memory for this batch; choose a smaller batch_size."
    return f"{type(error).__name__}: {error}"
