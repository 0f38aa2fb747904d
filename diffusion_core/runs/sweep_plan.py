"""The combinations of settings that a sweep tries: a grid, random ones, or points of Sobol.

The same dimensions, method, number and seed give the same combinations.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diffusion_core.records import bounds
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, setting_type
from diffusion_core.text import cut, limit, shown

MOST_RUNS = 256
MOST_DIMENSIONS = 20
DIGITS = 6  # of a number from a range
DRAWS = 100  # for each run, until so many different combinations are found

Method = Literal["grid", "random", "sobol"]
METHODS: tuple[Method, ...] = typing.get_args(Method)
# Settings that are the sweep's own, or only a name.
FIXED = ("preset", "preset_version", "sweep", "pause_at")

Combination = dict[str, Any]  # settings as `--set` names them


@dataclass(frozen=True)
class Dimension:
    """A setting that varies: over `values`, or where there are none from `low` to `high`."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> Any:
        """The value at a share, from 0 to below 1, of the dimension."""
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        return self._between(share, self.high + 1 if self.whole else self.high, math.floor)

    def points(self, count: int) -> tuple[Any, ...]:
        """So many values from `low` to `high` at equal distances or, with `log`, ratios."""
        shares = [k / (count - 1) for k in range(count)]
        return tuple(dict.fromkeys(self._between(share, self.high, round) for share in shares))

    def _between(self, share: float, end: float, to_whole: typing.Callable[[float], int]) -> Any:
        if self.log:
            value = self.low * (end / self.low) ** share
        else:
            value = self.low + share * (end - self.low)
        value = to_whole(value) if self.whole else float(f"{value:.{DIGITS}g}")
        return min(max(value, self.low), self.high)


def parse_dimension(text: str) -> Dimension:
    """SETTING=VALUE,VALUE,… or SETTING=LOW..HIGH, which `:log` and a number of values may follow.

    Lists are JSON. Raises ConfigError.
    """
    name, equals, given = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"{shown(text)} varies nothing; write it as SETTING=VALUES.")
    if name in FIXED:
        raise ConfigError(f"{name} cannot vary in a sweep.")
    kind = setting_type(name)
    is_list = typing.get_origin(kind) is list
    if not (is_list or typing.get_origin(kind) is Literal or kind in (bool, int, float, str)):
        raise ConfigError(f"{name} has several entries; name one of them, as in schedule.kind.")
    if kind in (int, float) and ".." in given:
        return _parse_range(name, kind, given)
    words = _lists(name, given) if is_list else given.split(",")
    values = tuple(_value(name, word.strip()) for word in words)
    for k, value in enumerate(values):
        if value in values[:k]:
            raise ConfigError(f"{name} is to be {json.dumps(value)} twice; leave one of them out.")
    return Dimension(name, values)


def _parse_range(name: str, kind: type, text: str) -> Dimension:
    ends, *rest = text.split(":")
    low, _, high = ends.partition("..")
    log = rest[:1] == ["log"]
    number = rest[log:]
    count = int(number[0]) if len(number) == 1 and _is_count(number[0]) else 0
    if number and not 2 <= count <= MOST_RUNS:
        raise ConfigError(
            f"{name}: {shown(text)} is no range; write LOW..HIGH, LOW..HIGH:log or, for N values "
            f"of it, LOW..HIGH:N or LOW..HIGH:log:N, N from 2 to {MOST_RUNS}."
        )
    found = Dimension(name, (), _value(name, low), _value(name, high), log, kind is int)
    lowest, highest = bounds(RunConfig, name)
    if not found.low < found.high:
        raise ConfigError(f"{name} cannot go from {shown(found.low)} to {shown(found.high)}.")
    if lowest is not None and found.low < lowest:
        raise ConfigError(f"{name} cannot be less than {limit(lowest)}.")
    if highest is not None and found.high > highest:
        raise ConfigError(f"{name} cannot be more than {limit(highest)}.")
    if log and found.low <= 0:
        raise ConfigError(f"{name} goes from {shown(found.low)}; log needs a number above 0.")
    return Dimension(name, found.points(count)) if count else found


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_RUNS))


def _value(name: str, text: str) -> Any:
    return parse_settings([f"{name}={text}"])[name]


def _lists(name: str, text: str) -> list[str]:
    """The JSON lists of a text that are separated by commas."""
    try:
        return [json.dumps(each) for each in json.loads(f"[{text}]")]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} takes lists such as [32,48],[64,96].") from error


def combinations(
    dimensions: Sequence[Dimension], method: Method, count: int | None = None, seed: int = 0
) -> list[Combination]:
    """What to set in each run, all different. Raises ConfigError.

    `count`: how many; a grid has all, and none is given. `sobol` spreads them evenly: its points
    are scrambled by the seed, and best balanced where their number is a power of 2.
    """
    names = [dimension.name for dimension in dimensions]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} varies twice; leave one of them out.")
    if method == "grid":
        return _grid(dimensions, count)
    if count is None:
        raise ConfigError(f"Say how many runs {method} makes.")
    points = _random(len(names), seed) if method == "random" else _sobol(len(names), count, seed)
    return _different(dimensions, points, count)


def _grid(dimensions: Sequence[Dimension], count: int | None) -> list[Combination]:
    for dimension in dimensions:
        if not dimension.values:
            raise ConfigError(
                f"A grid needs values of {dimension.name}, or their number, as in "
                f"{dimension.low:g}..{dimension.high:g}{':log' if dimension.log else ''}:5."
            )
    total = math.prod(len(dimension.values) for dimension in dimensions)
    if count not in (None, total):
        raise ConfigError(f"This grid has {total:,} runs; the number of runs is not chosen.")
    if total > MOST_RUNS:
        raise ConfigError(f"This grid has {total:,} runs; a sweep has at most {MOST_RUNS}.")
    rows = itertools.product(*(dimension.values for dimension in dimensions))
    names = [dimension.name for dimension in dimensions]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _random(size: int, seed: int) -> Iterator[list[float]]:
    draw = random.Random(seed)
    while True:
        yield [draw.random() for _ in range(size)]


def _sobol(size: int, count: int, seed: int) -> Iterator[list[float]]:
    # It takes a while to import.
    import torch

    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
    while True:
        yield from engine.draw(count, dtype=torch.float64).tolist()


def _different(
    dimensions: Sequence[Dimension], points: Iterable[Sequence[float]], count: int
) -> list[Combination]:
    found: dict[str, Combination] = {}
    for point in itertools.islice(points, DRAWS * count):
        made = {each.name: each.at(share) for each, share in zip(dimensions, point, strict=True)}
        found.setdefault(json.dumps(made), made)
        if len(found) == count:
            return list(found.values())
    raise ConfigError(
        f"{count:,} runs are too many: only {len(found):,} different combinations were found."
    )


def setting_words(combination: Combination) -> str:
    """ "learning_rate=0.001, batch_size=16"."""
    values = (
        f"{name}={cut(value if isinstance(value, str) else json.dumps(value))}"
        for name, value in combination.items()
    )
    return ", ".join(values)
