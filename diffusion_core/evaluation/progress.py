"""What the evaluations of a run say together: which step is the best, whether it still gets better,
whether it memorises its training images, whether its averaged weights are behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from diffusion_core.evaluation.image_metrics import NEAR
from diffusion_core.evaluation.intervals import WIDTH, Estimate
from diffusion_core.evaluation.metrics import COPIES, METRICS, Estimates, Metric
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.metrics import BEHIND, COMPARED_BY, EXPECTED, HIGH, LOW, QUALITY

WORTH_SAYING = 0.01  # of the validation loss, by which averaged weights are behind


def scalars(metrics: Estimates) -> dict[str, float]:
    """What the curves of a run get of an evaluation, by their names."""
    found: dict[str, float] = {}
    for name, curve in QUALITY.items():
        if name in metrics:
            each = metrics[name]
            found |= {curve: each.value, curve + LOW: each.low, curve + HIGH: each.high}
            if name == COPIES.name:
                found[curve + EXPECTED] = expected_copies(each.n_real, each.n_fake).high
    return found


def compared_by(evaluations: Collection[Estimates]) -> Metric | None:
    """None where there is no evaluation."""
    shared = set.intersection(*map(set, evaluations)) if evaluations else set()
    return next((METRICS[name] for name in COMPARED_BY if name in shared), None)


def without_better(values: Sequence[Estimate]) -> int:
    """How many of the newest values in a row were no better than one before them.

    Better is a value below the lower end of that one's interval, so that a run which only wavers
    within what its evaluations can tell does not count as one that gets better. (The first value is
    better than none.)
    """
    best, count = None, 0
    for each in values:
        if best is None or each.value < best.low:
            best, count = each, 0
        else:
            count += 1
    return count


def expected_copies(n_held_out: int, n_generated: int) -> Estimate:
    """The share of near copies (see `image_metrics.copies`) where nothing is memorised.

    Samples then lie as near to the training images as held-out ones do: NEAR of them nearer than
    that quantile of the held-out ones. Both counts are finite, which widens the interval.
    """
    half = WIDTH * (NEAR * (1 - NEAR) * (1 / n_held_out + 1 / n_generated)) ** 0.5
    return Estimate(NEAR, max(0.0, NEAR - half), min(1.0, NEAR + half), n_held_out, n_generated)


def memorises(copies: Estimate) -> bool:
    """Whether so many near copies are no chance: the two intervals are apart.

    The test is that of Meehan et al. 2020, who compare the distances of generated and held-out
    images to the nearest training image. Apart, since a run is looked at many times: an interval
    that only leaves out NEAR would raise a false alarm at one of forty looks.
    """
    return copies.low > expected_copies(copies.n_real, copies.n_fake).high


def memorisation_sentence(last: Mapping[str, tuple[int, float]]) -> str:
    """That a run memorises its training images; "" where it does not, or nobody knows.

    `last`: the newest values of its curves, as `Run.last_values` returns them.
    """
    curve = QUALITY["copies"]
    if curve + EXPECTED not in last or last[curve + LOW][1] <= last[curve + EXPECTED][1]:
        return ""
    step, value = last[curve]
    share = Estimate(value, last[curve + LOW][1], last[curve + HIGH][1], 0, 0)
    most = COPIES.format(last[curve + EXPECTED][1])
    return (
        f"Memorisation: {COPIES.format_estimate(share)} of the samples of step {step:,} are near "
        f"copies of training images. Without memorisation it would be 5 %, at most {most}."
    )


def average_sentence(config: RunConfig, last: Mapping[str, tuple[int, float]]) -> str:
    """That the averaged weights are still behind the raw ones, and what to do; "" if they are not,
    or where it is not known.

    `last`: the newest values of the run's curves, as `Run.last_values` returns them.
    """
    step, least = last.get(BEHIND + LOW, (0, 0.0))
    if least < WORTH_SAYING:
        return ""
    shorter = {name: d for name, d in config.ema_decays.items() if d < config.ema_decay}
    way = "train longer, or with a smaller ema_decay"
    if shorter:
        way = f"use the average {min(shorter, key=lambda name: shorter[name])}, or {way}"
    percent = f"{100 * last[BEHIND][1]:.0f} %"
    return (
        f"The averaged weights ({MAIN_AVERAGE}, {config.ema_decay:g}) are still behind the raw "
        f"ones: at step {step:,} their validation loss is {percent} higher. To get better samples, "
        f"{way}."
    )
