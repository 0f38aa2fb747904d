"""Controls, each declared once: its widget, the values that it takes, the field that it sets.

A control's key is its name in the session state, in the page's address and in image files. The
widget, the link, the check of a restored value and the record's field all derive from the one
declaration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import streamlit as st
from pydantic import BaseModel
from streamlit.errors import StreamlitAPIException

from dashboard.ui import keys
from dashboard.ui.outside import plain
from diffusion_core.records import bounds
from diffusion_core.text import has_control_characters, limit, shown, some

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
LONGEST_NUMBER = 40  # characters; none that a page writes has as many
LONGEST_PATH = 4096
MOST_SHOWN = 2**53 - 1  # the largest whole number that a browser keeps exactly


def whole_bounds(record: type[BaseModel], field: str) -> tuple[int, int]:
    """The smallest and largest value of a record's field that a control can hold."""
    low, high = bounds(record, field)
    return int(low or 0), int(MOST_SHOWN if high is None else min(high, MOST_SHOWN))


@dataclass(frozen=True, kw_only=True)
class Control:
    """What all controls have in common.

    `field` names the field of the record that the control sets; empty for one of the page alone.
    `bind`: kept in the page's address. `follows`: the default depends on other controls; a value
    that is the default changes with it, any other one can be reset.
    """

    key: str
    label: str
    default: Any = None
    field: str = ""
    help: str | None = None
    bind: bool = True
    follows: bool = False

    def now(self, **changes: Any) -> Self:
        """The control as it is on this page at this moment, for example with other bounds."""
        return replace(self, **changes)

    def ask(self, **options: Any) -> Any:
        """Show the widget and return its value; `options` go to Streamlit as they are."""
        self.check_link()
        if not self.follows:
            return self._show(options)
        self._follow()
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            value = self._show(options)
            if value != self.default:
                st.button(
                    "Reset to default",
                    key=f"reset-{self.key}",
                    type="tertiary",
                    on_click=st.session_state.update,
                    args=({self.key: self.default},),
                )
        return value

    def _follow(self) -> None:
        """Set the value to the default if it is the one that was shown before."""
        shown_before = st.session_state.setdefault(keys.DEFAULTS, {})
        known = self.key in shown_before and self.key in st.session_state
        if known and st.session_state[self.key] == shown_before[self.key] != self.default:
            st.session_state[self.key] = self.default
        shown_before[self.key] = self.default

    def _show(self, options: dict[str, Any]) -> Any:
        """The widget and its value."""
        raise NotImplementedError

    def check_link(self) -> None:
        """Leave what the address says of this control out of it where that cannot be set, say so
        on the page, and rerun it."""
        texts = st.query_params.get_all(self.key) if self.bind else []
        problem = self.link_problem(texts) if texts else ""
        if not problem:
            return
        try:
            del st.query_params[self.key]
        except StreamlitAPIException:  # the widget's own value, whose bounds have changed
            return
        st.session_state.setdefault(keys.LEFT_OUT, []).append(problem)
        st.rerun()

    def link_problem(self, texts: list[str]) -> str:
        """Why the texts of a link cannot be set here, as a sentence; empty where they can."""
        if len(texts) > 1:
            return f"{self.label} is given {len(texts):,} times."
        return self.problem(self.of_text(texts[0]))

    def of_text(self, text: str) -> Any:
        """The value that a text of a link stands for; the text itself where it is none."""
        return text

    def of_link(self, texts: Sequence[str]) -> Any:
        """The value that the texts of a link stand for, which must be no problem."""
        return self.of_text(texts[0])

    def to_link(self, value: Any) -> list[str]:
        """The texts of a link that stand for a value."""
        return ["" if value is None else str(value)]

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

    def _show(self, options: dict[str, Any]) -> Any:
        if link_is_infinite(self.key):
            options["bind"] = None
        value = self._show_widget(options)
        return None if value is None else value + 0  # a link may say -0.0

    def _show_widget(self, options: dict[str, Any]) -> Any:
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
        kinds = int if self.whole else (int, float)
        number = isinstance(value, kinds) and not isinstance(value, bool)
        if number and self.low <= value <= self.high:
            return ""
        wanted = "" if number else "a whole number " if self.whole else "a number "
        limits = f"from {limit(self.low)} to {limit(self.high)}"
        # A link's 100 is 100.0 where fractions can be set.
        given = int(value) if isinstance(value, float) and value.is_integer() else value
        return f"{self.label} is {shown(given)}; it must be {wanted}{limits}."

    def of_text(self, text: str) -> Any:
        return None if text == "" and self.optional else number_of(text, whole=self.whole)

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

    def _show(self, options: dict[str, Any]) -> tuple[int, int]:
        whole = (self.low, self.high)
        if link_is_infinite(self.key):
            options["bind"] = None
        return st.slider(self.label, self.low, self.high, whole, **(self._common | options))

    def problem(self, value: Any) -> str:
        ends = list(value) if isinstance(value, (tuple, list)) else []
        whole = len(ends) == 2 and all(type(end) is int for end in ends)
        if whole and self.low <= ends[0] <= ends[1] <= self.high:
            return ""
        given = " and ".join(map(shown, ends[:2])) or shown(value)
        return (
            f"{self.label} is {given}; it must be two whole numbers from {self.low:,} to "
            f"{self.high:,}, the smaller one first."
        )

    def link_problem(self, texts: list[str]) -> str:
        return self.problem([number_of(text, whole=True) for text in texts])

    def of_link(self, texts: Sequence[str]) -> Any:
        return tuple(number_of(text, whole=True) for text in texts)

    def to_link(self, value: tuple[int, int]) -> list[str]:
        return [str(end) for end in value]

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
    slider: bool = False  # the options in their order, at least two of them
    typed: bool = False  # whether another text can be typed

    def _show(self, options: dict[str, Any]) -> Any:
        names = list(self.options)
        start = self.default if self.default in names else names[0]
        common = self._common | {"format_func": self.title_of} | options
        if self.slider:
            if self.key in st.session_state and st.session_state[self.key] not in names:
                st.session_state[self.key] = start
            # Streamlit warns of a value beside one in the state.
            at = None if self.key in st.session_state else start
            return st.select_slider(self.label, names, at, **common)
        if self.segmented:
            common = {"wrap": True} | common | {"default": start, "required": True}
            chosen = st.segmented_control(self.label, names, **common)
            return start if chosen is None else chosen  # None: a link with an empty value
        # A select box with a start cannot be empty; `required` would only be added to its label.
        common["accept_new_options"] = self.typed
        return st.selectbox(self.label, names, index=names.index(start), **common)

    def of_text(self, text: str) -> Any:
        return next((name for name in self.options if self.title_of(name) == text), text)

    def to_link(self, value: Any) -> list[str]:
        return [self.title_of(value)]

    def title_of(self, name: Any) -> str:
        """What the widget and the address call an option; side by side they are Markdown."""
        title = str((self.titles or {}).get(name, name))
        return plain(title) if self.segmented else title

    def to_field(self, value: str) -> Any:
        return (self.values or {}).get(value, value)

    def of_field(self, value: Any) -> Any:
        return next((name for name, own in (self.values or {}).items() if own == value), value)

    def problem(self, value: Any) -> str:
        if self.typed and value not in self.options:
            return Text(key=self.key, label=self.label, longest=LONGEST_PATH).problem(value)
        if any(type(value) is type(name) and value == name for name in self.options):
            return ""
        there = some([self.title_of(name) for name in self.options])
        return f"{self.label} is {shown(value)}; it must be one of {there}."


