"""The settings in which runs differ, as `--set` names them, with all defaults."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from diffusion_core.review.index import Value, settings_of
from diffusion_core.runs.config import FOLLOWING, NetworkArgs, RunConfig, ScheduleArgs
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.text import value_text

GROUPS = list(RunConfig.model_fields)
FOLLOWS = {f"network_args.{entry}" for entry in FOLLOWING}  # from other settings, or the data
ENTRIES = [*typing.get_type_hints(ScheduleArgs), *typing.get_type_hints(NetworkArgs)]


class Change(NamedTuple):
    """A setting of one run that was changed on the way."""

    step: int  # from which it holds
    value: Value


class Difference(NamedTuple):
    """A setting that is not the same in all of some runs; of each run an entry, in their order."""

    name: str
    values: tuple[Value | None, ...]  # at the start; None: the run has no such setting
    changes: tuple[tuple[Change, ...], ...]  # on the way, oldest first

    def texts(self) -> list[str]:
        """The values as text; "0.001, from step 120: 0.0001" where one was changed."""
        later = [change.value for changes in self.changes for change in changes]
        every = {*self.values, *later}
        # Six digits are not enough for all: 0.9999999.
        say = value_text if len({*map(value_text, every)}) == len(every) else str
        return [
            ", ".join([say(value), *(f"from step {step:,}: {say(each)}" for step, each in changes)])
            for value, changes in zip(self.values, self.changes, strict=True)
        ]


def settings_in(values: Mapping[str, Value]) -> dict[str, Value]:
    """The settings among the values of a row, without its results and those that follow from other
    settings; empty if they are not known."""
    if "preset" not in values:  # its status alone could be read, which has a number of steps
        return {}
    return {
        name: value
        for name, value in values.items()
        if name.partition(".")[0] in GROUPS and name not in FOLLOWS
    }


def differing(settings: Sequence[Mapping[str, Value]]) -> list[str]:
    """The names whose value is not the same in all of these settings, in the order of RunConfig.

    Empty ones, of runs whose settings are not known, do not count. An empty text is no value, as
    in a row of the index.
    """
    known = [each for each in settings if each]
    names = {name for each in known for name in each} - FOLLOWS
    return in_order(name for name in names if len({_of(each, name) for each in known}) > 1)


def _of(settings: Mapping[str, Value], name: str) -> Value | None:
    value = settings.get(name)
    return None if value == "" else value


def in_order(names: Iterable[str]) -> list[str]:
    """Names of settings in the order of RunConfig and of the entries that a setting has."""

    def place(name: str) -> tuple[int, int, str]:
        group, _, entry = name.partition(".")
        known = entry in ENTRIES
        return GROUPS.index(group), ENTRIES.index(entry) if known else len(ENTRIES), entry

    return sorted(names, key=place)


def differences(runs: Sequence[RunSnapshot]) -> list[Difference]:
    """The settings in which runs differ, at the start or by what was changed on the way."""
    known = [run.config is not None for run in runs]
    starts = [settings_of(run.start) if run.config and run.start else {} for run in runs]
    changes = [_changes_of(run) if run.config else {} for run in runs]
    names = {*differing(starts)}
    names |= {
        name
        for each in changes
        for name in each
        if len({of.get(name) for of, there in zip(changes, known, strict=True) if there}) > 1
    }
    return [
        Difference(
            name,
            tuple(start.get(name) for start in starts),
            tuple(each.get(name, ()) for each in changes),
        )
        for name in in_order(names)
    ]


def _changes_of(run: RunSnapshot) -> dict[str, tuple[Change, ...]]:
    """What was changed on the way, by the name of the setting."""
    found: dict[str, tuple[Change, ...]] = {}
    for change in run.changes:
        for name, value in change.settings.items():
            found[name] = (*found.get(name, ()), Change(change.step, value))
    return found
