"""Where an image is decided, on a Gaussian whose answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_core.media.images import to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.branching import OWN, branch, partings
from diffusion_core.sampling.levels import exact_tables
from diffusion_core.sampling.spec import SamplingSpec

SPREAD = 0.15  # of the data; clamping to [-1, 1] is six of these away
CONFIG = RunConfig(
    image_size=16, prediction_type="x_0", schedule={"kind": "cosine", "timesteps": 400}
)


class Exact(nn.Module):
    """The denoiser of images whose values are independent and N(0, SPREAD^2)."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        alpha, sigma = (torch.tensor(table) for table in exact_tables(schedule))
        share = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        self.share = nn.Parameter(share.float())

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        share = self.share[t][:, None, None, None]
        return x * share if labels is None else x * share + 0.01 * labels[:, None, None, None]


def loaded() -> LoadedModel:
    schedule = NoiseSchedule(**CONFIG.schedule)
    return LoadedModel(Exact(schedule), schedule, CONFIG)


def posterior_variance(t: int) -> float:
    """Of x_0 where x_t is known: what is open at t."""
    alpha, sigma = (table[t] for table in exact_tables(NoiseSchedule(**CONFIG.schedule)))
    return SPREAD**2 * sigma**2 / (alpha**2 * SPREAD**2 + sigma**2)


def walked_variance(start: float, t: int) -> float:
    """Of DDPM's image where x_t has the variance `start`: every step multiplies by its factor and
    adds that of its fresh noise (Ho et al. 2020, equation 7)."""
    alphas, sigmas = exact_tables(NoiseSchedule(**CONFIG.schedule))
    bars = [1.0, *(alpha**2 for alpha in alphas)]
    variance = start
    for k in range(t, -1, -1):
        bar, before = bars[k + 1], bars[k]
        alpha, share = bar / before, alphas[k] * SPREAD**2 / (bar * SPREAD**2 + sigmas[k] ** 2)
        of_x_0 = before**0.5 * (1 - alpha) / (1 - bar)
        of_x_t = alpha**0.5 * (1 - before) / (1 - bar)
        fresh = (1 - alpha) * (1 - before) / (1 - bar)
        variance = (of_x_0 * share + of_x_t) ** 2 * variance + fresh
    return variance


def test_the_variance_left_at_a_timestep_is_that_of_the_posterior() -> None:
    spec = SamplingSpec(run="exact", step=0, sampler="ddpm", steps=400)
    alone, *others = branch(spec, loaded(), 0, 6, 12)
    assert [one.shared for one in others] == partings(400, 6)[1:]
    assert [one.timestep for one in others] == [400 - one.shared for one in others]
    assert alone.shared == 0 and alone.timestep is None
    # Of 12 branches and 768 values the variance is known to 1.5 %.
    assert alone.variance == pytest.approx(walked_variance(1.0, 399), rel=0.05)
    for one in others:
        t = int(one.timestep)
        assert one.variance == pytest.approx(walked_variance(0.0, t), rel=0.05)
        if t > 10:  # where so many steps are left that the walk is the reverse process
            assert one.variance == pytest.approx(posterior_variance(t), rel=0.12)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler_ancestral", "dpmpp_2m_sde"])
def test_the_branches_are_what_their_noises_make(sampler: str) -> None:
    """Sharing the first two noises: by the weight of every noise in the finished image, which is
    a sum of them."""
    made, steps, m = loaded(), 5, 3
    spec = SamplingSpec(run="exact", step=0, sampler=sampler, steps=steps, eta=1.0, seed=6)
    shape = (3, 16, 16)

    def finished(noises: list[Tensor]) -> Tensor:
        rest = iter(noises)
        n = len(noises[0])
        return spec.make(made, n=n, noise=lambda: next(rest))

    zero = torch.zeros(1, *shape)
    one = torch.full((1, *shape), 0.1)
    weights = [
        finished([one if j == k else zero for j in range(steps)]).mean().item() / 0.1
        for k in range(steps)
    ]
    trunk, own = image_noise(6, 1, shape, first=2), image_noise(6, m, shape, first=OWN)
    together, alone = [trunk() for _ in range(steps)], [own() for _ in range(steps)]
    noises = [together[k].expand(m, *shape) if k < 2 else alone[k] for k in range(steps)]
    expected = torch.stack([w * noise for w, noise in zip(weights, noises, strict=True)]).sum(0)
    found = {one.shared: one for one in branch(spec, made, 2, steps, m)}
    variance = expected.var(dim=0)
    assert found[2].variance == pytest.approx(variance.mean().item(), rel=1e-4)
    assert found[2].deviation == pytest.approx(variance.mean(dim=0).sqrt().numpy(), rel=1e-3)
    assert np.abs(found[2].images.astype(int) - to_uint8(expected)).max() <= 1
    mean = to_uint8(expected.mean(dim=0, keepdim=True))[0]
    assert np.abs(found[2].mean.astype(int) - mean).max() <= 1


def test_without_noise_in_the_steps_the_start_decides_all_and_the_class_is_the_images() -> None:
    spec = SamplingSpec(
        run="exact", step=0, sampler="dpmpp_2m", steps=4, classes=("a", "b"), label="each in turn"
    )
    alone, *others = branch(spec, loaded(), 1, 3, 2)
    assert alone.variance > 0.001
    assert [one.variance for one in others] == [0.0, 0.0]
    [drawn] = to_uint8(spec.make(loaded(), first=1, n=1))
    assert np.array_equal(others[0].images[0], drawn)


def test_partings_go_from_nothing_shared_to_all_but_one_noise_and_are_denser_in_the_noise() -> None:
    assert partings(1, 7) == [0]
    assert partings(3, 7) == [0, 1, 2]
    assert partings(20, 7) == [0, 1, 2, 4, 7, 13, 19]
