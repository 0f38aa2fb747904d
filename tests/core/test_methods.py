"""The sampling methods: each against diffusers on the same levels and noises, and against the exact
solution for a Gaussian at the order that its paper claims."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_core import methods
from diffusion_core.diffusion import to_epsilon, to_x_0
from diffusion_core.levels import PICTURE, TIMESTEP_SPACINGS, Level, make_levels
from diffusion_core.schedule import NoiseSchedule

T = 300
SHAPE = (2, 3, 6, 6)
DIFFUSERS_TYPES = {"epsilon": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}
# The class of each and whether it works on x_t / alpha, as Karras et al. do.
THEIRS: dict[str, tuple[type, bool, dict[str, Any]]] = {
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, False, {}),
    "dpmpp_2m_sde": (
        diffusers.DPMSolverMultistepScheduler,
        False,
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "unipc": (diffusers.UniPCMultistepScheduler, False, {}),
    "euler": (diffusers.EulerDiscreteScheduler, True, {}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, True, {}),
    "heun": (diffusers.HeunDiscreteScheduler, True, {}),
    "lms": (diffusers.LMSDiscreteScheduler, True, {}),
}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(x: Tensor, t: float) -> Tensor:
    """Some function of picture and time that is not linear."""
    return torch.tanh(0.7 * x + 0.3 * torch.sin(x.roll(1, -1))) * (0.5 + 0.5 * t / T)


def predict_as(prediction_type: str) -> methods.Predict:
    def predict(x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
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


def by_ours(name: str, levels: list[Level], prediction_type: str, x_T: Tensor) -> Tensor:
    method = getattr(methods, name)
    *_, last = method(predict_as(prediction_type), levels, x_T, noises(100))
    return last.x_t


def by_theirs(
    name: str,
    levels: list[Level],
    prediction_type: str,
    x_T: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> Tensor:
    """diffusers' steps on our levels: its own spacings end or start elsewhere."""
    kind, scaled, options = THEIRS[name]
    # diffusers has no x_0 for those of Karras et al.: they get the epsilon that it stands for.
    as_epsilon = scaled and prediction_type == "x_0"
    at = {float(level.t): level for level in levels[:-1]}
    scheduler = kind(
        num_train_timesteps=T,
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=DIFFUSERS_TYPES["epsilon" if as_epsilon else prediction_type],
        **options,
    )
    scheduler.set_timesteps(len(levels) - 1)
    ratios = torch.tensor([level.ratio for level in levels], dtype=torch.float64).float()
    ts = torch.tensor([level.t for level in levels[:-1]], dtype=torch.float64)
    if name == "heun":  # which asks twice at every level but the first
        ratios = torch.cat([ratios[:1], ratios[1:-1].repeat_interleave(2), ratios[-1:]])
        ts = torch.cat([ts[:1], ts[1:].repeat_interleave(2)])
    scheduler.sigmas = ratios
    scheduler.timesteps = ts
    scheduler._step_index = 0
    module = sys.modules[kind.__module__]
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", noises(100))
    x = x_T / levels[0].alpha if scaled else x_T
    for t in scheduler.timesteps:
        shown, level = scheduler.scale_model_input(x, t), at[float(t)]
        output = network(shown, level.t)
        if as_epsilon:
            output = to_epsilon(output, shown, level.alpha, level.sigma, "x_0")
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("prediction_type", DIFFUSERS_TYPES)
@pytest.mark.parametrize("name", THEIRS)
def test_every_method_equals_diffusers_at_every_spacing_and_prediction(
    name: str, prediction_type: str, spacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = make_levels(NoiseSchedule("linear", T), 12, spacing)
    x_T = noises(1)()
    ours = by_ours(name, levels, prediction_type, x_T)
    theirs = by_theirs(name, levels, prediction_type, x_T, monkeypatch)
    assert torch.allclose(ours, theirs, atol=1e-4 * max(1.0, float(theirs.abs().max())))


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
    levels = make_levels(NoiseSchedule("linear", T), T)
    ours = methods.ddpm(predict_as("epsilon"), levels, x_T, noises(100), noise_term=term)
    for view, t in zip(ours, theirs.timesteps, strict=True):
        x = theirs.step(network(x, float(t)), int(t), x).prev_sample
        assert torch.allclose(view.x_t, x, atol=1e-4 * max(1.0, float(x.abs().max())))


# ---------------------------------------------------------------- a distribution that is known

MEAN, VARIANCE = 0.3, 0.25


def exact_predict(x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """E[x_0 | x_t] for N(MEAN, VARIANCE) data, and the noise that belongs to it."""
    scaled = x_t / level.alpha
    x_0 = MEAN + VARIANCE / (VARIANCE + level.ratio**2) * (scaled - MEAN)
    return x_0, (scaled - x_0) / level.ratio


def log_levels(steps: int, high: float = 20.0, low: float = 0.02) -> list[Level]:
    """Even in the logarithm of sigma / alpha, ending where there is still some noise."""
    ratios = np.exp(np.linspace(np.log(high), np.log(low), steps + 1))
    return [Level(0.0, 1 / (1 + r**2) ** 0.5, r / (1 + r**2) ** 0.5) for r in ratios]


@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 2), ("lms", 2)],
)
def test_the_error_falls_at_the_order_of_the_paper(name: str, order: int) -> None:
    """`lms` starts with one step of order 1, which limits the whole to 2."""
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    errors = []
    for steps in (40, 80):
        levels = log_levels(steps)
        *_, last = getattr(methods, name)(exact_predict, levels, x_T, lambda: x_T)
        start, end = levels[0], levels[-1]
        # Along the flow every quantile keeps its place.
        spread = ((VARIANCE + end.ratio**2) / (VARIANCE + start.ratio**2)) ** 0.5
        wanted = end.alpha * (MEAN + spread * (x_T / start.alpha - MEAN))
        errors.append((last.x_t - wanted).abs().max().item())
    assert errors[1] < (0.1 if order == 1 else 1e-2)
    assert np.log2(errors[0] / errors[1]) > order - 0.35


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m_sde", "euler_ancestral"])
def test_methods_with_noise_give_the_mean_and_the_variance_back(name: str) -> None:
    n, generator = 10_000, torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)

    levels = [*log_levels(400, low=0.01), PICTURE]
    start = levels[0]
    x_T = start.alpha * (MEAN + (VARIANCE + start.ratio**2) ** 0.5 * noise())
    *_, last = getattr(methods, name)(exact_predict, levels, x_T, noise)
    assert last.x_t.mean().item() == pytest.approx(MEAN, abs=5 * (VARIANCE / n) ** 0.5)
    # Of order 1 as they are, two of them still lose a few percent at 400 steps.
    assert last.x_t.var().item() == pytest.approx(VARIANCE, rel=0.06)


# ---------------------------------------------------------------- levels


def test_karras_and_exponential_levels_run_between_the_ends_of_the_schedule() -> None:
    schedule = NoiseSchedule("linear", T)
    first, last = make_levels(schedule, T)[0], make_levels(schedule, T)[-2]
    for spacing in ("karras", "exponential"):
        levels = make_levels(schedule, 10, spacing)
        assert len(levels) == 11 and levels[-1] == PICTURE
        assert levels[0].ratio == pytest.approx(first.ratio)
        assert levels[-2].ratio == pytest.approx(last.ratio)
        assert (levels[0].t, levels[-2].t) == pytest.approx((T - 1, 0))
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


def test_spacings_of_sigma_need_a_schedule_that_keeps_some_picture() -> None:
    schedule = NoiseSchedule("linear", 50, rescale_zero_terminal_snr=True)
    with pytest.raises(ValueError, match="karras spacing needs a schedule that does not end"):
        make_levels(schedule, 10, "karras")
