"""Autoguidance: its algebra, which checkpoints can guide, and what is said of those that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling import series as series_folder
from diffusion_core.sampling.branching import branch
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.guides import guides_for
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.registry import count_evaluations, sampler_of, usual_spacing
from diffusion_core.sampling.sample import make_predict, sample
from diffusion_core.sampling.series import SeriesError
from diffusion_core.sampling.spec import AUTOGUIDANCE, SamplingSpec, SpecError
from tests.tiny_runs import CLASSES, TINY, write_checkpoint, write_run

SCHEDULE = NoiseSchedule("cosine", 20)
SHAPE = (3, 4, 4)
PLAIN = SamplingSpec(run="cars", step=20, n=3, steps=4, classes=CLASSES, label=EACH_IN_TURN)
GUIDED = PLAIN.replace(guidance=AUTOGUIDANCE, guidance_scale=2.0, guide_step=10)


class Gaussian(nn.Module):
    """The exact prediction of a type for images of N(mean, variance) in every pixel; notes when it
    was asked."""

    def __init__(self, mean: float, variance: float, predicts: str, flow: bool = False) -> None:
        super().__init__()
        self.mean, self.variance, self.predicts = mean, variance, predicts
        self.schedule = FlowSchedule(20) if flow else SCHEDULE
        self.asked: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(int(t[0]))
        alpha = float(self.schedule.exact_signal[int(t[0])])
        sigma = float(self.schedule.exact_spread[int(t[0])])
        total = self.variance * alpha**2 + sigma**2
        epsilon = sigma * (x - alpha * self.mean) / total
        x_0 = (self.variance * alpha * x + sigma**2 * self.mean) / total
        return {
            "epsilon": epsilon,
            "x_0": x_0,
            "v_prediction": alpha * epsilon - sigma * x_0,
            "flow_prediction": epsilon - x_0,
        }[self.predicts]


class Labelled(nn.Module):
    """Predicts a multiple of its label everywhere."""

    num_classes = 3

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        of = torch.full((len(x),), 3) if labels is None else labels
        return self.factor * of.view(-1, 1, 1, 1).expand_as(x).float()


def drawn(model: nn.Module, prediction_type: str, **options: Any) -> Tensor:
    given: dict[str, Any] = {"clip_x0": False, "shape": SHAPE, "prediction_type": prediction_type}
    return sample(model, SCHEDULE, 2, "ddim", 5, **given | options)


def test_with_a_scale_of_1_a_guide_changes_no_bit_and_is_not_asked() -> None:
    model, guide = Gaussian(0.2, 0.04, "epsilon"), Gaussian(0.0, 0.09, "epsilon")
    guided = drawn(model, "epsilon", guide=guide, guidance_scale=1.0)
    assert torch.equal(guided, drawn(model, "epsilon"))
    assert guide.asked == []


@pytest.mark.parametrize("guide_type", ["epsilon", "x_0", "v_prediction"])
@pytest.mark.parametrize("own_type", ["epsilon", "x_0", "v_prediction"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.5])
def test_the_denoised_images_are_extrapolated_whatever_the_networks_predict(
    own_type: str, guide_type: str, scale: float
) -> None:
    """Equation 3 of Karras et al. 2024: D_w = w D_1 + (1 - w) D_0."""
    x_t = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    guided = make_predict(
        Gaussian(0.2, 0.04, own_type), own_type, clip_x0=False, guidance_scale=scale,
        guide=Gaussian(-0.1, 0.09, guide_type), guide_prediction_type=guide_type,
    )  # fmt: skip
    own, other = (
        make_predict(Gaussian(mean, variance, "x_0"), "x_0", clip_x0=False)
        for mean, variance in ((0.2, 0.04), (-0.1, 0.09))
    )
    for level in make_levels(SCHEDULE, 5)[:-1]:
        pairs = zip(guided(x_t, level), own(x_t, level), other(x_t, level), strict=True)
        for found, one, zero in pairs:  # x_0, then epsilon
            # Of x_0 that is told from a noise in float32, digits are lost near pure noise.
            assert torch.allclose(found, scale * one + (1 - scale) * zero, atol=1e-5 / level.alpha)


def test_a_guided_flow_is_the_flow_of_the_extrapolated_prediction() -> None:
    schedule = FlowSchedule(20)
    kind = "flow_prediction"
    x_t = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    one, zero = (Gaussian(mean, 0.04, kind, flow=True) for mean in (0.2, -0.1))
    guided = make_predict(one, kind, clip_x0=False, guidance_scale=2.0, guide=zero)
    for level in make_levels(schedule, 5)[:-1]:
        own, other = (make_predict(each, kind, clip_x0=False) for each in (one, zero))
        wanted = 2 * own(x_t, level)[0] - other(x_t, level)[0]
        assert torch.allclose(guided(x_t, level)[0], wanted, atol=1e-5)


def test_gaussians_of_one_spread_move_the_mean_linearly() -> None:
    """The prediction is linear in the mean, so guidance by w samples N(w m_1 + (1 - w) m_0)."""
    own, guide = Gaussian(0.2, 0.04, "v_prediction"), Gaussian(-0.1, 0.04, "v_prediction")
    guided = drawn(own, "v_prediction", guide=guide, guidance_scale=1.5)
    wanted = drawn(Gaussian(1.5 * 0.2 - 0.5 * -0.1, 0.04, "v_prediction"), "v_prediction")
    assert torch.allclose(guided, wanted, atol=1e-5)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "unipc"])
@pytest.mark.parametrize("interval", [None, (7.0, 11.0), (4.0, 6.0)])
def test_the_guide_is_asked_within_the_interval_and_counted(
    sampler: str, interval: tuple[float, float] | None
) -> None:
    own, guide = Gaussian(0.2, 0.04, "x_0"), Gaussian(-0.1, 0.04, "x_0")
    kind = sampler_of(sampler)
    # Whole timesteps: the exact predictions know no others.
    sample(
        own, SCHEDULE, 2, sampler, 5, prediction_type="x_0", guide=guide, guidance_scale=2.0,
        guidance_interval=interval, shape=SHAPE, timestep_spacing="trailing",
    )  # fmt: skip
    low, high = interval or (0.0, 19.0)
    assert guide.asked == [t for t in own.asked if low <= t <= high]
    counted = count_evaluations(
        kind, make_levels(SCHEDULE, 5, "trailing"), guided=True, guidance_interval=interval
    )
    assert counted == len(own.asked) + len(guide.asked)
    assert usual_spacing(sampler_of("ddim"), SCHEDULE) == "trailing"


def test_both_networks_get_the_labels_and_one_image_at_a_time_where_asked() -> None:
    labels = torch.tensor([1, 2])
    given = {"labels": labels, "guide": Labelled(0.1), "guidance_scale": 3.0}
    for options in ({}, {"exact": True}):
        found = drawn(Labelled(0.2), "x_0", **given, **options)
        wanted = 0.1 * labels + 3 * 0.1 * labels
        assert torch.allclose(found, wanted.view(-1, 1, 1, 1).expand_as(found), atol=1e-6)
    anything = drawn(Labelled(0.2), "x_0", guide=Labelled(0.1), guidance_scale=2.0)
    assert torch.allclose(anything, torch.full_like(anything, 0.9), atol=1e-6)


class Training(nn.Module):
    """Predicts whether it is in training mode."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, float(self.training))


