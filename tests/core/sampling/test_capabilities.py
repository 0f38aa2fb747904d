"""What a checkpoint can be sampled with, and what is said of a request that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.spec import SamplingSpec
from tests.tiny_runs import CLASSES, LECTURE, TINY, write_run

NO_CLASSES = {"widths": [8], "blocks": 1, "attention_levels": [0]}
FLOW = TINY.replace(prediction_type="flow_prediction")
PURE_NOISE = TINY.replace(schedule=TINY.schedule | {"rescale_zero_terminal_snr": True})
ALWAYS_GIVEN = TINY.replace(label_dropout=0.0)
UNCONDITIONAL = TINY.replace(network_args=NO_CLASSES)
SPEC = SamplingSpec(run="cars", step=20, steps=4, classes=CLASSES, label=EACH_IN_TURN)
GUIDED = SPEC.replace(guidance_scale=2.0)
PLAIN = SPEC.replace(classes=(), label="")


@pytest.fixture
def can(runs_dir: Path) -> Callable[[RunConfig], Capabilities]:
    def of(config: RunConfig) -> Capabilities:
        return Capabilities.of(Run(write_run(runs_dir, "cars", 20, config=config)).checkpoint(20))

    return of


def test_a_checkpoint_says_what_it_can(can: Callable[[RunConfig], Capabilities]) -> None:
    found = can(TINY)
    assert found.classes == CLASSES and found.any_class and not found.flow
    assert found.labels == (EACH_IN_TURN, ANY_CLASS, *CLASSES)
    assert (found.timesteps, found.image_size, found.channels) == (20, 16, 3)
    assert found.averages == ("main",) and not found.takes_lecture
    assert found.samplers[:3] == ("dpmpp_2m", "ddim", "ddpm") and len(found.samplers) == 10
    assert found.usual_steps["ddim"] == 20  # of 50, which are more than there are
    assert found.spacings == ("trailing", "leading", "linspace", "karras", "exponential")
    assert found.usual_spacing["heun"] == "karras"
    assert set(found.usual_spacing.values()) == {"trailing", "karras"}


@pytest.mark.parametrize(
    ("config", "samplers"), [(FLOW, ("euler", "heun")), (PURE_NOISE, ("ddim", "ddpm", "euler"))]
)
def test_from_pure_noise_fewer_samplers_and_spacings_are_possible(
    can: Callable[[RunConfig], Capabilities], config: RunConfig, samplers: tuple[str, ...]
) -> None:
    found = can(config)
    assert found.samplers == samplers and found.flow == (config is FLOW)
    assert found.spacings == ("trailing", "leading", "linspace")
    assert set(found.usual_spacing.values()) == {"trailing"}


def test_other_networks_know_other_labels(can: Callable[[RunConfig], Capabilities]) -> None:
    assert can(ALWAYS_GIVEN).labels == (EACH_IN_TURN, *CLASSES)


def test_the_lectures_network_can_be_sampled_its_way(
    can: Callable[[RunConfig], Capabilities],
) -> None:
    found = can(LECTURE)
    assert found.takes_lecture and found.labels == () and not found.any_class
    lecture = PLAIN.replace(sampler="ddpm", as_lecture=True)
    assert lecture.problems(found) == []


@pytest.mark.parametrize(
    ("config", "spec", "sentence"),
    [
        (TINY, SPEC, ""),
        (TINY, GUIDED, ""),
        (TINY, GUIDED.replace(negative="bus", guidance_interval=(3.0, 19.0)), ""),
        (TINY, SPEC.replace(label=ANY_CLASS), ""),
        (FLOW, SPEC.replace(flow=True, sampler="heun"), ""),
        (ALWAYS_GIVEN, GUIDED.replace(negative="bus"), ""),
        (UNCONDITIONAL, PLAIN, ""),
        (TINY, SPEC.replace(flow=True, sampler="heun"), "heun cannot sample cars at step 20"),
        (TINY, SPEC.replace(sampler="magic"), "There is no sampler 'magic'"),
        (FLOW, SPEC, "dpmpp_2m cannot sample cars at step 20; choose one of euler, heun."),
        (PURE_NOISE, SPEC, "dpmpp_2m cannot sample cars at step 20; choose one of ddim, ddpm"),
        (PURE_NOISE, SPEC.replace(sampler="ddim", spacing="karras"), "karras spacing cannot be"),
        (TINY, SPEC.replace(steps=21), "cars at step 20 takes 1 to 20 steps, not 21."),
        (TINY, SPEC.replace(average="long"), "no averaged weights called 'long'; it has main."),
        (TINY, SPEC.replace(sampler="ddpm", as_lecture=True), "cannot be sampled as the lecture"),
        (TINY, SPEC.replace(variance="large"), "variance has no effect with dpmpp_2m; use ddpm."),
        (TINY, SPEC.replace(eta=0.5), "eta has no effect with dpmpp_2m; use ddim."),
        (FLOW, SPEC.replace(flow=True, sampler="heun", eta=0.5), "eta has no effect with heun."),
        (TINY, SPEC.replace(negative="bus"), "have no effect without guidance"),
        (TINY, GUIDED.replace(label=ANY_CLASS), "Guidance needs a class to lead to"),
        (TINY, GUIDED.replace(guidance_interval=(3.0, 20.0)), "must end at 19 or before"),
        (TINY, SPEC.replace(label="horse"), "There is no class 'horse'"),
        (TINY, PLAIN, "cars at step 20 has other classes: van, bus, coupé."),
        (UNCONDITIONAL, SPEC, "cars at step 20 has other classes: none."),
        (UNCONDITIONAL, PLAIN.replace(guidance_scale=2.0), "cars was trained without classes"),
        (UNCONDITIONAL, PLAIN.replace(label="van"), "cars was trained without classes"),
        (ALWAYS_GIVEN, GUIDED, "it cannot be guided away from any class"),
        (ALWAYS_GIVEN, SPEC.replace(label=ANY_CLASS), "with the class always given; choose a"),
    ],
)
def test_a_request_that_cannot_be_sampled_is_told_why(
    can: Callable[[RunConfig], Capabilities], config: RunConfig, spec: SamplingSpec, sentence: str
) -> None:
    problems = spec.problems(can(config))
    assert len(problems) == (sentence != "")
    assert sentence in "".join(problems)


def test_all_problems_are_told(can: Callable[[RunConfig], Capabilities]) -> None:
    spec = SPEC.replace(steps=30, average="long", sampler="ddim")
    assert len(spec.problems(can(TINY))) == 2


def test_settings_without_effect_are_left_out_on_request() -> None:
    noisy = SPEC.replace(eta=0.5, variance="large", negative="bus", guidance_interval=(1.0, 2.0))
    assert noisy.without_unused() == SPEC
    for used in (
        SPEC.replace(sampler="ddim", eta=0.5),
        SPEC.replace(sampler="ddpm", variance="large"),
        GUIDED.replace(negative="bus", guidance_interval=(1.0, 2.0)),
    ):
        assert used.without_unused() == used


def test_of_many_classes_a_message_lists_some() -> None:
    names = ("x" * 1000, *(f"class {k}" for k in range(2999)))
    [problem] = SPEC.replace(classes=names, label="horse").problems()
    assert len(problem) < 250 and problem.endswith("class 10 and 2,988 more.")


@pytest.mark.parametrize(
    ("spacing", "steps", "interval", "timesteps"),
    [
        ("trailing", 2, (0.0, 8.0), "19, 9"),
        ("trailing", 2, (10.0, 18.0), "19, 9"),
        ("leading", 2, (11.0, 19.0), "10, 0"),
        ("linspace", 3, (1.0, 9.0), "19, 10, 0"),
        ("karras", 2, (1.0, 18.0), "19, 0"),
        ("trailing", 20, (3.5, 3.6), "19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8 and 8 more"),
    ],
)
def test_an_interval_that_guides_nowhere_is_refused_with_the_timesteps(
    spacing: str,
    steps: int,
    interval: tuple[float, float],
    timesteps: str,
    can: Callable[[RunConfig], Capabilities],
) -> None:
    spec = GUIDED.replace(spacing=spacing, steps=steps, guidance_interval=interval)
    low, high = interval
    tiny = can(TINY)
    assert spec.problems(tiny) == [
        f"The guidance interval is {low:g} to {high:g}, where none of the steps is: their "
        f"timesteps are {timesteps}. Choose a wider interval or more steps."
    ]
    assert spec.replace(guidance_interval=(0.0, 19.0)).problems(tiny) == []


@pytest.mark.parametrize(("strength", "fits"), [(1.0, True), (0.75, True), (0.5, False)])
def test_a_variation_must_be_guided_in_the_steps_that_it_takes(
    strength: float, fits: bool, can: Callable[[RunConfig], Capabilities]
) -> None:
    spec = GUIDED.replace(steps=4, guidance_interval=(12.0, 16.0))  # of 19, 14, 9, 4
    assert spec.problems(can(TINY), strength) == (
        []
        if fits
        else [
            "The guidance interval is 12 to 16, where none of the last 2 steps is: their "
            "timesteps are 9, 4. Choose a wider interval, more steps or a greater strength."
        ]
    )
