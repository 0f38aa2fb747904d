"""Every parser of what comes from outside, in one table: inputs, reader, refusal, and back."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import pkgutil
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

import dashboard
from dashboard.components.mask.mask import decode
from dashboard.sampling import restore
from dashboard.sampling.modes import MODES
from dashboard.services import settings
from dashboard.ui.controls import Choice, Control, MultiChoice
from diffusion_core.cli.main import make_parser
from diffusion_core.data.decode import FORMATS, ImageError, open_image, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import REASONS, found, sentence
from diffusion_core.data.sources import open_source
from diffusion_core.data.sources.folder import FolderSource, open_folder
from diffusion_core.data.sources.layout import arrange
from diffusion_core.data.store import build_store
from diffusion_core.evaluation.results import Result, read_result, write_result
from diffusion_core.files import write_json
from diffusion_core.records import RecordError, read_record_file
from diffusion_core.runs import checkpoint, trash
from diffusion_core.runs.changes import CHANGEABLE, Change, read_changes, with_changes
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, with_settings
from diffusion_core.runs.config_file import Details, read_config_file, write_config_file
from diffusion_core.runs.metrics import (
    MetricsError,
    MetricsWriter,
    read_all,
    read_curve,
    read_last,
    read_names,
)
from diffusion_core.runs.presets import check_network
from diffusion_core.runs.queue import QueueFile
from diffusion_core.runs.request import RequestRecord, read_request
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import StatusRecord, places_of, state_now, write_status
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.metadata import Kind, Made, NoSettings, entries, read
from diffusion_core.sampling.series import Series, SeriesError, SeriesRecord, list_series
from diffusion_core.sampling.spec import SamplingSpec, SpecError
from tests import image_files
from tests.faults.odd_inputs import damaged, json_files, json_texts, some_of, spoiled, texts
from tests.tiny_runs import CLASSES, TINY, write_run


class Said(Exception):
    """What a reader returns as a sentence instead of raising it."""


@dataclass(frozen=True)
class Parser:
    """One parser and what is tried with it."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], Any]  # of an input and a folder to write to
    refusal: type[Exception] | tuple[type[Exception], ...] = Said
    again: Callable[[Any, Path], Any] | None = None  # writes and reads what was read
    few: int = 12  # inputs in `make test`
    many: int = 2000  # and in `make test-long`
    longest: int = 600  # characters of a refusal


PARSERS: dict[str, Parser] = {}
SPEC = SamplingSpec(run="run", step=40, n=4, classes=CLASSES, label="van")


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------- records of a run


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


CHANGED = dict.fromkeys(CHANGEABLE, 20) | {"learning_rate": 0.5, "keep_best": True}
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


# ------------------------------------------------------------------ settings of an image


def spec_of(text: str, _: Path) -> SamplingSpec:
    spec = SamplingSpec.from_json(text)
    spec.describe(), spec.options(), spec.columns()
    if problems := spec.problems(capabilities()):
        raise SpecError(problems[0])
    return spec


@functools.cache
def capabilities() -> Capabilities:
    return Capabilities.of(Checkpoint(Path("x"), 40, 1.0, TINY, CLASSES))


