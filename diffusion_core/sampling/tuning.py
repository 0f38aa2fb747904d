"""Learn the timesteps of a checkpoint, a sampler and a number of steps: LD3 (Tong et al. 2024,
arXiv 2405.15506).

A teacher, the same network in many steps, makes images from some noises. The timesteps of few
steps are then moved, by the gradient through the sampler itself, so that they lead from the same
noises to the same images. They start from the best of the usual spacings, and what is kept is what
does best on other noises, which are never learned from: it is never worse on those than that
spacing.

The distance of two images is the root of their mean squared difference in which each spatial
frequency weighs by the inverse root of the power that the teacher's images have there. LD3 takes a
network's, LPIPS. The plain difference hardly sees details: of the shipped run in 5 steps by
DPM-Solver++ 2M it prefers `exponential` spacing (0.020) to `trailing` (0.032), whose images are far
better (Fréchet distance 59 and 21).

Only the N + 1 gaps between the timesteps are learned, as shares of the whole (a softmax), so the
timesteps always fall. An evaluation of the network keeps nothing but its input and is made again on
the way back, so the memory needed hardly depends on the number of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffusion_core.cores import take_share
from diffusion_core.device import device_of, has_fast_bfloat16
from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint, load_model, load_weights, network_of
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.learned import MOST_LEARNED, LearnedTimesteps, falling
from diffusion_core.sampling.levels import (
    IMAGE,
    NoiseLevel,
    interpolated,
    learned_levels,
    make_levels,
    spacings_for,
)
from diffusion_core.sampling.registry import sampler_of, samplers_for
from diffusion_core.sampling.sample import predict_by
from diffusion_core.sampling.solvers import Sampler
from diffusion_core.text import either, some

# Of the noises: those that are learned from, and those that decide what is kept. They are the first
# of a seed that nothing else uses.
LEARNED_FROM, HELD_OUT = 48, 32
SEED = 2405_15506
TEACHER_STEPS = 50
# Steps from which the teacher is to end where the exact path does. Fewer cannot, and the images
# they were led to were worse for it: Fréchet distance 2.92 instead of 2.70 in 5 steps.
EXACT_FROM = 10
BATCH = 8
ROUNDS = 40  # steps of the optimizer
STARTS, RACE = 2, 10  # of the best usual spacings so many set out, for so many rounds
LOOK_EVERY = 5  # rounds between two looks at the held-out noises
GRADIENT_COST = 4  # evaluations that one with its gradient takes as long as
RATE = 0.1  # of Adam on the logarithms of the gaps; falls to 0 as a cosine does
NARROWEST = 2e-3  # gap at the start, of the whole: softmax gives none of 0
DIGITS = 3  # of a stored timestep


class TuningError(ValueError):
    """Timesteps that cannot be learned; the message says why."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Noises and what the teacher makes of them."""

    x_T: Tensor  # (n, C, H, W)
    labels: Tensor | None  # (n,) integers
    images: Tensor  # (n, C, H, W) in [-1, 1]
    weights: Tensor  # (H, W), of the spatial frequencies; see `frequency_weights`

    def distances(self, images: Tensor, rows: slice) -> Tensor:
        """Of images (m, C, H, W) from those of the teacher, (m,): 0 of the same, 1 of an image that
        is 0 everywhere, in the mean."""
        power = torch.fft.fft2(images - self.images[rows], norm="ortho").abs().square()
        # The root has no slope at 0.
        return ((self.weights * power).flatten(1).mean(1) + 1e-12).sqrt()


def frequency_weights(images: Tensor) -> Tensor:
    """The inverse root of the mean power of images (n, C, H, W) on each ring of equal frequency,
    (H, W), scaled so that the images have a weighted power of 1."""
    height, width = images.shape[-2:]
    power = torch.fft.fft2(images.double().cpu(), norm="ortho").abs().square().mean((0, 1))
    lines = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    ring = (torch.hypot(*lines) * max(height, width)).round().long().flatten()
    over_rings = torch.bincount(ring, power.flatten()) / torch.bincount(ring).clamp(min=1)
    smallest = 1e-8 * float(power.max()) or 1.0
    weights = over_rings[ring].reshape(height, width).clamp(min=smallest).rsqrt()
    return (weights / ((weights * power).mean() or 1.0)).to(images)


