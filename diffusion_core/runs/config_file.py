"""`config.json`: the settings of a run and, once its trainer has begun, what they resolved to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from diffusion_core.files import write_json
from diffusion_core.models.convolutions import Ways
from diffusion_core.records import Count, LenientRecord, RecordError, ShortText, read_record_file
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, with_settings
from diffusion_core.runs.presets import preset
from diffusion_core.runs.status import StatusRecord


class Details(LenientRecord):
    """What the settings came to on the machine that began the run."""

    classes: Annotated[tuple[ShortText, ...], Field(strict=False)] = ()
    pictures: Count = 0  # the images of the set; named as earlier versions wrote them
    training_pictures: Count = 0
    validation_pictures: Count = 0
    data_fingerprint: ShortText = ""
    data_content: ShortText = ""  # empty in runs of earlier versions
    parameters: Count = 0
    mixed_precision: ShortText = ""
    micro_batch: Count = 0
    device: ShortText = ""
    processes: Count = 1
    threads: Count = 0  # of the first process at the start; 0 in runs of earlier versions
    # Layers that are not computed as PyTorch does, and where that was the fastest.
    layers: dict[str, Ways] = Field(default_factory=dict)
    layers_machine: ShortText = ""
    command: str = ""
    versions: dict[str, ShortText] = Field(default_factory=dict)


class _ConfigFile(LenientRecord):
    """The settings are the other keys of the file."""

    model_config = ConfigDict(extra="allow")

    resolved: Details | None = None


def _read(run: Path) -> _ConfigFile | None:
    try:
        return read_record_file(_ConfigFile, run / "config.json")
    except RecordError as error:
        raise ConfigError(str(error)) from error


def read_config_file(run: Path) -> tuple[RunConfig, Details | None] | None:
    """The settings at the start of the run in a folder, and what they came to.

    Returns None where there is no file. `Details` is None until the trainer has begun. Raises
    ConfigError with one sentence for a file that is damaged or has values that cannot be used.
    """
    file = _read(run)
    if file is None:
        return None
    try:
        return RunConfig.from_dict(file.model_extra or {}), file.resolved
    except ConfigError as error:
        raise ConfigError(f"config.json: {error}") from error


def read_details(run: Path) -> Details:
    """The details alone, empty where there are none that can be read."""
    try:
        file = _read(run)
    except ConfigError:
        return Details()
    return (file and file.resolved) or Details()


def write_config_file(run: Path, config: RunConfig, resolved: dict[str, Any] | None = None) -> None:
    """Replace `config.json`. Raises DiskFull, OSError."""
    values = config.model_dump()
    write_json(run / "config.json", values if resolved is None else values | {"resolved": resolved})


def update_config_file(run: Path, settings: dict[str, Any], details: dict[str, Any]) -> None:
    """Replace some settings and details in `config.json`; all else in it stays.

    Does nothing where there is no such file. Raises ConfigError, DiskFull, OSError.
    """
    file = _read(run)
    if file is None or file.resolved is None:
        return
    values = json.loads((run / "config.json").read_text(encoding="utf-8"))
    changed = values | settings | {"resolved": values["resolved"] | details}
    if changed != values:
        write_json(run / "config.json", changed)


def config_of_earlier_version(status: StatusRecord) -> RunConfig | None:
    """The settings of a run that has no `config.json`: earlier versions wrote it late.

    Until then they kept the settings in `status.json` as `--preset NAME --set KEY=VALUE …`. Returns
    None where there are none. Raises ConfigError.
    """
    match status.arguments:
        case ("--preset", name, *rest):
            values = [word for word in rest if word != "--set"]
            return with_settings(preset(name), parse_settings(values))
    return None
