"""Which image belongs in each cell of a grid whose rows and columns are runs, steps, samplers, …

An axis is RUN, STEP, SAMPLER, STEPS, GUIDANCE, or SETTING and the name of a setting in which the
runs differ. What is no axis has one value for all cells. All cells start from the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from diffusion_core.review.differences import differing
from diffusion_core.review.index import Value
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.sampling.capabilities import EACH_IN_TURN, Capabilities
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.text import cut, value_text

RUN, STEP, SAMPLER, STEPS, GUIDANCE = "run", "step", "sampler", "steps", "guidance"
SETTING = "setting."  # before the name of a setting
USUAL = "usual"  # of the samplers: that of each model


class Source(NamedTuple):
    """A run as a grid needs it."""

    name: str
    steps: tuple[int, ...]  # of which it has images or weights, rising
    settings: Mapping[str, Value]


class Axis(NamedTuple):
    name: str
    values: Sequence[Any]


class Cell(NamedTuple):
    """One place of a grid."""

    values: Mapping[str, Any]  # of all but the settings; those of a run and step that there are
    problem: str = ""  # why nothing can be there, as a sentence
    note: str = ""  # how it differs from what its row, its column and the other values say


def setting_values(sources: Sequence[Source], name: str) -> list[Value | None]:
    """The values that a setting has in the runs, numbers first and rising; None: a run has none."""
    found = dict.fromkeys(source.settings.get(name) for source in sources)

    def place(value: Value | None) -> tuple[int, float, str]:
        if isinstance(value, (int, float)):
            return 0, value, value_text(value)
        return 1, 0.0, value_text(value)

    return sorted(found, key=place)


def make_cells(
    sources: Sequence[Source], rows: Axis, columns: Axis, rest: Mapping[str, Any]
) -> list[list[Cell]]:
    """The cells, row by row.

    `rest`: the values of what is no axis. Its run is the one that others are compared with: where
    several runs have the values of a cell, it shows the one that differs least from that. Its step
    is the last that may be shown: of each run the newest until then.
    """
    return [
        [_cell(sources, {rows.name: row, columns.name: column}, rest) for column in columns.values]
        for row in rows.values
    ]


def nearest_source(
    sources: Sequence[Source], wanted: Mapping[str, Value | None], asked: Source
) -> Source | None:
    """Of the runs with these values of settings the one that otherwise differs least from one."""
    there = [source for source in sources if not _unlike(source, wanted)]
    return min(there, key=lambda source: len(_others(source, asked, wanted)), default=None)


def _cell(sources: Sequence[Source], own: Mapping[str, Any], rest: Mapping[str, Any]) -> Cell:
    wanted = {name.removeprefix(SETTING): value for name, value in own.items() if _is_setting(name)}
    values = {**rest, **own}
    values = {name: value for name, value in values.items() if not _is_setting(name)}
    asked = next(source for source in sources if source.name == values[RUN])
    if RUN in own:
        if unlike := _unlike(asked, wanted):
            name = unlike[0]
            other = value_text(asked.settings.get(name))
            return Cell(values, f"{cut(asked.name)} has {name} {cut(other)}.")
        run = asked
    elif (found := nearest_source(sources, wanted, asked)) is not None:
        run = found
    else:
        words = [f"{name} {cut(value_text(value))}" for name, value in wanted.items()]
        return Cell(values, f"No chosen run has {' and '.join(words)}.")
    values[RUN] = run.name
    if STEP in own:
        if own[STEP] not in run.steps:
            return Cell(values, f"Nothing at step {own[STEP]:,}.")
    else:
        before = [step for step in run.steps if step <= values[STEP]]
        if not before:
            return Cell(values, f"Nothing at step {values[STEP]:,} or before.")
        values[STEP] = before[-1]
    return Cell(values, note="; ".join(_notes(run, asked, wanted, values[STEP], own, rest)))


def _is_setting(name: str) -> bool:
    return name.startswith(SETTING)


def _unlike(source: Source, wanted: Mapping[str, Value | None]) -> list[str]:
    """The settings of which a run has another value than it should."""
    return [name for name, value in wanted.items() if source.settings.get(name) != value]


def _others(source: Source, asked: Source, wanted: Mapping[str, Value | None]) -> list[str]:
    """The settings in which two runs differ beside those that they should differ in."""
    return [name for name in differing([source.settings, asked.settings]) if name not in wanted]


def _notes(
    run: Source,
    asked: Source,
    wanted: Mapping[str, Value | None],
    step: int,
    own: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> Iterator[str]:
    if wanted and RUN not in own:
        yield cut(run.name)
        if others := _others(run, asked, wanted):
            which = ", ".join(others) if len(others) < 3 else f"{len(others)} settings"
            yield f"also differs in {which}"
    if STEP not in own and step != rest[STEP]:
        yield f"step {step:,}"


def spec_of(
    cell: Cell, checkpoint: Checkpoint, can: Capabilities, *, n: int, seed: int
) -> SamplingSpec:
    """What to sample for a cell: the first `n` images of a seed, each class in turn.

    It may have `problems`.
    """
    values = cell.values
    sampler = can.samplers[0] if values[SAMPLER] == USUAL else values[SAMPLER]
    return SamplingSpec(
        run=values[RUN],
        step=checkpoint.step,
        n=n,
        sampler=sampler,
        steps=values[STEPS],
        seed=seed,
        classes=can.classes,
        label=EACH_IN_TURN if can.classes else "",
        guidance_scale=values[GUIDANCE],
        flow=can.flow,
        **can.spaced(sampler, values[STEPS]),
    )
