"""A run's weights and its resumable state on disk.

`weights/step-00000250.safetensors` holds the averaged (EMA) weights and the buffers, its header
the settings, the step and the time: all that sampling needs. Further averages, of other lengths,
are in the same file under `average/NAME/`; those of `post_hoc` are made of further files.
`state/step-00000250.pt` holds what an exact resume needs beside it: raw weights, optimizer, the
counters. It is read with `weights_only=True`: nothing is ever unpickled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from diffusion_core.device import compute_in_float32, has_fast_bfloat16
from diffusion_core.files import check_regular, listing, make_folder, replacing
from diffusion_core.models.conditioning import weight_names
from diffusion_core.models.inference import for_sampling
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.process.schedule import Schedule
from diffusion_core.records import Count, Record, RecordError, ShortText, record_of
from diffusion_core.runs import post_hoc
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError, RunConfig
from diffusion_core.runs.presets import WithoutValues, build_network, build_schedule, network_plan
from diffusion_core.runs.status import Moment
from diffusion_core.text import cut

MOST_DIGITS = 13  # of a step
EXTRA = "average/"  # before the names of the tensors of further averages


# What a state holds, also those of earlier versions.
STATE = {"step", "model", "optimizer", "data_fingerprint"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


class _Header(Record):
    """What the header of a weights file says, each as JSON."""

    config: dict[str, Any]
    classes: tuple[ShortText, ...]
    step: Count
    time: Moment


@dataclass(frozen=True)
class Checkpoint:
    """A weights file that opened and whose tensors match its settings."""

    path: Path
    step: int
    time: float  # seconds since 1970, when it was written
    config: RunConfig
    classes: tuple[str, ...]  # names of the labels; empty where the network takes none
    # The averaged weights that it holds, and usual ones of those that its run's snapshots give.
    averages: tuple[str, ...] = (MAIN_AVERAGE,)
    snapshots: tuple[int, ...] = ()  # the steps of these; see `post_hoc`

    def has_average(self, name: str) -> bool:
        """Whether there are averaged weights of this name, also of a length not in `averages`."""
        return name in self.averages or post_hoc.can_make(name, self.snapshots)

    @property
    def any_class(self) -> bool:
        """Whether the network has learned to predict without a class."""
        return bool(self.classes) and self.config.label_dropout > 0

    def average_text(self, name: str) -> str:
        """An average with its decay, "main (0.9995)"; a post-hoc name says the length."""
        if post_hoc.length_in(name) is not None:
            return name
        decay = self.config.ema_decays.get(name, self.config.ema_decay)
        return f"{name} ({decay:g})"


def weights_path(run: Path, step: int) -> Path:
    return run / "weights" / f"step-{step:08d}.safetensors"


def state_path(run: Path, step: int) -> Path:
    return run / "state" / f"step-{step:08d}.pt"


def step_of(path: Path) -> int | None:
    """The step in the name of a file of a run; None for other names."""
    prefix, _, digits = path.name.partition(".")[0].partition("-")
    number = digits.isascii() and digits.isdecimal() and len(digits) <= MOST_DIGITS
    return int(digits) if prefix == "step" and number else None


def by_step(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """(step, file) of the files in a folder of a run that have a step in their name, rising."""
    found = ((step_of(path), path) for path in listing(folder, pattern))
    return sorted((step, path) for step, path in found if step is not None)


def save_weights(
    run: Path,
    step: int,
    tensors: dict[str, Tensor],
    config: RunConfig,
    classes: tuple[str, ...],
    averages: dict[str, dict[str, Tensor]] | None = None,
) -> Path:
    """Write EMA weights and buffers, and `averages` of other lengths by name.

    Raises DiskFull and leaves older files as they were.
    """
    path = weights_path(run, step)
    make_folder(path.parent)
    write_weights(path, step, tensors, config, classes, averages)
    return path


def write_weights(
    path: Path,
    step: int,
    tensors: dict[str, Tensor],
    config: RunConfig,
    classes: tuple[str, ...],
    averages: dict[str, dict[str, Tensor]] | None = None,
) -> None:
    """As `save_weights`, into a file of any name."""
    tensors = dict(tensors)
    for average, values in (averages or {}).items():
        tensors |= {f"{EXTRA}{average}/{name}": tensor for name, tensor in values.items()}
    metadata = {
        "format": "pt",
        "config": config.to_json(),
        "classes": json.dumps(classes),
        "step": str(step),
        "time": repr(time.time()),
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as file:
        file.write(safetensors.torch.save(contiguous, metadata))


def save_state(run: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state for an exact resume; raises DiskFull and leaves older files as they were."""
    path = state_path(run, step)
    make_folder(path.parent)
    with replacing(path) as file:
        torch.save(state, file)
    return path


