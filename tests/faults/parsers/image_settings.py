"""The settings of images: in PNGs, in the records of series and of results."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image, PngImagePlugin

from dashboard.sampling import restore
from dashboard.sampling.modes import MODES
from dashboard.services import settings
from dashboard.ui.controls import MultiChoice
from diffusion_core.evaluation.results import Result, read_result, write_result
from diffusion_core.files import write_json
from diffusion_core.records import RecordError
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.metadata import Kind, Made, NoSettings, entries, read
from diffusion_core.sampling.series import Series, SeriesError, SeriesRecord
from diffusion_core.sampling.spec import SamplingSpec, SpecError
from tests import image_files
from tests.faults.odd_inputs import damaged, json_files, spoiled
from tests.faults.parsers.table import PARSERS, SPEC, Parser, written
from tests.tiny_runs import CLASSES, TINY, write_run


def spec_of(text: str, _: Path) -> SamplingSpec:
    values = None
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(text)
    spec = SamplingSpec.from_dict(values)
    spec.describe(), spec.options(), spec.columns()
    if problems := spec.problems(capabilities()):
        raise SpecError(problems[0])
    return spec


@functools.cache
def capabilities() -> Capabilities:
    return Capabilities.of(Checkpoint(Path("x"), 40, 1.0, TINY, CLASSES))


SPECS = [
    SPEC.to_dict(),
    SPEC.to_dict() | {"guidance_scale": 2.0, "guidance_interval": [0, 9]},
    SPEC.to_dict()
    | {"guidance_scale": 2.0, "guidance": "autoguidance", "guide_run": "a", "guide_step": 20},
    SPEC.to_dict() | {"steps": 2, "spacing": "learned", "timesteps": [9.5, 3.0]},
]
PARSERS["settings of sampling"] = Parser(
    spoiled(*SPECS),
    spec_of,
    SpecError,
    lambda spec, at: spec_of(json.dumps(spec.to_dict()), at),
    many=12000,
)


def png_of(texts: dict[str, str]) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    return image_files.encode(Image.new("L", (1, 1)), "PNG", pnginfo=info)


def read_png(data: bytes, _: Path) -> Made:
    made = read(data)
    made.spec.describe(), made.mode
    return made


def png_again(made: Made, _: Path) -> Made:
    kind = None if made.kind == Kind.OTHER else made.kind
    return read(png_of(entries(made.spec, made.image, "", made.page or None, kind)))


def like_png(made: Made) -> tuple[Any, ...]:
    return made.spec, made.image, json.dumps(made.page)


PAGE = {"mode": "Edit", "edit": "Vary", "strength": 0.5, "from": "data", "example": 3}
MADE = [
    SPEC.to_dict() | {"picture": 1, "kind": "image", "page": PAGE},
    SPEC.to_dict() | {"what": "film, x"},
]
PNGS = [png_of({"diffusion_lab": json.dumps(each)}) for each in MADE]
PARSERS["settings in a PNG"] = Parser(
    spoiled(*MADE).map(lambda text: png_of({"diffusion_lab": text})),
    read_png,
    NoSettings,
    lambda made, at: like_png(png_again(made, at)) == like_png(made) and made,
    many=8000,
)
PARSERS["PNG with settings"] = Parser(damaged(*PNGS), read_png, NoSettings, many=8000)

PAGES: list[dict[str, Any]] = [
    {"mode": mode.name}
    | {each.key: [] if isinstance(each, MultiChoice) else each.default for each in mode.controls}
    | {"drawn_at": {"run": 40}}
    for mode in MODES.values()
]


def read_page(text: str, folder: Path) -> dict[str, Any]:
    try:
        page = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    run = folder / "runs" / "run"
    if not run.exists():
        run.parent.mkdir(exist_ok=True)
        write_run(run.parent, "run", 40)
    with mock.patch.dict(os.environ, {f"{settings.PREFIX}RUNS_DIR": str(run.parent)}):
        made = Made(SPEC, page=page if isinstance(page, dict) else {})
        at, there, missing = restore.find(made.spec)
        values = restore.spec_values(made, Capabilities.of(there), missing)
        modes, lost = restore.mode_values(made, at, there)
    restore.what_came_back(made, modes["mode"], missing, lost)
    json.dumps(values | modes, allow_nan=False)
    return modes


PARSERS["page in a PNG"] = Parser(spoiled(*PAGES), read_page, NoSettings, few=6, many=1500)


def read_order(data: bytes, folder: Path) -> SeriesRecord:
    written(folder, "order.json", data)
    series = Series(folder)
    assert series.state
    return series.record


def order_again(record: SeriesRecord, folder: Path) -> SeriesRecord:
    write_json(folder / "order.json", record.to_dict())
    return Series(folder).record


ORDER = {"order": SPEC.to_dict(), "checkpoint_time": 1.5, "batch": 4}
PARSERS["order.json"] = Parser(json_files(ORDER), read_order, SeriesError, order_again, many=1000)


def result_again(result: Result, folder: Path) -> Result | None:
    (folder / "r").mkdir(exist_ok=True)
    path = write_result(folder / "r", result)
    read_again = read_result(path)
    path.unlink()
    return read_again


ESTIMATE = {"value": 1.0, "low": 0.5, "high": 1.5, "n_real": 4, "n_fake": 4}
RESULT = {
    "version": 1,
    "order": SPEC.to_dict(),
    **{name: {"frechet": ESTIMATE} for name in ("metrics", "floor", "ceiling")},
    "evaluations": 9,
    "seconds": 1.5,
    "device": "CPU",
    "data": "cars",
    "fingerprint": "ab",
    "checkpoint_time": 1.5,
    "neighbours": [{"sample": 0, "training": 1, "distance": 0.5, "label": "van"}],
    "near": 0.1,
    "notes": ["a"],
    "written": 1.5,
}
PARSERS["quality result"] = Parser(
    json_files(RESULT),
    lambda data, at: read_result(written(at, "step-00000040-a.json", data)),
    RecordError,
    result_again,
    many=1500,
)