@dataclass(frozen=True)
class Progress:
    """How far learning is, and the best timesteps so far."""

    evaluations: int  # of the network on one image, as each costs; of `cost`
    text: str
    error: float = math.inf  # of held-out noises, with the best so far
    learned: LearnedTimesteps | None = None  # None: nothing better than the usual spacings yet


@dataclass(frozen=True)
class Student:
    """The network as it samples, and the same network with gradients."""

    fast: nn.Module
    plain: nn.Module
    schedule: Schedule
    config: RunConfig

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: torch.device, average: str) -> Student:
        """Raises CheckpointError."""
        fast, schedule, config = load_model(checkpoint, device, average)
        plain = network_of(config, load_weights(checkpoint, average), device)
        return cls(fast, plain, schedule, config)

    def sample(
        self, sampler: Sampler, levels: Sequence[NoiseLevel], x_T: Tensor, labels: Tensor | None
    ) -> Tensor:
        """(n, C, H, W) in [-1, 1], with gradients by the levels where these are tensors."""

        def answer(x_t: Tensor, level: NoiseLevel) -> Tensor:
            t = torch.as_tensor(level.t, dtype=x_t.dtype, device=x_t.device)
            take_share()
            found = _Evaluation.apply(x_t, t.expand(len(x_t)), labels, self.fast, self.plain)
            return cast(Tensor, found)

        predict = predict_by(answer, self.config.prediction_type)
        *_, last = sampler.solve(predict, levels, x_T, lambda: torch.zeros_like(x_T))
        return last.x_t.clamp(-1, 1)


class _Evaluation(torch.autograd.Function):
    """The network's answer, made again on the way back: Chen et al. 2016, for one evaluation."""

    @staticmethod
    def forward(
        ctx: Any, x_t: Tensor, t: Tensor, labels: Tensor | None, fast: nn.Module, plain: nn.Module
    ) -> Tensor:
        ctx.save_for_backward(x_t, t)
        ctx.labels, ctx.plain = labels, plain
        return _ask(fast, x_t, t, labels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_t, t = (saved.detach().requires_grad_() for saved in ctx.saved_tensors)
        device = x_t.device
        half = torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))
        with torch.enable_grad(), half:
            answer = _ask(ctx.plain, x_t, t, ctx.labels)
        by_x_t, by_t = torch.autograd.grad(answer, (x_t, t), gradients)
        return by_x_t, by_t, None, None, None


