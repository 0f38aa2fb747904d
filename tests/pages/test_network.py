"""The Network page: totals and shapes of presets and runs, sizes, links, and the two figures."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.figures.network import cost_figure, short, unet_figure
from dashboard.ui.navigation import FOLDER
from diffusion_core.models.trace import Trace, trace
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.runs.presets import PRESETS, build_model, preset
from tests.pages.app import figures, open_page, seen, words


def open_network(**settings: object) -> AppTest:
    return open_page("unet.py", **settings)


def write_run(runs_dir: Path, name: str, **config: object) -> Path:
    """A run of the preset `small` with these settings."""
    run = runs_dir / name
    run.mkdir()
    (run / "config.json").write_text(
        json.dumps(preset("small").model_dump() | {"loss_on": "prediction"} | config)
    )
    (run / "status.json").write_text(json.dumps({"state": "finished", "created": 1.0}))
    return run


def totals(app: AppTest) -> list[str]:
    return [metric.value for metric in app.metric]


def table(app: AppTest) -> pd.DataFrame:
    [shown] = app.dataframe
    return shown.value


@functools.cache
def traced(name: str, **changes: int) -> Trace:
    with torch.device("meta"):
        network = build_model(name, **changes)
    return trace(network, 64)


# ---------------------------------------------------------------- the page


def test_the_page_opens_on_the_lectures_network_with_its_totals() -> None:
    app = open_network()
    assert app.title[0].value == "Network"
    assert totals(app) == ["62,438,883", "5.73 G", "249.8 MB"]
    assert "11.46 GFLOP" in words(app)
    assert len(figures(app)) == 3


def test_the_table_is_the_lectures_shape_trace() -> None:
    shown = table(open_network())
    outputs = dict(zip(shown["Name"], shown["Output"], strict=True))
    assert outputs["conv0"] == "(1, 64, 64, 64)"
    assert outputs["downs.3"] == "(1, 1024, 4, 4)"
    assert outputs["ups.0"] == "(1, 512, 8, 8)"
    assert outputs["output"] == "(1, 3, 64, 64)"
    assert shown["Parameters"].sum() == 62_438_883
    assert "concatenated with itself" in set(shown["Type"])


def test_the_layers_inside_the_blocks_come_with_the_switch_and_by_a_link() -> None:
    app = open_network()
    blocks = len(table(app))
    app.toggle(key="layers").set_value(True).run()
    assert not app.exception
    by_switch = table(app)
    assert len(by_switch) > 5 * blocks
    outputs = dict(zip(by_switch["Path"], by_switch["Output"], strict=True))
    assert outputs["downs.0.conv1"] == "(1, 128, 64, 64)"
    assert outputs["downs.0.time_term"] == "(1, 128, 1, 1)"
    assert table(open_network(layers="true")).equals(by_switch)


def test_what_is_unusual_in_the_lectures_network_is_said_there_only() -> None:
    assert "the deepest skip is joined to itself" in words(open_network())
    assert "the deepest skip is joined to itself" not in words(open_network(network="small"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_shown_at_every_kind_of_size(name: str) -> None:
    app = open_network(network=name, size="16")
    [small] = app.dataframe
    app.select_slider(key="size").set_value(256).run()
    assert not app.exception
    last = table(app).iloc[-1]
    assert small.value.iloc[-1]["Output"] == "(1, 3, 16, 16)"
    assert last["Output"] == "(1, 3, 256, 256)"


def test_only_sizes_that_the_network_takes_are_offered() -> None:
    lecture = open_network().select_slider(key="size").options
    assert lecture == [str(size) for size in range(16, 257, 8)]
    small = open_network(network="small").select_slider(key="size").options
    assert small == [str(size) for size in range(16, 257, 16)]


@pytest.mark.parametrize("asked", ["20", "512", "large", ""])
def test_a_size_that_the_network_does_not_take_gets_a_sentence(asked: str) -> None:
    app = open_network(network="lecture", size=asked)
    [info] = app.info
    assert "multiples of 8" in info.value
    assert app.select_slider(key="size").value == 64
    assert totals(app)[1] == "5.73 G"


def test_a_size_that_a_link_gives_twice_gets_a_sentence() -> None:
    app = open_network(network="small", size=["64", "32"])
    [info] = app.info
    said = "The link gives the image size 2 times. The network is shown at 64 px."
    assert info.value == said


def test_a_size_that_no_longer_fits_after_another_choice_gets_a_sentence(runs_dir: Path) -> None:
    coarse = {"widths": [8, 8, 8, 8], "blocks": 1, "attention_levels": [], "patch": 4}
    write_run(runs_dir, "coarse", network_args=coarse, image_size=64)
    app = open_network(network="small", size="48")
    assert not app.info
    app.selectbox(key="network").select("run coarse").run()
    assert not app.exception
    [info] = app.info
    assert "not 48. It is shown at 64 px." in seen(info.value)


def test_a_network_that_does_not_exist_falls_back_to_the_first() -> None:
    app = open_network(network="run long-gone")
    assert app.selectbox(key="network").value == "lecture"


def test_a_run_shows_the_network_that_it_trains_at_its_own_size(runs_dir: Path) -> None:
    arguments = {"widths": [16, 32], "blocks": 1, "attention_levels": [1], "num_classes": 8}
    write_run(runs_dir, "mine", network_args=arguments, image_size=32)
    app = open_network(network="run mine")
    assert app.select_slider(key="size").value == 32
    shown = table(app)
    assert "label_embedding" in set(shown["Name"])
    assert shown.iloc[-1]["Output"] == "(1, 3, 32, 32)"
    assert totals(app)[0] == f"{shown['Parameters'].sum():,}"


def test_the_page_starts_from_the_run_that_was_chosen_last_unless_a_link_says(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "mine")
    app = open_page("training.py", run="mine")
    app.switch_page(str(FOLDER / "unet.py")).run()
    assert app.selectbox(key="network").value == "run mine"
    app.selectbox(key="network").select("base").run()
    assert app.selectbox(key="network").value == "base"
    app.switch_page(str(FOLDER / "home.py")).run()
    app.query_params["network"] = "small"
    app.switch_page(str(FOLDER / "unet.py")).run()
    assert app.selectbox(key="network").value == "small"


def test_no_text_of_the_table_is_cut(runs_dir: Path) -> None:
    [shown] = open_network(network="small").dataframe
    columns = json.loads(shown.proto.columns)
    longest = max(map(len, shown.value["Type"]))
    assert columns["Type"]["width"] > 6.5 * longest  # pixels a letter, on average


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "l3"}, "The settings of mine cannot be used: config.json: loss is 'l3'"),
        ({"network_args": {"depth": 3}}, "network_args.depth is not known"),
        ({"network": "lecture", "network_args": {"blocks": 2}}, "network_args:"),
        ({"network_args": {"blocks": 0}}, "blocks is 0; it must be from 1 to 64"),
        ({"network_args": {"patch": 128}}, "needs images of at least 512×512 px."),
    ],
)
def test_a_run_whose_network_cannot_be_shown_says_why(
    changes: dict[str, object], sentence: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "mine", **changes)
    app = open_network(network="run mine")
    [error] = app.error
    assert sentence in seen(error.value)
    assert not app.metric


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_page_says_what_a_run_of_any_kind_predicts(
    runs_dir: Path, prediction_type: str
) -> None:
    write_run(runs_dir, "mine", prediction_type=prediction_type)
    app = open_network(network="run mine")
    assert PREDICTION_TYPES[prediction_type].formula in words(app)


def test_a_run_that_has_only_just_been_started_is_waited_for(runs_dir: Path) -> None:
    (write_run(runs_dir, "mine") / "config.json").unlink()
    app = open_network(network="run mine")
    [info] = app.info
    assert "mine has not written its settings yet" in seen(info.value)


# ---------------------------------------------------------------- the figures


def bars(figure: go.Figure, name: str) -> list[str]:
    [bar] = [drawn for drawn in figure.data if drawn.type == "bar" and drawn.name == name]
    return list(bar.text)


def test_the_u_of_the_lecture_has_its_channels_and_its_skips() -> None:
    figure = unet_figure(traced("lecture"))
    assert bars(figure, "down") == ["128", "256", "512", "1024"]
    assert bars(figure, "up") == ["512", "256", "128", "64"]
    assert bars(figure, "skip, concatenated") == ["1024", "512", "256", "128"]
    assert bars(figure, "input and output") == ["3", "64", "3"]
    assert list(figure.layout.yaxis.ticktext) == [
        *("64×64", "32×32", "16×16", "8×8", "4×4"),
        "t",
    ]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("lecture", {}), ("small", {"num_classes": 8}), ("small", {"blocks": 3})],
)
def test_no_two_rectangles_of_a_u_overlap(name: str, changes: dict[str, int]) -> None:
    figure = unet_figure(traced(name, **changes))
    places = []
    for bar in (drawn for drawn in figure.data if drawn.type == "bar"):
        for x, width, base, height in zip(bar.x, bar.width, bar.base, bar.y, strict=True):
            places.append((x - width / 2, x + width / 2, base, base + height))
    assert len(places) > 10
    for k, (left, right, bottom, top) in enumerate(places):
        for other_left, other_right, other_bottom, other_top in places[:k]:
            apart = left >= other_right - 1e-6 or other_left >= right - 1e-6
            assert apart or bottom >= other_top or other_bottom >= top


def test_lines_of_skips_run_at_heights_of_their_own() -> None:
    figure = unet_figure(traced("small", blocks=3))
    [skips] = [line for line in figure.data if line.name == "skips"]
    heights = list(skips.y[1::5])
    assert len(heights) == 16
    assert len(set(heights)) == 16


@pytest.mark.parametrize("quantity", ["parameters", "multiply_adds"])
def test_the_bars_of_the_cost_add_up_to_the_total(quantity: str) -> None:
    network = traced("small", num_classes=8)
    figure = cost_figure(network, quantity)
    assert sum(sum(bar.x) for bar in figure.data) == getattr(network, quantity)
    drawn = {name for bar in figure.data for name in bar.y}
    assert drawn == set(figure.layout.yaxis.categoryarray)
    [bars] = figure.data  # inside a bar Plotly makes the text too small to read
    assert bars.textposition == "outside" and figure.layout.xaxis.range[1] > 1.15 * max(bars.x)


def test_counts_are_said_in_three_figures() -> None:
    numbers = [0, 512, 6976, 62_438_883, 5_728_988_160, 2.5e12]
    assert [short(number) for number in numbers] == [
        *("0", "512", "6.98 k", "62.4 M", "5.73 G"),
        "2.5 T",
    ]
