"""Checkpoints and metrics of a run."""

from __future__ import annotations

import functools
import io
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from hypothesis import strategies as st

from diffusion_core.runs import checkpoint
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.metrics import MetricsError, MetricsWriter, read_all, read_curve, read_last
from diffusion_core.runs.presets import build_network
from diffusion_core.sampling.capabilities import Capabilities
from tests.faults.odd_inputs import damaged, head_damaged, json_texts, spoiled
from tests.faults.parsers.table import PARSERS, Parser, written
from tests.tiny_runs import CLASSES, TINY


@functools.cache
def tensors() -> dict[str, torch.Tensor]:
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
        curves = [read_curve(path, name) for name in [*read_last(path), "loss"]]
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
