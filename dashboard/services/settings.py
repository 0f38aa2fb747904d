"""The settings of this installation, from the environment and `.streamlit/secrets.toml`.

Knows nothing of pages and runs. Every name has the prefix `DIFFUSION_LAB_`. Where both give a
value the file wins, because Streamlit itself copies the file's entries into the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "DIFFUSION_LAB_"
ROLES = ("operator", "viewer")
REPOSITORY = Path(__file__).resolve().parents[2]
SECRETS_FILE = REPOSITORY / ".streamlit" / "secrets.toml"


class SettingsError(ValueError):
    """A setting that cannot be used; the message says which one and what to write instead."""


@dataclass(frozen=True)
class Settings:
    """What an installation may choose.

    `max_steps` is the highest number of training steps that the pages let somebody ask for (None:
    no limit); `max_upload_mb` the largest image file they accept, in MB; `model_cache_mb`
    how much memory of the device loaded models may keep, in MB (None: see
    `model_cache.default_bound`); `max_images` the most images of a series (None: see
    `sampling_many.most_images`); `device` a name for `diffusion_core.device.pick_device` (None:
    the best one here).
    """

    role: str = "operator"
    runs_dir: Path = REPOSITORY / "checkpoints"
    max_steps: int | None = None
    max_upload_mb: int = 64
    model_cache_mb: int | None = None
    max_images: int | None = None
    device: str | None = None

    @property
    def may_operate(self) -> bool:
        """Whether this installation may start, stop and delete runs."""
        return self.role == "operator"


def get_settings() -> Settings:
    """Read the settings anew.

    Raises SettingsError, with one sentence for the person who runs the app, where a value cannot
    be used or the file cannot be read: a viewer's installation must not open up by a typing error.
    """
    given = dict(os.environ) | _read_secrets(SECRETS_FILE)
    default = Settings()
    role = _text(given, "ROLE") or default.role
    if role not in ROLES:
        raise SettingsError(f"{PREFIX}ROLE is {role!r}; set it to {' or '.join(ROLES)}.")
    runs_dir = _text(given, "RUNS_DIR")
    return Settings(
        role=role,
        runs_dir=Path(runs_dir).expanduser().resolve() if runs_dir else default.runs_dir,
        max_steps=_positive(given, "MAX_STEPS"),
        max_upload_mb=_positive(given, "MAX_UPLOAD_MB") or default.max_upload_mb,
        model_cache_mb=_positive(given, "MODEL_CACHE_MB"),
        max_images=_positive(given, "MAX_PICTURES"),
        device=_text(given, "DEVICE"),
    )


def _read_secrets(secrets_file: Path) -> dict[str, object]:
    """The file's top-level entries; none where there is no file."""
    try:
        return tomllib.loads(secrets_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{secrets_file.name} cannot be read ({error}); correct it.") from error


def _text(given: Mapping[str, object], name: str) -> str | None:
    """The value without blanks around it; None where it is absent or empty."""
    return str(given.get(PREFIX + name, "")).strip() or None


def _positive(given: Mapping[str, object], name: str) -> int | None:
    text = _text(given, name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise SettingsError(f"{PREFIX}{name} is {text!r}; set it to a whole number above 0.")
    return int(text)
