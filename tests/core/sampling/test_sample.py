"""The samplers against diffusers, step by step; against the lecture's loop; and their promises."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.sampling.levels import TIMESTEP_SPACINGS, make_levels, spaced_timesteps
from diffusion_core.sampling.registry import sampler_names
from diffusion_core.sampling.sample import (
    LECTURE_SAMPLING,
    Cancelled,
    make_predict,
    sample,
    sample_steps,
)
from diffusion_core.sampling.solvers import StepView, ddim, ddpm

WHOLE_SPACINGS = ("trailing", "leading", "linspace")
T = 60
SHAPE = (3, 5, 4)
DIFFUSERS_TYPES = {"epsilon": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}
DIFFUSERS_KINDS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


class Toy(nn.Module):
    """A few fixed weights that look at the neighbours, the timestep and the class."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.emb = nn.Embedding(self.num_classes + 1, 3)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.conv(x) + torch.sin(t / 10)[:, None, None, None]
        if labels is not None:
            h = h + self.emb(labels)[:, :, None, None]
        return torch.tanh(h) + 0.2 * x


class ToyWithNorm(nn.Module):
    """BatchNorm makes training and evaluation mode two different networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.0)
        self.norm.running_mean.fill_(0.3)
        self.norm.eval()  # a mode of its own, which must come back

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + t[:, None, None, None] / 100


class Constant(nn.Module):
    """Predicts the same value everywhere; remembers what it was asked."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value
        self.asked: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked += t.tolist()
        return torch.full_like(x, self.value)


def their_scheduler(maker, kind: str, prediction_type: str, clip: bool, spacing: str):
    return maker(
        num_train_timesteps=T,
        beta_schedule=DIFFUSERS_KINDS[kind],
        prediction_type=DIFFUSERS_TYPES[prediction_type],
        clip_sample=clip,
        timestep_spacing=spacing,
    )


# ---------------------------------------------------------------- which timesteps


