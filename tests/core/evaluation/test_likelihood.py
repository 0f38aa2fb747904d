"""Bits per dimension: against the bound written out plainly, and where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from diffusion_core.evaluation.likelihood import bits_per_dim
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import NoiseSchedule

SHAPE = (3, 4, 4)


class Toy(nn.Module):
    """Some function of image, timestep and class; it is told in which mode it was asked."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.modes: set[bool] = set()

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.modes.add(self.training)
        shift = t.float() / 9 + (0 if labels is None else labels)
        return torch.tanh(self.conv(x) + shift[:, None, None, None]) + 0.3 * x


class Exact(nn.Module):
    """The best prediction of v for pixels that are independent N(0, width^2)."""

    def __init__(self, schedule: NoiseSchedule, width: float) -> None:
        super().__init__()
        bar = torch.from_numpy(schedule.exact_alphas_cumprod)
        signal, spread = bar.sqrt(), (1 - bar).sqrt()
        gain = signal * width**2 / (bar * width**2 + 1 - bar)  # E[x_0 | x_t] = gain x_t
        self.factor = (signal - gain) / spread

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * self.factor[t].float()[:, None, None, None]


def levels(n: int, seed: int = 0) -> Tensor:
    """Images of 256 levels, among them black and white pixels."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (n, *SHAPE)) * rng.integers(0, 2, (n, 1, 4, 4))
    values[:, 0, 0] = 255
    return torch.from_numpy(values).float() / 127.5 - 1


def plain_bound(
    model: nn.Module,
    schedule: NoiseSchedule,
    image: Tensor,
    number: int,
    prediction_type: str,
    variance: str,
    clip: bool,
    label: int | None,
) -> tuple[float, float, list[float]]:
    """Total, prior and terms of one image, written with distributions and without algebra."""
    bar = torch.from_numpy(schedule.exact_alphas_cumprod)
    before = torch.cat([torch.ones(1), bar[:-1]]).double()
    x = image.double()
    draw = image_noise(5, 1, SHAPE, "cpu", number)
    bits = image.numel() * math.log(2)
    at_end = Normal(bar[-1].sqrt() * x, (1 - bar[-1]).sqrt().expand_as(x))
    prior = kl_divergence(at_end, Normal(torch.zeros_like(x), 1.0)).sum().item() / bits
    terms = []
    for t in range(schedule.timesteps):
        a, s = bar[t].sqrt(), (1 - bar[t]).sqrt()
        x_t = a * x + s * draw()[0]
        asked = (x_t[None].float(), torch.tensor([t]))
        known = () if label is None else (torch.tensor([label]),)
        with torch.no_grad():
            out = model(*asked, *known)[0].double()
        guess = {"epsilon": (x_t - s * out) / a if a else x_t, "x_0": out}.get(
            prediction_type, a * x_t - s * out
        )
        guess = guess.clamp(-1, 1) if clip else guess
        beta = 1 - bar[t] / before[t]
        if t == 0:
            width = ((1 - bar[1] / bar[0]) * (1 - bar[0]) / (1 - bar[1])).sqrt()
            p = Normal(guess, width)
            top = torch.where(x > 0.999, 1.0, p.cdf(x + 1 / 255))
            bottom = torch.where(x < -0.999, 0.0, p.cdf(x - 1 / 255))
            terms.append(-(top - bottom).log().sum().item() / bits)
            continue
        theirs = beta * (1 - before[t]) / (1 - bar[t])

        def mean(x_0: Tensor, x_t: Tensor = x_t, t: int = t, beta: Tensor = beta) -> Tensor:
            part = before[t].sqrt() * beta * x_0
            return (part + (1 - beta).sqrt() * (1 - before[t]) * x_t) / (1 - bar[t])

        ours = theirs if variance == "posterior" else beta
        q, p = Normal(mean(x), theirs.sqrt()), Normal(mean(guess), ours.sqrt())
        terms.append(kl_divergence(q, p).sum().item() / bits)
    return prior + sum(terms), prior, terms


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize(
    ("prediction_type", "settings", "clip", "labelled"),
    [
        ("epsilon", {"kind": "linear", "timesteps": 20, "beta_end": 0.3}, True, False),
        ("v_prediction", {"kind": "cosine", "timesteps": 30}, False, True),
        (
            "x_0",
            {"kind": "linear", "timesteps": 20, "beta_end": 0.3, "rescale_zero_terminal_snr": True},
            True,
            False,
        ),
        (
            "v_prediction",
            {"kind": "linear", "timesteps": 20, "beta_end": 0.3, "rescale_zero_terminal_snr": True},
            False,
            False,
        ),
    ],
)
def test_the_bound_is_the_one_written_out_with_distributions(
    prediction_type: str, settings: dict, clip: bool, labelled: bool, variance: str
) -> None:
    schedule, model, images = NoiseSchedule(**settings), Toy(), levels(3)
    labels = torch.tensor([2, 0, 1]) if labelled else None
    found = bits_per_dim(
        *(model, schedule, images, prediction_type, 5, labels), variance=variance, clip_x0=clip
    )
    assert found.timesteps.tolist() == [list(range(schedule.timesteps))] * 3
    for k, image in enumerate(images):
        label = None if labels is None else int(labels[k])
        total, prior, terms = plain_bound(
            model.eval(), schedule, image, k, prediction_type, variance, clip, label
        )
        assert found.prior[k] == pytest.approx(prior, rel=1e-6, abs=1e-12)
        assert found.terms[k][1:] == pytest.approx(terms[1:], rel=1e-4, abs=1e-6)
        if math.isfinite(terms[0]):  # Normal.cdf ends at some 8 standard deviations
            assert found.terms[k][0] == pytest.approx(terms[0], rel=1e-4)
            assert found.total[k] == pytest.approx(total, rel=1e-4)


def test_the_decoder_is_the_plain_one_where_that_has_its_digits() -> None:
    schedule = NoiseSchedule("linear", 4, 0.05, 0.3)
    images = levels(4, 1)
    near = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))

    class Knows(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return near

    found = bits_per_dim(Knows(), schedule, images, "x_0", clip_x0=False)
    width = schedule.posterior_variance[1].double().sqrt()
    p = Normal(near.double(), width)
    x = images.double()
    top = torch.where(x > 0.999, 1.0, p.cdf(x + 1 / 255))
    mass = top - torch.where(x < -0.999, 0.0, p.cdf(x - 1 / 255))
    expected = -mass.log2().flatten(1).mean(1)
    assert torch.isfinite(expected).all()
    assert found.terms[:, 0] == pytest.approx(expected.numpy(), rel=1e-5)


def test_a_pixel_far_from_the_guess_costs_what_the_tail_says_and_not_infinity() -> None:
    schedule = NoiseSchedule("linear", 50)

    class Grey(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.zeros_like(x)

    bright = bits_per_dim(Grey(), schedule, torch.full((1, *SHAPE), 101 / 127.5 - 1), "x_0")
    dark = bits_per_dim(Grey(), schedule, torch.full((1, *SHAPE), 154 / 127.5 - 1), "x_0")
    width = schedule.posterior_variance[1].double().sqrt().item()
    tail = (26.5 / 127.5 - 1 / 255) / width  # many standard deviations
    assert tail > 20
    assert bright.terms[0, 0] == pytest.approx(dark.terms[0, 0], rel=1e-5)
    leading = tail**2 / 2 + math.log(tail * math.sqrt(2 * math.pi))
    assert bright.terms[0, 0] == pytest.approx(leading / math.log(2), rel=1e-2)


def test_with_the_exact_denoiser_the_bound_lies_just_above_the_entropy_of_a_gaussian() -> None:
    """And each term is what the known error of that denoiser makes of it."""
    width, timesteps = 0.25, 200
    rng = np.random.default_rng(0)
    values = ((rng.normal(0, width, (256, *SHAPE)) + 1) * 127.5).round().clip(0, 255)
    images = torch.from_numpy(values).float() / 127.5 - 1
    schedule = NoiseSchedule("linear", timesteps, 0.1 / timesteps, 20 / timesteps)
    model = Exact(schedule, width)
    found = bits_per_dim(model, schedule, images, "v_prediction", variance="beta")

    bar = schedule.exact_alphas_cumprod
    error = width**2 * (1 - bar) / (bar * width**2 + 1 - bar)  # variance of x_0 where x_t is known
    before = np.concatenate([[1.0], bar[:-1]])
    beta = 1 - bar / before
    ratio = (1 - before[1:]) / (1 - bar[1:])
    slope = before[1:] * beta[1:] / (1 - bar[1:]) ** 2
    steps = (ratio - 1 - np.log(ratio) + slope * error[1:]) / 2
    first = beta[1] * ratio[0]
    decoder = np.log(2 * np.pi * first) / 2 + error[0] / (2 * first) + np.log(255 / 2)
    known = np.concatenate([[decoder], steps]) / np.log(2)
    assert found.terms.mean(0) == pytest.approx(known, rel=0.06)
    assert found.terms.sum(1).mean() == pytest.approx(known.sum(), rel=0.003)

    entropy = 0.5 * math.log2(2 * math.pi * math.e * width**2) + math.log2(127.5)
    # What these very pixels cost under the Gaussian: the entropy without the luck of the draw.
    best = (images.square().mean().item() / width**2 - 1) / (2 * math.log(2)) + entropy
    # What the decoder loses because its variance is that of t = 1; the rest falls with more steps.
    loss = (error[0] / first - 1 - np.log(error[0] / first)) / (2 * np.log(2))
    assert loss < found.total.mean() - best < loss + 0.06


def test_a_share_of_the_timesteps_gives_the_same_bound_on_average() -> None:
    schedule, model = NoiseSchedule("cosine", 200), Toy()
    images = levels(1).repeat(400, 1, 1, 1)
    every = bits_per_dim(model, schedule, images[:40], "v_prediction")
    some = bits_per_dim(model, schedule, images, "v_prediction", 1, None, 12)
    error = some.total.std(ddof=1) / len(images) ** 0.5
    assert abs(some.total.mean() - every.total.mean()) < 3 * error + 0.01 * every.total.mean()
    assert error < 0.05 * every.total.mean()
    assert (some.timesteps[:, 0] == 0).all() and some.timesteps.max() > 180
    assert (np.diff(some.timesteps, axis=1) > 0).all()


def test_each_range_of_timesteps_is_counted_once_whatever_their_number() -> None:
    schedule = NoiseSchedule("linear", 40, beta_end=0.2)
    for asked in range(2, 41):
        found = bits_per_dim(Toy(), schedule, levels(2), "v_prediction", 0, None, asked)
        assert found.timesteps.shape == (2, asked)
        assert (np.diff(found.timesteps, axis=1) > 0).all()
    whole = bits_per_dim(Toy(), schedule, levels(2), "v_prediction")
    assert (found.total == whole.total).all()


def test_a_set_in_batches_is_the_same_as_at_once() -> None:
    schedule, model, images = NoiseSchedule("cosine", 50), Toy(), levels(5)
    whole = bits_per_dim(model, schedule, images, "v_prediction", 2, None, 9)
    halves = [
        bits_per_dim(model, schedule, part, "v_prediction", 2, None, 9, first=first)
        for first, part in ((0, images[:2]), (2, images[2:]))
    ]
    assert np.concatenate([h.timesteps for h in halves]).tolist() == whole.timesteps.tolist()
    assert np.concatenate([h.total for h in halves]) == pytest.approx(whole.total, rel=1e-6)


def test_the_network_is_asked_in_evaluation_mode_and_its_mode_comes_back() -> None:
    model, steps = Toy().train(), []
    model.conv.eval()  # as a part that is held still
    bits_per_dim(
        *(model, NoiseSchedule("cosine", 6), levels(1), "v_prediction"),
        on_step=lambda done, all: steps.append((done, all)),
    )
    assert model.modes == {False} and model.training and not model.conv.training
    assert steps == [(k, 6) for k in range(1, 7)]


def test_what_has_no_bound_is_refused_with_a_sentence() -> None:
    ends_in_noise = NoiseSchedule("linear", 10, rescale_zero_terminal_snr=True)
    with pytest.raises(ValueError, match="flow"):
        bits_per_dim(Toy(), FlowSchedule(10), levels(1), "flow_prediction")
    with pytest.raises(ValueError, match="ends in pure noise"):
        bits_per_dim(Toy(), ends_in_noise, levels(1), "epsilon")
    with pytest.raises(ValueError, match="between 2 and 10"):
        bits_per_dim(Toy(), ends_in_noise, levels(1), "x_0", 0, None, 11)
    with pytest.raises(ValueError, match="posterior, beta"):
        bits_per_dim(Toy(), ends_in_noise, levels(1), "x_0", variance="learned")
