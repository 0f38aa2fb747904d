"""Controls, each declared once: its widget, the values that it takes, the field that it sets.

A control's key is its name in the session state, in the page's address and in image files. The
widget, the link, the check of a restored value and the record's field all derive from the one
declaration.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import streamlit as st
from pydantic import BaseModel

from diffusion_core.records import bounds, shown

MOST_SHOWN = 2**53 - 1  # the largest whole number that a browser keeps exactly


def whole_bounds(record: type[BaseModel], field: str) -> tuple[int, int]:
    """The smallest and largest value of a record's field that a control can hold."""
    low, high = bounds(record, field)
    return int(low or 0), int(MOST_SHOWN if high is None else min(high, MOST_SHOWN))


@dataclass(frozen=True, kw_only=True)
class Control:
    """What all controls have in common.

    `field` names the field of the record that the control sets; empty for one of the page alone.
    `bind`: kept in the page's address.
    """

    key: str
    label: str
    default: Any = None
    field: str = ""
    help: str | None = None
    bind: bool = True

    def now(self, **changes: Any) -> Self:
        """The control as it is on this page at this moment, for example with other bounds."""
        return replace(self, **changes)

    def ask(self, **options: Any) -> Any:
        """Show the widget and return its value; `options` go to Streamlit as they are."""
        raise NotImplementedError

    def problem(self, value: Any) -> str:
        """Why a value from outside cannot be set here, as a sentence; empty where it can."""
        raise NotImplementedError

    def to_field(self, value: Any) -> Any:
        """The record's value for the widget's."""
        return value

    def of_field(self, value: Any) -> Any:
        """The widget's value for the record's."""
        return value

    @property
    def _common(self) -> dict[str, Any]:
        bound: dict[str, Any] = {"bind": "query-params"} if self.bind else {}
        return {"help": self.help, "key": self.key} | bound


@dataclass(frozen=True, kw_only=True)
class Number(Control):
    """A number from `low` to `high`; whole if these are."""

    low: float = 0
    high: float = 2**31 - 1
    step: float | None = None
    placeholder: str | None = None
    optional: bool = False  # whether it may be left empty; the value is then None
    slider: bool = False

    def ask(self, **options: Any) -> Any:
        if _link_is_infinite(self.key):
            options["bind"] = None
        if self.slider:
            return st.slider(
                self.label,
                self.low,
                self.high,
                self.default,
                step=self.step,
                **(self._common | options),
            )
        return st.number_input(
            self.label,
            min_value=self.low,
            max_value=self.high,
            value=self.default,
            step=self.step,
            placeholder=self.placeholder,
            format="%.5g" if isinstance(self.low, float) else None,
            **(self._common | options),
        )

    def problem(self, value: Any) -> str:
        if value is None and self.optional:
            return ""
        whole = self.whole
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = "a whole number" if whole else "a number"
            return f"{self.label} is {shown(value)}; it must be {wanted}."
        if not self.low <= value <= self.high:
            return f"{self.label} is {shown(value)}; it must be from {self.low:,} to {self.high:,}."
        return ""

    def of_field(self, value: Any) -> Any:
        return value if self.whole or value is None else float(value)

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True, kw_only=True)
class Range(Control):
    """Two whole numbers between `low` and `high`; the record holds None for the whole range."""

    low: int = 0
    high: int = 2**31 - 1

    def ask(self, **options: Any) -> tuple[int, int]:
        whole = (self.low, self.high)
        if _link_is_infinite(self.key):
            options["bind"] = None
        return st.slider(self.label, self.low, self.high, whole, **(self._common | options))

    def problem(self, value: Any) -> str:
        ends = list(value) if isinstance(value, (tuple, list)) else []
        whole = len(ends) == 2 and all(type(end) is int for end in ends)
        if whole and self.low <= ends[0] <= ends[1] <= self.high:
            return ""
        return (
            f"{self.label} must be two whole numbers from {self.low:,} to {self.high:,}, the "
            "smaller one first."
        )

    def to_field(self, value: tuple[int, int]) -> tuple[float, float] | None:
        return None if value == (self.low, self.high) else (float(value[0]), float(value[1]))

    def of_field(self, value: tuple[float, float] | None) -> tuple[float, float]:
        ends = value or (self.low, self.high)
        low, high = (int(end) if float(end).is_integer() else end for end in ends)
        return low, high


