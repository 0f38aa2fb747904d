"""Guidance: its formula, the negative class, the interval, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.registry import count_evaluations, sampler_of, usual_spacing
from diffusion_core.sampling.sample import sample

SCHEDULE = NoiseSchedule("cosine", 20)
SHAPE = (3, 4, 4)


class Labelled(nn.Module):
    """Predicts a tenth of its label everywhere; notes the labels that it is asked for."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.asked.append(labels.tolist())
        return 0.1 * labels.view(-1, 1, 1, 1).expand_as(x).float()


def drawn(model: nn.Module, **options: Any) -> Tensor:
    return sample(
        model, SCHEDULE, 2, "ddim", 5, clip_x0=False, shape=SHAPE,
        labels=torch.tensor([0, 1]), **options,
    )  # fmt: skip


class Constant(nn.Module):
    """Predicts one number for each image."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.tensor(values).view(-1, 1, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.values.expand_as(x)


@pytest.mark.parametrize(("negative", "other"), [(None, 0.3), ([2, 2], 0.2)])
def test_guidance_leads_from_any_class_or_the_negative_one_past_the_class(
    negative: list[int] | None, other: float
) -> None:
    given = {} if negative is None else {"negative_labels": torch.tensor(negative)}
    found = drawn(Labelled(), guidance_scale=3.0, **given)
    wanted = [other + 3 * (label - other) for label in (0.0, 0.1)]
    plain = sample(Constant(*wanted), SCHEDULE, 2, "ddim", 5, clip_x0=False, shape=SHAPE)
    assert torch.allclose(found, plain, atol=1e-6)


def test_outside_of_its_interval_guidance_neither_acts_nor_costs() -> None:
    model = Labelled()
    drawn(model, guidance_scale=3.0, guidance_interval=(7.0, 11.0))
    # The walk is 19, 15, 11, 7, 3.
    assert [len(labels) for labels in model.asked] == [2, 2, 4, 4, 2]
    assert model.asked[2] == [0, 1, 3, 3]
    nowhere = drawn(Labelled(), guidance_scale=3.0, guidance_interval=(4.0, 6.0))
    assert torch.equal(nowhere, drawn(Labelled()))
    everywhere = drawn(Labelled(), guidance_scale=3.0, guidance_interval=(0.0, 19.0))
    assert torch.equal(everywhere, drawn(Labelled(), guidance_scale=3.0))


class TwoGaussians(nn.Module):
    """The exact epsilon of classes N(-0.3, 0.04), N(0.2, 0.04), and their "any", taken to be
    N(0, 0.04): by equal variances the prediction is linear in the mean."""

    num_classes = 2
    means = torch.tensor([-0.3, 0.2, 0.0])

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        bar = float(SCHEDULE.exact_alphas_cumprod[int(t[0])])
        centre = bar**0.5 * self.means[labels].view(-1, 1, 1, 1)
        return (1 - bar) ** 0.5 * (x - centre) / (0.04 * bar + 1 - bar)


@pytest.mark.parametrize(("negative", "wanted"), [(None, 0.4), (0, 0.7)])
def test_guidance_of_gaussians_moves_the_mean_and_leaves_the_spread(
    negative: int | None, wanted: float
) -> None:
    n = 500
    labels = torch.ones(n, dtype=torch.long)
    others = None if negative is None else torch.full((n,), negative)
    walked = sample(
        TwoGaussians(), SCHEDULE, n, "ddim", 20, shape=(4, 4, 4), clip_x0=False, labels=labels,
        guidance_scale=2.0, negative_labels=others,
    )  # fmt: skip
    plain = sample(
        TwoGaussians(), SCHEDULE, n, "ddim", 20, shape=(4, 4, 4), clip_x0=False, labels=labels
    )
    # The result is clamped to [-1, 1], which hardly touches these.
    assert float(walked.mean() - plain.mean()) == pytest.approx(wanted - 0.2, abs=0.02)
    assert float(walked.std() / plain.std()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("interval", [None, (7.0, 11.0), (4.0, 6.0)])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "unipc"])
def test_evaluations_are_counted_as_the_network_is_asked(
    sampler: str, interval: tuple[float, float] | None
) -> None:
    model = Labelled()
    sample(
        model, SCHEDULE, 2, sampler, 5, shape=SHAPE, labels=torch.tensor([0, 1]),
        guidance_scale=3.0, guidance_interval=interval,
    )  # fmt: skip
    kind = sampler_of(sampler)
    walk = make_levels(SCHEDULE, 5, usual_spacing(kind, SCHEDULE))
    counted = count_evaluations(kind, walk, guided=True, guidance_interval=interval)
    assert 2 * counted == sum(map(len, model.asked))


def test_repetitions_under_a_mask_are_counted_too() -> None:
    model = Labelled()
    sample(
        model, SCHEDULE, 2, "ddim", 5, labels=torch.tensor([0, 1]), guidance_scale=3.0,
        guidance_interval=(7.0, 11.0), resample=4, image=torch.zeros(1, *SHAPE), strength=0.6,
        mask=torch.ones(1, 1, 4, 4),
    )  # fmt: skip
    walk = make_levels(SCHEDULE, 5)[2:]
    counted = count_evaluations(
        sampler_of("ddim"), walk, guided=True, guidance_interval=(7.0, 11.0), resample=4
    )
    assert 2 * counted == sum(map(len, model.asked)) == 2 * (8 + 8 + 1)


def test_guidance_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="guidance_scale needs labels"):
        sample(Constant(0.0), SCHEDULE, 1, guidance_scale=2.0, shape=SHAPE)


def test_a_batch_of_a_seed_has_the_images_that_the_whole_has() -> None:
    model = Constant(0.1)
    whole = sample(model, SCHEDULE, 5, "ddpm", 5, seed=3, shape=SHAPE)
    parts = [
        sample(model, SCHEDULE, n, "ddpm", 5, seed=3, shape=SHAPE, first=first)
        for first, n in ((0, 2), (2, 3))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_a_source_of_noise_of_ones_own_stands_for_the_seed() -> None:
    model = Constant(0.1)
    by_seed = sample(model, SCHEDULE, 2, "ddpm", 5, seed=3, shape=SHAPE)
    own = sample(model, SCHEDULE, 2, "ddpm", 5, shape=SHAPE, noise=image_noise(3, 2, SHAPE))
    assert torch.equal(by_seed, own)
