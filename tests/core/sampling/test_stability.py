"""Which samplers diverge on which levels, and that the page and the commands say so beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.process.tables import SCHEDULE_KINDS
from diffusion_core.sampling.levels import IMAGE, TIMESTEP_SPACINGS, make_levels, spacings_for
from diffusion_core.sampling.registry import samplers_for, usual_spacing, usual_steps
from diffusion_core.sampling.solvers import EULER, HEUN, SAMPLERS, Sampler
from diffusion_core.sampling.stability import (
    _VARIANCES,
    _WEIGHTS,
    MOST_NOISE,
    predicted_noise,
)

COSINE = NoiseSchedule("cosine", 1000)
SCHEDULES: dict[str, Schedule] = {
    **{kind: NoiseSchedule(kind, 1000) for kind in SCHEDULE_KINDS},
    "the lecture's": NoiseSchedule("linear", 300),
    "of 20 timesteps": NoiseSchedule("cosine", 20),
    "ends in noise": NoiseSchedule("cosine", 300, rescale_zero_terminal_snr=True),
    "flow": FlowSchedule(1000),
}
EASY = [sampler for sampler in SAMPLERS if sampler.name != "heun" and not sampler.flow]


def test_it_is_what_a_step_of_heuns_method_makes_on_paper() -> None:
    start, middle, *_ = make_levels(COSINE, 50)
    r, q = start.ratio, middle.ratio
    shares, variances = (table.numpy()[:, 0] for table in (_WEIGHTS, _VARIANCES))
    x = np.sqrt(variances + r**2)  # of x_t / alpha
    first = r / (variances + r**2) * x
    second = q / (variances + q**2) * (x + (q - r) * first)
    landed = q / (variances + q**2) * (x + (q - r) * (first + second) / 2)
    sizes = [np.sqrt((shares * size**2).sum()) for size in (first, second, landed)]
    assert predicted_noise(HEUN, [start, middle, IMAGE]) == pytest.approx(max(sizes))
    assert sizes[2] > 1.5 > 1 > max(sizes[:2])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_sampler_is_stable_at_its_defaults(name: str) -> None:
    schedule = SCHEDULES[name]
    for sampler in samplers_for(schedule):
        steps = usual_steps(sampler, schedule.timesteps)
        levels = make_levels(schedule, steps, usual_spacing(sampler, schedule))
        assert predicted_noise(sampler, levels) < 1.1, sampler.name


@pytest.mark.parametrize("sampler", EASY, ids=lambda each: each.name)
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_all_but_heuns_method_are_stable_on_all_levels(sampler: Sampler, spacing: str) -> None:
    for schedule in SCHEDULES.values():
        if sampler in samplers_for(schedule) and spacing in spacings_for(schedule):
            for steps in (1, 2, 5, 20):
                levels = make_levels(schedule, steps, spacing)
                assert predicted_noise(sampler, levels) <= 1 + 1e-6


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_fresh_noise_is_counted(eta: float) -> None:
    [ddim] = [sampler for sampler in SAMPLERS if sampler.name == "ddim"]
    found = predicted_noise(ddim, make_levels(COSINE, 20), {"eta": eta})
    assert found == pytest.approx(1, abs=1e-3)


# (schedule, spacing, steps, whether Heun's method diverges)
HEUNS = [
    ("cosine", "trailing", 25, True),
    ("cosine", "trailing", 60, True),
    ("cosine", "trailing", 100, False),
    ("cosine", "linspace", 25, True),
    ("cosine", "karras", 10, True),
    ("cosine", "karras", 15, False),
    ("cosine", "exponential", 7, True),
    ("cosine", "exponential", 10, False),
    ("cosine", "leading", 5, True),
    ("cosine", "leading", 10, False),
    ("linear", "trailing", 25, False),
    ("the lecture's", "trailing", 25, False),
    ("the lecture's", "linspace", 25, False),
]


@pytest.mark.parametrize(("name", "spacing", "steps", "diverges"), HEUNS)
def test_heuns_method_diverges_where_the_noise_falls_too_far_in_a_step(
    name: str, spacing: str, steps: int, diverges: bool
) -> None:
    levels = make_levels(SCHEDULES[name], steps, spacing)
    assert (predicted_noise(HEUN, levels) > MOST_NOISE) is diverges
    assert predicted_noise(EULER, levels) <= 1 + 1e-6
