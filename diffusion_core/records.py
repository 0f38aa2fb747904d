"""Validation of all input: files, image metadata, archives, URLs and the environment.

Input is checked once, by pydantic models that derive from `Record`. `read_record` turns the errors
of pydantic and json into one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from typing_extensions import is_typeddict

from diffusion_core.files import check_regular
from diffusion_core.text import cut, limit, shown

LONGEST_NAME = 80  # characters of a field's name in a sentence
MAX_BYTES = 4 * 2**20  # of one record; the largest that the project writes is far smaller

Count = Annotated[int, Field(ge=0, le=10**12)]
ShortText = Annotated[str, Field(max_length=4096)]


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
        except ValueError as error:
            assert info.field_name is not None
            if value is None:  # not given: earlier versions wrote null for an empty text
                pass
            elif info.context is not None and isinstance(error, ValidationError):
                info.context["faults"] += sentences(error, cls, within=info.field_name)
            return cls.model_fields[info.field_name].get_default(call_default_factory=True)


Kind = TypeVar("Kind", bound=BaseModel)


def read_record(
    kind: type[Kind], data: bytes | str, source: str, faults: list[str] | None = None
) -> Kind:
    """The record in a JSON text; `source` names it in messages, for example "config.json".

    `faults` gets a sentence for each field of a `LenientRecord` that could not be used. Raises
    RecordError with one sentence for text that is not JSON, wrong types, numbers out of bounds,
    NaN, infinity, whole numbers of thousands of digits, and nesting that is too deep.
    """
    if len(data) > MAX_BYTES:
        raise RecordError(f"{source} is larger than {MAX_BYTES // 2**20} MB.")
    found: list[str] = []
    try:
        record = kind.model_validate_json(data, context={"faults": found})
    except ValidationError as error:
        raise RecordError(sentences(error, kind, source)[0]) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{source} is not readable JSON.") from error
    if faults is not None:
        faults += [f"{source}: {sentence}" for sentence in found]
    return record


def read_record_file(kind: type[Kind], path: Path, faults: list[str] | None = None) -> Kind | None:
    """The record in a JSON file; None where there is no file. `faults`: see `read_record`.

    Raises RecordError.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path.name} cannot be read: {error.strerror}.") from error
    return read_record(kind, data, path.name, faults)


def record_of(kind: type[Kind], values: Any, source: str) -> Kind:
    """The record of values that are already in memory, checked as `read_record` checks a text."""
    try:
        return read_record(kind, json.dumps(values), source)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{source} holds a value that JSON cannot.") from error


def bounds(kind: type[BaseModel], field: str) -> tuple[float | None, float | None]:
    """The smallest and largest value that a field allows; None where there is no such limit.

    `schedule.timesteps` names an entry of a field that is an object. A limit that is itself not
    allowed (`gt`, `lt`) is returned too.
    """
    limits = _limits(kind, field.split("."))
    return limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))


def _limits(kind: Any, path: Sequence[str | int]) -> dict[str, float]:
    """The constraints `ge`, `gt`, `le`, `lt` and `multiple_of` of a value inside a record."""
    rules: list[Any] = []
    for part in path:
        kind, rules = _part(kind, part)
    found = {}
    for rule in rules:
        for name in ("ge", "gt", "le", "lt", "multiple_of"):
            if (bound := getattr(rule, name, None)) is not None:
                found[name] = bound
    return found


def _part(kind: Any, part: str | int) -> tuple[Any, list[Any]]:
    """The type of a field or an element of `kind`, and its constraints."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if (field := kind.model_fields.get(str(part))) is None:
            return None, []
        inner, rules = _bare(field.annotation)
        return inner, [*field.metadata, *rules]
    if is_typeddict(kind):
        inner = get_type_hints(kind, include_extras=True).get(str(part))
    else:  # of a list, tuple or dict the last argument is that of its values
        inner = next((each for each in reversed(get_args(kind)) if each is not ...), None)
    return _bare(inner)


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    """A type without `Annotated` and `| None`, and its constraints."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is not Annotated:
        return kind, []
    inner, *extras = get_args(kind)
    return inner, [rule for extra in extras for rule in getattr(extra, "metadata", [extra])]


def sentences(
    error: ValidationError,
    kind: type[BaseModel],
    source: str = "",
    name: Callable[[str], str] = str,
    within: str = "",
) -> list[str]:
    """What pydantic found, each as "config.json: batch_size is 0; it must be …".

    `kind`: the type of the record. `name`: what a field is called in the source. `within`: the
    field of which the error is.
    """
    found = error.errors(include_url=False, include_context=True)
    # A default that follows from a wrong value is no fault of its own.
    found = [each for each in found if each["type"] != "default_factory_not_called"]
    before = (within,) if within else ()
    return [
        _sentence({**each, "loc": (*before, *each["loc"])}, kind, source, name) for each in found
    ]


def _sentence(found: Any, kind: type[BaseModel], source: str, name: Callable[[str], str]) -> str:
    field = name(".".join(str(part) for part in found["loc"] if part != "[key]"))
    field = cut(field, LONGEST_NAME)
    error, context = found["type"], found.get("ctx", {})
    before = f"{source}: " if source else ""
    if error == "json_invalid":
        return f"{source} is not readable JSON."
    if error == "missing":
        return f"{before}{field} is missing."
    if error == "extra_forbidden":
        return f"{before}{field} is not known; leave it out."
    if error == "value_error":  # raised by a validator of the record
        return f"{before}{context['error']}"
    if error in ("string_too_short", "too_short") and not found["input"]:
        return f"{before}{field} is empty; it needs a value."
    limits = _limits(kind, found["loc"])
    out_of_range = error.startswith(("greater_than", "less_than", "multiple_of"))
    out_of_range |= error.startswith("float") and type(found["input"]) is int  # of 400 digits
    wanted = (out_of_range and _range(limits or context)) or _wanted(error, context)
    what = f"{field} is {shown(found['input'])}" if field else f"it is {shown(found['input'])}"
    return f"{before}{what}; it {f'must be {wanted}' if wanted else 'cannot be used'}."


def _range(limits: dict[str, Any]) -> str:
    """The limits of a number: "a multiple of 8, from 16 to 256"."""
    number = {name: limit(bound) for name, bound in limits.items()}
    if "ge" in number and "le" in number:
        text = f"from {number['ge']} to {number['le']}"
    else:
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        parts = [f"{word} {number[name]}" for name, word in words.items() if name in number]
        text = " and ".join(parts)
    if "multiple_of" in number:
        return f"a multiple of {number['multiple_of']}" + (f", {text}" if text else "")
    return text


def _wanted(kind: str, context: dict[str, Any]) -> str:
    """What a value must be, by pydantic's error type; empty where that is not known."""
    if kind.startswith("int"):
        return "a whole number"
    if kind.startswith("float"):
        return "a number"
    if kind in ("literal_error", "enum"):
        return context["expected"].replace("'", "")
    return _WANTED.get(kind, "").format(**context)


_WANTED = {
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "path_type": "a path",
    "string_too_long": "at most {max_length:,} characters long",
    "string_too_short": "at least {min_length:,} characters long",
    "dict_type": "an object",
    "model_type": "an object",
    "dataclass_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_long": "a list of at most {max_length:,}",
    "too_short": "a list of at least {min_length:,}",
    "recursion_loop": "less deeply nested",
}
