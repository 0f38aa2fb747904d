"""The form that starts a run: presets, other runs' settings, and every field's way into them."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import FakeData

from dashboard.training import form_controls
from dashboard.training.launch import Start, queue_note
from diffusion_core.data.sources import torchvision_sets
from diffusion_core.runs import checkpoint
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.designs import DESIGNS
from diffusion_core.runs.origin import distillation
from diffusion_core.runs.presets import PRESETS, build_network
from diffusion_core.runs.run import Run, RunSnapshot, list_runs
from diffusion_core.runs.status import RunState, StatusRecord
from tests import tiny_runs
from tests.pages.app import buttons, press, words
from tests.pages.training.test_training import open_training

# Nothing here is as in a preset, and some of it has no field.
ODD = tiny_runs.tiny(
    prediction_type="flow_prediction",
    loss="huber",
    min_snr_gamma=3.0,
    schedule={"kind": "sigmoid", "timesteps": 30, "beta_start": 2e-4},
    data="digits:70",
    image_size=24,
    seed=11,
    optimizer="adam",
    weight_decay=0.3,
    gradient_clip=0.5,
    warmup_steps=5,
    ema_decay=0.99,
    ema_decays={"long": 0.999, "mine": 0.9},
    class_conditional=False,
    label_dropout=0.25,
    channels=1,
    random_flip=False,
    keep_checkpoints=3,
    keep_every=4,
    keep_best=False,
    sample_every=2,
    checkpoint_every=4,
    validate_every=2,
    tensorboard=True,
)


DESIGN = ODD.replace(
    prediction_type="v_prediction",
    schedule={"kind": "designed", "points": [[0.0, 9.0], [1.0, -8.0]], "shift_size": 128},
)


NEW = ODD.replace(
    prediction_type="flow_x_0",
    loss_on="v",
    learned_weighting=True,
    min_snr_gamma=0.0,
    timestep_sampling="laplace",
    timestep_log_snr=-1.0,
    timestep_width=1.5,
    immiscible=True,
    augment=0.12,
    optimizer="muon",
    learning_rate_decay="inverse_sqrt",
    decay_after=20,
    restart_at=30,
    average_snapshots=10,
)


@pytest.mark.parametrize("config", [*PRESETS.values(), ODD, DESIGN, NEW, tiny_runs.LECTURE])
def test_the_entries_of_settings_come_to_the_same_settings(config: RunConfig) -> None:
    entries = form_controls.entries_of(config, None)
    again = form_controls.make_config(config, config.data, entries, None)
    assert again == config


def test_a_run_like_another_has_all_its_settings(runs_dir: Path, started) -> None:
    tiny_runs.write_run(runs_dir, "odd", config=ODD)
    app = press(open_training(), "Duplicate run")
    assert app.selectbox(key="preset").value == Start(run="odd")
    assert app.text_input(key="name").placeholder == "odd-2"
    assert app.expander[0].proto.expanded
    assert "Other settings come from run odd." in words(app)
    press(app, "Start")
    assert not app.exception
    assert not app.error
    [run] = started
    assert (run.name, run.config) == ("odd-2", ODD)


def test_a_run_like_one_of_the_newer_settings_has_them_too(runs_dir: Path, started) -> None:
    tiny_runs.write_run(runs_dir, "new", config=NEW)
    app = press(open_training(), "Duplicate run")
    press(app, "Start")
    assert not app.error
    [run] = started
    assert run.config == NEW.replace(restart_at=0)  # its own continuation, not a setting to keep


def test_advanced_settings_are_shown_where_they_have_an_effect(runs_dir: Path, started) -> None:
    app = open_training(target="velocity")
    shown = {each.key for each in (*app.selectbox, *app.number_input, *app.toggle)}
    assert {"t_sampling", "decay", "augment", "snapshots", "weighting", "immiscible"} <= shown
    assert not {"loss_on", "t_log_snr", "t_width", "decay_after", "restart"} & shown
    app.selectbox(key="t_sampling").select("laplace")
    app.selectbox(key="decay").select("cosine")
    app.selectbox(key="target").select("x_0").run()
    assert app.number_input(key="t_log_snr").value == 0 and app.number_input(key="restart")
    app.selectbox(key="loss_on").select("v").run()
    assert app.number_input(key="snr").value == 5
    app.number_input(key="augment").set_value(0.12).run()
    press(app, "Start")
    [run] = started
    assert (run.config.loss_on, run.config.augment, run.config.min_snr_gamma) == ("v", 0.12, 5.0)
    # A target that has no loss on v goes without.
    app = press(open_training(target="velocity", loss_on="velocity"), "Start")
    assert not app.error
    assert started[-1].config.loss_on == "prediction"


def test_the_address_alone_brings_another_runs_settings(runs_dir: Path) -> None:
    tiny_runs.write_run(runs_dir, "odd", config=ODD)
    app = open_training(preset="as odd")
    assert app.selectbox(key="data").value == "digits"
    numbers = {key: app.number_input(key=key).value for key in ("digits", "size", "seed", "every")}
    assert numbers == {"digits": 70, "size": 24, "seed": 11, "every": 2}
    app.selectbox(key="preset").select("base").run()
    numbers = {key: app.number_input(key=key).value for key in ("steps", "batch", "ema", "every")}
    assert numbers == {"steps": 50_000, "batch": 128, "ema": 0.9999, "every": 500}
    # A preset says nothing of the images.
    assert app.number_input(key="size").value == 24


def test_a_run_without_settings_is_nothing_to_start_from(runs_dir: Path) -> None:
    (runs_dir / "empty").mkdir()
    (runs_dir / "empty" / "status.json").write_text('{"state": "failed"}')
    app = open_training(preset="as empty")
    assert app.error[0].value == "empty has no settings; start from a preset."


def test_links_of_earlier_versions_are_understood(runs_dir: Path) -> None:
    tiny_runs.write_run(runs_dir, "odd", config=ODD)
    app = open_training(preset="as odd", target="picture")
    assert app.selectbox(key="preset").value == Start(run="odd")
    assert app.selectbox(key="target").value == "x_0"
    assert app.number_input(key="T").value == 30


@pytest.mark.parametrize(
    "changes",
    [
        {
            "data": "cars",
            "steps": 10**8,
            "batch_size": 5000,
            "min_snr_gamma": 2000.0,
            "keep_every": 10**8,
        },
        {"schedule": {"kind": "linear", "timesteps": 5000}},
        {"data": "cars:1000000000"},
        {"data": "cars:many"},
        {"seed": 2**53 - 1},
        {"seed": 2**63 - 1},  # more digits than a browser keeps: an empty field stands for it
    ],
)
def test_a_run_beyond_the_forms_bounds_is_duplicated_as_it_is(
    changes: dict[str, Any], runs_dir: Path, started: list[RunSnapshot]
) -> None:
    config = tiny_runs.tiny(**changes)
    tiny_runs.write_run(runs_dir, "vast", config=config)
    app = press(open_training(), "Duplicate run")
    assert not app.exception
    assert not app.error
    for _ in range(2):
        app.run()
        assert not app.exception
    press(app, "Start")
    assert not app.exception
    [run] = started
    assert run.config is not None
    # A data set that the form cannot hold becomes the usual one.
    assert run.config == config.replace(data=run.config.data)
    held = config.data in ("cars", "cars:48")
    assert run.config.data == (config.data if held else "cars")


def test_values_in_a_link_that_the_form_cannot_hold_are_left_out() -> None:
    app = open_training(steps=10**30, T=10**6, lr="nan", cars=-3, keep=10**10, warmup="1e400")
    assert not app.error
    numbers = {key: app.number_input(key=key).value for key in ("steps", "T", "lr", "cars", "keep")}
    assert numbers == {"steps": 6000, "T": 1000, "lr": 2e-3, "cars": 20_000, "keep": 10}


def test_a_run_is_created_without_starting(runs_dir: Path, started: list[RunSnapshot]) -> None:
    app = press(open_training(data="digits", digits=400, name="later"), "Create without starting")
    assert not app.exception
    assert not started
    run = Run(runs_dir / "later").snapshot()
    assert (run.state, run.begun) == (RunState.STOPPED, False)
    assert run.config is not None
    assert run.config.data == "digits:400"
    assert "--node_rank 1" in app.code[1].value


FIELDS: list[tuple[str, object, dict[str, object]]] = [
    ("target", "flow_prediction", {"prediction_type": "flow_prediction"}),
    ("target", "epsilon", {"prediction_type": "epsilon"}),
    ("loss", "huber", {"loss": "huber"}),
    ("snr", 0.0, {"min_snr_gamma": 0.0}),
    ("schedule", "linear", {"schedule": {"kind": "linear", "timesteps": 1000}}),
    ("T", 500, {"schedule": {"kind": "cosine", "timesteps": 500}}),
    ("optimizer", "adam", {"optimizer": "adam"}),
    ("warmup", 77, {"warmup_steps": 77}),
    ("ema", 0.99, {"ema_decay": 0.99}),
    ("ema_short", 0.0, {"ema_decays": {}}),
    ("ema_long", 0.9999, {"ema_decays": {"short": 0.99, "long": 0.9999}}),
    ("labels", False, {"class_conditional": False}),
    ("dropout", 0.2, {"label_dropout": 0.2}),
    ("channels", 1, {"channels": 1}),
    ("precision", "no", {"mixed_precision": "no"}),
    ("checkpoints", 40, {"checkpoint_every": 40}),
    ("validations", 0, {"validate_every": 0}),
    ("keep", 0, {"keep_checkpoints": 0}),
    ("keep_every", 1000, {"keep_every": 1000}),
    ("keep_best", False, {"keep_best": False}),
    ("tensorboard", True, {"tensorboard": True}),
]


def test_every_field_reaches_the_settings(started) -> None:
    """All of them in one run of the page; those of the same field come last."""
    app = open_training(data="digits", digits=400, name="run")
    wanted: dict[str, object] = {}
    for key, value, there in FIELDS:
        fields = [*app.selectbox, *app.number_input, *app.toggle]
        [field] = [field for field in fields if field.key == key]
        field.set_value(value)
        wanted |= there
    wanted["schedule"] = {"kind": "linear", "timesteps": 500}
    wanted["ema_decays"] = {"long": 0.9999}
    press(app, "Start")
    assert not app.error
    [run] = started
    config = run.config
    assert {name: getattr(config, name) for name in wanted} == wanted


def test_settings_that_contradict_each_other_get_a_sentence(started) -> None:
    app = press(open_training(zero_snr="true", target="noise"), "Start")
    [error] = app.error
    assert "zero terminal SNR cannot be learned through epsilon" in error.value
    assert not started
    assert "Create without starting" in [button.label for button in app.button]  # is not taken away


def test_warm_up_checkpoints_and_validation_follow_until_they_are_set(started) -> None:
    app = open_training(data="digits", digits=400)

    def numbers() -> list[Any]:
        return [app.number_input(key=key).value for key in ("warmup", "checkpoints", "validations")]

    assert numbers() == [200, 250, 250]
    app.number_input(key="steps").set_value(60)
    app.number_input(key="every").set_value(20).run()
    assert numbers() == [6, 20, 20]
    app.number_input(key="warmup").set_value(50)
    app.number_input(key="checkpoints").set_value(40).run()
    app.number_input(key="steps").set_value(70)
    app.number_input(key="every").set_value(30).run()
    assert numbers() == [50, 40, 30]
    app.button(key="reset-warmup").click().run()
    assert numbers() == [7, 40, 30]
    # tiny has steps of its own for checkpoints and validation.
    app.selectbox(key="preset").select("tiny").run()
    assert numbers() == [40, 100, 100]
    app.number_input(key="every").set_value(20).run()
    assert numbers() == [40, 100, 100]
    press(app, "Start")
    [run] = started
    assert run.config is not None
    assert (run.config.warmup_steps, run.config.checkpoint_every) == (40, 100)


@pytest.mark.parametrize(
    ("objective", "usual"), [({}, 5), ({"target": "flow"}, 0), ({"zero_snr": "true"}, 0)]
)
def test_a_run_whose_snr_reaches_0_starts_without_min_snr(
    objective: dict[str, str], usual: float, started: list[RunSnapshot]
) -> None:
    app = open_training(data="digits", digits=400, **objective)
    field = app.number_input(key="snr")
    assert (field.value, field.placeholder) == (usual, "")
    press(app, "Start")
    [run] = started
    assert run.config is not None
    assert run.config.min_snr_gamma == usual


def test_a_given_min_snr_gamma_is_kept_for_a_flow_too(started: list[RunSnapshot]) -> None:
    press(open_training(data="digits", digits=400, target="flow", snr=5), "Start")
    [run] = started
    assert run.config is not None
    assert run.config.min_snr_gamma == 5


def test_a_run_on_several_cards_makes_a_new_run_wait_for_each_of_them() -> None:
    status = StatusRecord(host=socket.gethostname(), device="cuda", processes=2)
    run = RunSnapshot(Run(Path("both")), RunState.RUNNING, status)
    for card in ("cuda", "cuda:0", "cuda:1"):
        assert queue_note([run], card).startswith("`both` is using the device; a new run")
    assert queue_note([run], "cuda:2") == queue_note([run], "cpu") == ""
    waiting = RunSnapshot(Run(Path("next")), RunState.QUEUED, status)
    note = queue_note([run, waiting], "cuda")
    assert note == "`both` is using the device and 1 run waits; a new run joins the queue."


def test_a_run_whose_settings_cannot_be_read_is_named_where_it_is_chosen(runs_dir: Path) -> None:
    run = tiny_runs.write_run(runs_dir, "broken", config=tiny_runs.tiny())
    (run / "config.json").write_text("{")
    assert (
        "The settings of broken cannot be used: config.json is not readable JSON. "
        "Choose another run or a preset."
    ) in words(open_training(preset="run broken"))


def test_a_run_starts_from_the_weights_of_another(runs_dir: Path, started) -> None:
    tiny_runs.write_run(runs_dir, "other", 20, 40, config=tiny_runs.tiny())
    tiny_runs.write_run(runs_dir, "empty", config=tiny_runs.tiny())
    app = open_training()
    app.selectbox(key="preset").set_value(Start(run="other")).run()
    initial = app.selectbox(key="init")
    assert initial.options == ["none (random)", "other"]
    initial.set_value("other").run()
    steps = app.selectbox(key="init-step-other")
    assert (steps.options, steps.value) == (["step 40", "step 20"], 40)
    steps.set_value(20).run()
    press(app, "Create without starting")
    [run] = [run for run in list_runs(runs_dir) if run.config and run.config.init_from]
    assert run.config == tiny_runs.tiny(init_from="other@20")
    assert (run.path / "origin.safetensors").exists()
    assert "Started from the weights of other, step 20." in words(open_training(run=run.name))


def test_the_average_of_the_initial_weights_is_chosen(runs_dir: Path, started) -> None:
    config = tiny_runs.tiny(ema_decay=0.9, ema_decays={"short": 0.5})
    other = tiny_runs.write_run(runs_dir, "other", 20, config=config)
    main, short = (build_network("unet", config.network_args).state_dict() for _ in range(2))
    checkpoint.save_weights(other, 40, main, config, (), {"short": short})
    app = open_training()
    app.selectbox(key="preset").set_value(Start(run="other")).run()
    app.selectbox(key="init").set_value("other").run()
    average = app.selectbox(key="init-average-other@40")
    assert (average.options, average.value) == (["main (0.9)", "short (0.5)"], "main")
    average.set_value("short").run()
    press(app, "Create without starting")
    [run] = [run for run in list_runs(runs_dir) if run.config and run.config.init_from]
    assert run.config == config.replace(init_from="other@40", init_average="short")
    app = press(open_training(run=run.name), "Duplicate run")
    assert app.selectbox(key="init-average-other@40").value == "short"
    # Other checkpoints have other averages, and random weights none.
    app.selectbox(key="init-step-other").set_value(20).run()
    assert app.selectbox(key="init-average-other@20").options == ["main (0.9)", "short"]
    app.selectbox(key="init").set_value("").run()
    app.text_input(key="name").set_value("random").run()
    press(app, "Create without starting")
    assert Run(runs_dir / "random").config == config


def test_weights_that_do_not_fit_are_refused_on_the_form(runs_dir: Path, started) -> None:
    tiny_runs.write_run(runs_dir, "other", 40, config=tiny_runs.tiny())
    app = open_training()
    app.selectbox(key="init").set_value("other").run()
    sentence = (
        "The weights of other do not fit this run: network_args.widths is 8, 16 there and "
        "32, 64, 96, 128 here. Start from the settings of other."
    )
    assert sentence in words(app)
    press(app, "Start")
    assert [error.value for error in app.error] == [sentence]
    assert not started


def test_a_duplicate_of_such_a_run_starts_from_the_same_weights(runs_dir: Path, started) -> None:
    tiny_runs.write_run(runs_dir, "other", 20, 40, config=tiny_runs.tiny())
    like = tiny_runs.tiny(init_from="other@20")
    tiny_runs.write_run(runs_dir, "like", config=like, created=time.time() + 9)
    app = press(open_training(run="like"), "Duplicate run")
    assert app.selectbox(key="init").value == "other"
    assert app.selectbox(key="init-step-other").value == 20
    press(app, "Create without starting")
    assert Run(runs_dir / "like-2").config == like
    tiny_runs.write_run(runs_dir, "gone", config=tiny_runs.tiny(init_from="deleted@7"))
    app = press(open_training(run="gone"), "Duplicate run")
    assert app.selectbox(key="init").value == "deleted"
    press(app, "Start")
    assert [error.value for error in app.error] == [
        "There is no run deleted whose weights could be used."
    ]


def test_distil_opens_the_form_with_the_settings_of_a_distillation(runs_dir: Path) -> None:
    teacher = tiny_runs.tiny(steps=40)
    tiny_runs.write_run(runs_dir, "cars", 20, 40, config=teacher)
    app = press(open_training(), "Distil")
    assert app.selectbox(key="preset").value == Start(run="cars", distils=True)
    assert app.selectbox(key="init").value == "cars"
    assert app.selectbox(key="init-step-cars").value == 40
    assert "Trains a copy of cars to answer any noise with the image" in words(app)
    press(app, "Create without starting")
    wanted = distillation(teacher, "cars@40")
    assert Run(runs_dir / "cars-distilled").config == wanted
    # It has no weights yet, and is no run to be distilled again.
    assert "Distil" not in buttons(open_training(run="cars-distilled"))
    tiny_runs.write_checkpoint(runs_dir / "cars-distilled", 7, wanted)
    assert "Distil" not in buttons(open_training(run="cars-distilled"))


def test_the_form_says_what_a_torchvision_set_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FakeData(size=6, image_size=(3, 8, 8), num_classes=1)
    monkeypatch.setattr(torchvision_sets, "open_set", lambda name, root, download: tiny)
    app = open_training(data="torchvision", torchvision="FakeData")
    assert "6 images in 1 class (0)." in words(app)


def test_the_form_says_that_files_will_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DIFFUSION_LAB_DOWNLOAD", "1")
    app = open_training(data="torchvision", torchvision="CIFAR100")
    assert "They will be downloaded when the run starts." in words(app)


def test_a_saved_schedule_is_chosen_by_name_and_the_run_keeps_its_points(
    runs_dir: Path, started
) -> None:
    DESIGNS.save(runs_dir, "Steep", points=((0, 9), (0.3, 2), (1, -8)))
    app = open_training(preset="tiny", schedule="designed", design="Steep")
    assert not app.error
    press(app, "Start")
    [run] = started
    assert run.config.schedule["kind"] == "designed"
    assert run.config.schedule["points"] == [[0, 9], [0.3, 2], [1, -8]]
