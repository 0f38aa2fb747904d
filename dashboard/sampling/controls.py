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
    Range,
    Toggle,
    number_of,
    whole_bounds,
)
from diffusion_core.process.tables import MOST_TIMESTEPS
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.guides import guides_for
from diffusion_core.sampling.learned import MOST_LEARNED, falling, in_words
from diffusion_core.sampling.levels import LEARNED, TIMESTEP_SPACINGS
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.solvers import VARIANCES
from diffusion_core.sampling.spec import AUTOGUIDANCE, BY_CLASS, GUIDANCES, SamplingSpec
from diffusion_core.text import shown

SAME_RUN = "the same run"
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
GUIDANCE = Number(
    key="guidance",
    field="guidance_scale",
    label="Guidance scale",
    low=1.0,
    high=8.0,
    default=1.0,
    step=0.25,
    slider=True,
    help="Above 1, leads away from a worse prediction: other + scale · (own − other). Costs a "
    "second evaluation of a network.",
)
KIND = Choice(
    key="guidance_kind",
    field="guidance",
    label="Guidance",
    options=GUIDANCES,
    default=BY_CLASS,
    segmented=True,
    help="class: away from the prediction for any class, or for another one. autoguidance: away "
    "from the prediction of a weaker network for the same class, which costs less variety (Karras "
    "et al. 2024).",
)
GUIDE_RUN = Choice(
    key="guide",
    field="guide_run",
    label="Guide",
    options=(SAME_RUN,),
    values={SAME_RUN: ""},
    default=SAME_RUN,
    help="The weaker network: an earlier checkpoint of this run, a shorter average of its weights, "
    "or a smaller run with the same classes, images and noise schedule.",
)
GUIDE_STEP = Choice(key="guide_step", field="guide_step", label="Checkpoint of the guide")
GUIDE_AVERAGE = Choice(
    key="guide_average",
    field="guide_average",
    label="Averaged weights of the guide",
    options=(MAIN_AVERAGE,),
    default=MAIN_AVERAGE,
    segmented=True,
)
NEGATIVE = Choice(
    key="negative",
    field="negative",
    label="Negative class",
    options=(ANY_CLASS,),
    values={ANY_CLASS: ""},
    default=ANY_CLASS,
    help="The “other” of the guidance scale: any class, or a class that the images should not "
    "look like.",
)
GUIDED = Range(
    key="guided",
    field="guidance_interval",
    label="Guided timesteps",
    help="Guidance costs variety at high noise and does little at low noise; it helps most in "
    "between (Kynkäänniemi et al. 2024). Other timesteps use no guidance, at half the cost.",
)
EXACT = Toggle(
    key="exact",
    field="exact",
    label="Exact",
    help="Compute in float32, one image at a time, so that image k of a seed is the same to the "
    "last bit whatever the number of images. Takes 2 to 5 times as long.",
)
BASIC = (COUNT, LABEL, STEPS, SEED)
SAMPLERS = (SAMPLER, FLOW_SAMPLER)
GUIDE = (GUIDE_RUN, GUIDE_STEP, GUIDE_AVERAGE)
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


def controls_of_guidance(can: Capabilities, values: Mapping[str, Any]) -> Iterator[Control]:
    """As `controls_for`: the scale, and where that is not 1 what guides, and where."""
    if values.get("as_lecture"):
        return
    by_class = can.any_class and values.get("label") != ANY_CLASS
    which = can, values["step"], values.get("average", MAIN_AVERAGE)
    guides = {} if by_class else guides_for(*which)
    if not by_class and not guides:
        return
    yield GUIDANCE
    if values["guidance_scale"] == 1.0:
        return
    guides = guides or guides_for(*which)
    kinds = [kind for kind, there in zip(GUIDANCES, (by_class, guides), strict=True) if there]
    if kinds != [BY_CLASS]:
        yield KIND.now(options=kinds, default=kinds[0])
    if values.get("guidance", BY_CLASS) == AUTOGUIDANCE:
        yield from controls_of_guide(guides, values)
    else:
        yield NEGATIVE.now(options=(ANY_CLASS, *can.classes))
    yield GUIDED.now(high=can.timesteps - 1)


def controls_of_guide(
    guides: Mapping[str, Mapping[int, Checkpoint]], values: Mapping[str, Any]
) -> Iterator[Control]:
    """As `controls_for`, for what `guides_for` found."""
    yield GUIDE_RUN.now(options=[GUIDE_RUN.of_field(run) for run in guides])
    steps = {str(step): step for step in guides[values["guide_run"]]}
    yield GUIDE_STEP.now(options=list(steps), values=steps)
    guide = guides[values["guide_run"]][values["guide_step"]]
    own = not values["guide_run"] and guide.step == values["step"]
    used = values.get("average", MAIN_AVERAGE) if own else None
    averages = [name for name in guide.averages if name != used]
    if averages != [MAIN_AVERAGE]:
        several = bool(guide.snapshots)
        yield GUIDE_AVERAGE.now(options=averages, segmented=not several, typed=several)


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