@dataclass(frozen=True, kw_only=True)
class Toggle(Control):
    """On or off."""

    default: bool = False

    def of_text(self, text: str) -> Any:
        return {"true": True, "false": False}.get(text.lower(), text)

    def to_link(self, value: bool) -> list[str]:
        return [str(value).lower()]

    def _show(self, options: dict[str, Any]) -> bool:
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

    def _show(self, options: dict[str, Any]) -> str:
        return st.text_input(
            self.label,
            self.default,
            max_chars=self.longest,
            placeholder=self.placeholder,
            **(self._common | options),
        )

    def problem(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.longest:
            return f"{self.label} must be text of at most {self.longest:,} characters."
        if has_control_characters(value):
            return f"{self.label} must be text without line breaks and control characters."
        return ""


@dataclass(frozen=True, kw_only=True)
class MultiChoice(Control):
    """Some of a few options, at most `most`; `one` is the control of a single one of them.

    `typed`: other whole numbers within the bounds of `one` can be typed.
    """

    one: Control
    options: Sequence[Any] = ()
    default: Sequence[Any] = ()
    most: int
    typed: bool = False
    pills: bool = False  # all options side by side

    def _show(self, options: dict[str, Any]) -> list[Any]:
        """The values, of which typed ones are texts; see `numbers`."""
        if self.pills:
            return st.pills(
                self.label,
                self.options,
                selection_mode="multi",
                default=list(self.default),
                **(self._common | options),
            )
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

    def link_problem(self, texts: list[str]) -> str:
        """Each text must be an option or, where others can be typed, one that can. The page says
        where they are too many."""
        one = Choice(key=self.key, label=self.label, options=self.options)
        other = replace(self.one, label=self.label) if self.typed else one
        wrong = [text for text in texts if text and one.link_problem([text])]
        return next(filter(None, (other.link_problem([text]) for text in wrong)), "")

    def of_link(self, texts: Sequence[str]) -> Any:
        named = {str(option): option for option in self.options}
        return [named.get(text, text) for text in texts if text]

    def to_link(self, value: Sequence[Any]) -> list[str]:
        return [str(each) for each in value]

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


def number_of(text: str, *, whole: bool) -> Any:
    """The number that a text writes; the text itself where it writes none."""
    if len(text) > LONGEST_NUMBER or not NUMBER.fullmatch(text):
        return text
    value = float(text)
    return int(value) if whole and value.is_integer() else value


def link_is_infinite(key: str) -> bool:
    """Whether Streamlit would fail on the link of a number, as it does on "inf" and "1e999".

    Only where the visitor goes back to an earlier address: any other has been checked.
    """
    try:
        return any(math.isinf(float(text)) for text in st.query_params.get_all(key))
    except ValueError:
        return False