SPECS = [SPEC.to_dict(), (SPEC.to_dict() | {"guidance_scale": 2.0, "guidance_interval": [0, 9]})]
PARSERS["settings of sampling"] = Parser(
    spoiled(*SPECS), spec_of, SpecError, lambda spec, at: spec_of(spec.to_json(), at), many=12000
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


# -------------------------------------------------------------------------- command line, names


def read_command_line(words: list[str], _: Path) -> RunConfig:
    return with_settings(RunConfig(), parse_settings(words))


names = st.sampled_from(
    [*RunConfig.model_fields, "schedule.timesteps", "schedule.kind", "network_args.widths", "x", ""]
)
PARSERS["--set"] = Parser(
    st.lists(st.builds("{}={}".format, names, st.one_of(texts, json_texts)), max_size=3),
    read_command_line,
    ConfigError,
    lambda config, at: RunConfig.from_dict(json.loads(config.to_json())),
    longest=2500,
    many=3000,
)


@functools.cache
def command_parser() -> Any:
    return make_parser(("sample", "train", "change"))


def read_words(words: list[str], _: Path) -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return command_parser().parse_args(words)
    except SystemExit as end:
        if end.code == 0:
            return None
        raise Said(said.getvalue().strip().split("\n")[-1]) from end


options = st.sampled_from(
    "--run --n --steps --seed --label --guidance --set --device --preset --batch-size --x".split()
)
PARSERS["words of a command"] = Parser(
    st.builds(
        lambda command, pairs: [command, *(word for pair in pairs for word in pair)],
        st.sampled_from(["sample", "train", "change", "nothing"]),
        st.lists(st.tuples(options, texts), max_size=3),
    ),
    read_words,
    longest=1500,
    many=3000,
)
outside = texts.filter(lambda text: not set("/.") & set(text))
PARSERS["name of a data set"] = Parser(
    st.builds(
        "{}{}".format, st.sampled_from(["cars:", "digits:", "folder:", "", "c"]), outside
    ).filter(lambda spec: spec != "folder:"),
    lambda spec, _: open_source(spec).count,
    DataError,
    many=3000,
)


def read_settings(text: bytes, folder: Path) -> Any:
    path = written(folder, "secrets.toml", text)
    with mock.patch.object(settings, "SECRETS_FILE", path), mock.patch.dict(os.environ, clear=True):
        os.environ["HOME"] = str(folder)
        return settings.get_settings()


def toml_of(name: str, value: str, text: bool) -> bytes:
    return f"{settings.PREFIX}{name} = {json.dumps(value) if text else value}\n".encode(
        errors="surrogatepass"
    )


TOML = b'DIFFUSION_LAB_ROLE = "viewer"\nDIFFUSION_LAB_MAX_STEPS = 30\n[server]\nport = 1\n'
PARSERS["settings of the app"] = Parser(
    st.one_of(
        damaged(TOML),
        st.builds(
            toml_of,
            st.sampled_from([name.upper() for name in settings.Settings.model_fields]),
            st.one_of(texts, json_texts),
            st.booleans(),
        ),
    ),
    read_settings,
    settings.SettingsError,
    many=1500,
)


def read_listing(found_names: list[tuple[str, str]], folder: Path) -> None:
    """A run folder with files of these names: all that lists them."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for where, name in found_names:
        with contextlib.suppress(OSError, ValueError):
            (run / where).mkdir(exist_ok=True)
            (run / where / name).touch()
    steps = [step for step, _ in Run(run).samples() + Run(run).weights()]
    np.array(steps, dtype=np.int64)
    good, broken = Run(run).checkpoints()
    assert good == [] and Run(run).latest_checkpoint() is None
    list_series(run)
    for gone in trash.deleted(run):
        datetime.fromtimestamp(gone.time)
    trash.empty(run)
    if broken:
        raise Said(broken[0])


PARSERS["names in a run folder"] = Parser(
    st.lists(
        st.tuples(
            st.sampled_from(["samples", "weights", "quality", "drawings", ".trash"]),
            st.builds(
                "{}{}{}".format,
                st.sampled_from(["step-", "", "-"]),
                st.one_of(st.sampled_from(["1" * 18, "9" * 30, "1" * 230, "0", "١"]), texts),
                st.sampled_from([".safetensors", ".png", "-run", ".json", ""]),
            ),
        ),
        max_size=6,
    ),
    read_listing,
    many=800,
)


# ------------------------------------------------------------------------------- checkpoints


@functools.cache
def tensors() -> dict[str, torch.Tensor]:
    from diffusion_core.runs.presets import build_network

    return build_network(TINY.network, TINY.network_args).state_dict()


def weights_of(config: str, classes: str, step: str, written: str) -> bytes:
    """A file with these texts in its header."""
    texts = {"config": config, "classes": classes, "step": step, "time": written}
    whole = {name: text.encode(errors="replace").decode() for name, text in texts.items()}
    return safetensors.torch.save(tensors(), whole)


def read_weights(data: bytes, folder: Path) -> Checkpoint:
    path = written(folder, "weights/step-00000040.safetensors", data)
    read_one = checkpoint.read_checkpoint(path)
    model = checkpoint.load_model(read_one, exact=True)
    assert model.config == read_one.config
    [read_one.average_text(name) for name in read_one.averages]
    can = Capabilities.of(read_one)
    assert all(isinstance(name, str) for name in can.labels)
    time.strftime("%Y", time.gmtime(read_one.time))
    return read_one


def weights_again(known: Checkpoint, folder: Path) -> Checkpoint:
    with mock.patch("time.time", lambda: known.time):
        checkpoint.write_weights(
            known.path, known.step, checkpoint.load_weights(known), known.config, known.classes
        )
    return checkpoint.read_checkpoint(known.path)


SETTINGS, NAMES = json.dumps(TINY.model_dump()), json.dumps(CLASSES)
PARSERS["header of weights"] = Parser(
    st.builds(
        weights_of,
        st.one_of(st.just(SETTINGS), spoiled(TINY.model_dump())),
        st.one_of(st.just(NAMES), spoiled(list(CLASSES))),
        st.one_of(st.just("40"), json_texts),
        st.one_of(st.just("1.5"), json_texts),
    ),
    read_weights,
    CheckpointError,
    weights_again,
    longest=1500,
    few=5,
    many=800,
)
PARSERS["weights"] = Parser(
    st.deferred(lambda: head_damaged(weights_of(SETTINGS, NAMES, "40", "1.5"))),
    read_weights,
    CheckpointError,
    longest=1500,
    few=5,
    many=1000,
)


def head_damaged(data: bytes, size: int = 2000) -> st.SearchStrategy[bytes]:
    """Damage in the whole file, or in its beginning."""
    head = damaged(data[:size]).map(lambda start: start + data[size:])
    return st.one_of(damaged(data), head)


def state_file() -> bytes:
    file = io.BytesIO()
    state = {"step": 40, "model": {"a": torch.ones(3)}, "optimizer": {"state": {}}}
    state |= {"data_fingerprint": "ab", "micro_batch": 4}
    torch.save(state, file)
    return file.getvalue()


def read_state(data: bytes, folder: Path) -> dict[str, Any]:
    written(folder, "state/step-00000040.pt", data)
    state = checkpoint.load_state(folder, 40)
    assert {"step", "model", "optimizer", "data_fingerprint"} <= state.keys()
    return state


PARSERS["state"] = Parser(
    st.deferred(lambda: damaged(state_file())), read_state, CheckpointError, many=2000
)


# ------------------------------------------------------------------------------------ metrics


def metrics_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        writer = MetricsWriter(Path(folder) / "metrics.sqlite")
        writer.add((step, name, 1 / step, 1e9) for step in range(1, 60) for name in ("a", "loss"))
        writer.close()
        return writer.path.read_bytes()


def read_metrics(data: bytes, folder: Path) -> list[Any]:
    shutil.rmtree(folder / "m", ignore_errors=True)
    path = written(folder, "m/metrics.sqlite", data)
    try:
        curves = [read_curve(path, name) for name in [*read_names(path), "loss"]]
        return [curves, read_all(path), read_last(path), read_curve(path, "loss", 10)]
    finally:
        said: list[str] = []
        writer = MetricsWriter(path, keep_up_to_step=30, say=said.append)
        writer.add([(31, "new", 0.5, 1e9)])
        writer.commit()
        writer.close()
        assert read_last(path)["new"] == (31, 0.5) and len(said) <= 1


PARSERS["metrics.sqlite"] = Parser(
    st.deferred(lambda: head_damaged(metrics_file())), read_metrics, MetricsError, few=6, many=500
)


# ------------------------------------------------------------------------------------- images


def images_of(name: str) -> list[bytes]:
    """Small files of a format."""
    grey16 = Image.fromarray(np.arange(200, dtype=np.uint16).reshape(10, 20) * 300)
    floats = Image.fromarray(np.linspace(-1, 1, 200, dtype=np.float32).reshape(10, 20))
    half = [image_files.halves(name.upper())]
    if name == "PNG":
        return [*half, image_files.png_16_bit(), image_files.halves("PNG", "P")]
    if name == "JPEG":
        return [*half, image_files.halves("JPEG", "CMYK"), image_files.halves("JPEG", "L")]
    if name == "GIF":
        return [*half, image_files.animated_gif()]
    if name == "TIFF":
        squeezed = [
            image_files.halves("TIFF", compression=how)
            for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        ]
        return [*squeezed, image_files.encode(grey16, "TIFF"), image_files.encode(floats, "TIFF")]
    if name == "PPM":
        return [*half, image_files.encode(grey16, "PPM"), image_files.encode(floats, "PPM")]
    return half


def read_image(data: bytes, folder: Path) -> Image.Image:
    image = open_image(data if len(data) % 2 else written(folder, "image", data))
    assert image.mode == "RGB"
    assert to_size(image, 16).shape == (16, 16, 3)
    return image


def image_again(image: Image.Image, folder: Path) -> Any:
    same = image.width * image.height > 10**5 or (
        open_image(image_files.encode(image, "PNG")).tobytes() == image.tobytes()
    )
    return same and image


for each in FORMATS:
    PARSERS[f"{each} image"] = Parser(
        damaged(*images_of(each)), read_image, ImageError, image_again, few=8, many=2000
    )


# ------------------------------------------------------------------------------------ folders

FOLDERS = (
    *("cat", "dog", "train", "test", "Testing", "cars_train", "images", "unlabelled", "val2017"),
    *(".git", "__MACOSX", "_", "-", " ", "1", "caf\u0301e", "café", "\udce9", "a\nb", "x" * 200),
    *("[a](b)", "\u202eabc", "train_station", "TrainSet", "<b>", "{0}"),
)
FILES = (
    *("0.jpg", "1.PNG", "2.gif", "3.tif", "a.heic", "x.txt", ".jpg", "no", "\udcff.png", "a\n.png"),
    "1" * 200 + ".webp",
)
CONTENTS = (
    *(image_files.halves("PNG"), image_files.truncated_jpeg(), image_files.TEXT, b""),
    *("link", "up", "loop", "hard", "pipe", "folder", "nowhere"),
)
trees = st.lists(
    st.tuples(some_of(FOLDERS, 3), st.sampled_from(FILES), st.sampled_from(CONTENTS)), max_size=8
)


def plant(tree: list[tuple[list[str], str, Any]], root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folders, name, content in tree:
        with contextlib.suppress(OSError):  # a file is where a folder should be
            path = root.joinpath(*folders, name)
            if os.path.lexists(path):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content == "hard":
                os.link(next(each for each in root.rglob("*") if each.is_file()), path)
            elif content == "pipe":
                os.mkfifo(path)
            elif content == "folder":
                path.mkdir()
            else:
                to = {"link": "0.jpg", "up": "..", "loop": name, "nowhere": "none"}[content]
                path.symlink_to(to)


def read_tree(tree: list[tuple[list[str], str, Any]], folder: Path) -> FolderSource:
    root = folder / "tree"
    with contextlib.suppress(StopIteration):
        plant(tree, root)
    source = open_folder(str(root))
    said = sentence(found(source.count, source.classes, source.left_out))
    assert said.isprintable() and len(said) < 4000
    assert 0 < source.count <= len(tree) * 3
    assert {label for _, label in source.files} == set(range(len(source.classes)))
    assert {why for _, why in source.left_out} <= REASONS.keys()
    for k in range(source.count):
        assert source.name(k).isprintable()
        with contextlib.suppress(ImageError):
            assert source.read(k)[0].mode == "RGB"
    return source


PARSERS["folder of images"] = Parser(
    trees,
    read_tree,
    DataError,
    lambda source, at: open_folder(str(source.path)),
    longest=1000,
    few=8,
    many=1500,
)


@functools.cache
def decoded(folder: Path) -> Path:
    """A folder of images, decoded into a cache."""
    plant([(["cat"], "0.png", CONTENTS[0]), (["dog"], "1.png", CONTENTS[0])], folder / "images")
    return build_store(
        f"folder:{folder / 'images'}", 16, cache_dir=folder / "whole", workers=0
    ).folder


def read_store(change: tuple[str, Any], folder: Path) -> Any:
    name, edit = change
    whole = decoded(folder)
    place = folder / "cache" / whole.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    written(place, name, edit)
    store = build_store(f"folder:{folder / 'images'}", 16, cache_dir=place.parent, workers=0)
    assert store.read(np.array([0, 1])).shape == (2, 3, 16, 16) == store.images.shape
    assert store.labels.shape == (2,) and set(store.labels) <= {0, 1}
    assert len(store.content) == 64
    store.file.close()
    return store.classes


def store_files() -> st.SearchStrategy[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        whole = decoded.__wrapped__(Path(folder))
        meta = json.loads((whole / "meta.json").read_text())
        return st.one_of(
            st.tuples(st.just("meta.json"), json_files(meta)),
            *(
                st.tuples(st.just(name), head_damaged((whole / name).read_bytes(), 140))
                for name in ("labels.npy", "images.npy")
            ),
        )


PARSERS["decoded images"] = Parser(st.deferred(store_files), read_store, DataError, few=6, many=800)


def read_paths(paths: list[list[str]], _: Path) -> None:
    parts = [tuple(each) for each in paths if each]
    classes, left_out = arrange(parts, "root")
    assert classes.keys().isdisjoint(left_out)
    assert sorted([*classes, *left_out]) == list(range(len(parts)))
    assert set(left_out.values()) <= REASONS.keys()
    assert all(classes.values())


PARSERS["paths of images"] = Parser(
    st.lists(
        st.lists(st.one_of(st.sampled_from(FOLDERS), st.text(min_size=1, max_size=8)), max_size=5),
        max_size=12,
    ),
    read_paths,
    many=6000,
)


# ---------------------------------------------------------------------------------- addresses


def all_controls() -> list[Control]:
    """Every control of every page, as it is declared."""
    there: dict[int, Control] = {}
    for module in pkgutil.walk_packages(dashboard.__path__, "dashboard."):
        for value in vars(importlib.import_module(module.name)).values():
            inside = value.values() if isinstance(value, dict) else value
            many = inside if isinstance(value, (dict, list, tuple)) else [value]
            there |= {id(each): each for each in many if isinstance(each, Control)}
    return list(there.values())


CONTROLS = all_controls()


def read_link(link: tuple[int, list[str]], _: Path) -> Any:
    control, link_texts = CONTROLS[link[0]], link[1]
    if problem := control.link_problem(link_texts):
        raise Said(problem)
    if isinstance(control, MultiChoice):
        return control.kept(link_texts), control.numbers(link_texts)
    value = (
        tuple(int(float(text)) for text in link_texts)
        if len(link_texts) > 1
        else control.of_text(link_texts[0])
    )
    assert control.problem(value) == ""
    if value is not None and not isinstance(control, Choice):
        assert control.of_field(control.to_field(value)) == value
    if control.field in SamplingSpec.model_fields and not isinstance(control, Choice):
        SPEC.replace(**({control.field: control.to_field(value)} if value is not None else {}))
    return value


link_texts = st.one_of(
    texts,
    st.integers(-2, 10**4).map(str),
    st.floats().map(repr),
    st.sampled_from(["true", "False", "linear", "cosine", "latest", "trailing", "Edit"]),
)
PARSERS["parameter of a link"] = Parser(
    st.tuples(
        st.integers(0, len(CONTROLS) - 1),
        st.lists(link_texts, min_size=1, max_size=3),
    ),
    read_link,
    few=60,
    longest=1200,
    many=15000,
)


def read_mask(text: Any, _: Path) -> None:
    mask = decode(text, 16)
    assert mask.shape == (16, 16) and mask.dtype == bool


PARSERS["painted mask"] = Parser(
    st.one_of(texts, st.none(), st.integers(), st.binary(max_size=40).map(lambda b: b.hex())),
    read_mask,
    many=2000,
)
