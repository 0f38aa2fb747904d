"""The controls of guidance, which set fields of a `SamplingSpec`: on the Sampling page and where
quality is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dashboard.ui.controls import Choice, Control, Number, Range
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.capabilities import ANY_CLASS, Capabilities
from diffusion_core.sampling.guides import guides_for
from diffusion_core.sampling.spec import AUTOGUIDANCE, BY_CLASS, GUIDANCES

SAME_RUN = "the same run"

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
GUIDE = (GUIDE_RUN, GUIDE_STEP, GUIDE_AVERAGE)


def controls_of_guidance(can: Capabilities, values: Mapping[str, Any]) -> Iterator[Control]:
    """The controls of guidance that apply to a checkpoint, as they are for it, in the page's order:
    the scale, and where that is not 1 what guides, and where.

    `values` are those of the spec's fields, `step` among them; those of the controls that came
    before decide which come next, so they are filled in on the way.
    """
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
    """As `controls_of_guidance`, for what `guides_for` found."""
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
