"""The sampler of distilled networks, exact on a Gaussian whose consistency function is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.levels import NoiseLevel, make_levels
from diffusion_core.sampling.registry import samplers_for, usual_steps
from diffusion_core.sampling.sample import sample
from diffusion_core.sampling.solvers import CONSISTENCY, FLOW_CONSISTENCY, consistency
from diffusion_core.sampling.spec import SamplingSpec
from tests.tiny_runs import TINY, write_run

M, S = 0.3, 0.5  # of the values of the images
SCHEDULES: dict[str, Schedule] = {
    "cosine": NoiseSchedule("cosine", 1000),
    "pure noise": NoiseSchedule("linear", 1000, rescale_zero_terminal_snr=True),
    "flow": FlowSchedule(1000),
}


def ends_of_paths(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
    """The exact (x_0, epsilon): the probability flow of N(M, S^2) leads from x_t, of N(alpha M,
    alpha^2 S^2 + sigma^2), to the image as many standard deviations from the mean."""
    x_0 = M + S * (x_t - level.alpha * M) / (level.alpha**2 * S**2 + level.sigma**2) ** 0.5
    return x_0, (x_t - level.alpha * x_0) / level.sigma


def walk(levels: list[NoiseLevel], x_T: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    *_, last = consistency(ends_of_paths, levels, x_T, noise)
    return last.x_t


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_step_is_the_end_of_the_path(name: str) -> None:
    """Of Euler's method in as many steps as the schedule has, which follows the path."""
    schedule = SCHEDULES[name]
    [start, *_] = levels = make_levels(schedule, 1)
    x_T = start.alpha * M + (start.alpha**2 * S**2 + start.sigma**2) ** 0.5 * torch.linspace(
        -2, 2, 9
    )
    assert torch.allclose(walk(levels, x_T, torch.empty), M + S * torch.linspace(-2, 2, 9))


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_moments_are_those_of_the_images(name: str, steps: int) -> None:
    """Exactly: each noise is a dimension of its own, whose squares are the variance."""
    levels = make_levels(SCHEDULES[name], steps)
    start = levels[0]
    spread = (start.alpha**2 * S**2 + start.sigma**2) ** 0.5
    mean = walk(levels, torch.full((1,), start.alpha * M), lambda: torch.zeros(1))
    assert float(mean) == pytest.approx(M)
    axes = itertools.cycle(torch.eye(steps, dtype=torch.float64))
    x_T = start.alpha * M + spread * next(axes)
    made = walk(levels, x_T, lambda: next(axes)) - M
    assert float(made.square().sum()) == pytest.approx(S**2)


class Exact(nn.Module):
    """The exact network of N(M, S^2), for `sample`: it answers with the image."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.tables = schedule
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a, b = self.tables.signal[t[0].long()], self.tables.spread[t[0].long()]
        return ends_of_paths(x_t, NoiseLevel(float(t[0]), float(a), float(b)))[0]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_samples_have_the_distribution_of_the_images(steps: int) -> None:
    schedule = SCHEDULES["cosine"]
    options: dict[str, Any] = {"prediction_type": "x_0", "shape": (1, 64, 64), "clip_x0": False}
    with torch.inference_mode():
        x = sample(Exact(schedule), schedule, 8, "consistency", steps, 3, **options)
    inside = (x > -1) & (x < 1)  # `sample` clips
    assert inside.float().mean() > 0.9
    values = x.flatten().sort().values
    ranks = (torch.arange(len(values)) + 0.5) / len(values)
    wanted = (M + S * torch.special.ndtri(ranks)).clamp(-1, 1)
    assert (values - wanted).abs().mean() < 0.01


def test_only_a_distilled_run_takes_it(tmp_path) -> None:
    settings = {"objective": "consistency", "init_from": "x", "min_snr_gamma": 0.0}
    write_run(tmp_path, "teacher", 3)
    write_run(tmp_path, "student", 3, config=TINY.replace(**settings))
    can = {
        name: Capabilities.of(load_run(tmp_path / name).checkpoint(3))
        for name in ("teacher", "student")
    }
    assert can["student"].samplers == ("consistency",)
    assert can["student"].usual_steps == {"consistency": 2}
    assert "consistency" not in can["teacher"].samplers
    spec = SamplingSpec(run="r", step=3, classes=("van", "bus", "coupé"), label="van", steps=2)
    distilled = spec.replace(sampler="consistency")
    assert distilled.problems(can["student"]) == []
    [sentence] = distilled.problems(can["teacher"])
    assert sentence.startswith(
        "consistency needs a distilled run, and r is not one; choose one of dpmpp"
    )
    [sentence] = spec.problems(can["student"])
    assert sentence == "r is a distilled run, which dpmpp_2m cannot sample; choose consistency."


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_there_is_one_for_each_kind_of_schedule(schedule: Schedule) -> None:
    [sampler] = samplers_for(schedule, distilled=True)
    assert sampler is (FLOW_CONSISTENCY if schedule.is_flow else CONSISTENCY)
    assert sampler not in samplers_for(schedule)
    assert usual_steps(sampler, 1000) == 2