def test_a_guide_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    guide = Training().train()
    found = drawn(Gaussian(0.2, 0.0, "x_0"), "x_0", guide=guide, guidance_scale=2.0)
    assert torch.allclose(found, torch.full_like(found, 0.4), atol=1e-6)
    assert guide.training


def test_a_guide_and_negative_labels_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        drawn(
            Labelled(0.2), "x_0", labels=torch.tensor([0, 1]), guide=Labelled(0.1),
            negative_labels=torch.tensor([2, 2]), guidance_scale=2.0,
        )  # fmt: skip


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def cars(runs_dir: Path) -> Checkpoint:
    return Run(write_run(runs_dir, "cars", 10, 20)).checkpoint(20)


def test_the_images_of_a_spec_are_guided_by_its_checkpoint(cars: Checkpoint) -> None:
    loaded = load_model(cars)
    by_spec = GUIDED.make(loaded, guide=GUIDED.load_guide(cars))
    guide = load_model(Run(cars.path.parents[1]).checkpoint(10)).model
    by_hand = sample(
        loaded.model, loaded.schedule, 3, "dpmpp_2m", 4, prediction_type=TINY.prediction_type,
        labels=PLAIN.labels(), shape=TINY.image_shape, guide=guide, guidance_scale=2.0,
    )  # fmt: skip
    assert torch.equal(by_spec, by_hand)
    assert not torch.allclose(by_spec, PLAIN.make(loaded), atol=1e-2)
    assert GUIDED.evaluations(loaded.schedule) == 3 * 8
    with pytest.raises(ValueError, match="Autoguidance needs a guide"):
        GUIDED.make(loaded)


def test_branches_are_guided_too(cars: Checkpoint) -> None:
    spec = GUIDED.replace(sampler="ddpm")
    found = branch(spec, load_model(cars), 0, 2, 2, guide=spec.load_guide(cars))
    alone = branch(PLAIN.replace(sampler="ddpm"), load_model(cars), 0, 2, 2)
    assert (found[0].images != alone[0].images).any()


