"""The sampling methods: each against diffusers, and against the exact solution for a Gaussian at
the order that its paper claims."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_core.process.objective import to_epsilon, to_x_0
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.sampling import solvers
from diffusion_core.sampling.levels import (
    IMAGE,
    OF_SIGMA,
    TIMESTEP_SPACINGS,
    NoiseLevel,
    exact_tables,
    make_levels,
)

T = 300
SCHEDULE = NoiseSchedule("linear", T)
RATIOS = np.divide(*exact_tables(SCHEDULE)[::-1])  # sigma / alpha of each timestep
SHAPE = (2, 3, 6, 6)
DIFFUSERS_TYPES = {"epsilon": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}
# These work on x_t / alpha, as Karras et al. do.
KARRAS: dict[str, tuple[type, dict[str, Any]]] = {
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "lms": (diffusers.LMSDiscreteScheduler, {}),
}
DPM: dict[str, tuple[type, dict[str, Any]]] = {
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_sde": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}
# Its levels are those of DPM; a last level without noise it cannot take.
SA = (diffusers.SASolverScheduler, {"tau_func": lambda t: 1})
WITH_SIGMAS = KARRAS | DPM
# These look their levels up by the timestep alone. "ddim 1" is DDIM with eta 1.
BY_TIMESTEP: dict[str, tuple[type, dict[str, Any]]] = {
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "ddpm large": (
        diffusers.DDPMScheduler,
        {"clip_sample": False, "variance_type": "fixed_large"},
    ),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "ddim 1": (diffusers.DDIMScheduler, {"clip_sample": False}),
}
THEIRS = WITH_SIGMAS | BY_TIMESTEP
OURS: dict[str, Callable[..., solvers.Steps]] = {
    **{name: getattr(solvers, name) for name in (*WITH_SIGMAS, "ddpm", "ddim", "sa_solver")},
    "ddpm large": partial(solvers.ddpm, noise_term="large"),
    "ddim 1": partial(solvers.ddim, eta=1.0),
}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(x: Tensor, t: float) -> Tensor:
    """Some function of image and time that is not linear."""
    return torch.tanh(0.7 * x + 0.3 * torch.sin(x.roll(1, -1))) * (0.5 + 0.5 * t / T)


def predict_as(prediction_type: str) -> solvers.Predict:
    def predict(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        output = network(x_t, level.t)
        point = (output, x_t, level.alpha, level.sigma, prediction_type)
        return to_x_0(*point), to_epsilon(*point)

    return predict


def noises(seed: int) -> Callable[..., Tensor]:
    """Always the same sequence, whatever is asked for beside it."""
    numbers = count(seed)

    def draw(*args: Any, **kwargs: Any) -> Tensor:
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(next(numbers)))

    return draw


def by_ours(name: str, levels: Sequence[NoiseLevel], prediction_type: str, x_T: Tensor) -> Tensor:
    *_, last = OURS[name](predict_as(prediction_type), levels, x_T, noises(100))
    return last.x_t


def has_no_x_0(name: str, prediction_type: str) -> bool:
    """diffusers' Euler ancestral refuses x_0: it gets the epsilon that the x_0 stands for."""
    return name == "euler_ancestral" and prediction_type == "x_0"


