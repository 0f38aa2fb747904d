"""Training: one process, or several under accelerate, one run folder.

The order of the pictures, the timesteps and the noise of step k are drawn from (seed, k) alone,
so a resumed run continues with exactly what an uninterrupted one would have drawn, and there is
no generator state to save. The trainer writes the run folder and reads `request.json`; it knows
nothing of who asks or who watches.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
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
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.data.store import DataError, ImageStore, build_store
from diffusion_core.device import describe, has_fast_bfloat16, memory_in_use
from diffusion_core.diffusion import loss_per_image, make_target, min_snr_weight
from diffusion_core.files import DiskFull, write_json
from diffusion_core.metrics import BIN_NAMES, TIMESTEP_BINS, MetricsWriter
from diffusion_core.presets import build_network
from diffusion_core.runs import load_run
from diffusion_core.schedule import NoiseSchedule
from diffusion_core.status import Asked, RunStatus, device_turn

# Numbers are fetched from the device and written in groups: about once in so many seconds.
FLUSH_SECONDS = 1.0


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
    Raises TrainingError, after writing the state `failed`, the reason and the traceback.
    """
    path = Path(path)
    config = _open_folder(path, config, resume)
    lead = int(os.environ.get("RANK", "0")) == 0  # of the processes, the one that writes
    status = RunStatus(path, device=str(device), total=config.steps, lead=lead)
    try:
        with status, device_turn(status, path.parent, device):
            state = _train(path, config, resume, device, status, on_step)
            status.update(state=state, message="")
            return state
    except Asked as asked:  # while it waited or prepared: nothing to keep
        state = "stopped" if asked.action == "stop" else "paused"
        status.update(state=state, message="")
        return state
    except Exception as error:
        reason = _sentence(error)
        print(traceback.format_exc(), file=sys.stderr, flush=True)
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
    done = _restore(path, setting) if resume else 0
    if lead and not (path / "config.json").exists():
        write_json(path / "config.json", _record(setting))
    status.update(state="running", message="", step=done, resumed_from=done, error=None)
    metrics = MetricsWriter(path / "metrics.sqlite", keep_up_to_step=done) if lead else None
    log = StepLog(setting, metrics, status)
    saved = done if resume else None
    try:
        for step in range(done + 1, config.steps + 1):
            log.add(step, *_one_step(setting, step))
            loss = log.flush_if_due(step)
            last = step == config.steps
            if _due(step, config.validate_every, last) and len(setting.validation_index):
                log.flush(step)
                log.write(step, validate(setting))
            if _due(step, config.sample_every, last) and lead:
                write_strip(path, step, setting)
            if _due(step, config.checkpoint_every, last):
                log.flush(step)
                saved = _save(path, step, setting, status, must=last) or saved
            action = _agree(setting.accelerator, status.poll())
            if action == "checkpoint" and saved != step:
                saved = _save(path, step, setting, status, must=False) or saved
            elif action == "sample" and lead:
                write_strip(path, step, setting)
            elif action in ("stop", "pause") and not last:
                status.update(state="stopping" if action == "stop" else "pausing")
                log.flush(step)
                if saved != step:
                    _save(path, step, setting, status, must=True)
                return "stopped" if action == "stop" else "paused"
            if not log.pending:
                log.restart_clock()
            if on_step is not None:
                on_step(step, config.steps, loss)
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
    x_0, labels, t, noise = make_batch(setting, step)
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
    setting.accelerator.backward(loss)
    limit = config.gradient_clip or float("inf")
    norm = setting.accelerator.clip_grad_norm_(setting.model.parameters(), limit)
    rate = learning_rate(config, step)
    for group in setting.optimizer.param_groups:
        group["lr"] = rate
    setting.optimizer.step()
    setting.optimizer.zero_grad(set_to_none=True)
    # The usual warm-up of the average: a short run is not held to its random start.
    decay = min(config.ema_decay, (1 + step) / (10 + step))
    setting.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)
    setting.ema.update_parameters(setting.accelerator.unwrap_model(setting.model))
    return loss.detach(), errors.detach(), t, norm, rate


