"""The records of a run: its settings, status, changes and requests, and the queue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from diffusion_core.data.found import found, sentence
from diffusion_core.files import write_json
from diffusion_core.records import RecordError, read_record_file
from diffusion_core.runs.changes import CHANGEABLE, Change, read_changes, with_changes
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import Details, read_config_file, write_config_file
from diffusion_core.runs.presets import check_network
from diffusion_core.runs.queue import QueueFile
from diffusion_core.runs.request import RequestRecord, read_request
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import StatusRecord, places_of, state_now, write_status
from diffusion_core.sampling.learned import LearnedTimesteps
from tests.faults.odd_inputs import json_files, json_texts, some_of
from tests.faults.parsers.table import PARSERS, Parser, Said, written
from tests.tiny_runs import TINY


def read_config(data: bytes, folder: Path) -> tuple[RunConfig, Details | None] | None:
    written(folder, "config.json", data)
    Run(folder).snapshot()
    return read_config_file(folder)


def config_again(value: tuple[RunConfig, Details | None], folder: Path) -> Any:
    config, details = value
    write_config_file(folder, config, details.model_dump() if details else None)
    return read_config_file(folder)


DETAILS = {"classes": ["a"], "pictures": 3, "data_fingerprint": "ab", "versions": {"torch": "2"}}
CONFIGS = [
    TINY.model_dump() | {"resolved": DETAILS, "ema_decays": {"short": 0.9}},
    RunConfig(init_from="a@3", data="folder:/x").model_dump(),
]
PARSERS["config.json"] = Parser(
    json_files(*CONFIGS), read_config, ConfigError, config_again, longest=1200, few=8, many=4000
)


def read_network(text: str, _: Path) -> RunConfig:
    config = RunConfig.from_dict(json.loads(text, parse_int=float_or_int))
    check_network(config)
    return config


def float_or_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 4300 else float(digits)


NETWORKS: list[dict[str, Any]] = [
    {"image_size": 32, "network_args": {"widths": [8, 16], "blocks": 1, "attention_levels": [1]}},
    {"image_size": 24, "network": "lecture", "network_args": {"widths": [4, 8]}, "channels": 1},
]
shallow = json_texts.filter(lambda text: len(text) < 500 and "[[[" not in text)
PARSERS["network"] = Parser(
    st.builds(
        lambda which, name, value: json.dumps(
            which | {"network_args": which["network_args"] | {name: "@"}}
        ).replace('"@"', value),
        st.sampled_from(NETWORKS),
        st.sampled_from(["widths", "blocks", "attention_levels", "patch", "channels"]),
        st.one_of(shallow, some_of([1, 2, 8, 16, 24, 65], 4).map(json.dumps)),
    ),
    read_network,
    ConfigError,
    longest=1200,
    few=4,
    many=500,
)


def read_status_file(data: bytes, folder: Path) -> StatusRecord | None:
    written(folder, "status.json", data)
    problem = Run(folder).snapshot().problem
    faults: list[str] = []
    status = read_record_file(StatusRecord, folder / "status.json", faults)
    if status is not None:
        state_now(status), places_of(status)
        if status.found is not None:
            sentence(status.found)
    if problem:
        raise Said(problem)
    return status


def status_again(status: StatusRecord, folder: Path) -> Any:
    write_status(folder, status)
    return read_record_file(StatusRecord, folder / "status.json")


STATUS = StatusRecord(total=9, loss=0.5, arguments=("--preset", "small")).model_dump() | {
    "state": "running",
    "host": "here",
    "found": found(3, ["a", "b"], [("x.jpg", "large")]).model_dump(),
}
PARSERS["status.json"] = Parser(
    json_files(STATUS), read_status_file, (RecordError, Said), status_again, many=5000
)


def read_changes_file(data: bytes, folder: Path) -> list[Change]:
    written(folder, "changes.json", data)
    changes = read_changes(folder)
    with_changes(TINY, changes)
    return changes


def changes_again(changes: list[Change], folder: Path) -> Any:
    write_json(folder / "changes.json", {"changes": [each.model_dump() for each in changes]})
    return read_changes(folder)


CHANGED = dict.fromkeys(CHANGEABLE, 20) | {"learning_rate": 0.5, "keep_best": True, "report": True}
CHANGE = {"step": 4, "time": 1.5, "settings": CHANGED}
PARSERS["changes.json"] = Parser(
    json_files({"changes": [CHANGE, CHANGE]}),
    read_changes_file,
    ConfigError,
    changes_again,
    many=3000,
)


def record_file(kind: type, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Read a record, and write and read it again."""

    def take(data: bytes, folder: Path) -> Any:
        return read_record_file(kind, written(folder, name, data))

    def again(record: Any, folder: Path) -> Any:
        write_json(folder / name, record.model_dump(mode="json", by_alias=True))
        return read_record_file(kind, folder / name)

    return take, again


REQUEST = {"action": "change", "time": 1.5, "settings": {"steps": 50}}
take, again = record_file(RequestRecord, "request.json")
PARSERS["request.json"] = Parser(json_files(REQUEST), take, RecordError, again, many=3000)
PARSERS["a request"] = Parser(
    json_files(REQUEST), lambda data, at: read_request(written(at, "request.json", data)), many=2000
)
take, again = record_file(QueueFile, ".queue.json")
PARSERS[".queue.json"] = Parser(
    json_files({"order": [["a", 1.5], ["b", 2.0]]}), take, RecordError, again, many=3000
)
LEARNED = {
    "step": 20,
    "checkpoint_time": 1.5,
    "average": "main",
    "sampler": "ddim",
    "steps": 2,
    "prediction_type": "epsilon",
    "timesteps": [18.5, 3.0],
    "error": 0.1,
    "usual_errors": {"trailing": 0.2},
    "written": 2.5,
}
take, again = record_file(LearnedTimesteps, "timesteps/step-00000020-0123456789ab.json")
PARSERS["learned timesteps"] = Parser(json_files(LEARNED), take, RecordError, again, many=3000)