@settings(max_examples=100)
@given(
    size=st.integers(1, 1000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    spacing=st.sampled_from(WHOLE_SPACINGS),
)
def test_the_spacing_is_the_one_of_diffusers(size: tuple[int, int], spacing: str) -> None:
    """All three are cut to `steps`: theirs can give one too many where T / steps is not exact."""
    timesteps, steps = size
    theirs = DDPMScheduler(num_train_timesteps=timesteps, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    assert spaced_timesteps(timesteps, steps, spacing) == theirs.timesteps.tolist()[:steps]


@settings(max_examples=100)
@given(
    size=st.integers(1, 1000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    spacing=st.sampled_from(WHOLE_SPACINGS),
)
def test_any_spacing_falls_strictly_inside_the_schedule(
    size: tuple[int, int], spacing: str
) -> None:
    timesteps, steps = size
    found = spaced_timesteps(timesteps, steps, spacing)
    assert len(found) == steps
    assert all(a > b for a, b in pairwise(found))
    assert found[-1] >= 0 and found[0] < timesteps
    if spacing == "trailing":
        assert found[0] == timesteps - 1
    else:
        assert found[-1] == 0
    if steps == timesteps:
        assert found == list(range(timesteps))[::-1]


def test_the_spacings_of_the_paper() -> None:
    """Lin et al. 2024, table 2, counted from 0 instead of from 1."""
    assert spaced_timesteps(1000, 10, "leading") == list(range(900, -1, -100))
    assert spaced_timesteps(1000, 10, "trailing") == list(range(999, 0, -100))
    linspace = [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert spaced_timesteps(1000, 10, "linspace") == linspace


# ---------------------------------------------------------------- against diffusers


@pytest.mark.parametrize(("kind", "clip"), [("linear", True), ("linear", False), ("cosine", True)])
@pytest.mark.parametrize("prediction_type", list(DIFFUSERS_TYPES))
@pytest.mark.parametrize(("steps", "spacing"), [(T, "leading"), (12, "trailing"), (7, "linspace")])
def test_ddpm_is_diffusers_ddpm_step_by_step(
    kind: str, clip: bool, prediction_type: str, steps: int, spacing: str, monkeypatch
) -> None:
    model, schedule = Toy(), NoiseSchedule(kind, T)
    theirs = their_scheduler(DDPMScheduler, kind, prediction_type, clip, spacing)
    theirs.set_timesteps(steps)
    noise = image_noise(3, 2, SHAPE)
    x_T = x = noise()
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise()
    )
    views = sample_steps(
        *(model, schedule, 2, "ddpm", steps, 3, prediction_type, x_T, spacing, clip), shape=SHAPE
    )
    for view, t in zip(views, theirs.timesteps, strict=True):
        assert view.timestep == t
        with torch.no_grad():
            step = theirs.step(model(x, t.repeat(2)), t, x)
        x = step.prev_sample
        assert torch.allclose(view.x_0, step.pred_original_sample, atol=1e-4)
        assert torch.allclose(view.x_t, x, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("prediction_type", list(DIFFUSERS_TYPES))
@pytest.mark.parametrize(("steps", "spacing"), [(T, "linspace"), (12, "trailing"), (10, "leading")])
def test_ddim_is_diffusers_ddim_step_by_step(
    eta: float, clip: bool, prediction_type: str, steps: int, spacing: str
) -> None:
    """Where theirs lands on the next timestep, and not T // steps below it (see test_solvers.py).

    Ours derives epsilon anew from a clipped image, which theirs calls use_clipped_model_output.
    """
    model, schedule = Toy(), NoiseSchedule("linear", T)
    theirs = their_scheduler(DDIMScheduler, "linear", prediction_type, clip, spacing)
    theirs.set_timesteps(steps)
    noise = image_noise(3, 2, SHAPE)
    x_T = x = noise()
    views = sample_steps(
        *(model, schedule, 2, "ddim", steps, 3, prediction_type, x_T, spacing, clip),
        shape=SHAPE,
        eta=eta,
    )
    for view, t in zip(views, theirs.timesteps, strict=True):
        assert view.timestep == t
        drawn = noise() if eta and view.index < steps - 1 else torch.zeros(2, *SHAPE)
        with torch.no_grad():
            step = theirs.step(
                *(model(x, t.repeat(2)), t, x, eta),
                use_clipped_model_output=clip,
                variance_noise=drawn if eta else None,
            )
        x = step.prev_sample
        assert torch.allclose(view.x_0, step.pred_original_sample, atol=1e-4)
        assert torch.allclose(view.x_t, x, atol=1e-4)


def test_ddim_with_eta_1_is_ddpm_where_every_timestep_is_walked() -> None:
    """Song et al. 2021, equation 16: the same mean and variance, so the same images."""
    model, schedule = Toy(), NoiseSchedule("linear", T)
    arguments: dict[str, Any] = {"n": 2, "seed": 5, "shape": SHAPE}
    of_ddpm = sample(model, schedule, sampler="ddpm", **arguments)
    of_ddim = sample(model, schedule, sampler="ddim", eta=1.0, **arguments)
    assert torch.allclose(of_ddpm, of_ddim, atol=1e-4)


# ---------------------------------------------------------------- the lecture's sampling


def lecture_loop(model: nn.Module, x: Tensor, noises: Iterator[Tensor]) -> list[Tensor]:
    """The sampling loop as the lecture writes it, T = 300."""
    betas = torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)
    alphas = 1 - betas
    bar = torch.cumprod(alphas, dim=0)
    bar_prev = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    posterior_variance = betas * (1 - bar_prev) / (1 - bar)
    seen = []
    for t in range(299, -1, -1):
        with torch.no_grad():
            epsilon = model(x, torch.tensor([t]))
        mean = (1 / alphas[t]).sqrt() * (x - betas[t] * epsilon / (1 - bar[t]).sqrt())
        x = mean if t == 0 else mean + posterior_variance[t] * next(noises)
        x = x.clamp(-1, 1)
        seen.append(x)
    return seen


def test_the_lectures_sampling_is_the_lectures_loop_step_by_step() -> None:
    model, schedule = ToyWithNorm(), NoiseSchedule()
    noise = image_noise(11, 1, SHAPE)
    x_T = noise()
    views = list(sample_steps(model, schedule, 1, seed=11, x_T=x_T, **LECTURE_SAMPLING))
    model.train()
    wanted = lecture_loop(model, x_T, iter(noise, None))
    assert len(views) == 300 == len(wanted)
    for view, x in zip(views, wanted, strict=True):
        assert torch.allclose(view.x_t, x, atol=1e-4)


def test_the_lectures_noise_term_is_the_variance_where_the_paper_has_its_root() -> None:
    """One step from the same x_t with the same z: what is added differs by exactly that factor."""
    schedule = NoiseSchedule()
    x_T, z = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    levels = make_levels(schedule, 300)
    added = {
        term: next(
            ddpm(lambda x, level: (x, x), levels, x_T, lambda: z, noise_term=term)
        ).x_t.mean()
        for term in ("posterior", "lecture")
    }
    variance = schedule.posterior_variance[299]
    assert added["posterior"].item() == pytest.approx(variance.sqrt().item(), rel=1e-5)
    assert added["lecture"].item() == pytest.approx(variance.item(), rel=1e-5)


@pytest.mark.parametrize("training_mode", [False, True])
def test_sampling_puts_modes_and_buffers_back(training_mode: bool) -> None:
    model = ToyWithNorm()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    assert set(modes.values()) == {True, False}
    used = []
    model.norm.register_forward_hook(lambda module, *_: used.append(module.training))
    sample(model, NoiseSchedule("linear", 10), 2, shape=SHAPE, training_mode=training_mode)
    assert set(used) == {training_mode}
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    # They are ordinary tensors still, which can be trained on.
    model.train()
    model(torch.randn(2, *SHAPE), torch.tensor([1, 2])).sum().backward()


def test_training_mode_shows_the_network_one_image_at_a_time() -> None:
    """So that a batch of two gives the two images that the lecture would draw one by one."""
    model, schedule = ToyWithNorm(), NoiseSchedule("linear", 20)
    options = {**LECTURE_SAMPLING, "shape": SHAPE, "seed": 4}
    both = sample(model, schedule, 2, **options)
    assert torch.allclose(both[:1], sample(model, schedule, 1, **options), atol=1e-6)
    trained = sample(model, schedule, 1, **{**options, "training_mode": False})
    assert not torch.allclose(both[:1], trained, atol=1e-2)


def test_training_mode_gives_each_image_its_own_label() -> None:
    model, schedule = Toy(), NoiseSchedule("linear", 10)
    labels = torch.tensor([3, 0, 1])
    options: dict[str, Any] = {"shape": SHAPE, "labels": labels, "guidance_scale": 2.0}
    together = sample(model, schedule, 3, **options)
    assert torch.allclose(
        sample(model, schedule, 3, training_mode=True, **options), together, atol=1e-5
    )


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_image_k_of_a_seed_is_the_same_whatever_the_batch_size(sampler: str) -> None:
    model, schedule = Toy(), NoiseSchedule("linear", 20)
    options: dict[str, Any] = {"sampler": sampler, "seed": 9, "shape": SHAPE, "eta": 0.7}
    of_five = sample(model, schedule, 5, **options)
    for n in (1, 2, 4):
        assert torch.allclose(sample(model, schedule, n, **options), of_five[:n], atol=1e-5)


def test_another_seed_and_another_image_have_other_noise() -> None:
    rows = torch.cat([image_noise(seed, 3, SHAPE)() for seed in (0, 1, 2**40)])
    assert len({row.numpy().tobytes() for row in rows}) == 9
    later = image_noise(0, 2, SHAPE, first=1)()
    assert torch.equal(later, rows[1:3])
    noise = image_noise(0, 1, SHAPE)
    assert not torch.equal(noise(), noise())
    assert image_noise(0, 0, SHAPE)().shape == (0, *SHAPE)


def test_a_given_start_that_is_the_seeds_own_gives_the_seeds_images() -> None:
    model, schedule = Toy(), NoiseSchedule("linear", 20)
    x_T = image_noise(9, 2, SHAPE)()
    given = sample(model, schedule, 2, seed=9, x_T=x_T)
    assert torch.equal(given, sample(model, schedule, 2, seed=9, shape=SHAPE))


def test_the_noise_is_normal() -> None:
    drawn = image_noise(1, 64, (3, 16, 16))().double()
    count = drawn.numel()
    assert abs(drawn.mean().item()) < 5 / count**0.5
    assert abs(drawn.var().item() - 1) < 5 * (2 / count) ** 0.5


# ---------------------------------------------------------------- the generator of steps


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_every_step_is_shown_in_order(sampler: str) -> None:
    views: list[StepView] = []
    model, schedule = Toy(), NoiseSchedule("cosine", T)
    found = sample(model, schedule, 2, sampler, 7, shape=SHAPE, on_step=views.append)
    assert [view.index for view in views] == list(range(7))
    assert {view.steps for view in views} == {7}
    assert [view.timestep for view in views] == spaced_timesteps(T, 7)
    assert all(view.x_t.shape == view.x_0.shape == (2, *SHAPE) for view in views)
    assert all(view.x_0.abs().max() <= 1 for view in views)
    assert torch.equal(found, views[-1].x_t.clamp(-1, 1))
    assert found.shape == (2, *SHAPE) and found.abs().max() <= 1


@pytest.mark.parametrize("steps", [1, 4, T])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
# lms goes on along the directions of earlier steps, also in the last one.
@pytest.mark.parametrize("sampler", [name for name in sampler_names(False) if name != "lms"])
def test_the_last_step_lands_on_the_clean_image(sampler: str, spacing: str, steps: int) -> None:
    """alphas_cumprod = 1: what is left is the predicted x_0 and no noise."""
    views = list(
        sample_steps(
            *(Toy(), NoiseSchedule("linear", T), 1, sampler, steps),
            timestep_spacing=spacing,
            shape=SHAPE,
            eta=1.0,
        )
    )
    assert len(views) == steps
    assert torch.allclose(views[-1].x_t, views[-1].x_0, atol=1e-6)


def test_the_network_is_asked_once_a_step_at_the_steps_timestep() -> None:
    model = Constant()
    sample(model, NoiseSchedule("linear", T), 2, "ddim", 5, shape=SHAPE)
    assert model.asked == [t for t in spaced_timesteps(T, 5) for _ in range(2)]


def test_the_steps_come_one_by_one_and_only_as_they_are_asked_for() -> None:
    model = Constant()
    steps = sample_steps(model, NoiseSchedule("linear", T), 1, shape=SHAPE)
    assert model.asked == []
    next(steps)
    next(steps)
    assert model.asked == [T - 1, T - 2]
    steps.close()


def test_cancelled_stops_at_once_and_puts_the_network_back() -> None:
    """While the exception, and with it the half-done sampling, is still alive."""
    model = ToyWithNorm()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen, asked = [], []
    model.norm.register_forward_hook(lambda *_: asked.append(True))

    def on_step(view: StepView) -> None:
        seen.append(view.index)
        if view.index == 2:
            raise Cancelled

    model.train()
    with pytest.raises(Cancelled) as caught:
        sample(model, NoiseSchedule("linear", T), 1, shape=SHAPE, on_step=on_step)
    assert caught.value.__traceback__ is not None
    assert seen == [0, 1, 2] and len(asked) == 3
    assert model.training and model.norm.training
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_a_network_that_fails_is_put_back_too() -> None:
    class Broken(ToyWithNorm):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            raise RuntimeError("no memory")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="no memory"):
        sample(model, NoiseSchedule("linear", T), 1, shape=SHAPE)
    assert model.training


def test_sampling_keeps_no_graph() -> None:
    views = list(sample_steps(Toy(), NoiseSchedule("linear", 5), 1, shape=SHAPE))
    assert not any(view.x_t.requires_grad or view.x_0.requires_grad for view in views)


# ---------------------------------------------------------------- thresholding and guidance


@pytest.mark.parametrize("prediction_type", list(DIFFUSERS_TYPES))
def test_a_clipped_image_brings_the_epsilon_that_belongs_to_it(prediction_type: str) -> None:
    schedule = NoiseSchedule("linear", T)
    x_t = 3 * torch.randn(2, *SHAPE)
    predict = make_predict(Toy(), prediction_type)
    level = make_levels(schedule, T)[T - 1 - 40]
    x_0, epsilon = predict(x_t, level)
    assert x_0.abs().max() <= 1
    again, _ = schedule.add_noise(x_0, torch.tensor([40, 40]), epsilon)
    assert torch.allclose(again, x_t, atol=1e-5)
    free, _ = make_predict(Toy(), prediction_type, clip_x0=False)(x_t, level)
    assert torch.allclose(free.clamp(-1, 1), x_0)
    assert free.abs().max() > 1


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_guidance_goes_beyond_the_labelled_prediction(scale: float) -> None:
    """any + scale (labelled - any): 0 is "any class", 1 the label alone."""
    model, schedule = Toy(), NoiseSchedule("linear", T)
    x_t, labels = torch.randn(2, *SHAPE), torch.tensor([1, 3])
    t = torch.tensor([30, 30])
    with torch.no_grad():
        labelled = model(x_t, t, labels)
        unlabelled = model(x_t, t, torch.tensor([4, 4]))
        predict = make_predict(model, "x_0", clip_x0=False, labels=labels, guidance_scale=scale)
        found, _ = predict(x_t, make_levels(schedule, T)[T - 1 - 30])
    assert torch.allclose(found, unlabelled + scale * (labelled - unlabelled), atol=1e-5)


def test_labels_reach_the_network_in_a_whole_sampling() -> None:
    model, schedule = Toy(), NoiseSchedule("linear", 10)
    labels = torch.tensor([0, 1, 2, 3])
    together = sample(model, schedule, 4, seed=2, labels=labels, shape=SHAPE)
    plain = sample(model, schedule, 4, seed=2, shape=SHAPE)
    swapped = sample(model, schedule, 4, seed=2, labels=labels.flip(0), shape=SHAPE)
    assert not torch.allclose(together, plain, atol=1e-3)
    assert not torch.allclose(together[0], swapped[0], atol=1e-3)


# ---------------------------------------------------------------- a distribution that is known


class Exact(nn.Module):
    """The best epsilon there is for N(mean, covariance) data, in closed form.

    E[x_0 | x_t] = mean + s C (s^2 C + (1 - s^2) I)^-1 (x_t - s mean), with s^2 = alphas_cumprod.
    A "picture" is (2, 1, 1): two numbers.
    """

    def __init__(self, schedule: NoiseSchedule, mean: np.ndarray, covariance: np.ndarray) -> None:
        super().__init__()
        self.schedule, self.mean, self.covariance = schedule, mean, covariance

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        bar = float(self.schedule.exact_alphas_cumprod[int(t[0])])
        gain = bar**0.5 * self.covariance
        gain = gain @ np.linalg.inv(bar * self.covariance + (1 - bar) * np.eye(2))
        rows = x.reshape(-1, 2).double().numpy()
        x_0 = self.mean + (rows - bar**0.5 * self.mean) @ gain.T
        return torch.from_numpy((rows - bar**0.5 * x_0) / (1 - bar) ** 0.5).float().reshape(x.shape)


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.0), ("ddim", 0.5), ("ddpm", 0.0)])
def test_the_exact_denoiser_of_a_gaussian_gives_the_gaussian_back(sampler: str, eta: float) -> None:
    mean = np.array([0.2, -0.1])
    covariance = np.array([[0.05, 0.02], [0.02, 0.03]])
    schedule = NoiseSchedule("cosine", 1000)
    n = 4000
    x_T = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 2, 1, 1))).float()
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x_T.reshape(n, 2).T)))
    x_T = ((x_T.reshape(n, 2) - x_T.reshape(n, 2).mean(0)) @ whiten.T).reshape(n, 2, 1, 1)
    predict = make_predict(Exact(schedule, mean, covariance), clip_x0=False)
    levels = make_levels(schedule, 250)
    if sampler == "ddim":
        views = ddim(predict, levels, x_T, lambda: torch.randn_like(x_T), eta=eta)
    else:
        views = ddpm(predict, levels, x_T, lambda: torch.randn_like(x_T))
    *_, last = views
    found = last.x_t.reshape(n, 2).numpy()
    noisy = sampler == "ddpm" or eta > 0
    # Without noise x_T decides all, and its mean and covariance are exact here.
    mean_error = 5 * (0.05 / n) ** 0.5 if noisy else 1e-3
    assert np.abs(found.mean(0) - mean).max() < mean_error
    assert np.abs(np.cov(found.T) - covariance).max() < (0.006 if noisy else 0.002)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"sampler": "plms"},
            "'plms' cannot sample this model; choose one of dpmpp_2m, ddim, ddpm",
        ),
        ({"noise_term": "none"}, "Unknown noise term 'none'; choose one of posterior, large"),
        ({"timestep_spacing": "even"}, "Unknown timestep spacing 'even'; choose one of trailing"),
        ({"prediction_type": "score"}, "Unknown prediction type 'score'"),
        ({"steps": 0}, "steps must lie between 1 and 60, not 0"),
        ({"steps": 61}, "steps must lie between 1 and 60, not 61"),
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"guidance_scale": 2.0}, "guidance_scale needs labels"),
        ({"x_T": torch.zeros(3, *SHAPE)}, "x_T needs 2 rows, one per image, not 3"),
        ({"labels": torch.tensor([1])}, "labels needs 2 rows, one per image, not 1"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_sentence(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sample(Toy(), NoiseSchedule("linear", T), **{"n": 2, "shape": SHAPE, **arguments})
