"""Drawing from an image, around a mask, back to the noise and between two noises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_repaint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.objective import to_epsilon, to_x_0
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.sampling import edits, solvers
from diffusion_core.sampling.edits import slerp
from diffusion_core.sampling.levels import NoiseLevel, make_levels
from diffusion_core.sampling.registry import sampler_names, sampler_of
from diffusion_core.sampling.sample import invert, sample

T = 20
SHAPE = (2, 3, 6, 6)
ONE_STEP = [name for name in sampler_names(False) if sampler_of(name).one_step]
SCHEDULE = NoiseSchedule("linear", T, 1e-3, 0.3)


class Net(nn.Module):
    """Some function of image and time; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.asked = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked += 1
        time = (t.float() / T).view(-1, 1, 1, 1)
        return torch.tanh(0.7 * x * self.weight) * (0.5 + 0.5 * time)


def predict_as(prediction_type: str) -> solvers.Predict:
    def predict(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        output = Net()(x_t, torch.full((len(x_t),), level.t))
        point = (output, x_t, level.alpha, level.sigma, prediction_type)
        return to_x_0(*point), to_epsilon(*point)

    return predict


def image() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(5)) * 2 - 1


def left_half() -> Tensor:
    mask = torch.zeros(1, 1, *SHAPE[2:])
    mask[..., : SHAPE[3] // 2] = 1
    return mask


def each_twice(seed: int) -> Callable[..., Tensor]:
    """diffusers adds one noise to both parts of a step; ours asks for two."""

    def numbers() -> Iterator[Tensor]:
        for k in range(1000):
            z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed + k))
            yield z
            yield z

    stream = numbers()
    return lambda: next(stream)


def test_repainting_equals_diffusers_without_going_back(monkeypatch: pytest.MonkeyPatch) -> None:
    x_T = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    levels = make_levels(SCHEDULE, T)
    ddim = lambda *words: solvers.ddim(*words, eta=1.0)  # noqa: E731
    *_, last = edits.repaint(
        ddim,
        predict_as("epsilon"),
        levels,
        x_T,
        each_twice(9),
        image=image(),
        mask=left_half(),
    )
    scheduler = diffusers.RePaintScheduler(
        num_train_timesteps=T, beta_start=1e-3, beta_end=0.3, eta=1.0, clip_sample=False
    )
    scheduler.set_timesteps(T, jump_length=1, jump_n_sample=1)
    seeds = iter(range(9, 1000))
    monkeypatch.setattr(
        scheduling_repaint,
        "randn_tensor",
        lambda *a, **k: torch.randn(SHAPE, generator=torch.Generator().manual_seed(next(seeds))),
    )
    x, net = x_T, Net()
    for t in range(T - 1, -1, -1):
        output = net(x, torch.full((SHAPE[0],), t)).detach()
        x = scheduler.step(output, t, x, image(), left_half()).prev_sample
    assert torch.allclose(last.x_t, x, atol=1e-4)


def test_repainting_with_going_back_equals_diffusers_in_the_order_of_the_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """diffusers' own list of timesteps leaves out the first step's repetitions and adds the last's;
    algorithm 1 repeats every step but the last, onto the image."""
    x_T, resample = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), 3
    stream = torch.Generator().manual_seed(4)
    draw = lambda *a, **k: torch.randn(SHAPE, generator=stream)  # noqa: E731
    *_, last = edits.repaint(
        solvers.ddim,
        predict_as("epsilon"),
        make_levels(SCHEDULE, T),
        x_T,
        draw,
        image=image(),
        mask=left_half(),
        resample=resample,
    )
    stream.manual_seed(4)
    monkeypatch.setattr(scheduling_repaint, "randn_tensor", draw)
    scheduler = diffusers.RePaintScheduler(
        num_train_timesteps=T, beta_start=1e-3, beta_end=0.3, eta=0.0, clip_sample=False
    )
    scheduler.set_timesteps(T, jump_length=1, jump_n_sample=1)
    x, net = x_T, Net()
    for t in range(T - 1, -1, -1):
        for turn in range(resample if t else 1):
            if turn:
                x = scheduler.undo_step(x, t)
            output = net(x, torch.full((SHAPE[0],), t)).detach()
            x = scheduler.step(output, t, x, image(), left_half()).prev_sample
    assert torch.allclose(last.x_t, x, atol=1e-4)


