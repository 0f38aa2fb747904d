"""Words of a command line, settings of the app, and names of files."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from dashboard.services import settings
from diffusion_core.cli.main import make_parser
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import open_source
from diffusion_core.review.index import settings_of
from diffusion_core.review.query import FilterError, parse_filter
from diffusion_core.runs import trash
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, with_settings
from diffusion_core.runs.run import Run
from diffusion_core.sampling.series import list_series
from tests.faults.odd_inputs import damaged, json_texts, texts
from tests.faults.parsers.table import PARSERS, Parser, Said, written


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


words = st.one_of(
    st.sampled_from(
        "and or not none ( ) = != < >= ~ ≥ ' \" true 64 2026-11 state finished".split()
    ),
    names,
    texts,
)
PARSERS["filter of runs"] = Parser(
    st.one_of(texts, st.lists(words, max_size=12).map(" ".join)),
    lambda text, _: parse_filter(text)(settings_of(RunConfig())),
    FilterError,
    many=10_000,
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