def _ask(network: nn.Module, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    answer = network(x_t, t) if labels is None else network(x_t, t, labels)
    return cast(Tensor, answer.float())


class _Level(NoiseLevel):
    """A level of tensors."""

    @property
    def log_snr_half(self) -> Any:
        return torch.as_tensor(self.alpha).log() - torch.as_tensor(self.sigma).log()


def tunable(can: Capabilities) -> list[str]:
    """The samplers of a checkpoint that add no noise, so that x_T alone decides the image."""
    found = (sampler_of(name, can.flow) for name in can.samplers)
    return [sampler.name for sampler in found if not sampler.adds_noise]


def check(can: Capabilities, sampler: str, steps: Sequence[int], average: str) -> None:
    """Raises TuningError for a way to sample for which no timesteps can be learned."""
    known = tunable(can)
    if not known:
        raise TuningError(
            "No timesteps can be learned for this run: it is a distilled one, and "
            f"{either(can.samplers)} adds fresh noise in its steps. Learn them for the run that it "
            "was distilled from."
        )
    if sampler not in known:
        raise TuningError(
            f"No timesteps can be learned for {sampler}: choose one of {', '.join(known)}, which "
            "add no noise in their steps."
        )
    most = min(MOST_LEARNED, can.timesteps)
    for count in steps:
        if not 1 <= count <= most:
            raise TuningError(f"steps is {count:,}; it must be from 1 to {most:,}.")
    if not can.has_average(average):
        raise TuningError(
            f"There are no averaged weights called {average}; there are {some(can.averages)}."
        )


def teacher_of(schedule: Schedule) -> tuple[Sampler, int]:
    """The sampler that makes the images to learn from, and its steps: the model's first that adds
    no noise, which is of order 2 if possible."""
    known = [each for each in samplers_for(schedule) if not each.adds_noise]
    best = next((each for each in known if each.name in ("dpmpp_2m", "heun")), known[0])
    return best, min(TEACHER_STEPS, schedule.timesteps)


def teacher_spacing(schedule: Schedule, steps: int) -> str:
    """The teacher's spacing, for learning so many steps.

    Even in log(sigma / alpha) where exactness counts: from 300 such steps of the shipped run, 50
    are 0.016 away and 50 with `trailing` spacing 0.14, as far as 20 of the former. In the first of
    those the noise falls to a six-hundredth.
    """
    exact = steps >= EXACT_FROM and "exponential" in spacings_for(schedule)
    return "exponential" if exact else "trailing"


def cost_of_lessons(schedule: Schedule) -> int:
    """Evaluations of the network on one image that `make_lessons` counts up to."""
    sampler, steps = teacher_of(schedule)
    return (LEARNED_FROM + HELD_OUT) * steps * sampler.evaluations


def cost(can: Capabilities, sampler: str, steps: int) -> int:
    """As `cost_of_lessons`, of `learn`."""
    each = steps * sampler_of(sampler, can.flow).evaluations
    rounds = ROUNDS + (min(STARTS, len(can.spacings)) - 1) * RACE
    looks = len(can.spacings) + rounds // LOOK_EVERY
    return each * (looks * HELD_OUT + rounds * BATCH * GRADIENT_COST)


def make_lessons(
    student: Student, classes: int, spacing: str
) -> Generator[Progress, None, Lessons]:
    """Return noises with the teacher's images; each of the `classes` in turn, 0 for none."""
    n, device = LEARNED_FROM + HELD_OUT, device_of(student.fast)
    x_T = image_noise(SEED, n, student.config.image_shape, device)()
    labels = torch.arange(n, device=device) % classes if classes else None
    teacher, steps = teacher_of(student.schedule)
    levels = make_levels(student.schedule, steps, spacing)
    images = []
    for start in range(0, n, BATCH):
        rows = slice(start, start + BATCH)
        yield Progress(start * steps * teacher.evaluations, "teacher")
        with torch.no_grad():
            images.append(student.sample(teacher, levels, x_T[rows], _at(labels, rows)))
    made = torch.cat(images)
    return Lessons(x_T, labels, made, frequency_weights(made))


def learn(
    student: Student,
    lessons: Lessons,
    can: Capabilities,
    checkpoint: Checkpoint,
    sampler: str,
    steps: int,
    average: str = MAIN_AVERAGE,
) -> Generator[Progress, None, LearnedTimesteps | None]:
    """Learn the timesteps of `steps` steps; returns the best, None where no usual spacing was
    improved on. What was found before an interruption is in the last `Progress`. Raises TuningError
    where the network answers NaN."""
    test = _Test(student, lessons, sampler_of(sampler, can.flow), steps)
    state = Progress(0, f"{sampler}, {steps} step{'s' if steps > 1 else ''}")
    usual: dict[str, float] = {}
    for name in can.spacings:
        yield replace(state, evaluations=test.evaluations)
        error = test.held_out(make_levels(student.schedule, steps, name))
        if math.isfinite(error):
            usual[name] = error
    if not usual:
        raise TuningError(f"{sampler} makes no images in {steps} steps: the network answers NaN.")
    starts = sorted(usual, key=lambda name: usual[name])[:STARTS]
    state = replace(state, error=usual[starts[0]])
    # Different starts lead to different timesteps: all set out, and the best of them goes on.
    racing = [_Descent(make_levels(student.schedule, steps, name), test) for name in starts]
    for count, rounds in ((STARTS, RACE), (1, ROUNDS - RACE)):
        racing = sorted(racing, key=lambda descent: descent.error)[:count]
        for descent in racing:
            for _ in range(rounds // LOOK_EVERY):
                for _ in range(LOOK_EVERY):
                    yield replace(state, evaluations=test.evaluations)
                    descent.step()
                timesteps = descent.look()
                if descent.error < state.error:
                    learned = LearnedTimesteps(
                        step=checkpoint.step,
                        checkpoint_time=checkpoint.time,
                        average=average,
                        sampler=sampler,
                        steps=steps,
                        prediction_type=student.config.prediction_type,
                        timesteps=timesteps,
                        error=descent.error,
                        usual_errors=usual,
                        written=time.time(),
                    )
                    state = replace(state, error=descent.error, learned=learned)
    return state.learned


class _Test:
    """How far a sampler in few steps is from the teacher."""

    def __init__(self, student: Student, lessons: Lessons, sampler: Sampler, steps: int) -> None:
        self.student, self.lessons, self.sampler = student, lessons, sampler
        self.each = steps * sampler.evaluations
        self.evaluations = 0  # so far, as `cost` counts them

    def errors(self, levels: Sequence[NoiseLevel], rows: slice) -> Tensor:
        """Distances from the teacher's images, (n,), with gradients by the levels."""
        x_T, labels = self.lessons.x_T[rows], _at(self.lessons.labels, rows)
        made = self.student.sample(self.sampler, levels, x_T, labels)
        return self.lessons.distances(made, rows)

    def held_out(self, levels: Sequence[NoiseLevel]) -> float:
        """The mean over the noises that are not learned from."""
        found = []
        with torch.no_grad():
            for start in range(LEARNED_FROM, LEARNED_FROM + HELD_OUT, BATCH):
                found.append(self.errors(levels, slice(start, start + BATCH)))
        self.evaluations += self.each * HELD_OUT
        return float(torch.cat(found).double().mean())


class _Descent:
    """Timesteps on their way down from those of a usual spacing.

    They are the shares of the way from the last timestep to 0 that lie between them, float64
    (N + 1,), as logarithms: `softmax` makes them shares.
    """

    def __init__(self, levels: Sequence[NoiseLevel], test: _Test) -> None:
        self.test, self.last = test, test.student.schedule.timesteps - 1
        ends = torch.tensor(
            [self.last, *(level.t for level in levels[:-1]), 0], dtype=torch.float64
        )
        self.logits = (ends.diff().neg() / self.last).clamp(min=NARROWEST).log().requires_grad_()
        self.optimizer = torch.optim.Adam([self.logits], betas=(0.9, 0.95))
        self.shuffle = torch.Generator().manual_seed(SEED)
        self.order: list[int] = []
        self.rounds = 0
        self.error = math.inf  # of the held-out noises, at the last look

    def step(self) -> None:
        """Learn from the next noises; what is not finite changes nothing."""
        if not self.order:
            self.order = torch.randperm(LEARNED_FROM // BATCH, generator=self.shuffle).tolist()
        start = self.order.pop() * BATCH
        loss = self.test.errors(self._levels(), slice(start, start + BATCH)).mean()
        [gradient] = torch.autograd.grad(loss, self.logits)
        self.test.evaluations += GRADIENT_COST * self.test.each * BATCH
        if gradient.isfinite().all():
            self.logits.grad = gradient
            rate = RATE * (1 + math.cos(math.pi * self.rounds / ROUNDS)) / 2
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.step()
        self.rounds += 1

    def look(self) -> tuple[float, ...]:
        """The timesteps now; sets `error`, which is infinite where two of them are the same."""
        found = tuple(round(t, DIGITS) for t in self._timesteps().tolist())
        self.error = math.inf
        if falling(found):
            error = self.test.held_out(learned_levels(self.test.student.schedule, found))
            self.error = error if math.isfinite(error) else math.inf
        return found

    def _timesteps(self) -> Tensor:
        return self.last * (1 - self.logits.softmax(0).cumsum(0)[:-1]).clamp(0, 1)

    def _levels(self) -> list[NoiseLevel]:
        """With gradients by the logits."""
        found: list[NoiseLevel] = []
        device = self.test.lessons.x_T.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        for t in self._timesteps():
            level = interpolated(self.test.student.schedule, cast(float, t))
            parts = [cast(Tensor, part) for part in (level.t, level.alpha, level.sigma)]
            found.append(_Level(*cast(list[float], [part.to(device, kind) for part in parts])))
        return [*found, IMAGE]


def _at(labels: Tensor | None, rows: slice) -> Tensor | None:
    return None if labels is None else labels[rows]
