"""Which runs, in which order: filters such as `batch_size >= 64 and state = finished`.

A filter is a condition, NAME SIGN VALUE, or several joined by `and`, `or`, `not` and parentheses.
NAME is a setting as `--set` names it, or one of RESULTS or `quality.METRIC`. VALUE is a word, or a
text in quotation marks; `none` means that the run has no such value.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
import time
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.review.index import QUALITY, Row, Value
from diffusion_core.runs.config import ConfigError, RunConfig, setting_type
from diffusion_core.runs.remarks import DECISIONS
from diffusion_core.runs.status import RunState
from diffusion_core.text import cut, some

LONGEST = 2000  # characters of a filter
DEEPEST = 30  # parentheses and nots inside each other

LATEST = 10**11  # a time in seconds since 1970

Filter = Callable[[Mapping[str, Value]], bool]
Comparable = float | str


class FilterError(ConfigError):
    """A filter, or a name to sort or group by, that cannot be used; one sentence."""


class Kind(StrEnum):
    """What the values of a name are, as a message says it."""

    NUMBER = "a number"
    TEXT = "text"
    LIST = "a list"  # kept as text: "64, 96, 160"
    TAGS = "a list of tags"  # kept as text: "good, for the talk"
    TRUTH = "true or false"
    TIME = "a date"


# The results of a run that can be asked for, beside `quality.METRIC` and the settings.
RESULTS: dict[str, Kind] = {
    "name": Kind.TEXT,
    "state": Kind.TEXT,
    "step": Kind.NUMBER,
    "images": Kind.NUMBER,  # seen in training
    "hours": Kind.NUMBER,  # of training, without pauses
    "energy_kwh": Kind.NUMBER,  # of all steps; of few machines
    "latest_loss": Kind.NUMBER,
    "validation_loss": Kind.NUMBER,  # the latest
    "best_validation_loss": Kind.NUMBER,
    "best_step": Kind.NUMBER,  # that of the lowest validation loss
    "images_per_second": Kind.NUMBER,
    "parameters": Kind.NUMBER,
    "created": Kind.TIME,
    "updated": Kind.TIME,  # the last sign of life
    "device": Kind.TEXT,
    "creator": Kind.TEXT,
    "tags": Kind.TAGS,
    "stars": Kind.NUMBER,  # people who gave the run one
    "decision": Kind.TEXT,  # the last one
}

SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "~": operator.contains,
}
SPELLINGS = {"==": "=", "≠": "!=", "≤": "<=", "≥": ">="}
NUMERIC = ("=", "!=", "<", "<=", ">", ">=")
SIGNS_OF: dict[Kind, Sequence[str]] = {
    Kind.NUMBER: NUMERIC,
    Kind.TIME: NUMERIC,
    Kind.TEXT: ("=", "!=", "~"),
    Kind.LIST: ("=", "!=", "~"),
    Kind.TAGS: ("=", "!=", "~"),  # = is: has this tag
    Kind.TRUTH: ("=", "!="),
}
DATE = re.compile(r"\d{4}(-\d\d(-\d\d([ T]\d\d:\d\d)?)?)?", re.ASCII)
TOKEN = re.compile(
    r"""\s*(?: "(?P<double>[^"]*)" | '(?P<single>[^']*)' | “(?P<curly>[^”]*)”
    | (?P<sign> [<>!=]= | [=<>~≥≤≠] ) | (?P<bracket> [()] )
    | (?P<word> [^\s()"'“=<>~≥≤≠!]+ ) | (?P<odd> . ) )""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    kind: str  # word, quoted, sign or bracket
    text: str

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.lower() in words


def kind_of(name: str) -> Kind:
    """What the values of a setting or result are. Raises FilterError for an unknown name."""
    if name in RESULTS:
        return RESULTS[name]
    group, dot, entry = name.partition(".")
    if dot and group == QUALITY:
        if entry not in METRICS:
            raise FilterError(f"There is no metric called {cut(entry)}; use {', '.join(METRICS)}.")
        return Kind.NUMBER
    hint = _hint(name)
    if typing.get_origin(hint) is Literal:
        hint = type(typing.get_args(hint)[0])
    kinds = {bool: Kind.TRUTH, int: Kind.NUMBER, float: Kind.NUMBER, str: Kind.TEXT}
    if typing.get_origin(hint) is list:
        return Kind.LIST
    if hint not in kinds:
        raise FilterError(
            f"{cut(name)} has several entries; name one of them, as in schedule.kind."
        )
    return kinds[hint]


def _hint(name: str) -> Any:
    """The type of a setting."""
    group, dot, _ = name.partition(".")
    try:
        return setting_type(name)
    except ConfigError as error:
        if dot and group in RunConfig.model_fields:
            raise FilterError(str(error)) from error
    near = difflib.get_close_matches(name, [*RESULTS, *RunConfig.model_fields, QUALITY], 1)
    known = f"use a setting of --set, quality.METRIC, or {', '.join(RESULTS)}."
    there = f"did you mean {near[0]}?" if near else known
    raise FilterError(f"There is no setting or result called {cut(name)}; {there}")


def parse_filter(text: str) -> Filter:
    """The filter that a text says, as a function of the values of a run.

    An empty text holds for every run. Raises FilterError.
    """
    if len(text) > LONGEST:
        raise FilterError(f"The filter has {len(text):,} characters; use at most {LONGEST:,}.")
    tokens = deque(_tokens(text.strip()))
    if not tokens:
        return lambda values: True
    found = _any_of(tokens, 0)
    if tokens:
        if tokens[0] == (closing := Token("bracket", ")")):
            raise FilterError(f"A {closing.text} has no ( before it.")
        raise FilterError(f"Write and or or before {cut(tokens[0].text)}.")
    return found


def _tokens(text: str) -> Iterator[Token]:
    for found in TOKEN.finditer(text):
        kind, word = str(found.lastgroup), str(found[str(found.lastgroup)])
        if kind == "odd":
            if word == "!":
                raise FilterError(f"! is no comparison; use {', '.join(SIGNS)}.")
            raise FilterError(f"A quotation mark ({word}) is not closed.")
        if kind in ("double", "single", "curly"):
            kind = "quoted"
        yield Token(kind, SPELLINGS.get(word, word) if kind == "sign" else word)


def _any_of(tokens: deque[Token], depth: int) -> Filter:
    parts = _joined(tokens, "or", lambda: _all_of(tokens, depth))
    return lambda values: any(part(values) for part in parts)


def _all_of(tokens: deque[Token], depth: int) -> Filter:
    parts = _joined(tokens, "and", lambda: _one(tokens, depth))
    return lambda values: all(part(values) for part in parts)


def _joined(tokens: deque[Token], word: str, read: Callable[[], Filter]) -> list[Filter]:
    parts = [read()]
    while tokens and tokens[0].is_word(word):
        tokens.popleft()
        parts.append(read())
    return parts


def _one(tokens: deque[Token], depth: int) -> Filter:
    """A condition, a negated one, or a filter in parentheses."""
    if depth > DEEPEST:
        raise FilterError(f"The filter has more than {DEEPEST} parentheses inside each other.")
    if not tokens:
        raise FilterError("The filter is not complete; a condition is, for example, step > 100.")
    token = tokens.popleft()
    if token.is_word("not"):
        inner = _one(tokens, depth + 1)
        return lambda values: not inner(values)
    if token == ("bracket", "("):
        inside = _any_of(tokens, depth + 1)
        if not tokens:
            raise FilterError("A ( is not closed.")
        if (end := tokens.popleft()) != ("bracket", ")"):
            raise FilterError(f"Write and or or before {cut(end.text)}.")
        return inside
    if token.kind != "word" or token.is_word("and", "or"):
        raise FilterError(
            f"A condition cannot begin with {cut(token.text) or 'an empty text'}; write, for "
            "example, step > 100."
        )
    return _condition(token.text, tokens)


def _condition(name: str, tokens: deque[Token]) -> Filter:
    kind, said = kind_of(name), cut(name)  # that of an average may be anything
    allowed = SIGNS_OF[kind]
    if not tokens or tokens[0].kind != "sign":
        raise FilterError(f"{said} needs a comparison after it: {', '.join(allowed)}.")
    sign = tokens.popleft().text
    if sign not in allowed:
        raise FilterError(f"{said} is {kind}; compare it with {', '.join(allowed)}, not {sign}.")
    if not tokens or tokens[0].kind not in ("word", "quoted") or tokens[0].is_word("and", "or"):
        raise FilterError(f"{said} {sign} needs a value after it; write texts in quotation marks.")
    token = tokens.popleft()
    if token.is_word("none"):
        if sign not in ("=", "!="):
            raise FilterError(f"{said} can be = none or != none, not {sign} none.")
        return lambda values: (comparable(kind, values.get(name)) is None) == (sign == "=")
    wanted, compare = _wanted(name, kind, token.text, sign), SIGNS[sign]

    def holds(values: Mapping[str, Value]) -> bool:
        found = comparable(kind, values.get(name))
        if found is None:
            return False
        # Of a time as much is compared as was written: 2026-11 is the whole month.
        if kind is Kind.TIME and isinstance(found, str) and isinstance(wanted, str):
            found = found[: len(wanted)]
        if kind is Kind.TAGS and isinstance(found, str) and sign != "~":
            return (wanted in found.split(", ")) == (sign == "=")
        return compare(found, wanted)

    return holds


def _wanted(name: str, kind: Kind, text: str, sign: str) -> Comparable:
    """A value as it is compared. Raises FilterError."""
    said = cut(name)
    refused = FilterError(f"{said} is {kind}, which {cut(text) or 'an empty text'} is not.")
    if kind is Kind.NUMBER:
        try:
            number = float(text)
        except ValueError:
            raise refused from None
        if not math.isfinite(number):
            raise refused
        return number
    if kind is Kind.TIME:
        if not DATE.fullmatch(text):
            raise FilterError(f"{said} is a date such as 2026-11-28, which {cut(text)} is not.")
        return text.replace("T", " ")
    if kind is Kind.TRUTH:
        if text.lower() not in ("true", "false"):
            raise refused
        return text.lower() == "true"
    if kind is Kind.LIST:
        text = ", ".join(re.findall(r"[^\s,\[\]]+", text))
    choices = _choices(name)
    if sign != "~" and choices and text.casefold() not in choices:
        raise FilterError(f"{said} is never {cut(text)}; it is one of {some(choices)}.")
    return text.casefold()


def _choices(name: str) -> Sequence[str]:
    """The texts that a setting or result can have; empty where it can have any."""
    known: dict[str, Iterable[str]] = {
        "state": RunState,
        "loss": LOSSES,
        "prediction_type": PREDICTION_TYPES,
        "decision": DECISIONS,
    }
    if name in known:
        return list(known[name])
    hint = None if name in RESULTS else _hint(name)
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def comparable(kind: Kind, value: Value | None) -> Comparable | None:
    """A value as it is compared and sorted; None where it is missing or of another kind.

    A time is written in local time, as filters write it.
    """
    if kind is Kind.TRUTH:
        return value if isinstance(value, bool) else None
    if kind in (Kind.TEXT, Kind.LIST, Kind.TAGS):
        return value.casefold() if isinstance(value, str) else None
    if isinstance(value, (bool, str)) or value is None:
        return None
    if kind is Kind.NUMBER:
        return value
    if not 0 < value <= LATEST:
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))


def sort_rows(rows: Sequence[Row], name: str, reverse: bool = False) -> list[Row]:
    """Sorted by a setting or result; runs without it last. Raises FilterError."""
    kind = kind_of(name)
    there: list[tuple[Any, Row]] = []
    missing = []
    for row in rows:
        value = comparable(kind, row.values.get(name))
        if value is None:
            missing.append(row)
        else:
            there.append((value, row))
    there.sort(key=lambda pair: pair[0], reverse=reverse)
    return [row for _, row in there] + missing


def group_rows(rows: Sequence[Row], name: str) -> dict[Value | None, list[Row]]:
    """The rows by their value of a setting or result, None for those without, in order of values.

    The order of the rows stays. Raises FilterError.
    """
    groups: dict[Value | None, list[Row]] = {}
    for row in sort_rows(rows, name):
        groups.setdefault(row.values.get(name), []).append(row)
    return groups
