"""A checkpoint as one file for the engine that samples in a browser.

The file is safetensors: the averaged weights in float16 under their names in the network, and the
schedule's alpha and sigma of every timestep in float64 as `schedule.alpha` and `schedule.sigma`.
Its metadata has one entry, `model`, the JSON of a `BrowserModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import safetensors.torch
import torch
from torch import nn

from diffusion_core.models.unet import SelfAttention
from diffusion_core.records import Record
from diffusion_core.runs.checkpoint import Checkpoint, load_weights
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.presets import (
    build_schedule,
    network_plan,
    network_settings,
)
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.levels import exact_tables
from diffusion_core.sampling.registry import sampler_of

MOST_PARAMETERS = 2_500_000
LARGEST_IMAGE = 32  # pixels
# The samplers that the engine has, the best first, for diffusion models and for flows; all on the
# levels of the spacing "trailing".
SAMPLERS, FLOW_SAMPLERS = ("dpmpp_2m", "ddim", "consistency"), ("euler", "consistency")
# That of distilled networks, which the engine offers of the others, too: predict the image, add
# noise of the next level, predict again (Song et al. 2023, algorithm 1).
AGAIN, AGAIN_TITLE = "consistency", "Predict and add noise"
LARGEST_HALF = torch.finfo(torch.float16).max


class BrowserModelError(ValueError):
    """A checkpoint that the engine in the browser cannot take; the message says why."""


class BrowserModel(Record):
    """What the engine must know beside the weights and the schedule."""

    format: Literal[1] = 1
    step: int
    channels: int
    image_size: int
    patch: int  # of the stem
    embedding: int  # values of the sinusoidal embedding of t
    classes: tuple[str, ...]  # empty where the network takes no labels
    any_class: bool  # whether it has learned to sample without a class
    groups: Mapping[str, int]  # of each norm, by its name
    heads: Mapping[str, int]  # of each self-attention
    prediction_type: str
    samplers: Mapping[str, str]  # titles of those that fit, by name, the usual one first
    usual_steps: int  # of the usual one


def why_not_in_browser(config: RunConfig) -> str:
    """Why the engine does not take runs with these settings, as a sentence; empty if it does."""
    if config.network != "unet":
        return (
            f"The engine in the browser does not have the layers of the network {config.network}."
        )
    if config.image_size > LARGEST_IMAGE:
        return (
            f"Its images have {config.image_size} pixels a side; in the browser at most "
            f"{LARGEST_IMAGE} are fast enough."
        )
    plan = network_plan(config.network, config.network_args)
    parameters = sum(each.numel() for each in plan.parameters())
    if parameters > MOST_PARAMETERS:
        return (
            f"It has {parameters:,} parameters; in the browser at most {MOST_PARAMETERS:,} are "
            "fast enough."
        )
    return ""


def browser_model(checkpoint: Checkpoint, average: str = MAIN_AVERAGE) -> bytes:
    """The file of one of a checkpoint's averaged weights.

    Raises BrowserModelError where the engine does not take it, CheckpointError where the checkpoint
    can no longer be read.
    """
    config = checkpoint.config
    if why := why_not_in_browser(config):
        raise BrowserModelError(why)
    weights = load_weights(checkpoint, average)
    for name, tensor in weights.items():
        if not bool((tensor.abs() <= LARGEST_HALF).all()):  # false for NaN, too
            raise BrowserModelError(
                f"{checkpoint.path.name} has weights in {name} that are not finite or too large "
                "for float16: its training has diverged. Choose an earlier checkpoint."
            )
    tensors = {name: tensor.half().contiguous() for name, tensor in weights.items()}
    alpha, sigma = exact_tables(build_schedule(config))
    tensors["schedule.alpha"] = torch.tensor(alpha, dtype=torch.float64)
    tensors["schedule.sigma"] = torch.tensor(sigma, dtype=torch.float64)
    model = describe(checkpoint).model_dump_json()
    return safetensors.torch.save(tensors, {"model": model})


def describe(checkpoint: Checkpoint) -> BrowserModel:
    """What the engine is told of a checkpoint."""
    config, can = checkpoint.config, Capabilities.of(checkpoint)
    plan = network_plan(config.network, config.network_args)
    settings = network_settings(config.network, config.network_args)
    layers = dict(plan.named_modules())
    norms = {name: each for name, each in layers.items() if isinstance(each, nn.GroupNorm)}
    attention = {name: each for name, each in layers.items() if isinstance(each, SelfAttention)}
    offered = FLOW_SAMPLERS if can.flow else SAMPLERS
    titles = {name: sampler_of(name, can.flow).title for name in offered if name in can.samplers}
    usual = next(iter(titles))
    return BrowserModel(
        step=checkpoint.step,
        channels=config.channels,
        image_size=config.image_size,
        patch=settings["patch"],
        embedding=settings["widths"][0],
        classes=checkpoint.classes,
        any_class=can.any_class,
        groups={name: each.num_groups for name, each in norms.items()},
        heads={name: each.heads for name, each in attention.items()},
        prediction_type=config.prediction_type,
        samplers=titles if can.distilled else titles | {AGAIN: AGAIN_TITLE},
        usual_steps=can.usual_steps[usual],
    )
