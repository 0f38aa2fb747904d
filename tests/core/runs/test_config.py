"""Settings: what is refused and how, and that they survive JSON and the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from diffusion_core.cli.main import make_parser
from diffusion_core.models.unet import Unet
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import SCHEDULE_KINDS
from diffusion_core.records import bounds
from diffusion_core.runs.config import (
    ConfigError,
    NetworkArgs,
    RunConfig,
    ScheduleArgs,
    meaning,
    parse_settings,
    with_options,
    with_settings,
)
from diffusion_core.runs.presets import PRESETS, build_model, preset
from diffusion_core.sampling.spec import SamplingSpec

NAMES = list(RunConfig.model_fields)


def from_command_line(words: list[str]) -> RunConfig:
    """As `train` reads them."""
    parsed = make_parser().parse_args(["train", "--run", "x", *words])
    return with_settings(preset(parsed.preset), parse_settings(parsed.set))


def configs() -> st.SearchStrategy[RunConfig]:
    """Settings that differ from a preset in anything that can be set."""
    changes = st.fixed_dictionaries(
        {
            # Epsilon cannot be learned over a schedule rescaled to zero terminal SNR.
            "prediction_type": st.sampled_from(["x_0", "v_prediction"]),
            "network": st.just("unet"),  # the lecture's takes widths alone
        },
        optional={
            "schedule": st.fixed_dictionaries(
                {
                    "kind": st.sampled_from(list(SCHEDULE_KINDS)),
                    "points": st.sampled_from([[[0, 9], [1, -9.5]], [[0, 9], [0.5, 1], [1, -2]]]),
                },
                optional={
                    "shift_size": st.sampled_from([0, 32, 128]),
                    "timesteps": st.integers(2, 50),
                    "beta_start": st.floats(1e-6, 0.01),
                    "rescale_zero_terminal_snr": st.booleans(),
                },
            ),
            "network_args": st.dictionaries(
                st.sampled_from(["blocks", "patch", "num_classes"]), st.integers(1, 4)
            ),
            "class_conditional": st.booleans(),
            "label_dropout": st.floats(0, 1),
            "loss": st.sampled_from(list(LOSSES)),
            "min_snr_gamma": st.floats(0, 100),
            "data": st.text("cars:/=é β\"'{}[]-1\n", min_size=1).map("folder:".__add__),
            "image_size": st.sampled_from([16, 32, 64, 256]),
            "random_flip": st.booleans(),
            "steps": st.integers(1, 10**9),
            "batch_size": st.integers(1, 4096),
            "seed": st.integers(0, 2**63 - 1),
            "optimizer": st.sampled_from(["adam", "adamw"]),
            "learning_rate": st.floats(1e-9, 9),
            "ema_decay": st.floats(0, 0.99999),
            "num_workers": st.integers(-1, 64),
            "sample_every": st.integers(0, 100),
            "mixed_precision": st.sampled_from(["auto", "bf16", "no"]),
        },
    )
    return st.builds(
        lambda name, values: with_settings(preset(name), values),
        st.sampled_from(sorted(PRESETS)),
        changes,
    )


# ---------------------------------------------------------------- there and back


@settings(max_examples=100)
@given(configs())
def test_settings_survive_json(config: RunConfig) -> None:
    values = json.loads(config.to_json())
    assert RunConfig.from_dict(values) == config
    assert RunConfig.from_dict({**values, "resolved": {}, "of_a_newer_version": 1}) == config


@settings(max_examples=100)
@given(configs())
def test_settings_survive_the_command_line(config: RunConfig) -> None:
    words: list[str] = []
    for name, value in json.loads(config.to_json()).items():
        if name == "network_args":
            value.pop("num_classes", None)  # follows from the data
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    args: dict[str, Any] = {**config.network_args}
    args.pop("num_classes", None)
    assert from_command_line(["--preset", "small", *words]) == config.replace(network_args=args)


def test_an_entry_of_a_newer_version_that_changes_network_or_schedule_is_refused() -> None:
    for values in ({"schedule": {"shift": 3}}, {"network_args": {"blocks": 1, "shift": []}}):
        with pytest.raises(ConfigError, match=r"\.shift is not known; leave it out\."):
            RunConfig.from_dict(values)


def test_every_number_has_bounds_that_a_control_can_ask_for() -> None:
    for name, field in RunConfig.model_fields.items():
        if field.annotation in (int, float):
            assert None not in bounds(RunConfig, name), name
    assert bounds(RunConfig, "learning_rate") == (0, 10)
    assert bounds(RunConfig, "schedule.timesteps") == (2, 100_000)
    assert bounds(RunConfig, "network_args.blocks") == (1, 64)


def test_seeds_and_steps_have_the_same_bounds_in_training_and_sampling() -> None:
    assert bounds(RunConfig, "seed") == bounds(SamplingSpec, "seed") == (0, 2**63 - 1)
    most = bounds(RunConfig, "schedule.timesteps")[1]
    assert bounds(SamplingSpec, "steps")[1] == bounds(RunConfig, "sample_steps")[1] == most


def test_settings_left_out_of_json_get_their_defaults() -> None:
    assert RunConfig.from_dict({"steps": 5}) == RunConfig(steps=5)


# ---------------------------------------------------------------- words of the command line


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("steps=12", 12),
        ("learning_rate=3e-4", 3e-4),
        ("random_flip=No", False),
        ("class_conditional=1", True),
        ("data=folder:/a=b", "folder:/a=b"),
        ("data=", ""),
        ('schedule={"kind": "linear"}', {"kind": "linear"}),
        ("num_workers=-1", -1),
        ("channels=1", 1),
        ("schedule.timesteps=12", 12),
        ("schedule.rescale_zero_terminal_snr=False", False),
        ("network_args.widths=[8]", [8]),
        ("ema_decays.short=0", 0.0),
    ],
)
def test_words_become_values_of_the_settings_type(word: str, value: object) -> None:
    name = word.partition("=")[0]
    found = parse_settings([word])[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("steps", "'steps' is no setting; write it as KEY=VALUE."),
        ("step=3", "no setting called step; did you mean steps?"),
        ("steps=3.5", "steps takes a whole number, not '3.5'"),
        ("steps=", "steps takes a whole number, not ''"),
        ("learning_rate=fast", "learning_rate takes a number, not 'fast'"),
        ("random_flip=maybe", "random_flip takes true or false, not 'maybe'"),
        ("schedule=linear", "schedule takes a JSON object, not 'linear'"),
        ("network_args=[1]", "network_args takes a JSON object"),
        ("data.kind=1", "no setting called data.kind"),
        ("schedule.steps=1", r"no setting called schedule.steps; there are schedule.kind, "),
        ("schedule.rescale_zero_terminal_snr=maybe", "takes true or false, not 'maybe'"),
        ("network_args.channels=1", r"network_args.channels cannot be set; set channels instead"),
        ('network_args={"num_classes":3}', r"network_args.num_classes cannot be set; it follows"),
        ("network_args.widths=8", "network_args.widths takes a JSON list, not '8'"),
        ("steps=" + "1" * 5000, "steps takes a whole number, not '1111"),
        ("steps=5 steps=6", "steps is set to 5 and to 6; leave one of them out."),
        ("schedule.kind=linear schedule.kind=cosine", "schedule.kind is set to 'linear' and to"),
        (
            'schedule={"timesteps":20} schedule.timesteps=30',
            "schedule.timesteps is set to 20 and to 30; leave one of them out.",
        ),
    ],
)
def test_a_word_that_cannot_be_a_setting_gets_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_settings(word.split())


def test_a_value_that_equals_nothing_is_refused_as_such() -> None:
    with pytest.raises(ConfigError, match=r"schedule.beta_start is nan; it must be a finite"):
        with_settings(preset("small"), parse_settings(["schedule.beta_start=nan"]))


def test_the_same_value_may_be_given_twice() -> None:
    assert parse_settings(["steps=5", "steps=5"]) == {"steps": 5}
    assert with_options({"steps": 5}, {"steps": 5, "seed": None}) == {"steps": 5}


def test_a_dotted_word_changes_one_entry_and_keeps_the_others() -> None:
    changed = with_settings(
        preset("small"), parse_settings(["schedule.kind=linear", "network_args.widths=[32, 64]"])
    )
    assert changed.schedule == {"kind": "linear", "timesteps": 1000}
    assert changed.network_args == {**preset("small").network_args, "widths": [32, 64]}
    assert preset("small").schedule["kind"] == "cosine"


def test_a_dotted_word_adds_to_a_whole_dictionary_given_beside_it() -> None:
    words = ['schedule={"kind": "sigmoid"}', "schedule.timesteps=20"]
    for order in (words, words[::-1]):
        assert with_settings(preset("small"), parse_settings(order)).schedule == {
            "kind": "sigmoid",
            "timesteps": 20,
        }


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": "vit"}, "network is 'vit'; it must be lecture or unet."),
        ({"loss": "l3"}, "loss is 'l3'; it must be one of l1, l2, huber."),
        (
            {"prediction_type": "score"},
            "prediction_type is 'score'; it must be one of epsilon,",
        ),
        ({"loss_on": "v"}, "loss_on=v needs the prediction_type x_0 or flow_x_0."),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; it must be adam, adamw or muon."),
        ({"mixed_precision": "fp8"}, "mixed_precision is 'fp8'"),
        ({"steps": 0}, "steps is 0; it must be from 1 to 1,000,000,000."),
        ({"batch_size": -4}, "batch_size is -4; it must be from 1 to 1,000,000."),
        ({"seed": -1}, "seed is -1; it must be from 0 to "),
        ({"checkpoint_every": -1}, "checkpoint_every is -1; it must be from 0 to 1,000,000,000."),
        ({"num_workers": -2}, "num_workers is -2; it must be from -1 to 4,096."),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be more than 0 and less than 10."),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be at least 0 and less than 1."),
        ({"label_dropout": 1.5}, "label_dropout is 1.5; it must be from 0 to 1."),
        ({"gradient_clip": float("inf")}, "gradient_clip is inf; it must be a finite number."),
        ({"min_snr_gamma": float("nan")}, "min_snr_gamma is nan"),
        ({"image_size": 20}, "image_size is 20; it must be a multiple of 8, from 16 to 256."),
        ({"image_size": 8}, "image_size is 8"),
        ({"channels": 2}, "channels is 2; it must be 1 or 3."),
        ({"ema_decays": {"main": 0.9}}, "ema_decays: 'main' cannot be a name"),
        ({"ema_decays": {"a/b": 0.9}}, "ema_decays: 'a/b' cannot be a name"),
        (
            {"ema_decays": {"short": 1.0}},
            "short is 1.0; it must be at least 0 and less than 1.",
        ),
        ({"ema_decays": {"short": "x"}}, "ema_decays.short is 'x'; it must be a number."),
        ({"keep_every": -1}, "keep_every is -1; it must be from 0 to"),
        ({"micro_batch": -1}, "micro_batch is -1; it must be from 0 to"),
        ({"schedule": {"kind": "square"}}, "schedule: Unknown schedule 'square'"),
        (
            {"schedule": {"timesteps": "ten"}},
            "schedule.timesteps is 'ten'; it must be a whole",
        ),
        ({"schedule": {"steps": 10}}, "schedule.steps is not known"),
        ({"schedule": {"timesteps": 3 * 10**8}}, "timesteps is 300000000; it must be from 2 to"),
        ({"schedule": {"timesteps": 10**400}}, "timesteps is 1000"),
        ({"schedule": {"beta_end": 0.5, "timesteps": 5000}}, "alphas_cumprod becomes 0 before"),
        ({"schedule": {"beta_start": float("nan")}}, "schedule.beta_start is nan; it must be a"),
        ({"schedule": {"rescale_zero_terminal_snr": "False"}}, "snr is 'False'; it must be true"),
        ({"network_args": {"widths": [0]}}, "network_args.widths.0 is 0; it must be from 1 to"),
        ({"network_args": {"depth": 3}}, "network_args.depth is not known"),
        ({"network": "lecture", "network_args": {"blocks": 1}}, "takes widths, not blocks"),
        ({"epochs": 3}, "epochs is not known; leave it out."),
        ({"ema_decays": None}, "ema_decays is null; it must be an object."),
        ({"data": None}, "data is null; it must be text."),
        ({"data": "moon:3"}, "data: 'moon:3' is no data set. Use cars, cars:N, "),
        ({"data": "folder"}, "data: 'folder' is no data set. Use cars, cars:N, "),
        ({"preset": []}, "preset is a list; it must be text."),
        ({"image_size": 64.0}, "image_size is 64.0; it must be a whole number."),
        ({"steps": True}, "steps is true; it must be a whole number."),
        (
            {"schedule": {"rescale_zero_terminal_snr": True}, "prediction_type": "epsilon"},
            "cannot be learned through epsilon; choose v_prediction or x_0.",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_would_do(
    changes: dict, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        RunConfig(**changes)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(steps=0, learning_rate=-1.0, loss="l3")
    for name in ("steps", "learning_rate", "loss"):
        assert f"{name} is" in str(caught.value)


def test_a_value_of_another_type_is_refused_like_any_other() -> None:
    with pytest.raises(ConfigError):
        RunConfig.from_dict({"steps": "many"})


def test_a_setting_that_does_not_exist_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="There is no setting called epochs, lr"):
        RunConfig().replace(lr=1.0, epochs=2)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().steps = 5


# ---------------------------------------------------------------- the presets


def test_the_lecture_preset_is_the_lectures_training() -> None:
    config = preset("lecture")
    assert NoiseSchedule(**config.schedule).settings() == NoiseSchedule().settings()
    assert (config.network, config.network_args) == ("lecture", {})
    assert (config.prediction_type, config.loss, config.min_snr_gamma) == ("epsilon", "l1", 0)
    assert (config.optimizer, config.learning_rate) == ("adam", 0.001)
    assert (config.warmup_steps, config.gradient_clip, config.weight_decay) == (0, 0, 0)
    assert (config.batch_size, config.steps, config.sample_every) == (128, 252, 25)
    assert config.image_size == 64 and config.random_flip
    assert not config.class_conditional


def test_the_small_preset_is_the_small_network_of_the_design() -> None:
    config = preset("small")
    assert (config.prediction_type, config.loss_on, config.schedule["kind"]) == (
        "x_0",
        "v",
        "cosine",
    )
    assert config.min_snr_gamma > 0 and 0.99 < config.ema_decay < 1
    parameters = sum(p.numel() for p in build_model("small").parameters())
    assert 3e6 < parameters < 6e6


def test_a_prediction_without_a_loss_on_v_goes_without_that_of_the_preset() -> None:
    def objective(**settings: Any) -> tuple[str, float]:
        config = with_settings(preset("small"), settings)
        return config.loss_on, config.min_snr_gamma

    assert objective() == objective(prediction_type="x_0") == ("v", 5)
    assert objective(prediction_type="epsilon") == ("prediction", 5)
    assert objective(prediction_type="flow_prediction") == ("prediction", 0)
    assert objective(prediction_type="flow_x_0") == ("v", 0)
    with pytest.raises(ConfigError, match="loss_on=v needs"):
        objective(prediction_type="epsilon", loss_on="v")


def test_every_preset_knows_its_own_name() -> None:
    assert all(config.preset == name for name, config in PRESETS.items())


def test_overrides_of_a_preset_reach_its_network() -> None:
    model = build_model("small", num_classes=3, widths=[16, 32], attention_levels=[1])
    assert model.num_classes == 3
    assert isinstance(model, Unet) and model.stem.out_channels == 16


def test_what_is_no_preset_and_no_argument_gets_a_sentence() -> None:
    with pytest.raises(
        ConfigError, match="no preset called 'huge'; there are lecture, tiny, small"
    ):
        preset("huge")
    with pytest.raises(ConfigError, match=r"network_args: there is no depth; there are"):
        build_model("small", depth=3)


@pytest.mark.parametrize(
    "objective",
    [
        ["prediction_type=flow_prediction"],
        ["schedule.rescale_zero_terminal_snr=true"],
        ['schedule={"rescale_zero_terminal_snr": true}', "prediction_type=x_0"],
    ],
)
def test_a_run_whose_snr_reaches_0_has_no_min_snr_unless_it_is_set(objective: list[str]) -> None:
    start = preset("small")
    assert start.min_snr_gamma == 5
    config = with_settings(start, parse_settings(objective))
    assert config.min_snr_gamma == RunConfig(**parse_plain(config)).min_snr_gamma == 0
    assert with_settings(config, {"steps": 7}).min_snr_gamma == 0
    set_too = [*objective, "min_snr_gamma=5"]
    assert with_settings(start, parse_settings(set_too)).min_snr_gamma == 5
    # The lecture's has none from the beginning, and keeps a value that was chosen.
    assert with_settings(preset("lecture"), {"prediction_type": "x_0"}).min_snr_gamma == 0
    assert (
        with_settings(start.replace(min_snr_gamma=3), parse_settings(objective)).min_snr_gamma == 3
    )


def parse_plain(config: RunConfig) -> dict[str, Any]:
    """The settings of the objective alone, as a caller would give them."""
    return {"prediction_type": config.prediction_type, "schedule": config.schedule}


def test_a_wrong_objective_gets_one_sentence_for_what_is_wrong() -> None:
    with pytest.raises(ConfigError) as raised:
        RunConfig(prediction_type=3)
    assert str(raised.value) == "prediction_type is 3; it must be text."


@pytest.mark.parametrize(
    ("batch", "micro", "refused"), [(1, 0, True), (8, 1, True), (5, 2, True), (8, 2, False)]
)
def test_the_lectures_network_at_16_pixels_takes_no_single_images(
    batch: int, micro: int, refused: bool
) -> None:
    changes = {"image_size": 16, "batch_size": batch, "micro_batch": micro}
    if not refused:
        assert preset("lecture").replace(**changes).image_size == 16
        return
    with pytest.raises(ConfigError, match="two or more images at once"):
        preset("lecture").replace(**changes)
    assert preset("lecture").replace(**changes | {"image_size": 24}).image_size == 24


def test_of_very_many_faults_the_first_are_named_and_the_others_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(network_args={f"k{number}": 0 for number in range(2000)})
    said = str(caught.value)
    assert said.startswith("network_args.k0 is not known; leave it out. network_args.k1 is")
    assert said.endswith("network_args.k7 is not known; leave it out. 1,992 more cannot be used.")


def test_every_setting_says_what_it_means() -> None:
    names = [*RunConfig.model_fields, "ema_decays.any"]
    names += [f"schedule.{entry}" for entry in ScheduleArgs.__annotations__]
    names += [f"network_args.{entry}" for entry in NetworkArgs.__annotations__]
    for name in names:
        assert meaning(name)[-1] == ".", name
    assert meaning("loss") == (
        "L1: absolute difference. L2: squared. Huber: squared near zero, linear beyond."
    )
    assert "fine to coarse" in meaning("network_args.widths")
    with pytest.raises(ConfigError, match="no setting called"):
        meaning("loss.l1")
