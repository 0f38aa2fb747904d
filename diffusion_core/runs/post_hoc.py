"""Averages of the weights whose length is chosen after the training: post-hoc EMA.

Karras et al. 2024 (EDM2, arXiv 2312.02696), section 3 and appendix C. During training two averages
follow power functions: at step t the weights of step s have the density
p(s; t, γ) = (γ + 1) s^γ / t^(γ + 1). Their length is the standard deviation of p by t, sigma_rel,
which does not change with t. Snapshots of both, in float16, are kept in
`averages/step-00000250.safetensors`. An average of any length at the step of a snapshot is the
combination of all snapshots up to there whose density comes nearest to its own.

All on numbers is NumPy in float64.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diffusion_core.files import check_regular, listing, make_folder, replacing
from diffusion_core.text import shown

FOLDER = "averages"  # of a run
STORED = (0.05, 0.1)  # the lengths that are followed during training
OFFERED = (0.03, 0.05, 0.075, 0.1, 0.15, 0.2)  # where they can be reached
MOST = 256  # snapshots that one average is made of
SHORTEST, LONGEST = 0.01, 0.28  # a constant density has 0.289
# The largest relative error (L2) of a density: of a length that is further off, there are too few
# snapshots.
FARTHEST = 0.1
_NAME = re.compile(r"post-hoc (0\.\d{1,4})", re.ASCII)
_FILE = re.compile(r"step-(\d{8,13})\.safetensors", re.ASCII)


class PostHocError(ValueError):
    """An average that cannot be made of the snapshots; the message is one sentence."""


# ---------------------------------------------------------------- densities


@functools.cache
def exponent_of(length: float) -> float:
    """γ of a length sigma_rel = (γ + 1)^½ (γ + 2)^-1 (γ + 3)^-½ in (0, 0.288]: the largest root of
    γ³ + 7γ² + (16 - 1/sigma_rel²)γ + (12 - 1/sigma_rel²)."""
    inverse = length**-2.0
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def power_decay(step: int, length: float) -> float:
    """What an average of this length keeps of itself at step `step` t (from 1), (1 - 1/t)^(γ + 1).

    Weights that change at whole steps only get exactly the integral of p over their step.
    """
    return float((1 - 1 / step) ** (exponent_of(length) + 1))


def overlap(t_1: np.ndarray, g_1: np.ndarray, t_2: np.ndarray, g_2: np.ndarray) -> np.ndarray:
    """∫ p(s; t_1, γ_1) p(s; t_2, γ_2) ds over all s, in closed form (appendix C); broadcasts."""
    first = t_1 <= t_2
    early, late = np.where(first, t_1, t_2), np.where(first, t_2, t_1)
    shares = (early / late) ** np.where(first, g_2, g_1) / late
    return (g_1 + 1) * (g_2 + 1) / (g_1 + g_2 + 1) * shares


@functools.lru_cache(maxsize=256)
def combination(
    steps: tuple[int, ...], step: int, length: float, lengths: tuple[float, ...] = STORED
) -> tuple[np.ndarray, float]:
    """The snapshots' coefficients (steps, lengths) of the average of a length at `step`, and the
    relative error (L2) of its density.

    Least squares of the densities (appendix C), under the condition that the coefficients sum to
    1: EDM2's weights have a fixed norm, those of our networks would shrink.
    """
    at = np.repeat(np.array(steps, dtype=np.float64), len(lengths))
    exponents = np.tile([exponent_of(each) for each in lengths], len(steps))
    target = np.array(step, dtype=np.float64), np.array(exponent_of(length))
    products = overlap(at[:, None], exponents[:, None], at, exponents)
    wanted, whole = overlap(at, exponents, *target), overlap(*target, *target)
    # In units of each density's own norm, where the system is well conditioned.
    unit = np.diag(products) ** -0.5
    right = np.stack([wanted, np.ones_like(at)], axis=1) * unit[:, None]
    free, ones = (np.linalg.solve(products * unit[:, None] * unit, right) * unit[:, None]).T
    found = free + ones * (1 - free.sum()) / ones.sum()
    squared = found @ products @ found - 2 * wanted @ found + whole
    return found.reshape(len(steps), -1), float(np.sqrt(max(0.0, squared / whole)))


# ---------------------------------------------------------------- names


def name_of(length: float) -> str:
    """ "post-hoc 0.075" """
    return f"post-hoc {length:g}"


def length_in(average: str) -> float | None:
    """The length that the name of an average stands for; None where it is another kind."""
    match = _NAME.fullmatch(average)
    length = float(match[1]) if match else 0.0
    return length if SHORTEST <= length <= LONGEST and name_of(length) == average else None


def can_make(average: str, snapshots: tuple[int, ...]) -> bool:
    """Whether snapshots of these steps give an average of this name at the last of them."""
    length = length_in(average)
    if length is None or not snapshots:
        return False
    return combination(snapshots, snapshots[-1], length)[1] <= FARTHEST


def offered(snapshots: tuple[int, ...]) -> tuple[str, ...]:
    """The names of usual lengths that these snapshots give at the last of them."""
    return tuple(name for name in map(name_of, OFFERED) if can_make(name, snapshots))


# ---------------------------------------------------------------- files


def snapshot_path(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:08d}.safetensors"


def snapshots_for(run: Path, step: int) -> tuple[int, ...]:
    """The steps of the snapshots that count at a step, at most MOST of them, evenly chosen; none
    where it has none itself."""
    if not snapshot_path(run, step).exists():
        return ()
    found = [each for each in _steps(run) if each <= step]
    every = -(-len(found) // MOST)
    return tuple(found[::-every][::-1])


def save_snapshot(run: Path, step: int, averages: Mapping[float, Mapping[str, Tensor]]) -> Path:
    """Write the averages of the lengths STORED, by length; raises DiskFull."""
    path = snapshot_path(run, step)
    make_folder(path.parent)
    tensors = {
        f"{length:g}/{name}": _halved(tensor.detach().cpu()).contiguous()
        for length, weights in averages.items()
        for name, tensor in weights.items()
    }
    with replacing(path) as file:
        file.write(safetensors.torch.save(tensors, {"format": "pt", "step": str(step)}))
    return path


def remove_after(run: Path, step: int) -> None:
    """Remove the snapshots of later steps: a run that goes on from here makes its own."""
    for each in _steps(run):
        if each > step:
            snapshot_path(run, each).unlink(missing_ok=True)


def reconstruct(
    run: Path,
    step: int,
    average: str,
    shapes: Mapping[str, tuple[int, ...]],
    only: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """The average of a name at `step` in float32, all tensors or `only` those of these names.

    `shapes`: of the network's tensors. What is counted, as BatchNorm does, is that of the step
    itself. Raises PostHocError.
    """
    length, steps = length_in(average), snapshots_for(run, step)
    if length is None or not can_make(average, steps):
        raise PostHocError(
            f"The snapshots of the averages do not give {shown(average)} at step {step:,}."
        )
    coefficients, _ = combination(steps, step, length)
    found: dict[str, Tensor] = {}
    for each, row in zip(steps, coefficients, strict=True):
        with _opened(snapshot_path(run, each), shapes) as file:
            for name in shapes if only is None else shapes.keys() & set(only):
                for stored, share in zip(STORED, row, strict=True):
                    tensor = file.get_tensor(f"{stored:g}/{name}")
                    if not tensor.is_floating_point():
                        found[name] = tensor
                    elif name in found:
                        found[name].add_(tensor.float(), alpha=float(share))
                    else:
                        found[name] = tensor.float().mul_(float(share))
    return found


def check_snapshot(path: Path) -> None:
    """Raises PostHocError for a file that holds other things."""
    starts = tuple(f"{length:g}/" for length in STORED)
    with _reading(path) as file:
        if not all(name.startswith(starts) for name in list(file.keys())):
            raise PostHocError(f"{FOLDER}/{path.name} does not hold averages.")


@contextmanager
def _opened(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Any]:
    """A file of snapshots whose tensors are those of the network. Raises PostHocError."""
    wanted = {f"{length:g}/{name}": shapes[name] for length in STORED for name in shapes}
    with _reading(path) as file:
        there = {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
        if there != wanted:
            raise PostHocError(f"{FOLDER}/{path.name} is not of this run's network.")
        yield file


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """A safetensors file. Raises PostHocError."""
    try:
        check_regular(path)
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        why = getattr(error, "strerror", None) or "it is damaged or cut short"
        raise PostHocError(f"{FOLDER}/{path.name} cannot be read: {why}.") from error


def _steps(run: Path) -> list[int]:
    found = (_FILE.fullmatch(path.name) for path in listing(run / FOLDER, "step-*.safetensors"))
    return sorted(int(match[1]) for match in found if match)


def _halved(tensor: Tensor) -> Tensor:
    """In float16, unless it is counted or too large for that."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.to(torch.float16)
    return half if bool(half.isfinite().all()) else tensor