def remove_old(run: Path, keep: int, keep_every: int = 0, kept: Collection[int] = ()) -> None:
    """Leave the newest `keep` weights (0 leaves all) and the newest two states.

    Weights of steps divisible by `keep_every`, and those of the steps `kept`, stay too. Weights
    that do not open do not count and are left for a person to look at.
    """
    whole = 0
    for step, path in reversed(by_step(run / "weights", "*.safetensors") if keep else []):
        if whole >= keep and (step in kept or (keep_every and step % keep_every == 0)):
            continue  # not opened: a long run may keep thousands
        try:
            read_checkpoint(path)
        except CheckpointError:
            continue
        whole += 1
        if whole > keep:
            path.unlink(missing_ok=True)
    for _, path in by_step(run / "state", "*.pt")[:-2]:
        path.unlink(missing_ok=True)


def load_state(run: Path, step: int) -> dict[str, Any]:
    """Raises CheckpointError where the file is missing, cut short or of another make."""
    path = state_path(run, step)
    try:
        check_regular(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        why = getattr(error, "strerror", None) or "it is damaged or cut short"
        raise CheckpointError(f"{path.name} cannot be read: {why}.") from error
    if not isinstance(state, dict) or not state.keys() >= STATE:
        raise CheckpointError(f"{path.name} does not hold the state of a training.")
    return state


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a weights file and hold its tensors against its settings, without loading them.

    Raises CheckpointError with the reason: cut short, not safetensors, another network.
    """
    try:
        check_regular(path)
        open(path, "rb").close()  # safetensors does not say that it must not be read
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
    except (OSError, safetensors.SafetensorError) as error:
        why = getattr(error, "strerror", None)
        what = f"cannot be read: {why}" if why else "is damaged or cut short"
        raise CheckpointError(f"{path.name} {what}.") from error
    try:
        header = {name: json.loads(metadata.get(name, "null")) for name in _Header.model_fields}
        made = record_of(_Header, header, "header")
        config = RunConfig.from_dict(made.config)
        network = network_plan(config.network, config.network_args)
    except (ValueError, RecursionError) as error:
        end = f": {error}" if isinstance(error, (ConfigError, RecordError)) else "."
        raise CheckpointError(f"{path.name} does not say what made it{end}") from error
    plain = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    extra = sorted({name.split("/")[1] for name in shapes if name.startswith(EXTRA)})
    wanted = dict(plain)
    for average in extra:
        wanted |= {f"{EXTRA}{average}/{name}": shape for name, shape in plain.items()}
    if shapes != wanted:
        odd = sorted(set(shapes.items()) ^ set(wanted.items()))[0][0]
        raise CheckpointError(f"{path.name} does not fit its own settings (see {cut(odd)}).")
    learned = config.network_args.get("num_classes", 0)
    if learned and len(made.classes) != learned:
        raise CheckpointError(
            f"{path.name} names {len(made.classes):,} of its {learned:,} classes; it is damaged."
        )
    snapshots: tuple[int, ...] = ()
    if config.average_snapshots and path.parent.name == "weights":  # not a copy elsewhere
        snapshots = post_hoc.snapshots_for(path.parent.parent, made.step)
    averages = (MAIN_AVERAGE, *extra, *post_hoc.offered(snapshots))
    return Checkpoint(path, made.step, made.time, config, made.classes, averages, snapshots)


def load_weights(
    checkpoint: Checkpoint, average: str = MAIN_AVERAGE, only: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The tensors of one average by name, on the CPU; all, or `only` those of these names.

    Raises CheckpointError.
    """
    if not checkpoint.has_average(average):
        raise CheckpointError(
            f"{checkpoint.path.name} has no averaged weights called {average!r}; "
            f"it has {', '.join(checkpoint.averages)}."
        )
    if post_hoc.length_in(average) is not None:
        run, config = checkpoint.path.parent.parent, checkpoint.config
        network = network_plan(config.network, config.network_args)
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        try:
            return post_hoc.reconstruct(run, checkpoint.step, average, shapes, only)
        except post_hoc.PostHocError as error:
            raise CheckpointError(str(error)) from error
    prefix = "" if average == MAIN_AVERAGE else f"{EXTRA}{average}/"
    try:
        with safetensors.safe_open(checkpoint.path, framework="pt") as file:
            names = {
                name.removeprefix(prefix): name
                for name in list(file.keys())
                if (name.startswith(prefix) if prefix else not name.startswith(EXTRA))
            }
            wanted = names if only is None else names.keys() & set(only)
            return {name: file.get_tensor(names[name]) for name in names if name in wanted}
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint.path.name} can no longer be read: newer checkpoints have replaced it, or "
            "somebody has deleted it. Choose another checkpoint."
        ) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint.path.name} can no longer be read: it is damaged, or the disk fails. "
            "Choose another checkpoint."
        ) from error


