"""The Embedding page: the lecture's row, its limits, and what it says of a run's `time_mlp`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.figures import embedding as embedding_figures
from dashboard.services import cached
from dashboard.ui.navigation import FOLDER
from diffusion_core.process.embedding import (
    SinusoidalPositionEmbeddings,
    cosine_similarity,
    embed,
    spread_timesteps,
)
from diffusion_core.runs.checkpoint import CheckpointError, save_weights
from diffusion_core.runs.presets import build_network, preset
from tests.pages.app import component_data, figures, open_page, seen, words

NETWORKS: dict[str, dict[str, Any]] = {
    "lecture": {"widths": [4, 4, 4, 4, 4]},
    "small": {"widths": [8, 8], "blocks": 1, "attention_levels": [], "patch": 2},
}
ROW_30 = [
    *(-0.9880, -0.5030, 0.5963, -0.9991, 0.5384, 0.9841, 0.6842, 0.3966),
    *(0.2189, 0.1191, 0.0646, 0.0350, 0.0189, 0.0102, 0.0055, 0.0030),
    *(0.1543, -0.8643, -0.8028, 0.0423, -0.8427, 0.1774, 0.7293, 0.9180),
    *(0.9757, 0.9929, 0.9979, 0.9994, 0.9998, 0.9999, 1.0000, 1.0000),
]


def open_embedding(**settings: str) -> AppTest:
    return open_page("embedding.py", **settings)


def write_run(
    runs_dir: Path, name: str, kind: str = "small", steps: tuple[int, ...] = (3,)
) -> Path:
    """A run with tiny random weights and T = 40."""
    config = preset(kind).replace(network_args=NETWORKS[kind], schedule={"timesteps": 40})
    run = runs_dir / name
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    (run / "status.json").write_text(json.dumps({"state": "finished", "created": 1.0}))
    network = build_network(config.network, config.network_args)
    for step in steps:
        save_weights(run, step, network.state_dict(), config, ())
    return run


def test_the_page_opens_on_the_lectures_row_of_t_30() -> None:
    app = open_embedding()
    table = app.dataframe[0].value
    assert [*table["sine"].round(4), *table["cosine"].round(4)] == pytest.approx(ROW_30, abs=1e-7)
    assert table["frequency"].iloc[0] == 1
    assert table["frequency"].iloc[-1] == pytest.approx(1e-4)
    assert app.header[0].value == "Embedding of t = 30"


def test_the_row_as_a_curve_is_the_lectures() -> None:
    [row] = embed(SinusoidalPositionEmbeddings(32), [30])
    sine, cosine = embedding_figures.row_figure(row).data
    assert [*sine.y, *cosine.y] == pytest.approx(ROW_30, abs=5e-5)
    assert [*sine.x, *cosine.x] == list(range(32))


def test_without_a_checkpoint_the_page_says_so() -> None:
    app = open_embedding()
    assert "No run has a checkpoint yet." in app.info[0].value
    assert len(figures(app)) == 3


def test_an_odd_size_gets_a_sentence() -> None:
    app = open_embedding(size="33")
    assert [error.value for error in app.error] == [
        "The embedding size must be even, half sines and half cosines. 33 is odd."
    ]


@pytest.mark.parametrize(
    "settings", [{"size": "4", "T": "2"}, {"size": "1024", "T": "4000", "t": "3999"}]
)
def test_the_smallest_and_the_largest_embedding_can_be_looked_at(settings: dict[str, str]) -> None:
    app = open_embedding(**settings)
    assert len(app.dataframe[0].value) == int(settings["size"]) // 2
    assert component_data(app, "timestep")["t"] == int(settings["T"]) - 1


def test_settings_in_the_address_that_mean_nothing_are_left_out() -> None:
    app = open_embedding(size="2", T="many", t="-3", run="nobody")
    assert app.header[0].value == "Embedding of t = 30"
    assert len(app.dataframe[0].value) == 16


@pytest.mark.parametrize(("kind", "size"), [("lecture", 32), ("small", 32)])
def test_a_run_shows_its_time_mlp(kind: str, size: int, runs_dir: Path) -> None:
    write_run(runs_dir, "mine", kind)
    app = open_embedding(t="39")
    words = [seen(caption.value) for caption in app.caption]
    assert f"mine at step 3: preset {kind}, T = 40, {size} dimensions per timestep." in words
    assert len(figures(app)) == 5
    assert not [sentence for sentence in words if "beyond" in sentence]


def test_the_page_starts_from_the_run_that_was_chosen_last(runs_dir: Path) -> None:
    for name in ("one", "two"):
        write_run(runs_dir, name)
    app = open_page("sampling.py")
    first = app.selectbox(key="run").value
    [other] = {"one", "two"} - {first}
    app.selectbox(key="run").select(other).run()
    for _ in range(2):
        app.switch_page(str(FOLDER / "embedding.py")).run()
        assert f"{other} at step 3" in words(app)
        app.switch_page(str(FOLDER / "home.py")).run()
    app.switch_page(str(FOLDER / "embedding.py")).run()
    app.selectbox(key="run").select(first).run()
    assert f"{first} at step 3" in words(app)
    assert f"{other} at step 3" in words(open_embedding(run=other))  # a link


def test_a_t_beyond_the_runs_own_end_is_said_not_to_be_marked(runs_dir: Path) -> None:
    write_run(runs_dir, "mine")
    app = open_embedding(t="40")
    words = [seen(caption.value) for caption in app.caption]
    assert "t = 40 is beyond this run's T = 40 and is not marked." in words


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_shown(runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine", steps=(3, 6))
    newest = run / "weights" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    app = open_embedding()
    [warning] = app.warning
    assert "step-00000006.safetensors is damaged or cut short" in warning.value
    assert any("mine at step 3" in seen(caption.value) for caption in app.caption)


def test_a_run_with_only_damaged_checkpoints_is_named(runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine")
    (run / "weights" / "step-00000003.safetensors").write_bytes(b"not weights")
    app = open_embedding()
    [warning] = app.warning
    assert "No checkpoint of mine can be used: step-00000003.safetensors" in seen(warning.value)
    assert "No run has a checkpoint yet." not in "".join(info.value for info in app.info)


def test_a_checkpoint_that_goes_away_before_it_is_loaded_gets_a_sentence(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(checkpoint: object) -> None:
        raise CheckpointError("step-00000003.safetensors can no longer be read: gone")

    write_run(runs_dir, "mine")
    monkeypatch.setattr(cached, "model", gone)
    app = open_embedding()
    assert [error.value for error in app.error] == [
        "step-00000003.safetensors can no longer be read: gone"
    ]


@pytest.mark.parametrize("kind", NETWORKS)
def test_embed_gives_what_the_network_itself_computes(kind: str) -> None:
    network = build_network(preset(kind).network, NETWORKS[kind]).eval()
    rows = embed(network.time_mlp, np.arange(40))
    assert rows.dtype == np.float32
    with torch.no_grad():
        assert np.array_equal(rows, network.time_mlp(torch.arange(40)).numpy())


def test_the_sinusoidal_similarity_depends_only_on_the_distance() -> None:
    similarity = cosine_similarity(embed(SinusoidalPositionEmbeddings(32), np.arange(300)))
    frequencies = SinusoidalPositionEmbeddings(32).frequencies().numpy()
    for distance in (0, 1, 7, 250):
        diagonal = np.diagonal(similarity, distance)
        assert diagonal == pytest.approx(np.cos(distance * frequencies).mean(), abs=1e-4)


def test_a_row_of_zeros_is_similar_to_nothing() -> None:
    rows = np.array([[0, 0], [3, 4], [6, 8], [-3, -4]], dtype=np.float32)
    expected = [[0, 0, 0, 0], [0, 1, 1, -1], [0, 1, 1, -1], [0, -1, -1, 1]]
    assert cosine_similarity(rows) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(("timesteps", "rows"), [(300, 300), (500, 500), (501, 251), (4000, 500)])
def test_rows_are_thinned_in_equal_strides_from_the_first(timesteps: int, rows: int) -> None:
    steps = spread_timesteps(timesteps, 500)
    assert len(steps) == rows
    assert steps[0] == 0
    assert len(set(np.diff(steps))) == 1
    assert steps[-1] < timesteps


def test_a_heatmap_of_zeros_still_has_a_colour_scale() -> None:
    figure = embedding_figures.rows_figure(np.zeros((3, 4), np.float32), np.arange(3), None)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-1, 1)
    assert not figure.layout.shapes


def test_the_heatmap_has_the_rows_of_its_timesteps_and_a_line_at_t() -> None:
    steps = spread_timesteps(4000, 500)
    rows = embed(SinusoidalPositionEmbeddings(32), steps)
    figure = embedding_figures.rows_figure(rows, steps, 30, sines_and_cosines=True)
    assert np.array_equal(figure.data[0].z, rows)
    assert np.array_equal(figure.data[0].y, steps)
    assert {(line.y0, line.y1) for line in figure.layout.shapes} >= {(30, 30)}
    assert [note.text for note in figure.layout.annotations] == ["sines", "cosines"]