def test_without_autoguidance_there_is_no_guide(cars: Checkpoint) -> None:
    for spec in (PLAIN, PLAIN.replace(guidance_scale=2.0)):
        assert spec.guide_of(cars) is None and spec.load_guide(cars) is None
        assert spec.guide_time(cars) == 0.0


OTHERS = {
    "classes": (TINY, ("van", "bus", "lorry"), "has other classes: van, bus, lorry"),
    "pixels": (TINY.replace(image_size=32), CLASSES, "generates colour images of 32 pixels, not"),
    "grey": (
        TINY.replace(network_args=dict(TINY.network_args) | {"channels": 1}, channels=1),
        CLASSES,
        "generates grey images of 16 pixels, not colour ones of 16",
    ),
    "schedule": (
        TINY.replace(schedule={"kind": "linear", "timesteps": 20}),
        CLASSES,
        "was trained with another noise schedule",
    ),
    "distilled": (
        TINY.replace(objective="consistency", init_from="cars", min_snr_gamma=0.0),
        CLASSES,
        "is a distilled run",
    ),
    "flow": (
        TINY.replace(prediction_type="flow_prediction"),
        CLASSES,
        "was trained with another noise schedule",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_that_does_not_fit_cannot_guide(runs_dir: Path, cars: Checkpoint, name: str) -> None:
    config, classes, sentence = OTHERS[name]
    write_checkpoint(write_run(runs_dir, "other", config=config), 30, config, classes=classes)
    can = Capabilities.of(cars)
    [problem] = GUIDED.replace(guide_run="other", guide_step=30).problems(can)
    assert problem.startswith("other at step 30 cannot guide cars: it ") and sentence in problem
    assert list(guides_for(can, 20, "main")) == [""]


def test_a_smaller_network_with_another_prediction_type_can_guide(
    runs_dir: Path, cars: Checkpoint
) -> None:
    config = TINY.replace(
        prediction_type="epsilon",
        network_args=dict(TINY.network_args) | {"widths": [4], "attention_levels": []},
    )
    write_run(runs_dir, "small", 5, 15, config=config)
    can = Capabilities.of(cars)
    spec = GUIDED.replace(guide_run="small", guide_step=5)
    assert spec.problems(can) == []
    assert spec.make(load_model(cars), guide=spec.load_guide(cars)).shape == (3, 3, 16, 16)
    found = guides_for(can, 20, "main")
    assert {run: list(steps) for run, steps in found.items()} == {"": [10], "small": [5, 15]}


def test_a_run_with_one_checkpoint_and_one_average_has_no_guide_of_its_own(runs_dir: Path) -> None:
    alone = Run(write_run(runs_dir, "cars", 20)).checkpoint(20)
    assert guides_for(Capabilities.of(alone), 20, "main") == {}


ITSELF = "cars at step 20 cannot guide itself; choose another step, run or average as the guide."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, ""),
        ({"label": ANY_CLASS}, ""),
        ({"guidance_interval": (3.0, 19.0)}, ""),
        ({"guide_run": "cars"}, ""),
        ({"guide_step": 20}, ITSELF),
        ({"guide_step": 20, "guide_run": "cars"}, ITSELF),
        ({"guide_step": None}, "Autoguidance needs the step of a guide"),
        ({"guide_step": 15}, "The guide is missing. cars has no checkpoint of step 15."),
        ({"guide_run": "gone"}, "The guide is missing. There is no run gone that could guide cars"),
        ({"guide_run": "../outside"}, "There is no run ../outside that could guide cars."),
        ({"guide_run": ".."}, "There is no run .. that could guide cars."),
        ({"guide_average": "short"}, "The guide has no averaged weights called 'short'; it has ma"),
        ({"negative": "bus"}, "Autoguidance leads away from a weaker network, not from a class"),
        ({"guidance_scale": 1.0}, "Autoguidance has no effect with a guidance scale of 1; set an"),
        ({"guidance_interval": (12.0, 13.0)}, "where none of the steps is"),
        ({"guidance": "magic"}, "There is no guidance 'magic'; choose one of class, autoguidance."),
        ({"guidance": "class"}, "A guide has no effect without autoguidance; set the guidance to"),
    ],
)
def test_an_autoguided_request_that_cannot_be_sampled_is_told_why(
    cars: Checkpoint, runs_dir: Path, change: dict[str, Any], sentence: str
) -> None:
    write_run(runs_dir.parent, "outside", 10)
    problems = GUIDED.replace(**change).problems(Capabilities.of(cars))
    assert len(problems) == (sentence != "")
    assert sentence in "".join(problems)