def their_scheduler(
    name: str, prediction_type: str, steps: int, spacing: str = "trailing", **options: Any
) -> Any:
    """diffusers' own, its levels by its own `set_timesteps(steps)`."""
    kind, usual = THEIRS[name]
    if spacing in OF_SIGMA:
        # Euler, Heun and LMS space sigma between the first and last of these timesteps.
        options = {"timestep_spacing": "linspace", f"use_{spacing}_sigmas": True} | options
    else:
        options = {"timestep_spacing": spacing} | options
    scheduler = kind(
        num_train_timesteps=T,
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=(
            "epsilon" if has_no_x_0(name, prediction_type) else DIFFUSERS_TYPES[prediction_type]
        ),
        **usual,
        **options,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def by_theirs(
    name: str,
    scheduler: Any,
    prediction_type: str,
    x_T: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> Tensor:
    """diffusers' images, as its pipelines draw them, from our x_T and noises."""
    module = sys.modules[type(scheduler).__module__]
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", noises(100))
    options = {"eta": 1.0} if name == "ddim 1" else {}
    x = x_T * (1 + scheduler.sigmas[0] ** 2) ** 0.5 if name in KARRAS else x_T
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        output = network(shown, float(t))
        if has_no_x_0(name, prediction_type):
            alpha = float(1 + scheduler.sigmas[scheduler.step_index] ** 2) ** -0.5
            output = to_epsilon(output, shown, alpha, (1 - alpha**2) ** 0.5, "x_0")
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


def assert_same_images(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of their size, which the toy network lets grow beyond 1."""
    assert torch.allclose(ours, theirs, atol=1e-4 * max(1.0, float(theirs.abs().max())))


# ---------------------------------------------------------------- against diffusers' methods


@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("prediction_type", DIFFUSERS_TYPES)
@pytest.mark.parametrize("name", WITH_SIGMAS)
def test_every_method_equals_diffusers_on_our_levels(
    name: str, prediction_type: str, spacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every spacing of ours put into their scheduler, those too that it has no option for."""
    levels = make_levels(SCHEDULE, 12, spacing)
    scheduler = their_scheduler(name, prediction_type, 12)
    ratios = torch.tensor([level.ratio for level in levels], dtype=torch.float64).float()
    ts = torch.tensor([level.t for level in levels[:-1]], dtype=torch.float64)
    if name == "heun":  # which asks twice at every level but the first
        ratios = torch.cat([ratios[:1], ratios[1:-1].repeat_interleave(2), ratios[-1:]])
        ts = torch.cat([ts[:1], ts[1:].repeat_interleave(2)])
    scheduler.sigmas, scheduler.timesteps, scheduler._step_index = ratios, ts, 0
    x_T = noises(1)()
    assert_same_images(
        by_ours(name, levels, prediction_type, x_T),
        by_theirs(name, scheduler, prediction_type, x_T, monkeypatch),
    )


@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("prediction_type", DIFFUSERS_TYPES)
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_sa_solver_equals_diffusers_on_our_levels(
    steps: int, prediction_type: str, spacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the last level: theirs divides by it, and so has a little noise."""
    levels = make_levels(SCHEDULE, steps, spacing)
    kind, options = SA
    scheduler = kind(T, 1e-4, 0.02, prediction_type=DIFFUSERS_TYPES[prediction_type], **options)
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor([*(level.ratio for level in levels[:-1]), 1e-6])
    scheduler.timesteps = torch.tensor([level.t for level in levels[:-1]], dtype=torch.float64)
    scheduler._step_index = 0
    x_T = noises(1)()
    *_, last = solvers.sa_solver(predict_as(prediction_type), levels, x_T, noises(100))
    theirs = by_theirs("sa_solver", scheduler, prediction_type, x_T, monkeypatch)
    assert_same_images(last.x_t, theirs)


@pytest.mark.parametrize("term", ["posterior", "large"])
def test_both_fixed_variances_of_ddpm_equal_diffusers(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = diffusers.DDPMScheduler(
        T,
        1e-4,
        0.02,
        variance_type={"posterior": "fixed_small", "large": "fixed_large"}[term],
        clip_sample=False,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(T)
    monkeypatch.setattr(sys.modules[type(theirs).__module__], "randn_tensor", noises(100))
    x = x_T = noises(1)()
    levels = make_levels(SCHEDULE, T)
    ours = solvers.ddpm(predict_as("epsilon"), levels, x_T, noises(100), noise_term=term)
    for view, t in zip(ours, theirs.timesteps, strict=True):
        x = theirs.step(network(x, float(t)), int(t), x).prev_sample
        assert torch.allclose(view.x_t, x, atol=1e-4 * max(1.0, float(x.abs().max())))


# ---------------------------------------------------------------- against diffusers' own spacings

# (name, spacing, steps, options): where the levels of `set_timesteps(steps)` are ours.
SAME_LEVELS: list[tuple[str, str, int, dict[str, Any]]] = [
    *((name, "trailing", 12, {}) for name in THEIRS if name != "ddpm large"),
    ("ddpm large", "trailing", T, {}),
    *((name, "leading", 12, {}) for name in KARRAS | BY_TIMESTEP),
    # The multistep ones leave t = 0 out; an offset brings them back to it.
    *((name, "leading", 22, {"steps_offset": -(T // 22)}) for name in DPM),
    # Where 23 steps of 13 timesteps lead from 299 to 0 and nothing is rounded.
    *((name, "linspace", 24, {}) for name in KARRAS),
    *((name, "linspace", 12, {}) for name in ("ddpm", "ddpm large")),
    *((name, "linspace", T, {}) for name in ("ddim", "ddim 1")),
    *((name, spacing, 12, {}) for name in ("euler", "heun", "lms") for spacing in OF_SIGMA),
]


@pytest.mark.parametrize("prediction_type", DIFFUSERS_TYPES)
@pytest.mark.parametrize(("name", "spacing", "steps", "options"), SAME_LEVELS)
def test_diffusers_left_to_itself_draws_our_images(
    name: str,
    spacing: str,
    steps: int,
    options: dict[str, Any],
    prediction_type: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = their_scheduler(name, prediction_type, steps, spacing, **options)
    levels = make_levels(SCHEDULE, steps, spacing)
    x_T = noises(1)()
    assert_same_images(
        by_ours(name, levels, prediction_type, x_T),
        by_theirs(name, scheduler, prediction_type, x_T, monkeypatch),
    )


def their_levels(name: str, scheduler: Any) -> list[NoiseLevel]:
    ts, ratios = scheduler.timesteps.tolist(), scheduler.sigmas.tolist()
    if name == "heun":
        ts, ratios = ts[:1] + ts[1::2], ratios[:1] + ratios[1:-1:2] + ratios[-1:]
    return levels_at([*ts, 0.0], ratios)


def levels_at(
    ts: Sequence[float] | np.ndarray, ratios: Sequence[float] | np.ndarray
) -> list[NoiseLevel]:
    alphas = [1 / (1 + ratio**2) ** 0.5 for ratio in ratios]
    return [NoiseLevel(t, a, a * r) for t, a, r in zip(ts, alphas, ratios, strict=True)]


def one_more_without_the_last(steps: int, spacing: str) -> list[NoiseLevel]:
    return [*make_levels(SCHEDULE, steps + 1, spacing)[:-2], IMAGE]


def not_rounded(steps: int, spacing: str) -> list[NoiseLevel]:
    ts = np.linspace(T - 1, 0, steps)
    return [*levels_at(ts, np.interp(ts, np.arange(T), RATIOS)), IMAGE]


def told_a_rounded_timestep(steps: int, spacing: str) -> list[NoiseLevel]:
    return [replace(level, t=round(level.t)) for level in make_levels(SCHEDULE, steps, spacing)]


def told_a_cut_timestep(steps: int, spacing: str) -> list[NoiseLevel]:
    """Their 299 is 298.99998 before it is cut."""
    levels = make_levels(SCHEDULE, steps, spacing)
    return [replace(level, t=max(0, math.floor(level.t - 1e-4))) for level in levels]


def between_the_ends_of_trailing(steps: int, spacing: str) -> list[NoiseLevel]:
    high, low = RATIOS[-1], RATIOS[T // steps - 1]
    if spacing == "karras":
        ratios = np.linspace(high ** (1 / 7), low ** (1 / 7), steps) ** 7
    else:
        ratios = np.geomspace(high, low, steps)
    ts = np.interp(np.log(ratios), np.log(RATIOS), np.arange(T))
    return [*levels_at(ts, ratios), IMAGE]


def one_timestep_up(steps: int, spacing: str) -> list[NoiseLevel]:
    ts = [int(level.t) + 1 for level in make_levels(SCHEDULE, steps, spacing)[:-1]]
    return [*levels_at(ts, RATIOS[ts]), IMAGE]


def down_to_the_first_timestep(steps: int, spacing: str) -> list[NoiseLevel]:
    return [*make_levels(SCHEDULE, steps, spacing)[:-1], make_levels(SCHEDULE, T)[-2]]


# Of 12 steps: (names, spacings, options, their levels, the indices at which they are not ours, the
# greatest distance in t). All else is in SAME_LEVELS; DDIM's are below.
OTHER_LEVELS: list[
    tuple[
        Sequence[str], Sequence[str], dict[str, Any], Callable[..., list[NoiseLevel]], range, float
    ]
] = [
    (tuple(DPM), ("leading",), {}, one_more_without_the_last, range(12), 23),
    (tuple(DPM), ("linspace",), {}, one_more_without_the_last, range(1, 12), 25),
    (tuple(KARRAS), ("linspace",), {}, not_rounded, range(1, 11), 5 / 11),
    (tuple(DPM), ("karras",), {}, told_a_rounded_timestep, range(1, 11), 0.498),
    (tuple(DPM), ("exponential",), {}, told_a_cut_timestep, range(11), 1),
    (
        ("euler", "heun", "lms"),
        ("karras",),
        {"timestep_spacing": "trailing"},
        between_the_ends_of_trailing,
        range(1, 12),
        76.8,
    ),
    (
        ("euler", "heun", "lms"),
        ("exponential",),
        {"timestep_spacing": "trailing"},
        between_the_ends_of_trailing,
        range(1, 12),
        92.5,
    ),
    (tuple(KARRAS), ("leading",), {"steps_offset": 1}, one_timestep_up, range(12), 1),
    (
        ("euler",),
        ("trailing", "karras"),
        {"final_sigmas_type": "sigma_min"},
        down_to_the_first_timestep,
        range(12, 13),
        0,
    ),
    (
        tuple(DPM),  # which would take this last step at order 1
        ("trailing",),
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        down_to_the_first_timestep,
        range(12, 13),
        0,
    ),
]


@pytest.mark.parametrize(
    ("name", "spacing", "options", "wanted", "indices", "farthest"),
    [
        (name, spacing, *rest)
        for names, spacings, *rest in OTHER_LEVELS
        for name in names
        for spacing in spacings
    ],
)
def test_where_diffusers_walks_other_levels_they_are_all_that_differs(
    name: str,
    spacing: str,
    options: dict[str, Any],
    wanted: Callable[..., list[NoiseLevel]],
    indices: range,
    farthest: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = their_scheduler(name, "epsilon", 12, spacing, **options)
    theirs, ours = their_levels(name, scheduler), make_levels(SCHEDULE, 12, spacing)
    levels = wanted(12, spacing)
    assert [level.t for level in theirs] == pytest.approx([level.t for level in levels], abs=5e-3)
    # Their tables are float32: the sigma of timestep 0 is off by 8e-5 of itself.
    ratios = [level.ratio for level in levels]
    assert [level.ratio for level in theirs] == pytest.approx(ratios, rel=1e-4)
    apart = [abs(a.t - b.t) for a, b in zip(theirs, ours, strict=True)]
    differ = [
        k
        for k, (a, b) in enumerate(zip(theirs, ours, strict=True))
        if apart[k] > 5e-3 or a.ratio != pytest.approx(b.ratio, rel=1e-4)
    ]
    assert differ == list(indices)
    assert max(apart) == pytest.approx(farthest, abs=0.05)
    x_T = noises(1)()
    assert_same_images(
        by_ours(name, levels, "epsilon", x_T),
        by_theirs(name, scheduler, "epsilon", x_T, monkeypatch),
    )


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 12), ("trailing", 9)])
def test_ddim_of_diffusers_lands_elsewhere_than_where_it_goes_on(spacing: str, steps: int) -> None:
    """Always T // steps below; where the next timestep is lower, some noise is left behind."""
    scheduler = their_scheduler("ddim", "epsilon", steps, spacing)
    ts = scheduler.timesteps.tolist()
    table = [*make_levels(SCHEDULE, T)[-2::-1], IMAGE]  # by the timestep; -1 is the image
    assert ts == [level.t for level in make_levels(SCHEDULE, steps, spacing)[:-1]]
    landed = [max(t - T // steps, -1) for t in ts]
    short = [there - after for there, after in zip(landed, ts[1:], strict=False)]
    assert set(short) == ({2, 3} if spacing == "linspace" else {0, 1})
    x = noises(1)()
    for t, there in zip(ts, landed, strict=True):
        step = scheduler.step(network(x, t), t, x).prev_sample
        ours = solvers.ddim(predict_as("epsilon"), [table[t], table[there]], x, noises(100))
        assert_same_images(next(ours).x_t, step)
        x = step


def test_ddpm_of_diffusers_with_the_large_variance_ends_in_noise_above_timestep_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It leaves the noise out only at timestep 0, where `trailing` does not end; ours in every last
    step, which lands on the image."""
    levels, x_T = make_levels(SCHEDULE, 12), noises(1)()
    scheduler = their_scheduler("ddpm large", "epsilon", 12)
    theirs = by_theirs("ddpm large", scheduler, "epsilon", x_T, monkeypatch)
    last_noise = noises(100 + 11)()  # of the twelfth step
    ours = by_ours("ddpm large", levels, "epsilon", x_T) + levels[-2].sigma * last_noise
    assert levels[-2].sigma > 0.1
    assert_same_images(ours, theirs)


@pytest.mark.parametrize("name", THEIRS)
def test_trailing_of_diffusers_can_go_one_step_too_far(name: str) -> None:
    """By the rounding of T / steps; the network is asked at timestep -1 then."""
    theirs = their_scheduler(name, "epsilon", 7).timesteps.tolist()
    theirs = theirs[:1] + theirs[1::2] if name == "heun" else theirs
    assert theirs == [*(level.t for level in make_levels(SCHEDULE, 7)[:-1]), -1]


@pytest.mark.parametrize("name", KARRAS)
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_pipelines_of_diffusers_start_a_little_quieter_in_two_spacings(
    name: str, spacing: str
) -> None:
    """Ours start at x_T ~ N(0, I), x_T / alpha there; theirs at sigma / alpha but for `leading`,
    which leaves the share of the image, alpha, out."""
    start = make_levels(SCHEDULE, 12, spacing)[0]
    theirs = float(their_scheduler(name, "epsilon", 12, spacing).init_noise_sigma)
    assert theirs == pytest.approx(1 / start.alpha if spacing == "leading" else start.ratio)


# ---------------------------------------------------------------- a distribution that is known

MEAN, VARIANCE = 0.3, 0.25
NOISY = ("ddpm", "ddpm large", "ddim 1", "euler_ancestral", "dpmpp_2m_sde", "sa_solver")


def exact_predict(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
    """E[x_0 | x_t] for N(MEAN, VARIANCE) data, and the noise that belongs to it."""
    scaled = x_t / level.alpha
    x_0 = MEAN + VARIANCE / (VARIANCE + level.ratio**2) * (scaled - MEAN)
    return x_0, (scaled - x_0) / level.ratio


def log_levels(steps: int, high: float = 20.0, low: float = 0.02) -> list[NoiseLevel]:
    """Even in the logarithm of sigma / alpha, ending where there is still some noise."""
    ratios = np.exp(np.linspace(np.log(high), np.log(low), steps + 1))
    return [NoiseLevel(0.0, 1 / (1 + r**2) ** 0.5, r / (1 + r**2) ** 0.5) for r in ratios]


@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3), ("lms", 2)],
)
def test_the_error_falls_at_the_order_of_the_paper(name: str, order: int) -> None:
    """UniPC's corrector adds one to its 2; `lms` starts with one step of order 1, which limits the
    whole to 2."""
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    errors = []
    for steps in (40, 80):
        levels = log_levels(steps)
        *_, last = getattr(solvers, name)(exact_predict, levels, x_T, lambda: x_T)
        start, end = levels[0], levels[-1]
        # Along the flow every quantile keeps its place.
        spread = ((VARIANCE + end.ratio**2) / (VARIANCE + start.ratio**2)) ** 0.5
        wanted = end.alpha * (MEAN + spread * (x_T / start.alpha - MEAN))
        errors.append((last.x_t - wanted).abs().max().item())
    assert errors[1] < (0.1 if order == 1 else 1e-2)
    assert np.log2(errors[0] / errors[1]) > order - 0.35


EYE = torch.eye(2, dtype=torch.float64)
PLANE_MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
PLANE_COVARIANCE = torch.tensor([[0.25, 0.12], [0.12, 0.16]], dtype=torch.float64)


def predict_plane(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
    """As `exact_predict`, for pairs of numbers (n, 2) that are correlated."""
    scaled = x_t / level.alpha
    gain = PLANE_COVARIANCE @ torch.linalg.inv(PLANE_COVARIANCE + level.ratio**2 * EYE)
    x_0 = PLANE_MEAN + (scaled - PLANE_MEAN) @ gain.T
    return x_0, (scaled - x_0) / level.ratio


def moments(
    method: Callable[..., solvers.Steps], levels: Sequence[NoiseLevel], shift: Tensor
) -> tuple[Tensor, Tensor]:
    """The exact mean (2,) and covariance (2, 2) of the samples that start at the right
    distribution, its mean shifted by `shift`.

    With a linear denoiser a sample is linear in the start and in every noise. So each of these is
    pushed through the walk alone, as a row of one batch: row 0 has none of them, and two rows have
    one component of one of them.
    """
    rows = 1 + 2 * len(levels)
    numbers = count()

    def unit() -> Tensor:
        z, first = torch.zeros(rows, 2, dtype=torch.float64), 1 + 2 * next(numbers)
        z[first : first + 2] = EYE
        return z

    start = levels[0]
    root = torch.linalg.cholesky(PLANE_COVARIANCE + start.ratio**2 * EYE)
    x_T = start.alpha * (PLANE_MEAN + shift + unit() @ root.T)
    *_, last = method(predict_plane, levels, x_T, unit)
    columns = last.x_t[1:] - last.x_t[0]
    return last.x_t[0], columns.T @ columns


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("ddpm", 1),
        ("ddpm large", 1),
        ("ddim 1", 1),
        ("euler_ancestral", 1),
        ("dpmpp_2m_sde", 2),
        ("sa_solver", 2),
        ("ddim", 1),
        ("heun", 2),
        ("dpmpp_2m", 2),
        ("unipc", 3),
    ],
)
def test_mean_and_covariance_converge_at_the_order_of_the_paper(name: str, order: int) -> None:
    """The mean from a start that is off, for the right one would never leave it.

    The ancestral ones are of weak order 1. SDE-DPM-Solver++(2M) extrapolates x_0 to second order;
    on a Gaussian the covariance of its samples gains from it as much.
    """
    shift = torch.tensor([2.0, 1.0], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(PLANE_COVARIANCE)
    errors, off = [], []
    for steps in (80, 160):
        levels = log_levels(steps)
        mean, covariance = moments(OURS[name], levels, shift)
        start, end = levels[0], levels[-1]
        apart = covariance / end.alpha**2 - (PLANE_COVARIANCE + end.ratio**2 * EYE)
        errors.append(torch.stack([apart[0, 0], apart[1, 1], apart[0, 1]]).abs())
        kept = (values + end.ratio**2) / (values + start.ratio**2)
        # Along the flow it is the root of what is left of the start where noise washes it out.
        kept = kept if name in NOISY else kept.sqrt()
        carried = vectors @ (kept * (vectors.T @ shift))
        off.append((mean / end.alpha - PLANE_MEAN - carried).norm() / carried.norm())
    assert errors[1].max() < (0.02 if order == 1 else 4e-4)
    assert torch.log2(errors[0] / errors[1]).tolist() == pytest.approx([order] * 3, abs=0.15)
    if name in NOISY:  # The exact x_0 keeps its mean all the way, and so there is no error.
        assert max(off) < 1e-9
    else:
        assert float(torch.log2(off[0] / off[1])) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", NOISY)
def test_methods_with_noise_give_the_mean_and_the_covariance_back(name: str) -> None:
    """All the way to the image."""
    levels = [*log_levels(400, low=0.01), IMAGE]
    mean, covariance = moments(OURS[name], levels, torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(mean, PLANE_MEAN, rtol=1e-9)
    # Of order 1 as they are, most of them still lose a few percent at 400 steps.
    within = 1e-3 if name == "dpmpp_2m_sde" else 0.05
    assert torch.allclose(covariance, PLANE_COVARIANCE, rtol=within)


# ---------------------------------------------------------------- levels


def test_karras_and_exponential_levels_run_between_the_ends_of_the_schedule() -> None:
    schedule = NoiseSchedule("linear", T)
    first, last = make_levels(schedule, T)[0], make_levels(schedule, T)[-2]
    for spacing in ("karras", "exponential"):
        levels = make_levels(schedule, 10, spacing)
        assert len(levels) == 11 and levels[-1] == IMAGE
        assert levels[0].ratio == pytest.approx(first.ratio)
        assert levels[-2].ratio == pytest.approx(last.ratio)
        assert (levels[0].t, levels[-2].t) == (T - 1, 0)
        assert all(a.alpha**2 + a.sigma**2 == pytest.approx(1) for a in levels)
    even = np.diff(np.log([level.ratio for level in levels[:-1]]))
    assert even == pytest.approx(np.full(9, even[0]))


def test_karras_spacing_is_the_one_of_diffusers() -> None:
    theirs = diffusers.EulerDiscreteScheduler(
        num_train_timesteps=T, beta_start=1e-4, beta_end=0.02, use_karras_sigmas=True
    )
    theirs.set_timesteps(10)
    ours = make_levels(NoiseSchedule("linear", T), 10, "karras")
    assert [level.ratio for level in ours] == pytest.approx(theirs.sigmas.tolist(), rel=1e-4)
    assert [level.t for level in ours[:-1]] == pytest.approx(theirs.timesteps.tolist(), abs=1e-2)


def test_spacings_of_sigma_need_a_schedule_that_keeps_some_image() -> None:
    schedule = NoiseSchedule("linear", 50, rescale_zero_terminal_snr=True)
    with pytest.raises(ValueError, match="karras spacing needs a schedule that does not end"):
        make_levels(schedule, 10, "karras")
