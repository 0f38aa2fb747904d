"""Targets, conversions, the posterior, the losses and their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.objective import (
    loss_per_image,
    make_target,
    min_snr_weight,
    posterior,
    predict_epsilon,
    predict_x_0,
    v_scale,
)
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import NoiseSchedule, Schedule

T = 300
DIFFUSERS_NAMES = {"epsilon": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}


@pytest.fixture(scope="module")
def schedule() -> NoiseSchedule:
    return NoiseSchedule("linear", T)


def images(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(n, 3, 4, 4, generator=generator) * 2 - 1
    return x_0, torch.randn(n, 3, 4, 4, generator=generator)


# ---------------------------------------------------------------- conversions


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    t=st.lists(st.integers(0, T - 1), min_size=1, max_size=4),
    kind=st.sampled_from(["linear", "cosine", "sigmoid"]),
    prediction_type=st.sampled_from(list(PREDICTION_TYPES)),
)
def test_every_target_stands_for_the_image_and_the_noise_it_was_made_from(
    seed: int, t: list[int], kind: str, prediction_type: str
) -> None:
    schedule = NoiseSchedule(kind, T)
    times = torch.tensor(t)
    x_0, noise = images(seed, len(t))
    x_t, _ = schedule.add_noise(x_0, times, noise)
    target = make_target(schedule, x_0, noise, times, prediction_type)
    found_x_0 = predict_x_0(schedule, x_t, times, target, prediction_type)
    found_noise = predict_epsilon(schedule, x_t, times, target, prediction_type)
    # float32 rounding of x_t is divided by how much of the one or the other x_t holds.
    signal = schedule.sqrt_alphas_cumprod[times][:, None, None, None]
    spread = schedule.sqrt_one_minus_alphas_cumprod[times][:, None, None, None]
    assert ((found_x_0 - x_0).abs() * signal).max() < 3e-6
    assert ((found_noise - noise).abs() * spread).max() < 3e-6


@pytest.mark.parametrize("source", PREDICTION_TYPES)
@pytest.mark.parametrize("target", PREDICTION_TYPES)
def test_any_prediction_can_be_written_as_any_other(
    schedule: NoiseSchedule, source: str, target: str
) -> None:
    """A wrong prediction too: what is kept is x_t = signal x_0 + spread epsilon."""
    t = torch.tensor([20, 150, 280])
    x_t, prediction = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    x_0 = predict_x_0(schedule, x_t, t, prediction, source)
    epsilon = predict_epsilon(schedule, x_t, t, prediction, source)
    assert torch.allclose(schedule.add_noise(x_0, t, epsilon)[0], x_t, atol=1e-5)
    written = make_target(schedule, x_0, epsilon, t, target)
    back = predict_x_0(schedule, x_t, t, written, target)
    assert torch.allclose(back, x_0, atol=2e-4)


def test_v_is_diffusers_velocity() -> None:
    theirs = DDPMScheduler(num_train_timesteps=T, beta_schedule="squaredcos_cap_v2")
    ours = NoiseSchedule("cosine", T)
    x_0, noise = images(1, 6)
    t = torch.tensor([0, 1, 99, 200, 298, 299])
    v = make_target(ours, x_0, noise, t, "v_prediction")
    assert torch.allclose(v, theirs.get_velocity(x_0, noise, t), atol=1e-5)


@pytest.mark.parametrize("prediction_type", DIFFUSERS_NAMES)
@pytest.mark.parametrize("t", [0, 1, 150, 299])
def test_the_predicted_image_is_the_one_of_diffusers(
    schedule: NoiseSchedule, prediction_type: str, t: int
) -> None:
    theirs = DDIMScheduler(
        num_train_timesteps=T,
        beta_schedule="linear",
        prediction_type=DIFFUSERS_NAMES[prediction_type],
        clip_sample=False,
    )
    theirs.set_timesteps(T)
    x_t, prediction = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    wanted = theirs.step(prediction, t, x_t).pred_original_sample
    found = predict_x_0(schedule, x_t, torch.tensor([t, t]), prediction, prediction_type)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_v_can_be_turned_into_an_image_where_only_noise_is_left() -> None:
    """At zero terminal SNR v is -x_0; epsilon says nothing there, which gives no finite number."""
    schedule = NoiseSchedule("cosine", 50, rescale_zero_terminal_snr=True)
    t = torch.tensor([49])
    x_0, noise = images(2, 1)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    assert torch.equal(x_t, noise)
    v = make_target(schedule, x_0, noise, t, "v_prediction")
    assert torch.equal(v, -x_0)
    assert torch.equal(predict_x_0(schedule, x_t, t, v, "v_prediction"), x_0)
    assert not torch.isfinite(predict_x_0(schedule, x_t, t, noise, "epsilon")).any()


@pytest.mark.parametrize("function", [predict_x_0, predict_epsilon, make_target])
def test_an_unknown_prediction_type_is_refused_with_the_names_there_are(function) -> None:
    schedule, t = NoiseSchedule(), torch.tensor([0])
    x = torch.zeros(1, 3, 2, 2)
    arguments = (x, x, t) if function is make_target else (x, t, x)
    with pytest.raises(ValueError, match="'score'; choose one of epsilon, x_0, v_prediction"):
        function(schedule, *arguments, "score")


# ---------------------------------------------------------------- the posterior


def test_the_posterior_is_the_product_of_two_gaussians() -> None:
    """Bayes, in float64: q(x_{t-1} | x_0) times q(x_t | x_{t-1}), completed to a square."""
    schedule = NoiseSchedule("linear", T)
    betas = np.linspace(1e-4, 0.02, T)
    bars = np.cumprod(1 - betas)
    x_0, x_t = 0.7, -1.3
    for t in range(1, T):
        prior_mean, prior_variance = bars[t - 1] ** 0.5 * x_0, 1 - bars[t - 1]
        # Seen as a function of x_{t-1}, the step's density is a Gaussian around x_t / sqrt(alpha).
        alpha = 1 - betas[t]
        step_mean, step_variance = x_t / alpha**0.5, betas[t] / alpha
        precision = 1 / prior_variance + 1 / step_variance
        mean = (prior_mean / prior_variance + step_mean / step_variance) / precision
        found_mean, found_variance = posterior(
            schedule, torch.full((1, 1), x_0), torch.full((1, 1), x_t), torch.tensor([t])
        )
        assert found_mean.item() == pytest.approx(mean, abs=2e-6)
        assert found_variance.item() == pytest.approx(1 / precision, rel=1e-6)


def test_the_posterior_at_the_first_timestep_is_the_image_itself(schedule: NoiseSchedule) -> None:
    x_0, x_t = images(3, 2)
    mean, variance = posterior(schedule, x_0, x_t, torch.tensor([0, 0]))
    assert torch.allclose(mean, x_0, atol=1e-6)
    assert variance.shape == (2, 1, 1, 1) and (variance == 0).all()


def test_the_posterior_is_the_one_of_diffusers(schedule: NoiseSchedule, monkeypatch) -> None:
    theirs = DDPMScheduler(
        num_train_timesteps=T, beta_schedule="linear", prediction_type="sample", clip_sample=False
    )
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor",
        lambda shape, **_: torch.zeros(shape),
    )
    x_0, x_t = images(4, 2)
    for t in range(T):
        mean, variance = posterior(schedule, x_0, x_t, torch.tensor([t, t]))
        # Their float32 table of alphas_cumprod leaves three digits of 1 - alphas_cumprod near 0.
        tolerance = 1e-5 if t >= 20 else 2e-3
        assert torch.allclose(mean, theirs.step(x_0, t, x_t).prev_sample, atol=tolerance)
        assert variance[0].item() == pytest.approx(theirs._get_variance(t).item(), rel=3e-3)


def test_the_lectures_mean_is_the_posteriors_mean_for_an_epsilon_prediction(
    schedule: NoiseSchedule,
) -> None:
    """sqrt_recip_alphas (x_t - betas epsilon / sqrt_one_minus_alphas_cumprod)."""
    x_t, epsilon = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    for step in range(T):
        t = torch.tensor([step])
        lecture = schedule.sqrt_recip_alphas[step] * (
            x_t - schedule.betas[step] * epsilon / schedule.sqrt_one_minus_alphas_cumprod[step]
        )
        x_0 = predict_x_0(schedule, x_t, t, epsilon, "epsilon")
        assert torch.allclose(posterior(schedule, x_0, x_t, t)[0], lecture, atol=1e-5)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("name", "torchs"),
    [("l1", torch.nn.L1Loss), ("l2", torch.nn.MSELoss), ("huber", torch.nn.HuberLoss)],
)
def test_the_losses_are_torchs_image_by_image(name: str, torchs) -> None:
    prediction, target = torch.randn(5, 3, 6, 6) * 2, torch.randn(5, 3, 6, 6)
    found = loss_per_image(prediction, target, name)
    assert found.shape == (5,)
    for k in range(5):
        assert found[k].item() == pytest.approx(torchs()(prediction[k], target[k]).item(), rel=1e-6)
    assert found.mean().item() == pytest.approx(torchs()(prediction, target).item(), rel=1e-6)


def test_the_losses_are_l1_by_default_and_zero_for_a_perfect_prediction() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(loss_per_image(x, x + 0.5), loss_per_image(x, x + 0.5, "l1"))
    for name in ("l1", "l2", "huber"):
        assert torch.equal(loss_per_image(x, x, name), torch.zeros(2))


def test_an_unknown_loss_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="Unknown loss 'l3'; choose one of l1, l2, huber"):
        loss_per_image(torch.zeros(1, 1), torch.zeros(1, 1), "l3")


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_the_paper(prediction_type: str, gamma: float) -> None:
    schedule = NoiseSchedule("cosine", 200)
    found = min_snr_weight(schedule, torch.arange(200), gamma, prediction_type)
    assert found.shape == (200,)
    for t in range(200):
        bar = float(schedule.exact_alphas_cumprod[t])
        snr = bar / (1 - bar)
        wanted = {
            "x_0": min(snr, gamma),
            "epsilon": min(snr, gamma) / snr,
            "v_prediction": min(snr, gamma) / (snr + 1),
            # Its error of x_0 is b / (a + b) times as large, and b / (a + b) = 1 / (sqrt(snr) + 1).
            "flow_prediction": min(snr, gamma) / (snr**0.5 + 1) ** 2,
            "flow_x_0": min(snr, gamma),
        }[prediction_type]
        assert found[t].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow_prediction"])
def test_min_snr_weighs_the_same_objective_whatever_the_network_predicts(
    prediction_type: str,
) -> None:
    """weight x squared error of the target equals min(SNR, gamma) x squared error of x_0."""
    schedule = NoiseSchedule("cosine", 200)
    t = torch.tensor([10, 60, 100, 150])
    x_0, noise = images(5, 4)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    target = make_target(schedule, x_0, noise, t, prediction_type)
    wrong = target + 0.1 * torch.randn_like(target)
    guess = predict_x_0(schedule, x_t, t, wrong, prediction_type)
    of_target = loss_per_image(wrong, target, "l2") * min_snr_weight(
        schedule, t, 5.0, prediction_type
    )
    of_x_0 = loss_per_image(guess, x_0, "l2") * min_snr_weight(schedule, t, 5.0, "x_0")
    assert torch.allclose(of_target, of_x_0, rtol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "prediction_type", "velocity"),
    [
        (NoiseSchedule("cosine", 200), "x_0", "v_prediction"),
        (FlowSchedule(200), "flow_x_0", "flow_prediction"),
    ],
)
def test_a_loss_on_v_is_that_of_the_velocity_that_follows_from_the_image(
    schedule: Schedule, prediction_type: str, velocity: str
) -> None:
    t = torch.tensor([12, 60, 100, 150, 199])
    x_0, noise = images(6, 5)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    guess = x_0 + 0.1 * torch.randn_like(x_0)
    epsilon = predict_epsilon(schedule, x_t, t, guess, prediction_type)
    of_v = make_target(schedule, guess, epsilon, t, velocity) - make_target(
        schedule, x_0, noise, t, velocity
    )
    scale = v_scale(schedule, t, 4, prediction_type)
    assert torch.allclose((scale * (guess - x_0)).abs(), of_v.abs(), atol=2e-5)
    # min-SNR remains that of the error of x_0.
    on_v = min_snr_weight(schedule, t, 5.0, prediction_type, on_v=True) * scale.flatten() ** 2
    wanted = min_snr_weight(schedule, t, 5.0, prediction_type)
    assert torch.allclose(on_v[wanted != 1], wanted[wanted != 1])


def test_a_loss_on_v_is_limited_where_there_is_hardly_any_noise() -> None:
    schedule = FlowSchedule(1000)  # the shares of noise are 0.001, 0.002, ...
    scale = v_scale(schedule, torch.tensor([0, 40, 49, 99]), 1, "flow_x_0")
    assert scale.tolist() == pytest.approx([20, 20, 20, 10])
    with pytest.raises(ValueError, match="not defined for epsilon; use x_0 or flow_x_0"):
        v_scale(schedule, torch.tensor([1]), 4, "epsilon")


@pytest.mark.parametrize(
    "schedule", [NoiseSchedule("linear", 50, rescale_zero_terminal_snr=True), FlowSchedule(50)]
)
def test_pure_noise_has_the_weight_1_whatever_is_predicted(schedule: Schedule) -> None:
    last = torch.tensor([49, 48])
    for name in PREDICTION_TYPES:
        at_0, before = min_snr_weight(schedule, last, 5.0, name)
        assert schedule.snr[49] == 0 < schedule.snr[48]
        assert at_0 == 1 and (before < 0.01 or name == "epsilon")


def test_min_snr_refuses_an_unknown_prediction_type() -> None:
    with pytest.raises(ValueError, match="Unknown prediction type 'score'"):
        min_snr_weight(NoiseSchedule(), torch.tensor([0]), 5.0, "score")
