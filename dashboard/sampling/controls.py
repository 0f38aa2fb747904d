"""The controls of the Sampling page that set the fields of a `SamplingSpec`, and what is chosen.

Bounds that depend on the checkpoint come from its `Capabilities`. The page, the link and the
restoring of a file all go through `controls_for` or `link_settings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.ui.controls import (
    Choice,
    Control,
    Number,
    Toggle,
    number_of,
    whole_bounds,
)
from dashboard.ui.guidance import (
    GUIDANCE,
    GUIDE,
    GUIDED,
    KIND,
    NEGATIVE,
    controls_of_guidance,
)
from diffusion_core.process.tables import MOST_TIMESTEPS
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.learned import MOST_LEARNED, falling, in_words
from diffusion_core.sampling.levels import LEARNED, TIMESTEP_SPACINGS
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.solvers import VARIANCES
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.text import shown

LATEST, BEST = "latest", "best"
CORRECT, LECTURE = "correct", "lecture"
LECTURE_SAMPLER = "ddpm"
MOST_PIXELS = 2**20  # of all images together: what a browser and the server hold easily

STEP = Choice(
    key="step",
    field="step",
    label="Checkpoint",
    options=(LATEST,),
    help="The training step at which it was saved. best: of those measured during training the one "
    "with the lowest Fréchet distance.",
)
WAY = Choice(
    key="way",
    field="as_lecture",
    label="Noise term and BatchNorm",
    options=(CORRECT, LECTURE),
    values={CORRECT: False, LECTURE: True},
    default=CORRECT,
    segmented=True,
)
SAMPLER = Choice(
    key="sampler",
    field="sampler",
    label="Sampler",
    help="The method that turns noise into an image. DPM-Solver++ and UniPC need the fewest "
    "steps; DDPM is the lecture's and needs all of them.",
)
FLOW_SAMPLER = SAMPLER.now(key="flow_sampler")  # each kind of model keeps its own choice
SPACING = Choice(
    key="spacing",
    field="spacing",
    label="Step spacing",
    options=(*TIMESTEP_SPACINGS, LEARNED),
    default="trailing",
    help="Which timesteps the steps use; it matters with few steps. learned: found by gradient for "
    "this checkpoint, sampler and number of steps, without guidance; offered where the command "
    "tune has found some, and chosen there by default. trailing: evenly spaced, from "
    "the noisiest timestep. leading: evenly spaced, to the cleanest. linspace: evenly spaced, from "
    "end to end. karras: dense at low noise. exponential: evenly spaced in the logarithm of the "
    "noise. Choosing a sampler also chooses its usual spacing.",
)


@dataclass(frozen=True, kw_only=True)
class TimestepsText(Control):
    """Learned timesteps, falling: 995.1,757.4,181.9. It has no widget; the page's address alone
    keeps it."""

    high: float = 0.0  # the largest there can be

    def of_text(self, text: str) -> Any:
        parts = text.split(",", MOST_LEARNED)
        numbers = tuple(number_of(part, whole=False) for part in parts)
        return text if any(isinstance(each, str) for each in numbers) else numbers

    def to_link(self, value: Sequence[float]) -> list[str]:
        return [",".join(in_words(value))]

    def problem(self, value: Any) -> str:
        right = isinstance(value, tuple) and 0 < len(value) <= MOST_LEARNED and falling(value)
        if right and 0 <= value[-1] <= value[0] <= self.high:
            return ""
        given = shown(value if isinstance(value, str) else self.to_link(value)[0])
        return (
            f"{self.label} are {given}; they must be up to {MOST_LEARNED} falling numbers from "
            f"{self.high:,g} to 0, with commas between them."
        )


TIMESTEPS = TimestepsText(key="timesteps", label="Learned timesteps", high=MOST_TIMESTEPS - 1)
STEPS = Number(
    key="steps",
    field="steps",
    label="Steps",
    low=1,
    high=whole_bounds(SamplingSpec, "steps")[1],
    follows=True,
)
COUNT = Number(key="n", field="n", label="Images", low=1, high=64, default=16)
SEED = Number(
    key="seed",
    field="seed",
    label="Seed",
    low=0,
    high=whole_bounds(SamplingSpec, "seed")[1],
    default=0,
    help="Image k of a seed always starts from the same noise, whatever the number of images.",
)
ETA = Number(
    key="eta",
    field="eta",
    label="η",
    low=0.0,
    high=1.0,
    default=0.0,
    step=0.1,
    slider=True,
    help="The noise that DDIM adds in each step: 0 for none, 1 for as much as DDPM.",
)
VARIANCE = Choice(
    key="variance",
    field="variance",
    label="Variance of the noise",
    options=VARIANCES,
    default=VARIANCES[0],
    segmented=True,
    help=r"Ho et al. 2020 choose from the posterior variance, $\tilde\beta_t$, and the large one, "
    r"$\beta_t$. The lecture multiplies the noise by $\tilde\beta_t$ instead of its square root: "
    "too little noise.",
)
AVERAGE = Choice(
    key="average",
    field="average",
    label="Averaged weights",
    options=(MAIN_AVERAGE,),
    default=MAIN_AVERAGE,
    segmented=True,
)
LABEL = Choice(key="label", field="label", label="Class", default="")
EXACT = Toggle(
    key="exact",
    field="exact",
    label="Exact",
    help="Compute in float32, one image at a time, so that image k of a seed is the same to the "
    "last bit whatever the number of images. Takes 2 to 5 times as long.",
)
BASIC = (COUNT, LABEL, STEPS, SEED)
SAMPLERS = (SAMPLER, FLOW_SAMPLER)
SAMPLING = (STEP, WAY, SPACING, ETA, VARIANCE, AVERAGE)
ADVANCED = (*SAMPLING, GUIDANCE, KIND, *GUIDE, NEGATIVE, GUIDED, EXACT)


def max_images(image_size: int) -> int:
    """The most images at once: 64 up to 128 pixels, 16 at 256."""
    return max(1, min(64, MOST_PIXELS // image_size**2))


def controls_for(
    can: Capabilities,
    values: Mapping[str, Any],
    *,
    count: bool = True,
    labels: Sequence[str] = (),
) -> Iterator[Control]:
    """The controls of a spec that apply to a checkpoint, as they are for it, in the page's order.

    `values` are those of the spec's fields; the values of the controls that came before decide
    which come next, so they may be filled in on the way. `count`: ask for the number of images.
    `labels`: the classes to choose from, by default those of the checkpoint.
    """
    if can.takes_lecture:
        yield WAY
    if values.get("as_lecture"):
        sampler = sampler_of(LECTURE_SAMPLER)
    else:
        yield (FLOW_SAMPLER if can.flow else SAMPLER).now(options=can.samplers)
        sampler = sampler_of(values["sampler"], can.flow)
    if count:
        most = max_images(can.image_size)
        yield COUNT.now(high=most, default=min(16, most), help=f"1 to {most}.")
    if can.classes:
        yield LABEL.now(options=labels or can.labels)
    yield STEPS.now(
        high=can.timesteps,
        default=can.usual_steps[sampler.name],
        help=f"How many of the {can.timesteps:,} timesteps to use. The default depends on the "
        "sampler.",
    )
    yield SEED
    if len(can.averages) > 1:
        # With snapshots there are averages of any length: more than fit side by side.
        several = bool(can.snapshots)
        yield AVERAGE.now(options=can.averages, segmented=not several, typed=several)
    if not values.get("as_lecture"):
        yield SPACING.now(options=spacings_of(can, values))
        if "eta" in sampler.options:
            yield ETA
        if "noise_term" in sampler.options:
            yield VARIANCE
    yield from controls_of_guidance(can, values)
    yield EXACT


def spacings_of(can: Capabilities, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The spacings to choose from; learned ones also where the address has the timesteps."""
    way = values.get("average", MAIN_AVERAGE), values["sampler"], values["steps"]
    given = len(values.get("timesteps", ())) == values["steps"]
    return (*([LEARNED] if given or way in can.learned else []), *can.spacings)


def one_class(spec: SamplingSpec, can: Capabilities) -> SamplingSpec:
    """With one class for all images: where they take turns any class, if the network knows that,
    else the first."""
    if spec.label != EACH_IN_TURN:
        return spec
    spec = spec.replace(label=can.labels[1])
    if spec.label != ANY_CLASS or spec.autoguided:
        return spec
    return spec.replace(guidance_scale=1.0).without_unused()


def link_settings(spec: SamplingSpec) -> dict[str, Any]:
    """The parameters of the page's address that restore a spec; defaults are left out."""
    settings: dict[str, Any] = {"run": spec.run}
    controls: list[Control] = [*BASIC, *ADVANCED]
    if not spec.as_lecture:
        controls.append(FLOW_SAMPLER if spec.flow else SAMPLER)
    for control in controls:
        value = getattr(spec, control.field)
        if control is GUIDED and value is None:
            continue
        value = control.of_field(value)
        if value != control.default:
            settings[control.key] = value
    if spec.timesteps:
        [settings[TIMESTEPS.key]] = TIMESTEPS.to_link(spec.timesteps)
    return settings
