"""Learned timesteps: gradients through the samplers, what is kept, its file, and who uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.cli.main import main
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling import tuning
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.learned import LearnedTimesteps, learned_path, write_learned
from diffusion_core.sampling.levels import LEARNED, interpolated, learned_levels, make_levels
from diffusion_core.sampling.metadata import read
from diffusion_core.sampling.registry import REGISTRY, sampler_of
from diffusion_core.sampling.sample import sample
from diffusion_core.sampling.solvers import Sampler
from diffusion_core.sampling.spec import SamplingSpec, SpecError
from diffusion_core.sampling.tuning import Lessons, Student
from tests.tiny_runs import CLASSES, TINY, write_run

T = 50
SCHEDULES: dict[bool, Schedule] = {False: NoiseSchedule("cosine", T), True: FlowSchedule(T)}
QUIET = [each for each in REGISTRY if not each.adds_noise]
FLOW = TINY.replace(prediction_type="flow_prediction")
SMALL_CONFIG = {False: TINY.replace(prediction_type="x_0"), True: FLOW}


class Ideal(nn.Module):
    """E[x_0 | x_t] of pixels from N(m, s^2), m and s different in each column, or the direction of
    a flow to it; for a fraction of a timestep as `interpolated` has it."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("std", torch.linspace(0.05, 0.9, 6, dtype=torch.float64))
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        level = interpolated(self.schedule, cast(float, t[0].double()))
        alpha, sigma = level.alpha, level.sigma
        variance = cast(Tensor, self.std) ** 2
        mean = 0.4 * torch.cos(9 * cast(Tensor, self.std))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        x_0 = mean + gain * (x_t - alpha * mean)
        return (x_t - alpha * x_0) / sigma - x_0 if self.schedule.is_flow else x_0


def student_of(schedule: Schedule) -> Student:
    ideal = Ideal(schedule)
    return Student(ideal, ideal, schedule, SMALL_CONFIG[schedule.is_flow])


