"""The controls of the Quality tab."""

from __future__ import annotations

from dashboard.ui.controls import Choice, Number, Toggle
from diffusion_core.evaluation.evaluator import FEWEST
from diffusion_core.sampling.spec import MOST_IMAGES

LATEST, EVERY = "latest", "all"

CHECKPOINT = Choice(key="quality_checkpoint", label="Checkpoint to measure", bind=False)
SAMPLER = Choice(key="quality_sampler", label="Sampler", bind=False)
COUNT = Number(
    key="quality_n",
    label="Number of images",
    default=512,
    low=FEWEST,
    high=MOST_IMAGES,
    help="More images make the intervals narrower. Compare only results of the same number of "
    "images; papers use 10,000 or more.",
    bind=False,
)
STEPS_KEY = "quality_steps"
STEPS = (5, 10, 20, 50, 100, 250)
USUAL_STEPS = 20
GUIDANCE = Number(
    key="quality_guidance",
    label="Guidance scale",
    default=1.0,
    low=1.0,
    high=8.0,
    step=0.5,
    slider=True,
    help="Above 1, images look more typical of their class and vary less; each takes twice the "
    "evaluations.",
    bind=False,
)
BITS = Toggle(
    key="quality_bits",
    label="Bits per dimension too",
    help="How well the network predicts held-out images. Measured once per checkpoint; not "
    "available for flows.",
    bind=False,
)
METRIC = Choice(key="quality", label="Metric")
RESULT = Choice(key="quality_result", label="Samples of", bind=False)
