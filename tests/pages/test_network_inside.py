"""The Network page's tabs that run a network, and the one that has two beside each other."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.services import queued
from dashboard.services.model_cache import MODELS, fresh_model
from diffusion_core.data.store import load_image
from diffusion_core.models import inside
from diffusion_core.process.noise import image_noise
from diffusion_core.process.noising import image_to_x_0
from diffusion_core.runs.checkpoint import load_model, save_weights
from diffusion_core.runs.presets import PRESETS, build_network
from diffusion_core.runs.run import Run
from tests.pages.app import component_data, figures, open_page, words
from tests.tiny_runs import LECTURE, tiny, write_run

INSIDE, SKIPS, REACH, BESIDE = "Inside a block", "Skips", "Receptive field", "Two networks"
CONDITIONAL = {"widths": [8, 16], "blocks": 1, "attention_levels": [1], "num_classes": 3}
GREY = {"widths": [8, 16], "blocks": 1, "attention_levels": [1], "channels": 1}
RUNS = {
    "flow": tiny(prediction_type="flow_prediction", schedule={"timesteps": 20}),
    "conditional": tiny(network_args=CONDITIONAL),
    "grey": tiny(channels=1, network_args=GREY),
    "zero snr": tiny(
        schedule={"kind": "linear", "timesteps": 20, "rescale_zero_terminal_snr": True},
        prediction_type="v_prediction",
    ),
    "x_0": tiny(prediction_type="x_0"),
    "lecture": LECTURE,
}


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    queued._jobs.clear()


def open_tab(tab: str, network: str = "run mine", **settings: object) -> AppTest:
    return open_page("unet.py", network=network, tab=tab, **settings)


def metrics(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind != "grey")) for kind in RUNS]
)
@pytest.mark.parametrize("tab", [INSIDE, SKIPS, REACH])
def test_every_tab_opens_for_every_kind_of_run(kind: str, tab: str, runs_dir: Path) -> None:
    config = RUNS[kind]
    write_run(runs_dir, "mine", 4, config=config)
    block = "ups.0" if kind == "lecture" else "middle.0"
    app = open_tab(tab, block=block, t=config.schedule["timesteps"] - 1, of="chosen block")
    assert not app.error and not app.warning
    if tab == INSIDE:
        assert {"Time", "Memory of weights", "Memory of activations"} <= set(metrics(app))
        assert "Feature maps" in words(app)
        assert ("softmax" in words(app)) == (kind != "lecture")
    elif tab == SKIPS:
        assert "Each skip is switched off alone" in words(app)
        assert len(figures(app)) == 2
    else:
        assert metrics(app)["Not 0 in"].endswith(" px")


def test_nothing_is_computed_before_its_tab_is_open(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "mine", 4)
    monkeypatch.setattr(queued, "ask", lambda *_: pytest.fail("computed"))
    open_tab("Architecture")
    open_tab(BESIDE)


def test_the_receptive_field_of_a_link_is_that_of_the_checkpoint(runs_dir: Path) -> None:
    config = RUNS["conditional"]
    write_run(runs_dir, "mine", 4, config=config)
    app = open_tab(REACH, picture=3, t=7, seed=5, row=2, column=9, label="bus")
    data = component_data(app, "pixel")
    assert data["at"] == [2, 9]
    shown = next(panel for panel in data["panels"] if panel["title"] == "Gradient")
    network, schedule, _ = load_model(Run(runs_dir / "mine").latest_checkpoint(), exact=True)
    pixels, _, _ = load_image("cars", 3, 16)
    noise = image_noise(5, 1, (3, 16, 16))()
    x_t, _ = schedule.add_noise(image_to_x_0(pixels), torch.tensor([7]), noise)
    given = inside.Given(x_t, torch.tensor([7]), torch.tensor([1]))
    wanted = inside.gradient_map(network, given, inside.WHOLE, (2, 9)).numpy()
    found = np.frombuffer(base64.b64decode(shown["map"]), np.uint8).reshape(16, 16)
    assert shown["peak"] == pytest.approx(wanted.max(), rel=1e-5)
    assert abs(found - 255 * wanted / wanted.max()).max() <= 0.51


def test_what_somebody_has_asked_is_not_computed_again(runs_dir: Path) -> None:
    write_run(runs_dir, "mine", 4)
    open_tab(SKIPS)
    jobs = dict(queued._jobs)
    assert len(jobs) == 1
    open_tab(SKIPS)
    assert queued._jobs == jobs
    open_tab(SKIPS, t=3)
    assert len(queued._jobs) == 2


def test_the_time_of_the_blocks_is_measured_once_for_all_images(runs_dir: Path) -> None:
    write_run(runs_dir, "mine", 4, config=tiny())
    open_tab(INSIDE, block="downs.0")
    measured = [key for key in queued._jobs if str(key).startswith("('time")]
    open_tab(INSIDE, block="downs.0", t=3, picture=2)
    assert [key for key in queued._jobs if str(key).startswith("('time")] == measured
    assert len(measured) == 1 and len(queued._jobs) == 3


def test_no_more_results_are_kept_than_there_is_room_for(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "mine", 4)
    monkeypatch.setattr(queued, "MOST_KEPT", 1)
    open_tab(SKIPS)
    open_tab(SKIPS, t=3)
    assert len(queued._jobs) == 1


@pytest.mark.parametrize("tab", [SKIPS, REACH])
def test_a_preset_has_fresh_weights_and_says_so(tab: str) -> None:
    app = open_tab(tab, network="tiny")
    assert "A preset has no weights, so the weights are freshly initialised." in words(app)
    zero = "the last layer of a fresh network is zero" if tab == SKIPS else "is 0 everywhere"
    assert zero in words(app)


def test_fresh_weights_are_the_same_each_time_and_leave_the_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    first = fresh_model(PRESETS["tiny"], torch.device("cpu")).model.state_dict()
    MODELS._entries.clear()
    again = fresh_model(PRESETS["tiny"], torch.device("cpu")).model.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], value) for name, value in again.items())
    assert first["stem.weight"].std() > 0


def test_a_network_that_is_too_large_for_the_server_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dashboard.explain.network_look.free_memory", lambda device: 4e8)
    app = open_tab(SKIPS, network="lecture")
    assert "takes 250 MB, more than this server has to spare" in words(app)
    assert not queued._jobs


def test_a_visitor_whose_evaluations_are_used_up_gets_a_sentence(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_HOURLY_EVALUATIONS", "3")
    write_run(runs_dir, "mine", 4, config=tiny())
    app = open_tab(SKIPS)
    assert "network evaluations; the limit per hour is 3." in words(app)


def test_a_checkpoint_whose_values_are_not_finite_is_shown(runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine", config=tiny())
    weights = build_network("unet", tiny().network_args).state_dict()
    broken = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    save_weights(run, 4, broken, tiny(), ())
    for tab in (INSIDE, SKIPS, REACH):
        app = open_tab(tab)
        assert not app.error, tab
    assert "Some predictions are not finite" in words(open_tab(SKIPS))


def test_a_job_that_fails_says_why_and_can_be_tried_again(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "mine", 4)

    def fail(*_: object) -> None:
        raise ValueError("No such luck.")

    with monkeypatch.context() as patch:
        patch.setattr(inside, "gradient_map", fail)
        app = open_tab(REACH)
        [error] = app.error
        assert "Something went wrong" in error.value
    [again] = [button for button in app.button if button.label == "Try again"]
    again.click().run()
    assert not app.exception and not app.error
    assert "Not 0 in" in metrics(app)


def test_an_earlier_checkpoint_can_be_chosen(runs_dir: Path) -> None:
    write_run(runs_dir, "mine", 4, 8)
    app = open_tab(SKIPS, step="4")
    assert app.selectbox(key="step").value == "4"
    [key] = queued._jobs
    assert "step-00000004" in str(key)


def test_two_networks_stand_beside_each_other(runs_dir: Path) -> None:
    write_run(runs_dir, "mine", config=tiny(network_args=CONDITIONAL))
    app = open_tab(BESIDE, network="small", other="run mine")
    assert len(figures(app)) == 3
    data = component_data(app, "comparison")
    assert data["names"] == ["small", "mine"]
    lines = {line["name"]: line for part in data["parts"] for line in part["lines"]}
    assert lines["Parameters"]["cells"][0] == "3,956,460"
    assert lines["Classes"]["cells"] == ["none", "3"]
    assert lines["network_args.widths"]["cells"] == ["32, 64, 96, 128", "8, 16"]
    assert lines["label_embedding"]["cells"][0] == ""
    assert lines["ups.7"]["cells"][1] == ""
    assert lines["network_args.widths"]["marked"] == [False, True]


def test_a_second_network_that_does_not_take_the_size_gets_a_sentence(runs_dir: Path) -> None:
    coarse = {"widths": [8, 8, 8, 8], "blocks": 1, "attention_levels": [], "patch": 4}
    write_run(runs_dir, "coarse", config=tiny(network_args=coarse, image_size=32))
    app = open_tab(BESIDE, network="small", other="run coarse", size=48)
    assert "coarse does not take images of 48×48 px." in words(app)


def test_what_no_longer_fits_another_size_or_network_goes_back_to_the_default(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "mine", 4, config=RUNS["conditional"])
    write_run(runs_dir, "other", 6, 8, config=tiny(image_size=32))
    app = open_tab(
        REACH,
        "run other",
        row=30,
        column=31,
        size=32,
        block="ups.3",
        step="6",
        t=19,
        of="prediction",
    )
    app.selectbox(key="network").select("run mine").run()
    assert not app.exception and not app.error
    app.select_slider(key="size").set_value(16).run()
    assert not app.exception and not app.error
    assert component_data(app, "pixel")["at"][0] < 16
    app.selectbox(key="network").select("tiny").run()
    assert not app.exception and not app.error
    assert app.selectbox(key="block").value in ("downs.0", "ups.3")