def lessons_of(student: Student) -> Lessons:
    n = tuning.LEARNED_FROM + tuning.HELD_OUT
    x_T = torch.randn(n, 1, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = make_levels(student.schedule, student.schedule.timesteps)
    with torch.no_grad():
        images = student.sample(tuning.teacher_of(student.schedule)[0], levels, x_T, None)
    return Lessons(x_T, None, images, tuning.frequency_weights(images))


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LEARNED_FROM": 16,
        "HELD_OUT": 8,
        "ROUNDS": 20,
        "TEACHER_STEPS": 12,
    }.items():
        monkeypatch.setattr(tuning, name, value)


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(network: nn.Module, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return network(x_t, t)

    monkeypatch.setattr(tuning, "_ask", ask)
    monkeypatch.setattr(tuning, "has_fast_bfloat16", lambda device: False)


@pytest.mark.parametrize("sampler", QUIET, ids=lambda s: f"{s.name}{'-flow' * s.flow}")
def test_the_gradient_through_a_sampler_is_that_of_its_images(
    sampler: Sampler, in_float64: None
) -> None:
    """Against differences of the images that the same sampler makes on levels of plain numbers."""
    schedule = SCHEDULES[sampler.flow]
    student = student_of(schedule)
    test = tuning._Test(student, lessons_of(student), sampler, 5)
    descent = tuning._Descent(learned_levels(schedule, (46.3, 33.8, 21.4, 12.7, 4.6)), test)
    rows = slice(0, 4)
    [gradient] = torch.autograd.grad(test.errors(descent._levels(), rows).mean(), descent.logits)
    assert gradient.abs().max() > 1e-4

    def loss() -> float:
        levels = learned_levels(schedule, descent._timesteps().tolist())
        return test.errors(levels, rows).mean().item()

    with torch.no_grad():
        for k in range(6):
            descent.logits[k] += 1e-5
            above = loss()
            descent.logits[k] -= 2e-5
            slope = (above - loss()) / 2e-5
            descent.logits[k] += 1e-5
            assert gradient[k].item() == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_an_evaluation_made_again_has_the_gradients_of_one_that_is_kept() -> None:
    """Of the network too, x_t and t; through its sampling form, whose weights have none."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))

    class WithTime(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return network(x_t) * torch.sin(t)[:, None, None, None]

    x_t = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    t = torch.tensor([0.3, 1.1], requires_grad=True)
    kept = WithTime()(x_t, t).square().sum()
    again = tuning._Evaluation.apply(x_t, t, None, WithTime(), WithTime())
    assert again is not None
    wanted = torch.autograd.grad(kept, (x_t, t))
    found = torch.autograd.grad(again.square().sum(), (x_t, t))
    # Where the hardware has bfloat16, the way back computes in it.
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() < 0.05 * other.norm()


@pytest.mark.parametrize(
    ("schedule", "apart"),
    [
        (NoiseSchedule("cosine", 1000), 0.0025),  # 0.0049 with trailing spacing
        (NoiseSchedule("linear", 300, beta_start=1e-4, beta_end=0.02), 0.001),  # 0.0049
        (FlowSchedule(1000), 0.002),
    ],
    ids=["cosine", "lecture", "flow"],
)
def test_from_ten_steps_the_teacher_ends_where_the_exact_path_does(
    monkeypatch: pytest.MonkeyPatch, in_float64: None, schedule: Schedule, apart: float
) -> None:
    """Of normal distributions, on which a path keeps the quantile."""
    monkeypatch.setattr(tuning, "TEACHER_STEPS", 50)
    student = student_of(schedule)
    teacher, steps = tuning.teacher_of(schedule)
    levels = make_levels(schedule, steps, tuning.teacher_spacing(schedule, 10))
    x_T = torch.randn(64, 1, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    std = cast(Tensor, cast(Ideal, student.fast).std)
    mean, first = 0.4 * torch.cos(9 * std), levels[0]
    spread = (first.alpha**2 * std**2 + first.sigma**2).sqrt()
    wanted = mean + std * (x_T - first.alpha * mean) / spread
    with torch.no_grad():
        made = student.sample(teacher, levels, x_T, None)
    assert float((made - wanted.clamp(-1, 1)).square().mean().sqrt()) < apart


def test_details_count_as_much_as_large_forms() -> None:
    """Images whose power falls as 1 / f^2: an error of 1 % of the power at one frequency is the
    farther away the more of them its ring has, by no more than the root of its power."""
    size, generator = 16, torch.Generator().manual_seed(2)
    lines = torch.fft.fftfreq(size, 1 / size)
    radius = torch.hypot(lines[:, None], lines).clamp(min=1)
    white = torch.randn(64, 3, size, size, generator=generator)
    images = torch.fft.ifft2(torch.fft.fft2(white) / radius).real
    lessons = Lessons(white, None, images, tuning.frequency_weights(images))
    every = slice(None)
    assert lessons.distances(images, every).max() < 1e-5
    grey = lessons.distances(torch.zeros_like(images), every).square().mean()
    assert grey.item() == pytest.approx(1, abs=1e-3)

    def wave(cycles: int) -> Tensor:
        along = torch.cos(2 * torch.pi * cycles * torch.arange(size) / size)
        return lessons.distances(images + 0.1 * along, every).mean()

    # Of the same size; the plain difference is the same.
    assert float(wave(6) / wave(2)) == pytest.approx(3**0.5, rel=0.1)


def learn(student: Student, sampler: str, steps: int, can: Capabilities, run: Path) -> Any:
    lessons = lessons_of(student)
    work = tuning.learn(student, lessons, can, Run(run).checkpoint(20), sampler, steps)
    seen = []
    while True:
        try:
            seen.append(next(work))
        except StopIteration as end:
            return end.value, seen, lessons


@pytest.mark.parametrize("flow", [False, True])
def test_learned_timesteps_are_nearer_to_the_teacher_than_any_usual_spacing(
    flow: bool, runs_dir: Path, in_float64: None
) -> None:
    schedule = SCHEDULES[flow]
    config = SMALL_CONFIG[flow].replace(
        schedule={"kind": "cosine", "timesteps": T} if not flow else {"timesteps": T}
    )
    run = write_run(runs_dir, "cars", 20, config=config)
    can = Capabilities.of(Run(run).checkpoint(20))
    sampler = "heun" if flow else "dpmpp_2m"
    student = student_of(schedule)
    found, seen, lessons = learn(student, sampler, 3, can, run)
    assert found is not None and set(found.usual_errors) == set(can.spacings)
    test = tuning._Test(student, lessons, sampler_of(sampler, flow), 3)
    for name in can.spacings:
        error = test.held_out(make_levels(schedule, 3, name))
        assert found.usual_errors[name] == pytest.approx(error)
    assert found.error == pytest.approx(test.held_out(learned_levels(schedule, found.timesteps)))
    assert found.error < 0.9 * min(found.usual_errors.values())
    errors = [progress.error for progress in seen]
    assert errors == sorted(errors, reverse=True)  # the best is kept
    assert [p.evaluations for p in seen] == sorted(p.evaluations for p in seen)
    assert seen[-1].evaluations <= tuning.cost(can, sampler, 3)


def test_where_nothing_is_better_nothing_is_learned(runs_dir: Path, in_float64: None) -> None:
    """As many steps as timesteps: the teacher's own walk."""
    config = SMALL_CONFIG[False].replace(schedule={"kind": "cosine", "timesteps": 12})
    run = write_run(runs_dir, "cars", 20, config=config)
    can = Capabilities.of(Run(run).checkpoint(20))
    student = student_of(NoiseSchedule("cosine", 12))
    lessons = lessons_of(student)
    with torch.no_grad():
        images = student.sample(
            sampler_of("ddim"), make_levels(student.schedule, 12), lessons.x_T, None
        )
    work = tuning.learn(
        student, replace(lessons, images=images), can, Run(run).checkpoint(20), "ddim", 12
    )
    with pytest.raises(StopIteration) as end:
        while True:
            next(work)
    assert end.value.value is None


# ---------------------------------------------------------------- in a run


LEARNED_IN_3 = (18.5, 9.25, 2.0)


def stored(run: Path, **changes: Any) -> LearnedTimesteps:
    checkpoint = Run(run).checkpoint(20)
    values: dict[str, Any] = {
        "step": 20,
        "checkpoint_time": checkpoint.time,
        "sampler": "dpmpp_2m",
        "steps": 3,
        "prediction_type": checkpoint.config.prediction_type,
        "timesteps": LEARNED_IN_3,
        "error": 0.1,
        "usual_errors": {"trailing": 0.2, "karras": 0.3},
        "written": 1e9,
    }
    learned = LearnedTimesteps(**(values | changes))
    write_learned(run, learned)
    return learned


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


def can_of(run: Path) -> Capabilities:
    return Capabilities.of(Run(run).checkpoint(20))


def test_learned_spacing_is_the_usual_one_only_of_the_way_that_it_was_learned_for(
    run: Path,
) -> None:
    assert LEARNED not in can_of(run).spacings_for("dpmpp_2m", 3)
    learned = stored(run)
    can = can_of(run)
    assert can.learned == {("main", "dpmpp_2m", 3): learned} and learned.usual == "trailing"
    assert can.spacings_for("dpmpp_2m", 3)[:2] == (LEARNED, "trailing")
    assert can.spaced("dpmpp_2m", 3) == {"spacing": LEARNED, "timesteps": LEARNED_IN_3}
    assert can.spaced("dpmpp_2m", 3, spacing="karras") == {"spacing": "karras", "timesteps": ()}
    for way in (("dpmpp_2m", 4), ("ddim", 3), ("dpmpp_2m", 3, "short")):
        assert can.spaced(*way) == {"spacing": "trailing", "timesteps": ()}
    assert can.spaced("heun", 3)["spacing"] == "karras"


@pytest.mark.parametrize(
    "changes", [{"checkpoint_time": 5.0}, {"prediction_type": "epsilon"}], ids=str
)
def test_timesteps_of_another_file_of_the_checkpoint_do_not_count(
    run: Path, changes: dict[str, Any]
) -> None:
    stored(run, **changes)
    assert not can_of(run).learned and not can_of(run).unusable


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timesteps": [18, 9]}, "It has 2 timesteps for 3 steps."),
        ({"timesteps": [18, 9, 9]}, "Its timesteps do not fall."),
        ({"timesteps": [25, 9, 2]}, "Its timesteps must end at 19 or before."),
        ({"timesteps": [18, 9, -1]}, "timesteps.2 is -1; it must be from 0 to"),
        ({"timesteps": [18, 9, "x"]}, "timesteps.2 is 'x'; it must be"),
        ({"steps": 10**400}, "steps is"),
        ({"error": None}, "error is"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_the_rest_works(
    run: Path, changes: dict[str, Any], sentence: str
) -> None:
    learned = stored(run)
    path = learned_path(run, 20, learned.way)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    can = can_of(run)
    [found] = can.unusable
    assert found.startswith(f"{path.name}: ") and sentence in found
    assert not can.learned and can.spaced("dpmpp_2m", 3)["spacing"] == "trailing"


def test_a_spec_holds_the_timesteps_itself(run: Path) -> None:
    """So that its images stay the same when others are learned."""
    stored(run)
    can = can_of(run)
    spec = SamplingSpec(run="cars", step=20, n=1, steps=3, classes=CLASSES, label="van")
    assert "timesteps" not in spec.to_dict()
    spec = spec.replace(**can.spaced("dpmpp_2m", 3))
    assert SamplingSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.problems(can) == []
    assert [level.t for level in spec.levels(can.schedule)] == [*LEARNED_IN_3, 0]
    assert spec.details()["spacing"] == "learned spacing"
    assert spec.evaluations(can.schedule) == 3
    learned_path(run, 20, ("main", "dpmpp_2m", 3)).unlink()
    assert spec.problems(can_of(run)) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timesteps": ()}, "No timesteps were learned for dpmpp_2m in 3 steps with the main"),
        ({"steps": 4}, "There are 3 timesteps for 4 steps; each step needs one."),
        ({"timesteps": (9.0, 9.0, 2.0)}, "Timesteps must fall: each must be below"),
        ({"spacing": "karras"}, "Timesteps have no effect with karras spacing; use learned."),
        ({"timesteps": (20.0, 9.0, 2.0)}, "The first timestep is 20; it must be at most 19"),
    ],
)
def test_timesteps_that_do_not_fit_are_refused(
    run: Path, changes: dict[str, Any], sentence: str
) -> None:
    spec = SamplingSpec(run="cars", step=20, steps=3, classes=CLASSES, label="van")
    spec = spec.replace(spacing=LEARNED, timesteps=LEARNED_IN_3).replace(**changes)
    [problem] = spec.problems(can_of(run))
    assert problem.startswith(sentence)


