"""The shipped run, sampled by every sampler as it is where nothing is said: these are cars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion_core.cli.main import make_parser
from diffusion_core.cli.sample import make_spec
from diffusion_core.evaluation.features import feature_net
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import LoadedModel, load_model
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.solvers import StepView
from diffusion_core.sampling.spec import SamplingSpec

SHIPPED = Path(__file__).parents[3] / "checkpoints"
RUN = load_run(SHIPPED / "demo-cars")
CHECKPOINT = RUN.checkpoints()[0][-1]
# Four seconds each, and DDPM a minute; Heun is the one whose spacing differs.
SAMPLERS = [
    pytest.param(name, marks=() if name == "heun" else pytest.mark.long)
    for name in Capabilities.of(CHECKPOINT).samplers
]

LEAST_NOISE = 50  # a timestep; sigma / alpha is 0.09 there


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(CHECKPOINT, "cpu")


def spec_of(sampler: str, *words: str) -> SamplingSpec:
    """As the command line has it: an image of each class."""
    given = ["sample", "--run", str(RUN.path), "--sampler", sampler, "--n", "8", *words]
    return make_spec(make_parser().parse_args(given), RUN, CHECKPOINT)


def generate(spec: SamplingSpec, loaded: LoadedModel) -> tuple[int, float]:
    """How many of the images the shipped classifier recognises as what they should be, and the
    largest size of the predicted noise in a step, over all images; not in the last steps, where
    what the network misses of the image is divided by next to no noise."""
    sizes = []

    def keep(view: StepView) -> None:
        if view.timestep >= LEAST_NOISE:
            sizes.append(float(view.epsilon.square().mean().sqrt()))

    images = to_uint8(spec.make(loaded, keep))
    labels, classifier = spec.labels(), feature_net("cars")
    assert labels is not None and classifier is not None
    found = classifier.features(images)[1].argmax(1)
    return int(np.sum(found == labels.numpy())), max(sizes)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_cars_at_its_defaults(sampler: str, loaded: LoadedModel) -> None:
    spec = spec_of(sampler)
    assert spec.warning(Capabilities.of(CHECKPOINT)) == ""
    right, noise = generate(spec, loaded)
    assert right >= 6  # of 8; of 1,024 by DPM-Solver++ 98 %
    assert noise < 1.5  # that of N(0, 1) is 1


@pytest.mark.parametrize("name", ["demo-cars-distilled", "demo-tiny-distilled"])
@pytest.mark.parametrize("steps", ["1", "2"])
def test_a_distilled_run_makes_cars_in_one_step_and_in_two(name: str, steps: str) -> None:
    run = load_run(SHIPPED / name)
    [checkpoint] = run.checkpoints()[0]
    given = ["sample", "--run", str(run.path), "--n", "8", "--steps", steps]
    spec = make_spec(make_parser().parse_args(given), run, checkpoint)
    assert (spec.sampler, spec.steps) == ("consistency", int(steps))
    assert generate(spec, load_model(checkpoint, "cpu"))[0] >= 6


@pytest.mark.long
def test_what_is_warned_of_are_no_cars(loaded: LoadedModel) -> None:
    spec = spec_of("heun", "--spacing", "trailing")
    assert spec.warning(Capabilities.of(CHECKPOINT)) == (
        "heun diverges on this schedule with trailing spacing and 25 steps: the images will be "
        "noisy or wrong. Use karras, leading or exponential spacing."
    )
    right, noise = generate(spec, loaded)
    assert right <= 4
    assert noise > 2  # the others stay below 1.5
