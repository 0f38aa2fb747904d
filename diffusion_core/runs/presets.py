"""The presets, and the networks and schedules of a configuration."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.runs.config import ConfigError, RunConfig

PRESETS: dict[str, RunConfig] = {
    # The lecture's values, unchanged. 32 held-out images leave Stanford Cars its 126 full batches
    # of 128.
    "lecture": RunConfig(
        preset="lecture",
        network="lecture",
        class_conditional=False,
        label_dropout=0.0,
        schedule={"kind": "linear", "timesteps": 300, "beta_start": 1e-4, "beta_end": 0.02},
        prediction_type="epsilon",
        loss="l1",
        min_snr_gamma=0.0,
        validation_count=32,
        steps=252,
        batch_size=128,
        optimizer="adam",
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_steps=0,
        gradient_clip=0.0,
        checkpoint_every=25,
        keep_checkpoints=2,
        sample_every=25,
        sample_count=1,
        sample_steps=0,
        validate_every=25,
    ),
    # 1.0 M parameters, 32 x 32 pixels: something to see within two minutes on one CPU core.
    "tiny": RunConfig(
        preset="tiny",
        preset_version=2,  # 1: v_prediction, AdamW
        network="unet",
        network_args={"widths": [32, 48, 64], "blocks": 1, "attention_levels": [2], "patch": 2},
        schedule={"kind": "cosine", "timesteps": 1000},
        prediction_type="x_0",
        loss_on="v",
        image_size=32,
        steps=400,
        optimizer="muon",
        learning_rate=2e-3,
        warmup_steps=40,
        ema_decay=0.98,
        checkpoint_every=100,
        keep_checkpoints=2,
        sample_every=50,
        validate_every=100,
    ),
    # 4.0 M parameters: made for two CPU cores.
    "small": RunConfig(
        preset="small",
        preset_version=2,  # 1: v_prediction, AdamW, another network
        network="unet",
        network_args={
            "widths": [32, 64, 96, 128],
            "blocks": 1,
            "attention_levels": [2, 3],
            "patch": 2,
        },
        schedule={"kind": "cosine", "timesteps": 1000},
        prediction_type="x_0",
        loss_on="v",
        optimizer="muon",
        learning_rate=2e-3,
        warmup_steps=200,
        ema_decays={"short": 0.99},
        evaluate_every=500,
    ),
    # 51.6 M parameters, the same family: one GPU and up.
    "base": RunConfig(
        preset="base",
        preset_version=2,  # 1: v_prediction, AdamW
        network="unet",
        network_args={
            "widths": [128, 192, 256, 384],
            "blocks": 2,
            "attention_levels": [2, 3],
            "patch": 1,
        },
        schedule={"kind": "cosine", "timesteps": 1000},
        prediction_type="x_0",
        loss_on="v",
        steps=50_000,
        batch_size=128,
        optimizer="muon",
        learning_rate=3e-4,
        warmup_steps=1000,
        ema_decay=0.9999,
        ema_decays={"short": 0.99},
        checkpoint_every=1000,
        sample_every=500,
        sample_steps=20,
        validate_every=1000,
        evaluate_every=1000,
    ),
}


def preset(name: str) -> RunConfig:
    """The settings called `name`; raises ConfigError that lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset called {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


NETWORKS: dict[str, type[SimpleUnet] | type[Unet]] = {"lecture": SimpleUnet, "unet": Unet}


def network_settings(network: str, network_args: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a network: those given, and the defaults of the others."""
    there = inspect.signature(NETWORKS[network]).parameters
    return {name: known.default for name, known in there.items()} | dict(network_args)


class WithoutValues(TorchFunctionMode):
    """Networks that are built inside lie on the device "meta": shapes without numbers.

    Their weights are not drawn. PyTorch would import its compiler for that, which takes 80 MB.
    """

    def __enter__(self) -> Self:
        self._device = torch.device("meta")
        self._device.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._device.__exit__(*error)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def build_network(network: str, network_args: Mapping[str, Any]) -> SimpleUnet | Unet:
    """A fresh network with random weights: `lecture` (`SimpleUnet`) or `unet` (`Unet`).

    Raises ConfigError where the arguments cannot be used.
    """
    kind, there = NETWORKS[network], network_settings(network, {})
    if unknown := [name for name in network_args if name not in there]:
        raise ConfigError(f"network_args: there is no {unknown[0]}; there are {', '.join(there)}.")
    try:
        return kind(**network_args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"network_args: {error}") from error


def network_plan(network: str, network_args: Mapping[str, Any]) -> SimpleUnet | Unet:
    """The network on the device "meta": shapes without numbers, so nothing is computed.

    One for all who ask, so it must not be changed. Raises ConfigError.
    """
    return _network_plan(network, json.dumps(dict(network_args), sort_keys=True))


@functools.lru_cache(maxsize=64)
def _network_plan(network: str, network_args: str) -> SimpleUnet | Unet:
    with WithoutValues():
        return build_network(network, json.loads(network_args))


def args_for_images(config: RunConfig) -> dict[str, Any]:
    """The arguments of the run's network, which takes images of the run's channels."""
    args = {name: value for name, value in config.network_args.items() if name != "channels"}
    return args if config.channels == 3 else args | {"channels": config.channels}


def check_network(config: RunConfig) -> None:
    """Raise ConfigError where the network cannot be built or does not take the run's images."""
    args = json.dumps(args_for_images(config), sort_keys=True)
    _check_network(config.network, args, config.image_shape)


@functools.lru_cache(maxsize=256)  # the runs of a sweep may have one network
def _check_network(network: str, network_args: str, image_shape: tuple[int, int, int]) -> None:
    plan = network_plan(network, json.loads(network_args))
    with torch.device("meta"):
        images, t = torch.empty(2, *image_shape), torch.zeros(2, dtype=torch.long)
        try:
            plan(images, t)
        except ValueError as error:
            raise ConfigError(f"network_args, image_size: {error}") from error


def build_schedule(config: RunConfig) -> Schedule:
    """The forward process of a run."""
    return _schedule_kind(config)(**schedule_settings(config))


def schedule_settings(config: RunConfig) -> dict[str, Any]:
    """All arguments of the forward process of a run: those given, and the defaults of the others.

    Of a flow only the number of timesteps is to be chosen.
    """
    there = inspect.signature(_schedule_kind(config)).parameters
    given = dict(config.schedule)
    return {name: given.get(name, known.default) for name, known in there.items()}


def _schedule_kind(config: RunConfig) -> type[FlowSchedule] | type[NoiseSchedule]:
    return FlowSchedule if PREDICTION_TYPES[config.prediction_type].flow else NoiseSchedule


def build_model(name: str, **overrides: Any) -> SimpleUnet | Unet:
    """The network of a preset, in training mode with random weights.

    `build_model("small", num_classes=8)`: overrides are arguments of `Unet`.
    """
    config = preset(name)
    return build_network(config.network, {**config.network_args, **overrides})
