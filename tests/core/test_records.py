"""The door: every kind of damage becomes one sentence that names the source and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from pydantic import Field
from pydantic_core.core_schema import ErrorType

from diffusion_core.records import (
    Record,
    RecordError,
    _sentence,
    bounds,
    read_record,
    read_record_file,
    record_of,
)


class Example(Record):
    count: Annotated[int, Field(ge=0, le=10)] = 0
    rate: float = 1.0
    name: Annotated[str, Field(max_length=5)] = ""
    flag: bool = False
    pair: tuple[int, int] = (0, 0)
    title: Annotated[str, Field(min_length=1)] = "a"
    widths: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "a.json is not readable JSON."),
        ("[1]", "a.json: it is a list; it must be an object."),
        ('{"count": 11}', "a.json: count is 11; it must be from 0 to 10."),
        ('{"count": true}', "a.json: count is true; it must be a whole number."),
        ('{"count": 1.0}', "a.json: count is 1.0; it must be a whole number."),
        ('{"count": "1"}', "a.json: count is '1'; it must be a whole number."),
        ('{"rate": NaN}', "a.json: rate is nan; it must be a finite number."),
        ('{"rate": 1e400}', "a.json: rate is inf; it must be a finite number."),
        ('{"rate": null}', "a.json: rate is null; it must be a number."),
        ('{"name": 3}', "a.json: name is 3; it must be text."),
        ('{"name": "abcdef"}', "a.json: name is 'abcdef'; it must be at most 5 characters long."),
        ('{"title": ""}', "a.json: title is empty; it needs a value."),
        ('{"widths": []}', "a.json: widths is empty; it needs a value."),
        ('{"flag": 1}', "a.json: flag is 1; it must be true or false."),
        ('{"pair": 3}', "a.json: pair is 3; it must be a list."),
        ('{"pair": [1, "x"]}', "a.json: pair.1 is 'x'; it must be a whole number."),
    ],
)
def test_damage_becomes_one_sentence(text: str, message: str) -> None:
    with pytest.raises(RecordError) as raised:
        read_record(Example, text, "a.json")
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "text",
    ["1" * 5000, '{"count": ' + "1" * 5000 + "}", "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000],
)
def test_huge_numbers_and_deep_nesting_are_refused_in_a_short_sentence(text: str) -> None:
    with pytest.raises(RecordError) as raised:
        read_record(Example, text, "a.json")
    assert str(raised.value).startswith("a.json") and len(str(raised.value)) < 120


def test_unknown_names_are_left_out_and_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_record(Example, '{"newer": 1, "pair": [1, 2]}', "a").pair == (1, 2)
    assert read_record_file(Example, tmp_path / "none.json") is None
    with pytest.raises(RecordError, match=r"cannot be read: Is a directory\."):
        read_record_file(Example, tmp_path)
    assert record_of(Example, {"count": 3}, "the link") == Example(count=3)
    with pytest.raises(RecordError, match="the link holds a value that JSON cannot"):
        record_of(Example, {"count": object()}, "the link")


def test_bounds_are_those_that_the_field_declares() -> None:
    assert bounds(Example, "count") == (0, 10)
    assert bounds(Example, "rate") == (None, None)


class Anything(dict[str, Any]):
    """Values for the message of any error."""

    def __missing__(self, name: str) -> int:
        return 2


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_no_error_is_said_in_the_words_of_pydantic(kind: Any) -> None:
    context: dict[str, Any] = {"expected": "'a' or 'b'", "error": "Ours."}
    context |= dict.fromkeys(("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length"), 2)
    found = {"type": kind, "loc": ("count",), "input": "x", "ctx": Anything(context)}
    said = _sentence(found, Example, "a.json", str)
    assert said.startswith("a.json") and said.endswith(".") and "must be ." not in said
    for words in ("should", "Input", "valid", "Value error", "{"):
        assert words not in said


def test_of_a_name_given_twice_the_last_value_counts() -> None:
    assert read_record(Example, '{"count": 99, "count": 3, "count": 4}', "a").count == 4