@dataclass(frozen=True, kw_only=True)
class Choice(Control):
    """One of a few options. `titles` are shown in their place; the option itself is the value.

    The page's address holds the titles, so those of a bound control must not change. `values`: the
    record's value of an option where it differs.
    """

    options: Collection[Any] = ()
    titles: Mapping[Any, str] | None = None
    values: Mapping[Any, Any] | None = None
    segmented: bool = False  # all options side by side

    def ask(self, **options: Any) -> Any:
        names = list(self.options)
        start = self.default if self.default in names else names[0]
        title = (self.titles or {}).get
        common = self._common | {"format_func": lambda name: str(title(name, name))} | options
        if self.segmented:
            common |= {"default": start, "required": True, "wrap": True}
            chosen = st.segmented_control(self.label, names, **common)
            return start if chosen is None else chosen  # None: a link with an empty value
        # A select box with a start cannot be empty; `required` would only be added to its label.
        return st.selectbox(self.label, names, index=names.index(start), **common)

    def to_field(self, value: str) -> Any:
        return (self.values or {}).get(value, value)

    def of_field(self, value: Any) -> Any:
        return next((name for name, own in (self.values or {}).items() if own == value), value)

    def problem(self, value: Any) -> str:
        if isinstance(value, str) and value in self.options:
            return ""
        return f"{self.label} is {shown(value)}; it must be one of {', '.join(self.options)}."


@dataclass(frozen=True, kw_only=True)
class Toggle(Control):
    """On or off."""

    default: bool = False

    def ask(self, **options: Any) -> bool:
        return st.toggle(self.label, self.default, **(self._common | options))

    def problem(self, value: Any) -> str:
        if isinstance(value, bool):
            return ""
        return f"{self.label} is {shown(value)}; it must be true or false."


@dataclass(frozen=True, kw_only=True)
class Text(Control):
    """A line of text."""

    default: str = ""
    longest: int = 255
    placeholder: str | None = None

    def ask(self, **options: Any) -> str:
        return st.text_input(
            self.label,
            self.default,
            max_chars=self.longest,
            placeholder=self.placeholder,
            **(self._common | options),
        )

    def problem(self, value: Any) -> str:
        if isinstance(value, str) and len(value) <= self.longest:
            return ""
        return f"{self.label} must be text of at most {self.longest} characters."


@dataclass(frozen=True, kw_only=True)
class MultiChoice(Control):
    """Some of a few options, at most `most`; `one` is the control of a single one of them.

    `typed`: other whole numbers within the bounds of `one` can be typed.
    """

    one: Control
    options: Sequence[Any] = ()
    most: int
    typed: bool = False

    def ask(self, **options: Any) -> list[Any]:
        """The values, of which typed ones are texts; see `numbers`."""
        return st.multiselect(
            self.label,
            self.options,
            wrap=True,
            accept_new_options=self.typed,
            **(self._common | options),
        )

    def problem(self, value: Any) -> str:
        """Values that are only unavailable now are no problem; see `kept`."""
        if not isinstance(value, list) or len(value) > self.most:
            return f"{self.label} must be a list of at most {self.most}."
        found = (replace(self.one, label=self.label).problem(each) for each in value)
        return next(filter(None, found), "")

    def kept(self, values: Sequence[Any]) -> list[Any]:
        """The values that can be chosen now, each once and as the options have it."""
        return [
            self.options[self.options.index(each)] if each in self.options else each
            for each in dict.fromkeys(values)
            if each in self.options or (self.typed and not self.one.problem(each))
        ]

    def numbers(self, values: Sequence[Any]) -> list[int] | None:
        """Chosen and typed values as whole numbers, each once; None if one is no such number."""
        texts = [str(each).strip() for each in values]
        # Texts of so few digits that `int` takes them.
        if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in texts):
            return None
        numbers = list(dict.fromkeys(int(text) for text in texts))
        return None if any(map(self.one.problem, numbers)) else numbers


def _link_is_infinite(key: str) -> bool:
    """Streamlit leaves out every wrong value in a link, but fails on "inf" and "1e999"."""
    try:
        return any(math.isinf(float(text)) for text in st.query_params.get_all(key))
    except ValueError:
        return False
