"""Orders: their labels and words, what they cost, and that what a file says is not believed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.spec import ANY_CLASS, EACH_IN_TURN, SamplingSpec, SpecError

SPEC = SamplingSpec(run="tiny", step=4, n=2, steps=5)
CLASSES = ("van", "bus", "coupé")
HOW = ({"as_lecture": True}, {"variance": "lecture"})
FULL = SamplingSpec(
    run="cars",
    step=1250,
    n=8,
    sampler="heun",
    steps=20,
    seed=3,
    classes=CLASSES,
    label="van",
    guidance_scale=2.5,
    negative="bus",
    guidance_interval=(10.0, 200.0),
    average="short",
    spacing="karras",
)


def test_labels_come_in_turn_as_one_class_or_not_at_all() -> None:
    spec = SPEC.replace(n=4, classes=("van", "bus", "coupé"), label=EACH_IN_TURN)
    assert spec.labels().tolist() == [0, 1, 2, 0]
    assert [spec.class_of(k) for k in range(4)] == ["van", "bus", "coupé", "van"]
    assert spec.replace(label="bus").labels().tolist() == [1] * 4
    assert spec.replace(label=ANY_CLASS).labels() is None
    assert spec.replace(label=ANY_CLASS).class_of(0) == ""
    assert SPEC.labels() is None


@pytest.mark.parametrize(
    ("n", "columns"), [(1, 1), (2, 2), (3, 3), (6, 3), (7, 7), (8, 4), (10, 5), (11, 4), (64, 8)]
)
def test_the_grid_leaves_no_place_empty_where_it_can(n: int, columns: int) -> None:
    assert SPEC.replace(n=n).columns() == columns


@pytest.mark.parametrize(
    ("n", "classes", "columns"),
    [(4096, 8, 64), (4096, 3, 63), (8, 8, 8), (7, 3, 3), (3, 8, 3), (16, 8, 8), (16, 12, 4)],
)
def test_classes_in_turn_have_columns_of_their_own(n: int, classes: int, columns: int) -> None:
    names = tuple(f"class {k}" for k in range(classes))
    spec = SPEC.replace(classes=names, label=EACH_IN_TURN)
    assert spec.columns(n) == columns


def test_an_order_says_in_words_what_makes_its_images() -> None:
    spec = SamplingSpec(
        run="cars",
        step=1250,
        n=1,
        sampler="ddim",
        steps=50,
        seed=3,
        eta=0.5,
        classes=("van",),
        label="van",
        guidance_scale=2.5,
    )
    words = "cars at step 1,250: 1 image, ddim, 50 steps, seed 3, η 0.5, van, guidance 2.5"
    assert spec.describe() == words
    large = SamplingSpec(run="cars", step=5, n=2, sampler="ddpm", steps=300, variance="large")
    assert large.describe() == "cars at step 5: 2 images, ddpm, 300 steps, seed 0, variance β"
    slip = large.replace(variance="lecture")
    assert slip.describe().endswith("ddpm, 300 steps, seed 0, the lecture's noise term")
    assert slip.options()["noise_term"] == "lecture"
    lecture = SamplingSpec(run="cars", step=5, n=2, sampler="ddpm", steps=300, as_lecture=True)
    assert lecture.describe() == "cars at step 5: 2 images, as the lecture does, 300 steps, seed 0"


def test_the_images_of_a_batch_get_the_labels_that_they_have_in_the_whole() -> None:
    spec = SPEC.replace(n=7, classes=CLASSES, label=EACH_IN_TURN)
    whole = spec.labels()
    parts = [spec.labels(first, n) for first, n in ((0, 2), (2, 4), (6, 1))]
    assert torch.equal(torch.cat(parts), whole)


def test_the_evaluations_of_guidance_are_counted_where_it_is_at_work() -> None:
    schedule = NoiseSchedule("cosine", 20)
    guided = SPEC.replace(classes=CLASSES, label="van", guidance_scale=2.0)
    assert SPEC.evaluations(schedule) == 2 * 5
    assert guided.evaluations(schedule) == 2 * 10
    # The walk is 19, 15, 11, 7, 3.
    assert guided.replace(guidance_interval=(7.0, 15.0)).evaluations(schedule) == 2 * 8
    heun = guided.replace(sampler="heun", guidance_interval=(19.0, 19.0))
    assert heun.evaluations(schedule) == 2 * (9 + 1)
    assert heun.replace(guidance_interval=(7.0, 15.0)).evaluations(schedule) == 2 * (9 + 6)


@pytest.mark.parametrize(
    "spec", [SPEC, FULL, *(SPEC.replace(sampler="ddpm", **how) for how in HOW)]
)
def test_an_order_comes_back_from_its_json(spec: SamplingSpec) -> None:
    assert SamplingSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n": 0}, "n is 0; it must be from 1 to 4,096"),
        ({"n": True}, "n is true; it must be a whole number"),
        ({"n": 10**9}, "n is 1000000000; it must be from 1 to 4,096"),
        ({"sampler": "magic"}, "no sampler 'magic'; choose one of dpmpp_2m, ddim, ddpm"),
        ({"sampler": ["ddim"]}, "sampler is a list; it must be text"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"eta": float("nan")}, "eta is nan; it must be a finite number"),
        ({"guidance_scale": "7"}, "guidance_scale is '7'; it must be a number"),
        ({"label": "horse"}, "no class 'horse'; choose one of van, bus, coupé"),
        ({"negative": ["bus"]}, "negative is a list"),
        ({"negative": "horse"}, "no class 'horse'"),
        ({"guidance_interval": [5]}, "guidance_interval.1 is missing"),
        ({"guidance_interval": [9, 5]}, "guidance interval ends before it starts"),
        ({"classes": "van"}, "classes is 'van'; it must be a list"),
        ({"spacing": {}}, "spacing is an object; it must be text"),
        ({"spacing": "even"}, "no step spacing 'even'; choose one of trailing, leading"),
        ({"run": ""}, "run is empty; it needs a value"),
        ({"as_lecture": 1}, "as_lecture is 1; it must be true or false"),
        ({"as_lecture": True}, "as the lecture does needs the spacing trailing"),
        ({"label": ANY_CLASS}, "Guidance needs a class to lead to"),
        ({"flow": True}, "karras spacing needs a schedule that does not end in pure noise"),
        ({"variance": "medium"}, "no variance 'medium'; choose one of posterior, large, lecture"),
        ({"exact": "yes"}, "exact is 'yes'; it must be true or false"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(change: dict, sentence: str) -> None:
    text = json.dumps(json.loads(FULL.to_json()) | change)
    with pytest.raises(SpecError, match=sentence):
        SamplingSpec.from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "{}", '{"run": "a"}', "[" * 100_000])
def test_what_is_no_record_of_settings_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="The settings"):
        SamplingSpec.from_json(text)


class Nan(nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * float("nan")


def test_a_network_that_answers_nan_gets_a_sentence_and_no_black_images() -> None:
    config = RunConfig(image_size=16, schedule={"kind": "cosine", "timesteps": 20})
    with pytest.raises(ValueError, match="tiny at step 4 answers with NaN or infinity; choose"):
        SPEC.make(LoadedModel(Nan(), NoiseSchedule("cosine", 20), config))


def test_settings_of_a_newer_version_leave_out_what_is_not_known() -> None:
    assert SamplingSpec.from_json(json.dumps(json.loads(SPEC.to_json()) | {"new": 1})) == SPEC
