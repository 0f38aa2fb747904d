"""A small network with its own gradients and Adam, as the browser computes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from diffusion_core.playground.random import Random

EMBEDDING = 16  # numbers that the network is told of a timestep
CLASSES = 2
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's usual constants

Weights = list[np.ndarray]  # in turns (inputs, outputs) and (outputs,), float64


def time_features(timesteps: int) -> np.ndarray:
    """The sinusoidal embedding of every timestep, as `SinusoidalPositionEmbeddings(EMBEDDING)`."""
    half = EMBEDDING // 2
    frequencies = np.exp(np.arange(half) * -(math.log(10000) / (half - 1)))
    angles = np.arange(timesteps)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def initial_weights(random: Random, inputs: int, width: int, layers: int) -> Weights:
    """`layers` hidden layers and the output, uniform in ±1/sqrt(inputs) as in PyTorch."""
    weights = []
    sizes = [inputs, *[width] * layers, 2]
    for before, after in pairwise(sizes):
        bound = 1 / math.sqrt(before)
        weights.append(bound * (2 * random.uniforms(before, after) - 1))
        weights.append(bound * (2 * random.uniforms(after) - 1))
    return weights


def forward(weights: Weights, inputs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The output (B, 2), and what `backward` needs: each layer's input and sum."""
    kept, x = [], inputs
    for k in range(0, len(weights), 2):
        z = x @ weights[k] + weights[k + 1]
        kept += [x, z]
        x = z * sigmoid(z)
    return kept[-1], kept


def backward(weights: Weights, kept: list[np.ndarray], gradient: np.ndarray) -> Weights:
    """The gradients of the weights from that of the output, (B, 2)."""
    gradients: Weights = []
    for k in range(len(weights) - 2, -1, -2):
        gradients = [kept[k].T @ gradient, gradient.sum(axis=0), *gradients]
        if k:
            z = kept[k - 1]
            share = sigmoid(z)
            gradient = (gradient @ weights[k].T) * share * (1 + z * (1 - share))
    return gradients


def sigmoid(z: np.ndarray) -> np.ndarray:
    # Of |z|, so that nothing overflows.
    small = np.exp(-np.abs(z))
    return np.where(z < 0, small, 1) / (1 + small)


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015), as `torch.optim.Adam`; changes the weights in place."""

    weights: Weights
    learning_rate: float

    def __post_init__(self) -> None:
        self.count = 0
        self.means = [np.zeros_like(each) for each in self.weights]
        self.squares = [np.zeros_like(each) for each in self.weights]

    def step(self, gradients: Weights) -> None:
        self.count += 1
        rate = self.learning_rate / (1 - BETA_1**self.count)
        correction = math.sqrt(1 - BETA_2**self.count)
        for weight, gradient, mean, square in zip(
            self.weights, gradients, self.means, self.squares, strict=True
        ):
            mean += (1 - BETA_1) * (gradient - mean)
            square += (1 - BETA_2) * (gradient**2 - square)
            weight -= rate * mean / (np.sqrt(square) / correction + EPSILON)