class LoadedModel(NamedTuple):
    """A network that is ready to sample; unpacks as model, schedule, config."""

    model: nn.Module
    schedule: Schedule
    config: RunConfig


def load_model(
    checkpoint: Checkpoint,
    device: torch.device | str = "cpu",
    average: str = MAIN_AVERAGE,
    *,
    exact: bool = False,
) -> LoadedModel:
    """The network with the checkpoint's EMA weights in evaluation mode, its schedule, its settings.

    `average`: which of the checkpoint's averaged weights. The network is in the form that samples
    fastest on the device (`inference.for_sampling`), in bfloat16 where the hardware computes in
    it: image k of a seed is then the same in every batch to rounding only. With `exact` it is a
    plain one in float32, whose weights can be read, and images are the same to the last bit where
    `sample` is called with `exact` too. Raises CheckpointError where the file can no longer be
    read.
    """
    config = checkpoint.config
    weights = load_weights(checkpoint, average)
    network = network_of(config, weights, device)
    if exact:
        compute_in_float32()
    else:
        half = has_fast_bfloat16(torch.device(device))
        network = for_sampling(network, half, config.image_shape)
    return LoadedModel(network, build_schedule(config).to(device), config)


def load_conditioning(checkpoint: Checkpoint, average: str = MAIN_AVERAGE) -> SimpleUnet | Unet:
    """A network on the CPU of which only what `models.conditioning` needs has been read.

    All other weights lie on the device "meta". Raises CheckpointError.
    """
    config = checkpoint.config
    with WithoutValues():
        network = build_network(config.network, config.network_args)
    weights = load_weights(checkpoint, average, weight_names(network))
    network.load_state_dict(weights, strict=False, assign=True)
    return network.float().eval().requires_grad_(False)


def network_of(
    config: RunConfig, weights: dict[str, Tensor], device: torch.device | str
) -> nn.Module:
    """A float32 network on the device that holds these very tensors, where they are such already;
    in evaluation mode, without gradients."""
    with WithoutValues():
        network = build_network(config.network, config.network_args)
    network.load_state_dict(weights, assign=True)
    # Weights may be kept in half precision to save room; the arithmetic stays float32.
    return network.to(device, torch.float32).eval().requires_grad_(False)
