"""Pairs of runs that differ in one setting alone, with what became of their results.

Settings that change what is written, or on which cores it is computed, do not count: see `matters`.
Runs that differ in the seed alone repeat each other, and say how far results differ by chance.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from diffusion_core.evaluation.metrics import METRICS, Metric
from diffusion_core.review.differences import in_order, settings_in
from diffusion_core.review.index import QUALITY, Row, Value
from diffusion_core.text import value_text

SEED = "seed"
MOST_ALIKE = 40
LOSSES = ("best_validation_loss", "validation_loss")
# What else a result may be, all of which depend on the machine.
COSTS = ("hours", "energy_kwh", "images_per_second")
OUTCOMES = (*(f"{QUALITY}.{name}" for name in METRICS), *LOSSES, *COSTS)
HIGHER_IS_BETTER = ("images_per_second",)
# Settings that change what a validation loss measures.
OF_THE_LOSS = (
    *("prediction_type", "loss", "loss_on", "schedule"),
    *("data", "image_size", "channels"),
)
# Settings that do not change what is learned (a micro-batch only with the lecture's network).
NAMES = ("preset", "preset_version")
MACHINE = (*NAMES, "micro_batch", "threads", "fast_layers", "num_workers", "tensorboard")


class Outcome(NamedTuple):
    """A result of a run, with its 95 % interval where it has one."""

    value: float
    low: float
    high: float


class Pair(NamedTuple):
    """Two runs that differ in the setting `name` alone."""

    name: str
    first: Row
    second: Row


class Chance(NamedTuple):
    """How far a result differs between runs that repeat each other."""

    spread: float  # in 95 % of pairs the difference is smaller
    runs: int
    groups: int


def matters(name: str, outcome: str) -> bool:
    """Whether a setting can change an outcome other than by its machine."""
    if outcome in COSTS:
        return name not in NAMES
    written = name.endswith("_every") or name.startswith(("keep_", "sample_", "evaluate_"))
    return not written and name not in MACHINE


def settings_that_matter(row: Row, outcome: str) -> dict[str, Value]:
    """Those of a row, and as further ones what was changed on the way but for the steps."""
    found: dict[str, Value] = {
        name: value for name, value in settings_in(row.values).items() if matters(name, outcome)
    }
    for step, name, value in row.changes:
        if matters(name, outcome) and name != "steps":
            found[f"{name} from step {step}"] = value
    return found


def find_pairs(rows: Sequence[Row], outcome: str) -> list[Pair]:
    """All pairs but those of seeds, in the order of the settings.

    Of more than MOST_ALIKE runs that differ in the same setting only neighbours are pairs.
    """
    found = []
    for name, group in _alike_but_for_one(rows, outcome):
        if name == SEED or " " in name:
            continue
        two: Iterable[tuple[Row, Row]] = itertools.combinations(group, 2)
        if len(group) > MOST_ALIKE:
            two = itertools.pairwise(sorted(group, key=lambda row: _place(row.values.get(name))))
        found += [
            Pair(name, first, second)
            for first, second in two
            if first.values.get(name) != second.values.get(name)
        ]
    places = {name: k for k, name in enumerate(in_order({pair.name for pair in found}))}
    return sorted(found, key=lambda pair: places[pair.name])


def _place(value: Value | None) -> tuple[bool, bool, Value]:
    """What any two values of a setting can be sorted by."""
    return value is not None, isinstance(value, str), "" if value is None else value


def chance(rows: Sequence[Row], outcome: str) -> Chance | None:
    """From the groups of runs that repeat each other; None where there are none."""
    groups = []
    for name, group in _alike_but_for_one(rows, outcome):
        by_step: dict[Value | None, list[float]] = defaultdict(list)
        for row in group:
            if name == SEED and (found := outcome_of(row, outcome)):
                by_step[step_of(row, outcome)].append(found.value)
        if _all_alike(group, outcome):
            groups += [np.array(values) for values in by_step.values() if len(values) > 1]
    if not groups:
        return None
    from scipy.special import stdtrit  # not before it is used: it takes 30 MB

    freedom = sum(len(values) - 1 for values in groups)
    variance = sum(((values - values.mean()) ** 2).sum() for values in groups) / freedom
    spread = stdtrit(freedom, 0.975) * (2 * variance) ** 0.5
    return Chance(float(spread), sum(map(len, groups)), len(groups))


def _alike_but_for_one(rows: Sequence[Row], outcome: str) -> Iterable[tuple[str, list[Row]]]:
    """Each setting with the runs, two or more, whose other settings are the same.

    A sum of hashes stands for the settings, from which that of one is taken away again: that takes
    a time that grows with the number of runs, not of pairs.
    """
    settings = [settings_that_matter(row, outcome) for row in rows]
    names = sorted({name for each in settings for name in each})
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for k, each in enumerate(settings):
        hashes = {name: hash((name, each.get(name))) for name in names}
        whole = sum(hashes.values())
        for name, own in hashes.items():
            groups[name, whole - own].append(k)
    for (name, _), group in groups.items():
        if len(group) > 1:
            yield name, [rows[k] for k in group]


def outcome_of(row: Row, name: str) -> Outcome | None:
    group, _, metric = name.partition(".")
    if group == QUALITY and row.measured and metric in row.measured.estimates:
        found = row.measured.estimates[metric]
        return Outcome(found.value, found.low, found.high)
    value = row.values.get(name)
    if isinstance(value, (bool, str)) or value is None:
        return None
    return Outcome(float(value), float(value), float(value))


def why_not_comparable(pair: Pair, outcome: str) -> str:
    """A sentence; empty where the outcomes of the pair can be compared."""
    if outcome in LOSSES and pair.name.partition(".")[0] in OF_THE_LOSS:
        return f"Not comparable: {pair.name} changes what the loss measures."
    if not _all_alike(pair[1:], outcome):
        return "Not comparable: the images were generated or measured in different ways."
    return ""


def _all_alike(rows: Sequence[Row], outcome: str) -> bool:
    """Whether the outcomes of the rows were measured in the same way."""
    measured = [row.measured for row in rows if row.measured and metric_of(outcome)]
    return all(each.is_like(measured[0]) for each in measured)


def step_of(row: Row, outcome: str) -> Value | None:
    """The step of which a row has its outcome."""
    return row.measured.step if row.measured and metric_of(outcome) else row.values.get("step")


def worse_first(pair: Pair, outcome: str) -> Pair:
    """The pair in the order in which its outcome becomes better; both must have it."""
    first, second = (outcome_of(row, outcome) for row in pair[1:])
    assert first is not None and second is not None
    badness = badness_of(outcome)
    if badness(first.value) < badness(second.value):
        return Pair(pair.name, pair.second, pair.first)
    return pair


def badness_of(outcome: str) -> Callable[[float], float]:
    """A function that is the smaller the better a value is."""
    metric = metric_of(outcome)
    better = metric.better if metric else "higher" if outcome in HIGHER_IS_BETTER else "lower"
    by: Mapping[str, Callable[[float], float]] = {
        "lower": lambda value: value,
        "higher": lambda value: -value,
        "floor": lambda value: abs(value - 0.05),
    }
    return by[better]


def metric_of(outcome: str) -> Metric | None:
    group, _, name = outcome.partition(".")
    return METRICS[name] if group == QUALITY else None


def title_of(outcome: str) -> str:
    """ "Fréchet distance", "best validation loss"."""
    metric = metric_of(outcome)
    words = outcome.replace("_", " ").replace("kwh", "(kWh)")
    return metric.title if metric else words


def outcome_text(outcome: str, value: float) -> str:
    metric = metric_of(outcome)
    return metric.format(value) if metric else f"{value:.4g}"


def change_of(pair: Pair, outcome: str) -> str:
    """ "learning_rate 0.001 → 0.0003: Fréchet distance 31.2 → 24.6"; both must have the outcome."""
    setting = " → ".join(value_text(row.values.get(pair.name)) for row in pair[1:])
    found = [outcome_of(row, outcome) for row in pair[1:]]
    values = " → ".join(outcome_text(outcome, each.value) for each in found if each)
    return f"{pair.name} {setting}: {title_of(outcome)} {values}"


def notes_on(pair: Pair, outcome: str, by_chance: Chance | None) -> list[str]:
    """What to know of the change: "intervals do not overlap". Both must have the outcome."""
    first, second = (outcome_of(row, outcome) for row in pair[1:])
    assert first is not None and second is not None
    said = []
    steps = [step_of(row, outcome) for row in pair[1:]]
    if steps[0] != steps[1] and pair.name != "steps":
        said.append(f"at steps {value_text(steps[0])} and {value_text(steps[1])}")
    if first.low < first.high and second.low < second.high:
        overlap = first.low <= second.high and second.low <= first.high
        said.append("intervals overlap" if overlap else "intervals do not overlap")
    if by_chance is not None:
        beyond = abs(first.value - second.value) > by_chance.spread
        said.append("more than the seed changes" if beyond else "no more than the seed changes")
    return said
