"""The door: what comes from outside becomes a checked record here, or one sentence.

Files, image metadata, archives, addresses and environment are validated once, by pydantic models
that derive from `Record`, and believed afterwards. `read_record` is the only place that turns
pydantic's and json's errors into our sentences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

MAX_BYTES = 4 * 2**20  # of one record; the largest that the project writes is far smaller
MAX_SHOWN = 40  # characters of a value that a sentence quotes


class RecordError(ValueError):
    """A record that cannot be used; the message names the file and the field."""


class Record(BaseModel):
    """An immutable record from outside: strict types, finite numbers, unknown names left out."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, allow_inf_nan=False, str_max_length=65_536
    )


class LenientRecord(Record):
    """A record whose fields count one by one: one that cannot be used has its default value.

    Here JSON has become Python already, so a field that is a tuple or an enum needs `strict=False`.
    """

    @field_validator("*", mode="wrap")
    @classmethod
    def _value_or_default(
        cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return validate(value)
        except ValueError:
            assert info.field_name is not None
            return cls.model_fields[info.field_name].get_default(call_default_factory=True)


Kind = TypeVar("Kind", bound=BaseModel)


def read_record(kind: type[Kind], data: bytes | str, source: str) -> Kind:
    """The record in a JSON text; `source` names it in messages, for example "config.json".

    Raises RecordError with one sentence for text that is not JSON, wrong types, numbers out of
    bounds, NaN, infinity, whole numbers of thousands of digits, and nesting that is too deep.
    """
    if len(data) > MAX_BYTES:
        raise RecordError(f"{source} is larger than {MAX_BYTES // 2**20} MB.")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(sentence(error, source)) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{source} is not readable JSON.") from error


def read_record_file(kind: type[Kind], path: Path) -> Kind | None:
    """The record in a JSON file; None where there is no file. Raises RecordError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path.name} cannot be read: {error.strerror}.") from error
    return read_record(kind, data, path.name)


def record_of(kind: type[Kind], values: Any, source: str) -> Kind:
    """The record of values that are already in memory, checked as `read_record` checks a text."""
    try:
        return read_record(kind, json.dumps(values), source)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{source} holds a value that JSON cannot.") from error


def bounds(kind: type[BaseModel], field: str) -> tuple[float | None, float | None]:
    """The smallest and largest value that a field's own constraints `ge` and `le` allow."""
    low = high = None
    for rule in kind.model_fields[field].metadata:
        low = getattr(rule, "ge", low)
        high = getattr(rule, "le", high)
    return low, high


def sentence(error: ValidationError, source: str) -> str:
    """The first thing that pydantic found, as "config.json: batch_size is 0; it must be …"."""
    found = error.errors(include_url=False, include_context=True)[0]
    field = ".".join(str(part) for part in found["loc"])
    kind, context = found["type"], found.get("ctx", {})
    if kind == "json_invalid":
        return f"{source} is not readable JSON."
    if kind == "missing":
        return f"{source}: {field} is missing."
    if kind == "value_error":  # raised by a validator of ours, which says it all
        text = str(context["error"])
        return f"{source}: {text}" if source else text
    wanted = _wanted(kind, context) or found["msg"]
    what = f"{field} is {shown(found['input'])}" if field else f"it is {shown(found['input'])}"
    return f"{source}: {what}; it must be {wanted}."


def shown(value: object) -> str:
    """A value as a message quotes it: cut short, and never a whole file."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else _short(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _short(value: object) -> str:
    return "an object" if isinstance(value, dict) else "a list"


def _wanted(kind: str, context: dict[str, Any]) -> str:
    """What pydantic's error type asks for, in plain words; empty where it is not known."""
    if kind.startswith("int"):
        return "a whole number"
    if kind.startswith("float"):
        return "a number"
    return {
        "finite_number": lambda: "a finite number",
        "greater_than": lambda: f"more than {context['gt']:,}",
        "greater_than_equal": lambda: f"at least {context['ge']:,}",
        "less_than": lambda: f"less than {context['lt']:,}",
        "less_than_equal": lambda: f"at most {context['le']:,}",
        "multiple_of": lambda: f"a multiple of {context['multiple_of']}",
        "bool_type": lambda: "true or false",
        "string_type": lambda: "text",
        "string_too_long": lambda: f"at most {context['max_length']:,} characters long",
        "string_too_short": lambda: f"at least {context['min_length']:,} characters long",
        "string_pattern_mismatch": lambda: "a name of letters, digits, '.', '_' and '-'",
        "literal_error": lambda: str(context["expected"]),
        "enum": lambda: str(context["expected"]),
        "dict_type": lambda: "an object",
        "model_type": lambda: "an object",
        "model_attributes_type": lambda: "an object",
        "list_type": lambda: "a list",
        "tuple_type": lambda: "a list",
        "too_long": lambda: f"a list of at most {context['max_length']:,}",
        "too_short": lambda: f"a list of at least {context['min_length']:,}",
        "recursion_loop": lambda: "less deeply nested",
    }.get(kind, lambda: "")()
