"""The parts of a training, made once: images, network, optimizer and averages."""

from __future__ import annotations

import copy
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from diffusion_core.cores import take_share
from diffusion_core.data.split import split
from diffusion_core.data.store import ImageStore, build_store
from diffusion_core.device import (
    compute_in_float32,
    describe,
    free_memory,
    has_fast_bfloat16,
    with_number,
)
from diffusion_core.evaluation.features import GeneralNetwork, general_net
from diffusion_core.files import complain
from diffusion_core.models.convolutions import Ways, set_ways
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.config_file import Details
from diffusion_core.runs.launch import check_share
from diffusion_core.runs.post_hoc import STORED
from diffusion_core.runs.presets import args_for_images, build_network, build_schedule
from diffusion_core.training.augmentation import DIMENSIONS
from diffusion_core.training.layer_ways import fastest_ways, this_machine
from diffusion_core.training.learned_weighting import LearnedWeighting
from diffusion_core.training.micro_batches import fitting_micro_batch
from diffusion_core.training.muon import Muon, muon_groups
from diffusion_core.training.shared_norm import share_norms

# Optimizers that update all weights in one kernel and can leave an update out on the device itself.
FUSED = ("cpu", "cuda")
MATCHING_BETAS = (0.0, 0.99)


@dataclass
class TrainingContext:
    """Everything that a step needs."""

    config: RunConfig  # as it holds for the step at hand
    store: ImageStore
    resident: Tensor | None  # the store's images on the device, where they fit there
    train_index: np.ndarray  # positions in the store, shape (N,)
    validation_index: np.ndarray
    schedule: Schedule
    accelerator: Accelerator
    model: nn.Module  # as accelerate prepared it
    optimizer: torch.optim.Optimizer
    weighting: LearnedWeighting | None  # of the noise levels; in the optimizer, in no average
    teacher: nn.Module | None  # of a distillation from its paths, with the weights of `load_origin`
    perceptual: GeneralNetwork | None  # whose features `perceptual_weight` compares
    averages: dict[str, nn.Module]  # the network with averaged weights, by their names
    powers: dict[float, nn.Module]  # with those of `post_hoc`, by their lengths
    micro_batch: int  # images that this process takes at once
    broken: Tensor  # (), 1 from the first step on whose gradient is not finite
    ways: dict[str, Ways]  # of the layers that are not computed as PyTorch does
    critic: nn.Module | None = None  # of the samples: see `matching`
    critic_optimizer: torch.optim.Optimizer | None = None

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def labelled(self) -> bool:
        return bool(self.config.network_args.get("num_classes"))

    @property
    def bare_model(self) -> nn.Module:
        """The network without what accelerate put around it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def average(self) -> nn.Module:
        """The network with the main averaged weights."""
        return self.averages[MAIN_AVERAGE]


def prepare_images(config: RunConfig, progress: Callable[[int, int], None]) -> ImageStore:
    """Raises DataError; `progress` is that of `build_store`."""
    workers = None if config.num_workers < 0 else config.num_workers
    return build_store(
        config.data,
        config.image_size,
        config.channels,
        config.resize,
        workers=workers,
        progress=progress,
    )


def settle_network(config: RunConfig, store: ImageStore) -> RunConfig:
    """Tell the network how many channels and, where it is to learn them, classes there are, and of
    an augmentation."""
    args = args_for_images(config)
    args.pop("num_classes", None)
    args.pop("augment_dim", None)
    if config.augment:
        args["augment_dim"] = DIMENSIONS
    if config.class_conditional and config.network == "unet" and len(store.classes) > 1:
        args["num_classes"] = len(store.classes)
    return config.replace(network_args=args)


def make_context(
    config: RunConfig,
    store: ImageStore,
    device: torch.device,
    details: Details | None = None,
) -> TrainingContext:
    """`details`: what the settings came to where the run began, if it did.

    Raises DataError where the images fill no batch, ConfigError where it cannot be shared.
    """
    train_index, validation_index = split(
        len(store), config.validation_count, config.batch_size, config.seed, config.data
    )
    compute_in_float32()  # where no bfloat16 is asked for
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every step has the same shapes
        if device.index is not None:
            torch.cuda.set_device(device)
    precision = "bf16" if config.mixed_precision == "bf16" else "no"
    if config.mixed_precision == "auto" and has_fast_bfloat16(device):
        precision = "bf16"
    process = PartialState(cpu=device.type == "cpu")
    process.device = with_number(process.device)
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    check_share(config, accelerator.num_processes)
    share = config.batch_size // accelerator.num_processes
    torch.manual_seed(config.seed)
    model = build_network(config.network, config.network_args).to(accelerator.device)
    if use_channels_last(config, accelerator):
        model = model.to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1:
        share_norms(model)
    resident = _resident(store, accelerator.device)  # before what is left is planned
    micro_batch = min(
        share, config.micro_batch or fitting_micro_batch(config, accelerator.device, share)
    )
    if micro_batch < share and config.network == "lecture":
        complain(f"The batch is taken in parts of {micro_batch}; BatchNorm treats each by itself.")
    ways = _fastest_ways(config, model, micro_batch, accelerator, details)
    set_ways(model, ways)
    weighting = LearnedWeighting().to(accelerator.device) if config.learned_weighting else None
    optimizer = make_optimizer(config, model, accelerator.device, weighting)
    names = (MAIN_AVERAGE, *config.ema_decays)
    averages: dict[str, nn.Module] = {name: copy.deepcopy(model) for name in names}
    lengths = STORED if config.average_snapshots else ()
    powers: dict[float, nn.Module] = {length: copy.deepcopy(model) for length in lengths}
    teacher = None
    if config.learns_from_paths:
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
    perceptual = general_net(accelerator.device).model if config.perceptual_weight else None
    model, optimizer = accelerator.prepare(model, optimizer)
    return TrainingContext(
        config=config,
        store=store,
        resident=resident,
        train_index=train_index,
        validation_index=validation_index,
        schedule=build_schedule(config).to(accelerator.device),
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        weighting=weighting,
        teacher=teacher,
        perceptual=perceptual,
        averages=averages,
        powers=powers,
        micro_batch=micro_batch,
        broken=torch.zeros((), device=accelerator.device),
        ways=ways,
    )


def make_optimizer(
    config: RunConfig,
    model: nn.Module,
    device: torch.device,
    weighting: nn.Module | None = None,
) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if config.optimizer == "muon":
        groups = muon_groups(model)
    if weighting is not None:
        groups.append({"params": list(weighting.parameters()), "weight_decay": 0.0})
    if config.optimizer == "muon":
        return Muon(groups, config.learning_rate, config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        groups,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type in FUSED,
    )


def begin_matching(context: TrainingContext) -> None:
    """Add a critic, a copy of the teacher. From here on it and the network are moved by Adam
    without momentum (DMD2): each is to answer what the other does now, not what it did."""
    assert context.teacher is not None
    context.critic = copy.deepcopy(context.teacher).requires_grad_(True)
    ours, critics = (
        torch.optim.Adam(
            network.parameters(), betas=MATCHING_BETAS, fused=context.device.type in FUSED
        )
        for network in (context.model, context.critic)
    )
    context.optimizer = context.accelerator.prepare(ours)
    context.critic_optimizer = critics


def load_optimizer(
    optimizer: torch.optim.Optimizer, device: torch.device, state: dict[str, Any]
) -> None:
    """Take over an optimizer's state, which another device may have written.

    `load_state_dict` keeps what is the other device's: the order of the moments in memory, which
    the fused kernels read as if it were that of the weights, and which kernel is used.
    """
    optimizer.load_state_dict(state)
    fused = device.type in FUSED
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = fused
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if name == "step":
                    value = value.float().to(parameter.device if fused else "cpu")
                else:
                    value = torch.empty_like(parameter).copy_(value)
                optimizer.state[parameter][name] = value


def use_channels_last(config: RunConfig, accelerator: Accelerator) -> bool:
    """Where it was measured to help: tensor cores, and the lecture's wide convolutions on the CPU.

    The small network on a CPU is slower with it (its group norms and attention pay more than the
    convolutions gain).
    """
    return accelerator.device.type == "cuda" or config.network == "lecture"


def _fastest_ways(
    config: RunConfig,
    model: SimpleUnet | Unet,
    micro_batch: int,
    accelerator: Accelerator,
    details: Details | None,
) -> dict[str, Ways]:
    """A run that goes on where it began keeps its ways, so that it goes on exactly."""
    if accelerator.device.type != "cpu" or not config.fast_layers:
        return {}
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    take_share(config.threads)
    same = details is not None and details.layers_machine == this_machine()
    known = details.layers if details is not None and same else None
    return fastest_ways(model, micro_batch, config.image_size, dtype, known)


def _resident(store: ImageStore, device: torch.device) -> Tensor | None:
    """The images on the device, where they take at most a quarter of what is free there."""
    if device.type != "cuda" or store.images.nbytes > free_memory(device) // 4:
        return None
    return torch.from_numpy(np.array(store.images)).to(device)


def resolved(context: TrainingContext) -> dict[str, Any]:
    """What `config.json` holds beside the settings: see `config_file.Details`."""
    store, accelerator = context.store, context.accelerator
    return {
        "classes": list(store.classes) if context.labelled else [],
        "pictures": len(store),
        "training_pictures": len(context.train_index),
        "validation_pictures": len(context.validation_index),
        "data_fingerprint": store.fingerprint,
        "data_content": store.content,
        "parameters": sum(p.numel() for p in context.model.parameters()),
        "mixed_precision": accelerator.mixed_precision,
        "micro_batch": context.micro_batch,
        "device": describe(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": take_share(context.config.threads),
        "layers": context.ways,
        "layers_machine": this_machine() if context.device.type == "cpu" else "",
        "command": " ".join(["python -m diffusion_core", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "accelerate": accelerate.__version__,
            "numpy": np.__version__,
        },
    }