def test_timesteps_from_a_file_are_bounded() -> None:
    values = {"run": "cars", "step": 20, "steps": 101, "spacing": LEARNED}
    with pytest.raises(SpecError, match="timesteps"):
        SamplingSpec.from_dict(values | {"timesteps": list(range(101, 0, -1))})
    with pytest.raises(SpecError, match="timesteps"):
        SamplingSpec.from_dict(values | {"steps": 1, "timesteps": [1e9]})


def test_a_walk_down_given_timesteps_between_those_of_the_schedule() -> None:
    schedule = NoiseSchedule("cosine", T)
    exact = make_levels(schedule, 5)
    assert learned_levels(schedule, [level.t for level in exact[:-1]]) == pytest.approx(exact)
    between = interpolated(schedule, 10.5)
    assert between.alpha**2 + between.sigma**2 == pytest.approx(1)
    low, high = interpolated(schedule, 10), interpolated(schedule, 11)
    assert low.ratio < between.ratio < high.ratio
    half = interpolated(FlowSchedule(T), 10.5)
    assert (half.alpha, half.sigma) == pytest.approx((1 - 11.5 / T, 11.5 / T))
    with pytest.raises(ValueError, match="Timesteps must fall, from at most 49"):
        learned_levels(schedule, (3.0, 8.0))
    images = [
        sample(Ideal(schedule), schedule, 2, "ddim", prediction_type="x_0", shape=(1, 2, 6), **how)
        for how in ({"steps": 5}, {"timesteps": [level.t for level in exact[:-1]]})
    ]
    assert torch.equal(*images)
    with pytest.raises(ValueError, match="timesteps needs one for each of 4 steps"):
        sample(Ideal(schedule), schedule, 1, steps=4, timesteps=(8.0, 3.0))


