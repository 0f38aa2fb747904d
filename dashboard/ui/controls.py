"""Controls, each declared once: how it is asked, what it may hold, and which field it sets.

A control's key is its name in the session state, in the page's address and in image files. The
widget, the link, the check of a restored value and the record's field all derive from the one
declaration.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import streamlit as st

from diffusion_core.records import shown


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

    @property
    def _common(self) -> dict[str, Any]:
        bound: dict[str, Any] = {"bind": "query-params"} if self.bind else {}
        return {"help": self.help, "key": self.key} | bound


@dataclass(frozen=True, kw_only=True)
class Number(Control):
    """A number from `low` to `high`; whole where these are. None may stand for "by default"."""

    low: float = 0
    high: float = 2**31 - 1
    step: float | None = None
    placeholder: str | None = None
    optional: bool = False  # whether it may be left empty
    slider: bool = False

    def ask(self, **options: Any) -> Any:
        if self._link_is_infinite():
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

    def _link_is_infinite(self) -> bool:
        """Streamlit leaves out every wrong value in a link, but fails on "inf" and "1e999"."""
        try:
            return math.isinf(float(st.query_params.get(self.key, "")))
        except ValueError:
            return False

    def problem(self, value: Any) -> str:
        if value is None and self.optional:
            return ""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = "a whole number" if whole else "a number"
            return f"{self.label} is {shown(value)}; it must be {wanted}."
        if not self.low <= value <= self.high:
            return f"{self.label} is {shown(value)}; it must be from {self.low:,} to {self.high:,}."
        return ""


@dataclass(frozen=True, kw_only=True)
class Choice(Control):
    """One of a few options. `titles` are shown in their place, the option itself is the value."""

    options: Collection[Any] = ()
    titles: Mapping[Any, str] | None = None
    segmented: bool = False  # all options side by side

    def ask(self, **options: Any) -> Any:
        names = list(self.options)
        start = self.default if self.default in names else names[0]
        title = (self.titles or {}).get
        common = self._common | {"format_func": lambda name: title(name, name)} | options
        if self.segmented:
            return st.segmented_control(self.label, names, default=start, required=True, **common)
        return st.selectbox(self.label, names, index=names.index(start), **common)

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