def test_a_guide_that_was_always_given_a_class_needs_one(runs_dir: Path, cars: Checkpoint) -> None:
    write_run(runs_dir, "given", 5, config=TINY.replace(label_dropout=0.0))
    spec = GUIDED.replace(guide_run="given", guide_step=5)
    can = Capabilities.of(cars)
    assert spec.problems(can) == []
    assert spec.replace(label=ANY_CLASS).problems(can) == [
        "The guide was trained with the class always given; choose a class."
    ]


def test_runs_without_classes_can_be_autoguided(runs_dir: Path) -> None:
    config = TINY.replace(network_args={"widths": [8], "blocks": 1, "attention_levels": [0]})
    run = Run(write_run(runs_dir, "cars", 10, 20, config=config))
    spec = GUIDED.replace(classes=(), label="")
    assert spec.problems(Capabilities.of(run.checkpoint(20))) == []
    always = TINY.replace(label_dropout=0.0)
    other = Run(write_run(runs_dir, "always", 10, 20, config=always))
    assert GUIDED.replace(run="always").problems(Capabilities.of(other.checkpoint(20))) == []


def test_the_lecture_takes_no_autoguidance() -> None:
    spec = GUIDED.replace(as_lecture=True, sampler="ddpm", classes=(), label="")
    assert spec.problems() == ["Sampling as the lecture does takes no autoguidance."]


# ---------------------------------------------------------------- as words and files


def test_files_without_autoguidance_are_as_before() -> None:
    plain = PLAIN.replace(guidance_scale=2.0).to_dict()
    assert not plain.keys() & {"guidance", "guide_run", "guide_step", "guide_average", "exact"}
    assert SamplingSpec.from_dict(plain).guidance == "class"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "each class in turn, autoguidance 2 by step 10"),
        ({"guide_run": "small"}, "autoguidance 2 by small at step 10"),
        ({"guide_average": "short"}, "autoguidance 2 by the short average of step 10"),
        ({"guidance_interval": (3.0, 9.0)}, "autoguidance 2 by step 10 where 3 ≤ t ≤ 9"),
    ],
)
def test_a_guide_comes_back_from_json_and_is_told(change: dict[str, Any], words: str) -> None:
    spec = GUIDED.replace(**change)
    assert SamplingSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.describe().endswith(words)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"guide_step": -1}, "guide_step is -1"),
        ({"guide_step": "10"}, "guide_step is '10'; it must be a whole number"),
        ({"guide_run": 3}, "guide_run is 3; it must be text"),
        ({"guide_average": ""}, "guide_average is empty"),
        ({"guidance": "magic"}, "There is no guidance 'magic'"),
        ({"guidance": ["class"]}, "guidance is a list"),
        ({"guide_step": None}, "Autoguidance needs the step of a guide"),
        ({"guide_step": 20}, "cannot guide itself"),
    ],
)
def test_a_guide_that_cannot_be_is_refused_by_name(change: dict, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        SamplingSpec.from_dict(GUIDED.to_dict() | change)


def test_what_guides_nothing_is_left_out_on_request() -> None:
    assert GUIDED.without_unused() == GUIDED
    assert GUIDED.replace(guidance_scale=1.0).without_unused() == PLAIN
    assert GUIDED.replace(guidance="class").without_unused() == PLAIN.replace(guidance_scale=2.0)
    assert GUIDED.replace(negative="bus", guide_run="cars").without_unused() == GUIDED


# ---------------------------------------------------------------- series


def test_a_series_is_guided_and_holds_to_its_guide(cars: Checkpoint, tmp_path: Path) -> None:
    loaded, guide = load_model(cars), GUIDED.load_guide(cars)
    made = series_folder.create(tmp_path / "series" / "one", GUIDED, cars, 2)
    assert made.record.guide_time == Run(cars.path.parents[1]).checkpoint(10).time
    for _ in series_folder.generate(made, lambda: loaded, "cpu", load_guide=lambda: guide):
        pass
    wanted = GUIDED.make(loaded, None, 0, 2, guide)
    shown = series_folder.read_image(made.image(1))
    assert shown is not None
    assert (torch.tensor(shown).permute(2, 0, 1) / 127.5 - 1 - wanted[1]).abs().max() < 0.01
    write_checkpoint(cars.path.parents[1], 10, mean=0.1)
    with pytest.raises(SeriesError, match="The guide was overwritten since one was started"):
        series_folder.line_up(made, cars)


def test_a_series_without_a_guide_says_nothing_of_one(cars: Checkpoint, tmp_path: Path) -> None:
    made = series_folder.create(tmp_path / "series" / "one", PLAIN, cars, 2)
    assert "guide_time" not in json.loads((made.path / "order.json").read_text())
