"""The recorder of a walk: what it keeps, and its numbers against those of the walk itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_core.media.images import to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.sampling import trajectory
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.sample import sample
from diffusion_core.sampling.solvers import StepView
from diffusion_core.sampling.trajectory import EDGES, Recorder, Trajectory

SHAPE = (3, 8, 8)
SCHEDULE = NoiseSchedule(kind="cosine", timesteps=80)


class Shrink(nn.Module):
    """Predicts as noise nearly what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.9))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.factor * x


def walk(steps: int, n: int = 3, sampler: str = "ddpm") -> tuple[Trajectory, list[StepView], int]:
    """The record, the steps themselves, and how many images are kept."""
    views: list[StepView] = []
    recorder = Recorder(make_levels(SCHEDULE, steps))

    def on_step(view: StepView) -> None:
        views.append(view)
        recorder(view)

    sample(Shrink(), SCHEDULE, n, sampler, steps, seed=4, shape=SHAPE, on_step=on_step)
    return recorder.finish(), views, recorder.images((n, *SHAPE))


def rms(x: Tensor) -> np.ndarray:
    return x.pow(2).mean(dim=(1, 2, 3)).sqrt().numpy()


@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
def test_the_numbers_are_those_of_every_step_the_first_counted_from_the_noise(
    sampler: str,
) -> None:
    record, views, _ = walk(5, sampler=sampler)
    start = image_noise(4, 3, SHAPE)()
    x_t = [start, *(view.x_t for view in views)]
    x_0 = [view.x_0 for view in views]
    assert record.timesteps.tolist() == [view.timestep for view in views]
    for k, view in enumerate(views):
        assert record.change_x_t[k] == pytest.approx(rms(x_t[k + 1] - x_t[k]), rel=1e-4)
        assert record.epsilon[k] == pytest.approx(rms(view.epsilon), rel=1e-5)
        if k:
            assert record.change_x_0[k] == pytest.approx(rms(x_0[k] - x_0[k - 1]), rel=1e-4)
    assert np.isnan(record.change_x_0[0]).all()


def test_images_and_histograms_are_those_of_the_kept_steps() -> None:
    record, views, _ = walk(80)
    assert len(record.timesteps) == 80
    assert len(record.kept) == trajectory.MOST_FRAMES
    assert (record.kept[0], record.kept[-1]) == (0, 79)
    assert set(np.diff(record.kept)) == {1, 2}
    for row, k in enumerate(record.kept):
        assert np.array_equal(record.x_t[row], to_uint8(views[k].x_t))
        assert np.array_equal(record.x_0[row], to_uint8(views[k].x_0))
        for counts, epsilon in zip(record.counts[row], views[k].epsilon, strict=True):
            expected, _ = np.histogram(epsilon.clamp(-4, 4).numpy(), EDGES)
            assert counts.tolist() == expected.tolist()
    assert record.evenly(10).tolist() == [0, 7, 13, 20, 26, 33, 39, 46, 52, 59]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    record, _, kept = walk(10, n=20)
    assert kept == record.x_t.shape[1] == trajectory.MOST_IMAGES
    assert record.epsilon.shape == (10, 20)  # the numbers are of all
    one = 2 * 10 * int(np.prod(SHAPE))
    monkeypatch.setattr(trajectory, "MOST_BYTES", 5 * one)
    assert walk(10, n=20)[0].x_0.shape == (10, 5, 8, 8, 3)
    monkeypatch.setattr(trajectory, "MOST_BYTES", 0)
    assert walk(10, n=20)[0].x_0.shape == (10, 1, 8, 8, 3)


def test_a_walk_that_was_broken_off_has_no_record() -> None:
    recorder = Recorder(make_levels(SCHEDULE, 3))
    zeros = torch.zeros(1, *SHAPE)
    recorder(StepView(0, 3, 79, zeros, zeros, zeros))
    with pytest.raises(ValueError, match="has not ended yet"):
        recorder.finish()
