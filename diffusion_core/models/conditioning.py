"""What the timestep, and the class, say to each block of a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from diffusion_core.models.unet import Block, SimpleUnet, Unet, UnetBlock

ENTRANCES = ("time_mlp", "label_embedding", "scale_shift")  # the layers that nothing else enters


def weight_names(network: nn.Module) -> list[str]:
    """Names of the weights on which the terms of the blocks depend: few of all."""
    return [name for name in network.state_dict() if set(ENTRANCES) & set(name.split("."))]


def conditioned_blocks(network: nn.Module) -> dict[str, Block | UnetBlock]:
    """The blocks that are given terms, by their paths, in order of execution."""
    found = ((name, each) for name, each in network.named_modules())
    return {name: each for name, each in found if isinstance(each, (Block, UnetBlock))}


@torch.inference_mode()
def time_terms(
    network: SimpleUnet | Unet, t: np.ndarray, label: int | None = None
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What each block in turn is given at the timesteps (N,): its path and {term: float32 (N,
    channels)}.

    `label`: of the class; None for "any class". Only the weights of `weight_names` are used.
    """
    steps = torch.from_numpy(t)
    emb = network.embed(steps, None if label is None else torch.full_like(steps, label))
    for name, block in conditioned_blocks(network).items():
        giver = block.residual if isinstance(block, UnetBlock) else block
        yield name, {term: values.numpy() for term, values in giver.time_terms(emb).items()}


def block_terms(
    network: SimpleUnet | Unet, t: np.ndarray, block: str, label: int | None = None
) -> dict[str, np.ndarray]:
    """What one block is given; see `time_terms`."""
    return next(terms for name, terms in time_terms(network, t, label) if name == block)


def term_sizes(
    network: SimpleUnet | Unet, t: np.ndarray, label: int | None = None
) -> dict[str, np.ndarray]:
    """The root mean square over the channels of what every block is given: {term: (blocks, N)}."""
    sizes: dict[str, list[np.ndarray]] = {}
    for _, terms in time_terms(network, t, label):
        for term, values in terms.items():
            sizes.setdefault(term, []).append(np.sqrt(np.square(values).mean(axis=1)))
    return {term: np.stack(rows) for term, rows in sizes.items()}


def term_variations(
    network: SimpleUnet | Unet, t: np.ndarray, label: int | None = None
) -> dict[str, np.ndarray]:
    """How much the timesteps change what every block is given: {term: (blocks,)}.

    The standard deviation over the timesteps, as a root mean square over the channels.
    """
    variations: dict[str, list[float]] = {}
    for _, terms in time_terms(network, t, label):
        for term, values in terms.items():
            variations.setdefault(term, []).append(float(np.sqrt(values.var(axis=0).mean())))
    return {term: np.array(row) for term, row in variations.items()}