# ---------------------------------------------------------------- the command


def tune(run: Path, *arguments: str) -> int:
    return main(["tune", str(run), "--device", "cpu", *arguments])


def test_the_command_learns_stores_and_says_what_it_found(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what is sampled then has the timesteps by default, and its file too."""
    for name, value in {"LEARNED_FROM": 8, "ROUNDS": 10, "RACE": 5}.items():
        monkeypatch.setattr(tuning, name, value)
    assert tune(run, "--steps", "2", "3") == 0
    out = capsys.readouterr().out
    can = can_of(run)
    for steps in (2, 3):
        assert f"dpmpp_2m, {steps} steps: " in out
        learned = can.learned.get(("main", "dpmpp_2m", steps))
        assert (learned is None) == (f"dpmpp_2m, {steps} steps: nothing better" in out)
        if learned is not None:
            assert learned.error < min(learned.usual_errors.values())
    if ("main", "dpmpp_2m", 3) not in can.learned:
        stored(run)
    wanted = can_of(run).learned["main", "dpmpp_2m", 3].timesteps
    grid = tmp_path / "grid.png"
    shared = ["sample", "--run", str(run), "--device", "cpu", "--n", "1", "--out", str(grid)]
    assert main([*shared, "--steps", "3"]) == 0
    spec = read(grid.read_bytes()).spec
    assert (spec.spacing, spec.timesteps) == (LEARNED, wanted)
    pixels = grid.read_bytes()
    # The same from the numbers alone, where the run has others by now.
    stored(run)
    assert main([*shared, "--timesteps", *map(repr, wanted)]) == 0
    assert grid.read_bytes() == pixels
    assert main([*shared, "--steps", "3", "--spacing", "trailing"]) == 0
    assert read(grid.read_bytes()).spec.timesteps == ()
    capsys.readouterr()
    assert main([*shared, "--steps", "4", "--spacing", LEARNED]) == 2
    assert "No timesteps were learned for dpmpp_2m in 4 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sampler", "ddpm"], "No timesteps can be learned for ddpm: choose one of dpmpp_2m, "),
        (["--steps", "21"], "steps is 21; it must be from 1 to 20."),
        (["--average", "long"], "There are no averaged weights called long; there are main."),
    ],
)
def test_the_command_says_what_cannot_be_learned(
    run: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(run, *arguments) == 2
    assert capsys.readouterr().err.startswith(sentence)


@pytest.mark.parametrize("arguments", [[], ["--sampler", "consistency"], ["--sampler", "ddim"]])
def test_a_distilled_run_is_refused(
    runs_dir: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"objective": "consistency", "init_from": "cars", "min_snr_gamma": 0.0}
    run = write_run(runs_dir, "fast", 20, config=TINY.replace(**settings))
    assert tune(run, *arguments) == 2
    assert capsys.readouterr().err.startswith(
        "No timesteps can be learned for this run: it is a distilled one, and consistency adds"
    )
    assert not (run / "timesteps").exists()


def test_an_interruption_keeps_the_best_so_far(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = stored(run)
    learned_path(run, 20, best.way).unlink()

    def learn(*_: object) -> Iterator[tuning.Progress]:
        yield tuning.Progress(1, "text", 0.1, best)
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "learn", learn)
    assert tune(run, "--steps", "3") == 130
    told = capsys.readouterr()
    assert "Stopped. The best of 3 steps so far is kept." in told.err
    assert can_of(run).learned == {best.way: best}
