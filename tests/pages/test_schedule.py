"""The Schedule page: the lecture's numbers at t, overlaid schedules, its limits, the CSV."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.explain import schedule_design
from dashboard.figures import schedule as schedule_figures
from dashboard.figures.schedule import MOST_POINTS, QUANTITIES, number, to_csv
from dashboard.ui import pickers
from diffusion_core.process.tables import SCHEDULE_KINDS, USUAL_POINTS, ScheduleTables
from diffusion_core.runs.designs import DESIGNS
from tests.forks.client import PYTHON, ROOT
from tests.pages.app import buttons, component_data, open_page, press, words
from tests.tiny_runs import tiny, write_run

# t: sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod, as the lecture prints them.
LECTURE = {
    0: ("0.9999", "0.0100"),
    30: ("0.9831", "0.1830"),
    60: ("0.9380", "0.3467"),
    90: ("0.8684", "0.4959"),
    120: ("0.7801", "0.6256"),
    150: ("0.6800", "0.7332"),
    180: ("0.5750", "0.8182"),
    210: ("0.4717", "0.8817"),
    240: ("0.3754", "0.9269"),
    270: ("0.2898", "0.9571"),
}


def open_schedule(**settings: str | list[str]) -> AppTest:
    return open_page("schedule.py", **settings)


WITHOUT_THE_SHELL = '''
import sys
from streamlit.testing.v1 import AppTest

SHELL = """
import streamlit as st
from dashboard.ui.navigation import FOLDER
st.navigation([st.Page(FOLDER / name) for name in ("schedule.py", "noising.py")]).run()
"""
app = AppTest.from_string(SHELL, default_timeout=60).run()
assert not app.exception and app.title[0].value == "Schedule"
sys.exit("PyTorch is imported" if "torch" in sys.modules else 0)
'''


@pytest.mark.long
def test_the_page_needs_no_pytorch() -> None:
    done = subprocess.run(
        [PYTHON, "-c", WITHOUT_THE_SHELL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def charts(app: AppTest) -> list[dict[str, str]]:
    """What the browser is told of each chart."""
    found = [each.proto for each in app.get("bidi_component")]
    return [json.loads(each.json) for each in found if each.component_name == "chart"]


def tables(app: AppTest) -> dict[str, ScheduleTables]:
    """The schedules whose coefficients are shown, as the browser computes them."""
    found = {}
    for each in component_data(app, "coefficients")["schedules"]:
        betas = np.frombuffer(base64.b64decode(each["betas"]), "<f8")
        schedule = found[each["name"]] = ScheduleTables("linear", len(betas))
        schedule.betas, schedule.alphas_cumprod = betas, np.cumprod(1 - betas)
        schedule.log_snr = np.frombuffer(base64.b64decode(each["logSnr"]), "<f8")
    return found


def quantity(table: str) -> schedule_figures.Quantity:
    return next(q for q in QUANTITIES if q.table == table)


def test_the_page_opens_on_the_lectures_schedule_with_its_numbers_at_150() -> None:
    app = open_schedule()
    shown = tables(app)["linear"]
    assert np.array_equal(shown.betas, np.linspace(1e-4, 0.02, 300))
    assert component_data(app, "timestep")["t"] == 150
    assert [chart["alt"].split(" over ")[0] for chart in charts(app)] == [
        quantity.title for quantity in QUANTITIES
    ]
    assert not app.error


@pytest.mark.parametrize("t", LECTURE)
def test_numbers_are_written_as_the_lecture_writes_them(t: int) -> None:
    schedule = ScheduleTables()
    values = schedule.sqrt_alphas_cumprod[t], schedule.sqrt_one_minus_alphas_cumprod[t]
    assert tuple(map(number, values)) == LECTURE[t]


def test_several_schedules_are_overlaid_and_have_a_column_each() -> None:
    app = open_schedule(kinds=["linear", "cosine"], T="1000", t="500")
    assert list(tables(app)) == ["linear", "cosine"]
    assert "**cosine**: noise dominates from t = 496 on" in app.markdown[-1].value
    angles = (np.array([501 / 1000, 0]) + 0.008) / 1.008 * np.pi / 2  # Nichol & Dhariwal 2021
    expected = np.cos(angles[0]) ** 2 / np.cos(angles[1]) ** 2
    assert tables(app)["cosine"].alphas_cumprod[500] == pytest.approx(expected)


def test_a_cursor_beyond_the_new_end_goes_to_the_last_timestep() -> None:
    app = open_schedule(t="250")
    assert component_data(app, "timestep")["t"] == 250
    app.number_input(key="T").set_value(200).run()
    assert not app.exception
    told = component_data(app, "timestep")
    assert (told["t"], told["last"], app.query_params["t"]) == (199, 199, "199")


@pytest.mark.parametrize("timesteps", [2, 4000])
def test_the_shortest_and_the_longest_schedule_can_be_looked_at(timesteps: int) -> None:
    app = open_schedule(T=str(timesteps), t=str(timesteps - 1), kinds=list(SCHEDULE_KINDS))
    assert component_data(app, "timestep")["t"] == timesteps - 1
    assert list(tables(app)) == list(SCHEDULE_KINDS)


def test_settings_in_the_address_that_mean_nothing_are_left_out() -> None:
    app = open_schedule(kinds="quadratic", T="0", t="soon", beta_end="7", zero_snr="perhaps")
    assert np.array_equal(tables(app)["linear"].betas, np.linspace(1e-4, 0.02, 300))


def test_zero_terminal_snr_shows_infinities_and_says_that_nothing_is_left() -> None:
    app = open_schedule(zero_snr="true", t="299")
    shown = tables(app)["linear"]
    assert (shown.betas[-1], shown.log_snr[-1]) == (1, -np.inf)
    assert "signal remaining at the last step: none." in app.markdown[-1].value


def test_ends_of_beta_that_contradict_each_other_get_a_sentence() -> None:
    app = open_schedule(beta_start="0.5")
    [error] = app.error
    assert "beta_start <= beta_end" in error.value
    assert not app.get("bidi_component")


def test_without_a_schedule_the_page_asks_for_one() -> None:
    app = open_schedule(kinds="")
    assert [info.value for info in app.info] == ["Select at least one schedule."]


def test_an_infinite_log_snr_is_a_gap_at_the_end_of_its_curve() -> None:
    schedule = ScheduleTables(rescale_zero_terminal_snr=True)
    [curve] = schedule_figures.curve_figure([schedule], quantity("log_snr")).data
    assert np.isnan(curve.y[-1])
    assert np.isfinite(curve.y[:-1]).all()


def test_a_zero_is_a_gap_on_a_logarithmic_axis_only() -> None:
    for logarithmic in (False, True):
        figure = schedule_figures.curve_figure(
            [ScheduleTables()], quantity("posterior_variance"), logarithmic=logarithmic
        )
        assert np.isnan(figure.data[0].y[0]) == logarithmic
        assert np.isfinite(figure.data[0].y[1:]).all()


def test_another_t_changes_no_chart() -> None:
    app = open_schedule()
    before = charts(app)
    app.query_params["t"] = "151"
    app.run()
    assert component_data(app, "timestep")["t"] == 151
    assert charts(app) == before and {chart["cursor"] for chart in before} == {"x"}


def test_several_schedules_have_one_legend_and_one_has_none() -> None:
    kinds = ["linear", "cosine"]
    legend, *curves = charts(open_schedule(kinds=kinds))
    assert legend["alt"] == "Colours of linear and cosine."
    shown = json.loads(legend["figure"])
    assert [line["name"] for line in shown["data"]] == kinds
    assert shown["layout"]["showlegend"]
    assert not any(json.loads(curve["figure"])["layout"]["showlegend"] for curve in curves)
    assert len(curves) == len(charts(open_schedule())) == 6


def test_logarithmic_variances_are_offered_where_a_curve_flattens_the_others() -> None:
    offer = "The variances of cosine are so high that the other curves look flat."
    app = open_schedule(kinds=["linear", "cosine"])
    assert offer in words(app)
    app.toggle(key="log").set_value(True).run()
    assert offer not in words(app)
    assert offer not in words(open_schedule(kinds=["linear", "sigmoid"]))
    assert offer not in words(open_schedule(kinds=["cosine"]))


def test_a_long_curve_is_thinned_and_keeps_both_ends() -> None:
    schedule = ScheduleTables("cosine", timesteps=4000)
    curve = schedule_figures.curve_figure([schedule], quantity("betas")).data[0]
    assert len(curve.x) == MOST_POINTS
    assert (curve.x[0], curve.x[-1]) == (0, 3999)
    assert curve.y[-1] == schedule.betas[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.68, "0.6800"), (1e-4, "1.0000e−04"), (-0.5, "−0.5000"), (0.0, "0"), (-2e-5, "−2.0000e−05")],
)
def test_a_number_is_written_as_the_lecture_writes_it(value: float, text: str) -> None:
    assert number(value) == text


def test_the_csv_holds_every_table_of_every_schedule_at_every_t_exactly() -> None:
    schedules = [ScheduleTables(timesteps=50), ScheduleTables("cosine", 50, 1e-4, 0.02, True)]
    table = pd.read_csv(io.StringIO(to_csv(schedules)))
    assert list(table.columns) == ["kind", "t", *ScheduleTables.TABLES, "log_snr"]
    assert len(table) == 100
    for schedule in schedules:
        rows = table[table.kind == schedule.kind]
        assert list(rows.t) == list(range(50))
        for name in (*ScheduleTables.TABLES, "log_snr"):
            assert np.array_equal(rows[name].to_numpy(), getattr(schedule, name))


# ---------------------------------------------------------------- design

POINTS = "0:9,0.3:2.5,1:-8"


def test_a_design_of_a_link_is_shown_saved_by_name_opened_and_deleted(runs_dir: Path) -> None:
    app = open_schedule(view="Design", points=POINTS)
    assert component_data(app, "designer")["points"] == [[0, 9], [0.3, 2.5], [1, -8]]
    app.text_input(key="design_name").set_value("Steep")
    press(app, "Save this schedule")
    [saved] = DESIGNS.read(runs_dir)[0].values()
    assert (saved.name, saved.points) == ("Steep", ((0, 9), (0.3, 2.5), (1, -8)))

    app = press(open_schedule(view="Design"), "Steep")
    assert app.query_params["points"] == POINTS
    press(app, ":material/delete:")
    assert DESIGNS.read(runs_dir)[0] == {} and "No schedule is saved yet." in words(app)


def test_a_designed_schedule_is_one_of_the_curves_and_leads_on_to_noising() -> None:
    app = open_schedule(kinds="designed", points=POINTS, T="100")
    wanted = ScheduleTables("designed", 100, points=((0, 9), (0.3, 2.5), (1, -8)))
    assert np.array_equal(tables(app)["designed"].betas, wanted.betas)


def test_a_visitor_designs_in_the_link_and_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_schedule(view="Design", points=POINTS)
    assert component_data(app, "designer")["points"][1] == [0.3, 2.5]
    assert "Save this schedule" not in buttons(app)
    assert "The address of this page keeps yours." in words(app)


@pytest.mark.parametrize("points", ["soon", "0:9", "0:1,1:2", "0:nan,1:-9", "0:9,1:-1e999"])
def test_points_of_a_link_that_make_no_schedule_are_left_out(points: str) -> None:
    app = open_schedule(view="Design", points=points)
    assert component_data(app, "designer")["points"] == [list(point) for point in USUAL_POINTS]
    assert "This part of the link is left out." in words(app)


def test_the_points_that_the_browser_tells_are_checked() -> None:
    for odd in (None, 3, [["a"]], [[0, 1], [1, 2]], [[0, 1, 2], [1, 0]], [[0, {}], [1, "x"]]):
        assert pickers.POINTS.problem(schedule_design.points_of(odd)), odd
    assert not pickers.POINTS.problem(schedule_design.points_of([[0, 9], [1, -8.5]]))


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("prediction_type", ["epsilon", "x_0", "v_prediction", "flow_prediction"])
def test_what_a_run_has_learned_is_measured_once_at_its_timesteps(
    prediction_type: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "mine", 20, config=tiny(prediction_type=prediction_type))
    app = open_schedule(view="Training", kinds=["linear", "cosine"])
    assert "of the timesteps the network is less than 5% better" in words(app)
    names = [chart["quantity"] for chart in charts(app)]
    assert names == ["legend", "density", "errors", "known"]


def test_without_a_run_the_training_view_shows_the_density_alone() -> None:
    app = open_schedule(view="Training", weighting="min-SNR, γ = 5")
    assert [chart["quantity"] for chart in charts(app)] == ["density"]
    assert "No run has a checkpoint yet." in app.info[0].value