def make_batch(setting: Setting, step: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """This process's share of the batch of `step` (from 1): x_0, labels, t, noise.

    The whole batch's timesteps and noise are drawn in every process from (seed, step), and each
    process takes its rows: the number of processes does not change the sequence.
    """
    config, device = setting.config, setting.device
    rows = setting.train_index[batch_positions(config, len(setting.train_index), step)]
    generator = torch.Generator(device).manual_seed(mixed_seed(config.seed, step))
    size = (config.batch_size, 3, config.image_size, config.image_size)
    t = torch.randint(
        setting.schedule.timesteps, size[:1], generator=generator, device=device, dtype=torch.long
    )
    noise = torch.randn(size, generator=generator, device=device)
    flip = torch.rand(size[0], generator=generator, device=device) < 0.5
    drop = torch.rand(size[0], generator=generator, device=device) < config.label_dropout
    mine = slice(setting.accelerator.process_index, None, setting.accelerator.num_processes)
    t, noise, flip, drop, rows = t[mine], noise[mine], flip[mine], drop[mine], rows[mine]
    x_0 = load_pictures(setting.store, rows, device)
    if config.random_flip:
        x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
    labels = None
    if setting.labelled:
        labels = torch.from_numpy(setting.store.labels[rows]).to(device)
        labels = torch.where(drop, config.network_args["num_classes"], labels)
    return x_0, labels, t, noise


def load_pictures(store: ImageStore, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of the store as float32 in [-1, 1], shape (B, 3, H, W); scaled on the device."""
    pictures = torch.from_numpy(store.images[rows])
    return pictures.to(device, non_blocking=True).float().div_(127.5).sub_(1)


def batch_positions(config: RunConfig, count: int, step: int) -> np.ndarray:
    """Which of `count` training pictures step `step` (from 1) sees, shape (batch_size,).

    A new order every epoch, drawn from (seed, epoch); the last, incomplete batch is dropped.
    """
    per_epoch = count // config.batch_size
    epoch, batch = divmod(step - 1, per_epoch)
    order = epoch_order(config.seed, epoch, count)
    return order[batch * config.batch_size : (batch + 1) * config.batch_size]


@functools.lru_cache(maxsize=1)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers, well mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


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


def write_strip(path: Path, step: int, setting: Setting) -> None:
    with setting.accelerator.autocast():
        model, schedule = setting.ema.module, setting.schedule
        strips.write_strip(path, step, model, schedule, setting.config)


class StepLog:
    """Collects what the steps return, on the device, and writes it in groups."""

    def __init__(self, setting: Setting, metrics: MetricsWriter | None, status: RunStatus) -> None:
        self.setting = setting
        self.metrics = metrics
        self.status = status
        self.pending: list[tuple[int, Tensor, Tensor, Tensor, Tensor, float, float]] = []
        self.flushed = time.monotonic()

    def add(
        self, step: int, loss: Tensor, errors: Tensor, t: Tensor, norm: Tensor, rate: float
    ) -> None:
        self.pending.append((step, loss, errors, t, norm, rate, time.time()))

    def flush_if_due(self, step: int) -> float | None:
        if time.monotonic() - self.flushed < FLUSH_SECONDS and step > 1:
            return None
        return self.flush(step)

    def flush(self, step: int) -> float | None:
        """Fetch and write what has come together; returns the newest loss."""
        if not self.pending:
            return None
        steps, losses, errors, ts, norms, rates, times = zip(*self.pending, strict=True)
        accelerator, config = self.setting.accelerator, self.setting.config
        loss = accelerator.reduce(torch.stack(losses), "mean").cpu().tolist()
        norm = torch.stack(norms).float().cpu().tolist()
        error = accelerator.gather(torch.cat(errors)).float().cpu()
        bins = accelerator.gather(torch.cat(ts)).cpu() * TIMESTEP_BINS
        bins = torch.div(bins, self.setting.schedule.timesteps, rounding_mode="floor")
        now = time.monotonic()
        speed = config.batch_size * len(steps) / max(now - self.flushed, 1e-9)
        self.pending, self.flushed = [], now
        if not np.isfinite(loss).all():
            bad = steps[int(np.flatnonzero(~np.isfinite(loss))[0])]
            raise TrainingError(
                f"The loss of step {bad} is not a number. Resume from the last checkpoint with a "
                f"lower learning rate than {config.learning_rate:g}, or with gradient clipping."
            )
        values: list[tuple[int, str, float, float]] = []
        for k, each in enumerate(steps):
            values.append((each, "loss", loss[k], times[k]))
            values.append((each, "gradient_norm", norm[k], times[k]))
            values.append((each, "learning_rate", rates[k], times[k]))
        for k, name in enumerate(BIN_NAMES):
            if (bins == k).any():
                values.append((step, name, float(error[bins == k].mean()), times[-1]))
        memory = memory_in_use(self.setting.device)
        values.append((step, "images_per_second", speed, times[-1]))
        values.append((step, "memory_bytes", float(memory), times[-1]))
        if self.metrics is not None:
            self.metrics.write(values)
        left = (config.steps - step) * config.batch_size / speed
        self.status.update(
            step=step, loss=loss[-1], images_per_second=speed, eta_seconds=left, memory_bytes=memory
        )
        return loss[-1]

    def write(self, step: int, values: dict[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.write((step, name, value, time.time()) for name, value in values.items())

    def restart_clock(self) -> None:
        """After work that is not training, so that it does not count into images per second."""
        self.flushed = time.monotonic()


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
    return config


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
    held_out = min(config.validation_count, len(store) // 10)
    if len(store) - held_out < config.batch_size:
        raise TrainingError(
            f"{config.data} leaves {len(store) - held_out} pictures for training, fewer than a "
            f"batch of {config.batch_size}. Choose a smaller batch_size or more pictures."
        )
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
    optimizer = maker(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
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


def _save(path: Path, step: int, setting: Setting, status: RunStatus, must: bool) -> int | None:
    """Write state and weights; returns the step, or None where the disk had no room.

    `must`: the last chance to keep these steps, so a full disk ends the run as failed; else
    training goes on with a warning and tries again at the next checkpoint.
    """
    if not setting.accelerator.is_main_process:
        return step
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
        if must:
            raise
        print(error.strerror, file=sys.stderr, flush=True)
        status.update(warning=error.strerror)
        return None
    checkpoint.remove_old(path, config.keep_checkpoints)
    status.update(checkpoint_step=step, warning=None)
    return step


def _restore(path: Path, setting: Setting) -> int:
    """Load the newest step of which both state and weights are whole; 0 where there is none."""
    for step, _ in reversed(load_run(path).weights()):
        try:
            found = load_run(path).checkpoint(step)
            state = checkpoint.load_state(path, step)
            averaged = checkpoint.load_weights(found)
        except checkpoint.CheckpointError as error:
            print(f"Step {step} cannot be resumed: {error}", file=sys.stderr, flush=True)
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
        return step
    return 0


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (last or step % every == 0)


def _agree(accelerator: Accelerator, action: str | None) -> str | None:
    """All processes do what the first one was asked."""
    if accelerator.num_processes == 1:
        return action
    return accelerate.utils.broadcast_object_list([action])[0]


def _sentence(error: Exception) -> str:
    """The reason in one sentence for the status and the terminal."""
    if isinstance(error, (TrainingError, ConfigError, DataError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if isinstance(error, DiskFull) else str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "The device has not enough memory for this batch; choose a smaller batch_size."
    return f"{type(error).__name__}: {error}"
