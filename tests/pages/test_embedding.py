"""The Embedding page: the lecture's row, its limits, and what it says of a run's `time_mlp`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.figures import embedding as embedding_figures
from dashboard.services import conditioning
from dashboard.ui.navigation import FOLDER
from diffusion_core.process.embedding import embed
from diffusion_core.process.sinusoids import cosine_similarity, sinusoids
from diffusion_core.runs.checkpoint import CheckpointError, load_model, save_weights
from diffusion_core.runs.presets import build_network, preset
from diffusion_core.runs.run import Run
from tests import tiny_runs
from tests.pages.app import component_data, open_page, seen, words

NETWORKS: dict[str, dict[str, Any]] = {
    "lecture": {"widths": [4, 4, 4, 4, 4]},
    "small": {"widths": [8, 8], "blocks": 1, "attention_levels": [], "patch": 2},
}


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


def charts(app: AppTest) -> set[str]:
    """The keys of the charts, which end their identities."""
    found = [each.proto for each in app.get("bidi_component")]
    return {each.id.rpartition("-")[2] for each in found if each.component_name == "chart"}


def values(array: Any) -> np.ndarray:
    """The numbers of a figure, as Plotly packs them."""
    if isinstance(array, list):
        return np.array(array)
    found = np.frombuffer(base64.b64decode(array["bdata"]), np.dtype(array["dtype"]))
    return found.reshape([int(each) for each in array.get("shape", "-1").split(",")])


def figure(app: AppTest, key: str) -> dict[str, Any]:
    return json.loads(component_data(app, "chart", key)["figure"])


def test_the_page_opens_on_the_lectures_embedding_of_t_30() -> None:
    app = open_embedding()
    assert component_data(app, "sinusoids") == {"size": 32, "base": 10000}
    told = component_data(app, "timestep")
    assert (told["t"], told["last"]) == (30, 299)
    assert component_data(app, "chart", "sinusoidal-rows")["cursor"] == "y"
    assert component_data(app, "chart", "sinusoidal-similarity")["cursor"] == "xy"


@pytest.mark.parametrize("view", ["Time MLP", "Blocks", "Over training"])
def test_without_a_checkpoint_the_page_says_so(view: str) -> None:
    app = open_embedding(view=view)
    assert "No run has a checkpoint yet." in app.info[0].value
    assert not app.get("bidi_component")


def test_an_odd_size_gets_a_sentence() -> None:
    app = open_embedding(size="33")
    assert [error.value for error in app.error] == [
        "The embedding size must be even, half sines and half cosines. 33 is odd."
    ]


@pytest.mark.parametrize("view", ["Formula", "Size and base"])
@pytest.mark.parametrize(
    "settings",
    [{"size": "4", "T": "2", "base": "2"}, {"size": "1024", "T": "4000", "base": "1000000"}],
)
def test_the_smallest_and_the_largest_embedding_can_be_looked_at(
    settings: dict[str, str], view: str
) -> None:
    app = open_embedding(**settings, t="3999", view=view)
    sent = sum(len(each.proto.json) for each in app.get("bidi_component"))
    assert sent < 1_000_000
    if view == "Formula":
        assert component_data(app, "timestep")["t"] == int(settings["T"]) - 1


def test_the_effect_of_the_base_is_the_closed_form() -> None:
    app = open_embedding(view="Size and base", size="8", base="50", T="100")
    curves = {curve["name"]: values(curve["y"]) for curve in figure(app, "bases")["data"]}
    assert list(curves) == [f"base {base}" for base in "50 10 100 1,000 10,000 100,000".split()]
    distances = values(figure(app, "bases")["data"][0]["x"])
    assert distances[0] == 1 and distances[-1] == 99
    frequencies = 50 ** -(np.arange(4) / 3)
    expected = np.cos(np.outer(distances, frequencies)).mean(axis=1)
    assert curves["base 50"] == pytest.approx(expected, abs=1e-12)
    sizes = {curve["name"]: values(curve["y"]) for curve in figure(app, "sizes")["data"]}
    assert list(sizes) == ["size 8", "size 32", "size 128", "size 512"]
    assert sizes["size 8"] == pytest.approx(expected, abs=1e-12)


def test_the_hardest_pair_is_the_smallest_angle_of_all() -> None:
    app = open_embedding(view="Size and base", size="4", T="60")
    neighbours, closest = figure(app, "angles")["data"]
    bases = values(closest["x"])
    rows = sinusoids(np.arange(60), 4, bases[3])
    angles = np.degrees(np.arccos(np.clip(cosine_similarity(rows), -1, 1)))
    assert values(neighbours["y"])[3] == pytest.approx(angles[0, 1], abs=1e-6)
    smallest = angles[~np.eye(60, dtype=bool)].min()
    assert values(closest["y"])[3] == pytest.approx(smallest, abs=1e-6)
    distance = values(closest["customdata"])[3]
    assert angles[0, int(distance)] == pytest.approx(smallest, abs=1e-6)
    assert distance > 1  # with two frequencies, timesteps far apart are the hardest pair


def test_settings_in_the_address_that_mean_nothing_are_left_out() -> None:
    app = open_embedding(size="2", T="many", t="-3", base="1", view="nothing", run="nobody")
    assert component_data(app, "sinusoids") == {"size": 32, "base": 10000}
    assert component_data(app, "timestep")["t"] == 30


@pytest.mark.parametrize(("kind", "size"), [("lecture", 32), ("small", 32)])
def test_a_run_shows_its_time_mlp(kind: str, size: int, runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine", kind)
    app = open_embedding(t="39", view="Time MLP")
    assert f"Step 3 of {preset(kind).steps:,}, preset {kind}, T = 40." in words(app)
    assert f"into {size} numbers" in words(app)
    told = component_data(app, "timestep")
    assert (told["t"], told["last"]) == (39, 39)  # of the run's own T
    model = load_model(Run(run).latest_checkpoint()).model
    shown = values(figure(app, "learned-rows")["data"][0]["z"])
    assert np.array_equal(shown, embed(model.get_submodule("time_mlp"), np.arange(40)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_blocks_terms_are_those_of_the_network_at_work(kind: str, runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine", kind)
    model = load_model(Run(run).latest_checkpoint(), exact=True).model
    layer = "ups.0.time_mlp" if kind == "lecture" else "ups.0.residual.scale_shift"
    seen: list[torch.Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda _, __, out: seen.append(out))
    model(torch.zeros(40, 3, 16, 16), torch.arange(40))
    expected = seen[0].relu() if kind == "lecture" else seen[0].chunk(2, dim=1)[1]
    app = open_embedding(view="Blocks", block="ups.0", term="shift")
    shown = values(figure(app, "terms")["data"][0]["z"])
    assert shown == pytest.approx(expected.numpy(), abs=1e-5)
    sizes = figure(app, "sizes")["data"][0]
    [row] = values(sizes["z"])[[name == "ups.0" for name in sizes["y"]]]
    assert row == pytest.approx(np.sqrt((expected.numpy() ** 2).mean(axis=1)), rel=1e-4)


def test_what_a_class_adds_is_said_of_a_run_with_classes_only(runs_dir: Path) -> None:
    tiny_runs.write_run(runs_dir, "classes", 40)
    app = open_embedding(view="Blocks", run="classes", label="bus")
    assert "What the class adds" in words(app)
    curves = figure(app, "classes")["data"]
    assert [curve["name"] for curve in curves] == ["van", "bus", "coupé"]
    assert all((values(curve["y"]) > 0).all() for curve in curves)
    write_run(runs_dir, "mine")
    app = open_embedding(view="Blocks", run="mine")
    assert "classes" not in charts(app)
    assert not [box for box in app.selectbox if box.label == "Class"]


def test_training_is_seen_over_the_checkpoints(runs_dir: Path) -> None:
    write_run(runs_dir, "one")
    assert "This run has one checkpoint" in words(open_embedding(view="Over training", run="one"))
    tiny_runs.write_run(runs_dir, "many", *range(1, 31))
    app = open_embedding(view="Over training", run="many", block="middle.1", term="scale")
    assert [curve["name"] for curve in figure(app, "steps")["data"]] == [
        f"step {step}" for step in (1, 7, 13, 18, 24, 30)
    ]
    varied = figure(app, "variations")["data"][0]
    steps = values(varied["x"])
    assert (steps[0], steps[-1], len(steps)) == (1, 30, 24)
    assert values(varied["z"]).shape == (len(varied["y"]), 24)


def test_a_slider_leads_over_the_steps_of_a_run(runs_dir: Path) -> None:
    write_run(runs_dir, "mine", steps=(3, 6, 9))
    app = open_embedding(view="Time MLP")
    assert "Step 9 of" in words(app)
    app.select_slider(key="step").set_value("6").run()
    assert "Step 6 of" in words(app)
    assert "Step 3 of" in words(open_embedding(view="Blocks", step="3"))


def test_the_page_starts_from_the_run_that_was_chosen_last(runs_dir: Path) -> None:
    for name in ("one", "two"):
        write_run(runs_dir, name)
    app = open_page("sampling.py")
    first = app.selectbox(key="run").value
    [other] = {"one", "two"} - {first}
    app.selectbox(key="run").select(other).run()
    for _ in range(2):
        app.switch_page(str(FOLDER / "embedding.py")).run()
        app.segmented_control(key="view").set_value("Blocks").run()
        assert app.selectbox(key="run").value == other
        app.switch_page(str(FOLDER / "home.py")).run()
    assert open_embedding(view="Blocks", run=other).selectbox(key="run").value == other  # a link


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_shown(runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine", steps=(3, 6))
    newest = run / "weights" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    app = open_embedding(view="Time MLP")
    [warning] = app.warning
    assert "step-00000006.safetensors is damaged or cut short" in warning.value
    assert "Step 3 of" in words(app)


def test_a_run_with_only_damaged_checkpoints_is_named(runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine")
    (run / "weights" / "step-00000003.safetensors").write_bytes(b"not weights")
    app = open_embedding(view="Blocks")
    [warning] = app.warning
    assert "No checkpoint of mine can be used: step-00000003.safetensors" in seen(warning.value)
    assert "No run has a checkpoint yet." not in "".join(info.value for info in app.info)


def test_a_checkpoint_that_goes_away_before_it_is_loaded_gets_a_sentence(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(checkpoint: object) -> None:
        raise CheckpointError("step-00000003.safetensors can no longer be read: gone")

    write_run(runs_dir, "mine")
    monkeypatch.setattr(conditioning, "network", gone)
    app = open_embedding(view="Blocks")
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


def test_a_heatmap_of_zeros_still_has_a_colour_scale() -> None:
    figure = embedding_figures.rows_figure(np.zeros((3, 4), np.float32), np.arange(3))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-1, 1)
    assert not figure.layout.shapes


def test_the_heatmap_has_the_rows_of_its_timesteps() -> None:
    app = open_embedding(size="1024", T="4000")
    told = figure(app, "sinusoidal-rows")
    [heatmap] = told["data"]
    steps, dimensions = values(heatmap["y"]), values(heatmap["x"])
    assert len(set(np.diff(steps))) == len(set(np.diff(dimensions))) == 1
    expected = sinusoids(steps, 1024)[:, dimensions]
    assert values(heatmap["z"]) == pytest.approx(expected, abs=1e-6)
    assert [note["text"] for note in told["layout"]["annotations"]] == ["sines", "cosines"]
