"""The Training page's figures and words: which curves they draw, and how numbers are said."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard.figures.theme import GREY
from dashboard.figures.training import (
    curve_figure,
    evaluation_figure,
    lecture_losses,
    loss_figure,
    smoothed,
    timestep_figure,
)
from dashboard.ui import run_wording
from diffusion_core.runs.metrics import BIN_NAMES
from diffusion_core.runs.presets import preset


def curve(*values: float, every: int = 1) -> dict[str, np.ndarray]:
    return {"step": np.arange(1, len(values) + 1) * every, "value": np.array(values)}


def names(figure) -> list[str]:
    return [trace.name for trace in figure.data]


def test_the_lectures_losses_are_the_printed_ones() -> None:
    printed = lecture_losses()
    assert (len(printed["step"]), printed["step"][0]) == (252, 1)
    assert printed["value"][[0, 25, 50, 100]].tolist() == [0.71470, 0.31625, 0.23963, 0.22936]
    assert printed["value"].min() == 0.16600
    assert printed["value"][100:126].mean() == pytest.approx(0.2327, abs=5e-5)


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    values = np.array([2.0, 4.0, 4.0])
    assert smoothed(values, 0.0).tolist() == values.tolist()
    assert smoothed(values, 0.5) == pytest.approx([2, 10 / 3, 26 / 7])
    assert smoothed(np.full(50, 3.0), 0.97) == pytest.approx(np.full(50, 3.0))


def test_a_single_run_names_its_curves_and_several_name_the_runs() -> None:
    one = {"a": curve(1.0, 0.5)}
    none = {"a": curve()}
    assert names(loss_figure(one, {"a": curve(0.9)}, 0.9, False, True)) == [
        "loss",
        "smoothed",
        "validation",
        "the lecture's loss",
    ]
    assert names(loss_figure(one, none, 0.0, False, False)) == ["loss"]
    two = loss_figure(one | {"b": curve(2.0)}, none | {"b": curve(1.0)}, 0.9, False, False)
    shown = [trace.name for trace in two.data if trace.showlegend is not False]
    assert shown == ["a", "b", "b, validation"]
    assert [trace.legendgroup for trace in two.data] == ["a", "a", "b", "b", None]


def test_zoom_is_kept_over_new_data_and_not_over_another_kind_of_axis() -> None:
    data = {"a": curve(1.0)}, {"a": curve()}
    first, second, log = (loss_figure(*data, 0.9, kind, False) for kind in (False, False, True))
    assert first.layout.uirevision == second.layout.uirevision == log.layout.uirevision
    assert first.layout.yaxis.uirevision == second.layout.yaxis.uirevision
    assert first.layout.yaxis.uirevision != log.layout.yaxis.uirevision
    assert log.layout.yaxis.type == "log"


def test_curves_lie_where_the_axis_puts_them_and_the_lecture_beside_them() -> None:
    losses = {"a": curve(1.0, 0.5) | {"x": np.array([128.0, 256.0])}}
    figure = loss_figure(
        losses, {"a": curve()}, 0.0, False, True, x_title="images seen", lecture_scale=128
    )
    assert figure.layout.xaxis.title.text == "images seen"
    assert figure.data[0].x.tolist() == [128, 256]
    assert figure.data[1].x[:2].tolist() == [128, 256]
    by_step = loss_figure({"a": curve(1.0, 0.5)}, {"a": curve()}, 0.0, False, False)
    assert by_step.data[0].x.tolist() == [1, 2]
    # What somebody zoomed to by the step is no range of images.
    assert by_step.layout.xaxis.uirevision != figure.layout.xaxis.uirevision


def test_a_change_is_a_labelled_dashed_grey_line() -> None:
    data = {"a": curve(1.0), "b": curve(*[1.0] * 200)}, {"a": curve(), "b": curve()}
    text = "learning rate 0.001 → 0.0001"
    figure = loss_figure(*data, 0.0, True, False, changes={"b": [(20.0, text), (120.0, text)]})
    line, second = (trace for trace in figure.data if trace.yaxis == "y2")
    assert list(line.x) == [20, 20, 20]
    assert (line.mode, line.text[1].strip()) == ("lines+text", f"b, {text}")
    assert text in line.hovertemplate
    assert (line.line.color, line.line.dash) == (GREY, "dash")
    assert line.legendgroup == "b"
    # The labels stay within the chart and do not lie on each other.
    assert (line.textposition, second.textposition) == ("middle right", "middle left")
    assert line.y[1] != second.y[1]
    assert list(figure.layout.yaxis2.range) == [0, 1]
    assert figure.layout.yaxis2.type is None  # not logarithmic as the losses' axis is


@pytest.mark.parametrize(("last", "distance"), [(2, 1), (10, 1), (11, None)])
def test_the_ticks_of_a_short_curve_are_whole_steps(last: int, distance: int | None) -> None:
    one = curve(*[1.0] * last)
    bins = dict.fromkeys(BIN_NAMES, one)
    losses = {"a": one}, {"a": curve()}
    for figure in (
        loss_figure(*losses, 0.0, False, False),
        curve_figure(losses[0], "memory"),
        timestep_figure(bins),
    ):
        assert figure.layout.xaxis.dtick == distance
    seconds = loss_figure(*losses, 0.0, False, False, x_title="training time, seconds")
    assert seconds.layout.xaxis.dtick is None


def test_a_tabs_curves_share_one_axis() -> None:
    figure = curve_figure({"in use": curve(1.0), "most so far": curve(2.0)}, "memory, GB")
    assert names(figure) == ["in use", "most so far"]
    assert figure.layout.yaxis.title.text == "memory, GB"
    share = curve_figure({"device use": curve(0.5)}, "share", percent=True)
    assert share.layout.yaxis.tickformat == ".0%"


def test_the_interval_of_an_evaluation_is_a_band_around_it() -> None:
    steps = np.array([10, 20])
    ends = [{"step": steps, "value": np.array(values)} for values in ([4, 2], [3, 1], [5, 4])]
    figure = evaluation_figure({"run": (ends[0], ends[1], ends[2])}, "share", percent=True, most=3)
    band, line, most = figure.data
    assert band.x.tolist() == [10, 20, 20, 10] and band.y.tolist() == [3, 1, 4, 5]
    assert line.y.tolist() == [4, 2] and line.customdata.tolist() == [[3, 5], [1, 4]]
    assert (most.x, most.y) == ((0, 20), (3, 3)) and "without memorisation" in most.name


def test_the_heatmap_has_a_row_for_each_tenth_and_hatches_unknown_ones() -> None:
    curves = {name: curve() for name in BIN_NAMES}
    curves["loss_t0"] = curve(0.1, 0.1, 0.1, 0.1)
    curves["loss_t9"] = curve(1.0, 1.0, 0.01, 0.01)
    figure = timestep_figure(curves)
    heatmap, hatched = figure.data
    assert heatmap.z.shape == (10, 4)
    assert heatmap.z[9] == pytest.approx([0, 0, -2, -2])
    assert np.isnan(heatmap.z[5]).all()
    assert (hatched.name, hatched.marker.pattern.shape) == ("no data yet", "/")
    assert hatched.y == tuple(name for name in heatmap.y[1:9] for _ in range(4))
    assert (list(hatched.base[:4]), list(hatched.x[:4])) == ([0.5, 1.5, 2.5, 3.5], [1, 1, 1, 1])
    assert heatmap.y[9] == "90% to 100%"
    assert figure.layout.yaxis.title.standoff == 12  # else the title lies on such long labels


def test_the_heatmap_of_a_short_run_has_no_gaps_where_numbers_came_in_groups() -> None:
    steps = np.array([1, 12, 35, 58, 60])  # as they are written, about once a second
    curves = {name: {"step": steps, "value": np.arange(1.0, 6.0)} for name in BIN_NAMES}
    curves["loss_t3"] = {"step": steps[[0, 2, 4]], "value": np.ones(3)}  # the rarest
    [heatmap] = timestep_figure(curves).data
    assert len(heatmap.x) == heatmap.z.shape[1] + 1 == 4  # the columns' ends
    assert np.isfinite(heatmap.z).all()
    assert (heatmap.x[0], heatmap.x[-1]) == (0.5, 60.5)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (42.4, "42 s"),
        (200, "3 min 20 s"),
        (1600, "26 min"),
        (7500, "2 h 5 min"),
        (2e5, "2 days"),
        (1e9, "11,574 days"),
    ],
)
def test_durations_are_said_in_the_units_that_matter(seconds: float, words: str) -> None:
    assert run_wording.duration(seconds) == words


def test_the_lectures_reference_says_whose_data_it_is() -> None:
    config = preset("lecture")
    assert "This run trains on `cars`" in run_wording.lecture_sentence(config)
    own = run_wording.lecture_sentence(config.replace(data="folder:/stanford"))
    assert "On the same images this run should follow it." in own