@pytest.mark.parametrize("sampler", ONE_STEP)
def test_what_the_mask_keeps_stays_and_the_rest_is_drawn(sampler: str) -> None:
    net = Net()
    found = sample(
        net,
        SCHEDULE,
        2,
        sampler,
        5,
        image=image(),
        mask=left_half(),
        resample=3,
        shape=SHAPE[1:],
    )
    kept = left_half().bool().expand(SHAPE)
    assert torch.allclose(found[kept], image()[kept], atol=1e-6)
    assert (found - image())[~kept].abs().mean() > 0.1
    assert net.asked == 4 * 3 + 1  # the last step, onto the image, is taken once


def test_going_back_puts_a_step_at_the_noise_that_it_started_from() -> None:
    """Of pure noise, whatever the mask, the spread at each level stays that of the level."""
    schedule = NoiseSchedule("linear", T, 1e-3, 0.3)
    levels = make_levels(schedule, T)[:8]
    nothing = torch.zeros(20_000, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(nothing.shape, generator=generator)  # noqa: E731
    exact = lambda x, level: (torch.zeros_like(x), x / level.sigma)  # noqa: E731
    *_, last = edits.repaint(
        solvers.euler,
        exact,
        levels,
        levels[0].sigma * noise(),
        noise,
        image=nothing,
        mask=torch.full_like(nothing, 0.0),
        resample=4,
    )
    assert last.x_t.std() == pytest.approx(levels[-1].sigma, rel=0.03)


@pytest.mark.parametrize("sampler", [name for name in sampler_names(False) if name not in ONE_STEP])
def test_a_mask_is_refused_by_the_methods_that_remember(sampler: str) -> None:
    with pytest.raises(ValueError, match=f"A mask needs .* or .*, not {sampler}"):
        sample(Net(), SCHEDULE, 2, sampler, 5, image=image(), mask=left_half())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strength": 0.5}, "need an image"),
        ({"mask": left_half()}, "need an image"),
        ({"image": image(), "strength": 0.0}, "above 0 and at most 1, not 0"),
        ({"image": image(), "resample": 0}, "between 1 and 100, not 0"),
        ({"image": torch.zeros(3, *SHAPE[1:])}, "one row, or one for each of 2, not 3"),
        ({"image": image(), "mask": torch.ones(1, 1, 5, 6)}, r"shape \(1 or 2, 1, 6, 6\)"),
    ],
)
def test_what_does_not_go_together_is_said(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sample(Net(), SCHEDULE, 2, "ddim", 5, shape=SHAPE[1:], **options)


@pytest.mark.parametrize("sampler", sampler_names(False))
def test_a_variation_takes_the_last_steps_of_the_walk_from_the_noised_image(sampler: str) -> None:
    seen: list[solvers.StepView] = []
    sample(
        *(Net(), SCHEDULE, 2, sampler, 10),
        timestep_spacing="trailing",
        image=image(),
        strength=0.4,
        on_step=seen.append,
    )
    assert [view.timestep for view in seen] == [7, 5, 3, 1]


def test_a_variation_of_full_strength_is_plain_sampling_from_a_start_with_some_image() -> None:
    x_T = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    first = make_levels(SCHEDULE, 10)[0]
    found = sample(Net(), SCHEDULE, 2, "dpmpp_2m", 10, image=image(), x_T=x_T)
    start = first.alpha * image() + first.sigma * x_T
    assert torch.equal(found, sample(Net(), SCHEDULE, 2, "dpmpp_2m", 10, x_T=start))


def test_one_image_serves_all_of_a_batch_and_every_variant_has_noise_of_its_own() -> None:
    one = image()[:1]
    options: dict[str, Any] = {"image": one, "strength": 0.5, "mask": left_half(), "seed": 3}
    both = sample(Net(), SCHEDULE, 2, "ddpm", 6, **options)
    second = sample(Net(), SCHEDULE, 1, "ddpm", 6, first=1, **options)
    assert torch.allclose(both[1:], second, atol=1e-6)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_a_variation_stays_the_nearer_the_weaker_it_is() -> None:
    far = [
        (sample(Net(), SCHEDULE, 2, "ddim", 20, image=image(), strength=s) - image()).norm()
        for s in (0.05, 0.3, 0.6, 1.0)
    ]
    assert far == sorted(far)
    assert far[0] < 0.2 * far[-1]


@pytest.mark.parametrize("sampler", sampler_names(True))
def test_a_flow_starts_from_an_image_too(sampler: str) -> None:
    x = sample(
        Net(), FlowSchedule(T), 2, sampler, 10, prediction_type="flow_prediction",
        image=image(), strength=0.1,
    )  # fmt: skip
    assert (x - image()).abs().mean() < 0.15


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "x_0"])
def test_inversion_equals_diffusers(prediction_type: str, spacing: str) -> None:
    """Of a v or an x_0 diffusers gets the epsilon that it stands for at the timestep told."""
    scheduler = diffusers.DDIMInverseScheduler(
        num_train_timesteps=T,
        beta_start=1e-3,
        beta_end=0.3,
        clip_sample=False,
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(10)
    x, net = image(), Net()
    at = {level.t: level for level in make_levels(SCHEDULE, T)[:-1]}
    for t in scheduler.timesteps:
        output = net(x, torch.full((SHAPE[0],), int(t))).detach()
        level = at[int(t)]
        output = to_epsilon(output, x, level.alpha, level.sigma, prediction_type)
        x = scheduler.step(output, int(t), x).prev_sample
    found = invert(net, SCHEDULE, image(), 10, prediction_type, spacing)
    assert torch.allclose(found, x, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "prediction_type", "sampler"),
    [
        (NoiseSchedule("linear", 1000), "epsilon", "ddim"),
        (NoiseSchedule("cosine", 1000), "v_prediction", "ddim"),
        (FlowSchedule(1000), "flow_prediction", "euler"),
    ],
)
def test_the_way_to_the_noise_and_back_is_the_more_exact_the_more_steps(
    schedule: NoiseSchedule | FlowSchedule, prediction_type: str, sampler: str
) -> None:
    class Mild(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return 0.3 * torch.sin(x)

    errors = []
    for steps in (10, 100, 1000):
        x_T = invert(Mild(), schedule, image(), steps, prediction_type)
        back = sample(
            Mild(), schedule, 2, sampler, steps, prediction_type=prediction_type, x_T=x_T,
            clip_x0=False,
        )  # fmt: skip
        errors.append(float((back - image()).square().mean().sqrt()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


def test_a_walk_that_ends_in_pure_noise_is_not_inverted() -> None:
    schedule = NoiseSchedule("cosine", T, rescale_zero_terminal_snr=True)
    with pytest.raises(ValueError, match="cannot be inverted"):
        invert(Net(), schedule, image(), 5, "v_prediction")
    short_of_it = invert(Net(), schedule, image(), 5, "v_prediction", "leading")
    assert torch.isfinite(short_of_it).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_between_two_noises_the_length_goes_evenly_from_one_to_the_other(
    seed: int, weight: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, 4, 4, generator=generator)
    [between] = slerp(a, 2 * b, torch.tensor([weight]))
    wanted = (1 - weight) * a.norm() + weight * (2 * b).norm()
    assert between.norm() == pytest.approx(float(wanted), rel=1e-4)


def test_the_ends_are_the_noises_and_the_way_between_them_is_even() -> None:
    a, b = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    path = slerp(a, b, torch.linspace(0, 1, 9))
    assert torch.allclose(path[0], a, atol=1e-5) and torch.allclose(path[-1], b, atol=1e-5)
    turned = path / path.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    turns = [float((x * y).sum()) for x, y in pairwise(turned)]
    assert max(turns) - min(turns) < 1e-5
    assert torch.allclose(slerp(a, a, torch.tensor([0.3]))[0], a)


def test_errors_are_counted_in_steps_of_an_8_bit_image() -> None:
    wanted = torch.zeros(2, 3, 4, 4)
    found = torch.stack([wanted[0], wanted[1] + 2 / 255])
    rmse, psnr = edits.image_errors(found, wanted)
    assert rmse.tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert psnr[0] == float("inf") and float(psnr[1]) == pytest.approx(48.1308, abs=1e-3)
