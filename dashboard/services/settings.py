"""The settings of this installation, from the environment and `.streamlit/secrets.toml`.

Every name has the prefix `DIFFUSION_LAB_`. Where both give a value the file wins, because Streamlit
itself copies the file's entries into the environment. `[auth]` is Streamlit's own, for `st.login`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import streamlit as st
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dashboard.services.auth import Auth
from diffusion_core.records import sentences
from diffusion_core.runs.alerts.settings import AlertSettings, read_alerts
from diffusion_core.text import shown

PREFIX = "DIFFUSION_LAB_"
ROLE = f"{PREFIX}ROLE"
OPERATORS = f"{PREFIX}OPERATORS"
# The names that a setting has beside its own in capitals.
EARLIER_NAMES = {"max_images": ("MAX_PICTURES",)}
REPOSITORY = Path(__file__).resolve().parents[2]
SECRETS_FILE = REPOSITORY / ".streamlit" / "secrets.toml"

Role = Literal["operator", "viewer"]
Number = Annotated[int, Field(ge=1, le=10**12)]


def _whole_path(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a null byte
        raise ValueError(f"{shown(str(path))} is not a path that can be used.") from error


Folder = Annotated[Path, AfterValidator(_whole_path)]


def _split(given: object) -> object:
    """A list of the file as it is; of a text the parts between commas."""
    parts = given.split(",") if isinstance(given, str) else given
    return [part.strip() for part in parts] if isinstance(parts, list) else parts


def _operator(entry: str) -> str:
    if not re.fullmatch(r"[^@\s,]{0,64}@[^@\s,]{1,255}", entry):
        raise ValueError(
            f"{shown(entry)} in {OPERATORS} is no address such as ann@lab.org, and no domain such "
            "as @lab.org."
        )
    return entry


Operators = Annotated[
    tuple[Annotated[str, AfterValidator(_operator)], ...],
    BeforeValidator(_split),
    Field(max_length=1000),
]


class SettingsError(ValueError):
    """A setting that cannot be used; the message says which one and what to write instead."""


class Settings(BaseSettings):
    """What an installation may choose. A value that is empty counts as absent."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    role: Role | None = None  # None: by who the visitor is, see `roles.allows`
    # Addresses and, with an @ before them, domains of those who may operate when signed in.
    operators: Operators = ()
    auth: Auth | None = None
    # A public demo: visitors also train, within the caps of `demo.py`; nobody is the operator.
    demo: bool = False
    guests_review: bool = False  # whether every visitor may write remarks and vote
    runs_dir: Folder = REPOSITORY / "checkpoints"
    # The highest number of training steps that can be set on the pages; None: no limit.
    max_steps: Number | None = None
    max_upload_mb: Number | None = None  # the largest image file; None: by the role
    # Memory of the device that loaded models may keep; None: `model_cache.default_bound`.
    model_cache_mb: Number | None = None
    max_images: Number | None = None  # the most images of a series; None: by the role
    # What one visitor may use (see `budgets.Limits`); None: by the role.
    max_evaluations: Number | None = None
    hourly_evaluations: Number | None = None
    max_series: Number | None = None
    series_hours: Number | None = None
    hourly_upload_mb: Number | None = None
    hourly_upload_megapixels: Number | None = None
    hourly_reports: Number | None = None
    hourly_remarks: Number | None = None
    log_dir: Folder | None = None  # of the server's log; None: `.logs` beside the runs
    device: str | None = None  # a name for `device.pick_device`; None: the best one here

    def upload_mb(self, operator: bool) -> int:
        """The largest image file that is accepted from an operator or a viewer."""
        return self.max_upload_mb or (64 if operator else 16)

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.auth is None and self.operators:
            raise ValueError(
                f"{OPERATORS} names operators, but nobody can sign in: add [auth] to "
                f"{SECRETS_FILE.name}, or leave the list out."
            )
        if self.auth is not None and self.role == "operator":
            raise ValueError(
                f"{ROLE}=operator would make everybody an operator, signed in or not. Leave it "
                f"out and name the operators in {OPERATORS}, or leave [auth] out."
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *args: Any, **kwargs: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (InitSettingsSource(settings_cls, _given(settings_cls)),)


def get_settings() -> Settings:
    """Read the settings.

    Raises SettingsError, with one sentence for the person who runs the app, where a value cannot
    be used or the file cannot be read: a typing error must not turn a viewer into an operator.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentences(error, Settings, name=_shown_name)[0]) from error


def get_alerts() -> AlertSettings:
    """Read the settings of the alerts. Raises AlertsError, SettingsError."""
    secrets = {name: _text(value) for name, value in _read_secrets().items()}
    return read_alerts({**os.environ, **{name: value for name, value in secrets.items() if value}})


def _given(kind: type[BaseSettings]) -> dict[str, Any]:
    """The text of every setting that the file or the environment gives, and `[auth]`."""
    secrets = _read_secrets()
    sources: tuple[Mapping[str, Any], ...] = (secrets, os.environ)
    found = {"auth": secrets["auth"]} if "auth" in secrets else {}
    for field in kind.model_fields.keys() - {"auth"}:
        given = [source.get(name, "") for name in _names(field) for source in sources]
        if texts := [text for value in given if (text := _text(value).strip())]:
            found[field] = texts[0]
    return found


def _text(value: object) -> str:
    """A value of the file as the environment has it; Python writes no number of 5,000 digits."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return "too large" if isinstance(value, int) and abs(value) > 2**64 else str(value)


def _names(field: str) -> list[str]:
    return [PREFIX + name for name in (field.upper(), *EARLIER_NAMES.get(field, ()))]


def _shown_name(field: str) -> str:
    """What a field is called where it is set: DIFFUSION_LAB_ROLE, client_id in [auth.google]."""
    if field == "auth":
        return "[auth]"
    if not field.startswith("auth."):
        return _names(field.partition(".")[0])[0]
    where, _, name = field.rpartition(".")
    return f"{name} in [{where.replace('.providers', '').replace('.default', '')}]"


def secrets_files() -> list[Path]:
    """The files that Streamlit reads, and that of this repository; of two values the last wins."""
    return [*map(Path, st.get_option("secrets.files")), SECRETS_FILE]


def _read_secrets() -> dict[str, Any]:
    """The top-level entries of the files."""
    found: dict[str, Any] = {}
    for path in dict.fromkeys(secrets_files()):
        found |= _read_toml(path) if path.suffix == ".toml" else {}
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    """None where there is no file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        why = str(error.strerror)
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except (ValueError, RecursionError) as error:
        where = re.search(r"line \d+", str(error))
        why = f"{where[0]} is not TOML" if where else "it is not TOML"
    raise SettingsError(f"{path.name} cannot be read ({why}); correct it.")
