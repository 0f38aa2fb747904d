"""Settings: what is refused and how, and that they survive JSON and the command line."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.cli.main import make_parser
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.schedule import SCHEDULE_KINDS, NoiseSchedule
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, with_settings
from diffusion_core.runs.presets import PRESETS, as_arguments, build_model, preset

NAMES = [field.name for field in dataclasses.fields(RunConfig)]


def from_command_line(words: list[str]) -> RunConfig:
    """As `do_train` reads them."""
    parsed = make_parser().parse_args(["train", "--run", "x", *words])
    return with_settings(preset(parsed.preset), parse_settings(parsed.set))


def configs() -> st.SearchStrategy[RunConfig]:
    """Settings that differ from a preset in anything that can be set."""
    changes = st.fixed_dictionaries(
        # Epsilon cannot be learned over a schedule rescaled to zero terminal SNR.
        {"prediction_type": st.sampled_from(["x_0", "v_prediction"])},
        optional={
            "schedule": st.fixed_dictionaries(
                {"kind": st.sampled_from(list(SCHEDULE_KINDS))},
                optional={
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
            "data": st.text("cars:/=é β\"'{}[]-1\n", min_size=1),
            "image_size": st.sampled_from([16, 32, 64, 256]),
            "random_flip": st.booleans(),
            "steps": st.integers(1, 10**9),
            "batch_size": st.integers(1, 4096),
            "seed": st.integers(0, 2**63),
            "optimizer": st.sampled_from(["adam", "adamw"]),
            "learning_rate": st.floats(1e-9, 9),
            "ema_decay": st.floats(0, 0.99999),
            "num_workers": st.integers(-1, 64),
            "sample_every": st.integers(0, 100),
            "mixed_precision": st.sampled_from(["auto", "bf16", "no"]),
        },
    )
    return st.builds(
        lambda name, values: preset(name).replace(**values),
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
    assert from_command_line(as_arguments(config)) == config


def test_a_presets_own_settings_need_no_words() -> None:
    for name in PRESETS:
        assert as_arguments(preset(name)) == ["--preset", name]


def test_only_what_differs_from_the_preset_becomes_words() -> None:
    config = preset("lecture").replace(steps=9, data="folder:/images of cars", random_flip=False)
    assert as_arguments(config) == [
        *("--preset", "lecture"),
        *("--set", "data=folder:/images of cars"),
        *("--set", "random_flip=false"),
        *("--set", "steps=9"),
    ]


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
    ],
)
def test_words_become_values_of_the_settings_type(word: str, value: object) -> None:
    name = word.partition("=")[0]
    found = parse_settings([word])[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("steps", "--set takes key=value, not 'steps'"),
        ("step=3", "no setting called step; there are preset, network"),
        ("steps=3.5", "steps takes a whole number, not '3.5'"),
        ("steps=", "steps takes a whole number, not ''"),
        ("learning_rate=fast", "learning_rate takes a number, not 'fast'"),
        ("random_flip=maybe", "random_flip takes true or false, not 'maybe'"),
        ("schedule=linear", "schedule takes a JSON object, not 'linear'"),
        ("network_args=[1]", "network_args takes a JSON object"),
        ("data.kind=1", "no setting called data.kind"),
    ],
)
def test_a_word_that_cannot_be_a_setting_gets_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_settings([word])


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
        ({"loss": "l3"}, "loss is 'l3'; it must be l1 or l2 or huber."),
        ({"prediction_type": "score"}, "prediction_type is 'score'; it must be epsilon or x_0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; it must be adam or adamw."),
        ({"mixed_precision": "fp8"}, "mixed_precision is 'fp8'"),
        ({"steps": 0}, "steps is 0; it must be at least 1."),
        ({"batch_size": -4}, "batch_size is -4; it must be at least 1."),
        ({"seed": -1}, "seed is -1; it must be at least 0."),
        ({"checkpoint_every": -1}, "checkpoint_every is -1; it must be at least 0."),
        ({"num_workers": -2}, "num_workers is -2; it must be at least -1."),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must lie between 0 and 10."),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be at least 0 and below 1."),
        ({"label_dropout": 1.5}, "label_dropout is 1.5; it must lie between 0 and 1."),
        ({"gradient_clip": float("inf")}, "gradient_clip is inf; it must be 0 or more."),
        ({"min_snr_gamma": float("nan")}, "min_snr_gamma is nan"),
        ({"image_size": 20}, "image_size is 20; it must be divisible by 8, from 16 to 256."),
        ({"image_size": 8}, "image_size is 8"),
        ({"channels": 2}, "channels is 2; it must be 3"),
        ({"ema_decays": {"main": 0.9}}, "ema_decays: 'main' cannot be a name"),
        ({"ema_decays": {"a/b": 0.9}}, "ema_decays: 'a/b' cannot be a name"),
        ({"ema_decays": {"short": 1.0}}, "ema_decays: short is 1.0; it must be at least 0"),
        ({"ema_decays": {"short": "x"}}, "ema_decays: short is x; it must be at least 0"),
        ({"keep_every": -1}, "keep_every is -1; it must be at least 0."),
        ({"micro_batch": -1}, "micro_batch is -1; it must be at least 0."),
        ({"schedule": {"kind": "square"}}, "schedule: Unknown schedule 'square'"),
        ({"schedule": {"timesteps": "ten"}}, "schedule: "),
        ({"schedule": {"steps": 10}}, "schedule: .*unexpected keyword argument 'steps'"),
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
    with pytest.raises(dataclasses.FrozenInstanceError):
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
    assert (config.prediction_type, config.schedule["kind"]) == ("v_prediction", "cosine")
    assert config.min_snr_gamma > 0 and 0.99 < config.ema_decay < 1
    parameters = sum(p.numel() for p in build_model("small").parameters())
    assert 3e6 < parameters < 6e6


def test_every_preset_knows_its_own_name() -> None:
    assert all(config.preset == name for name, config in PRESETS.items())


def test_overrides_of_a_preset_reach_its_network() -> None:
    model = build_model("small", num_classes=3, widths=[16, 32], attention_levels=[1])
    assert model.num_classes == 3
    assert model.stem.out_channels == 16


def test_what_is_no_preset_and_no_argument_gets_a_sentence() -> None:
    with pytest.raises(ConfigError, match="no preset called 'huge'; there are lecture, small"):
        preset("huge")
    with pytest.raises(ConfigError, match=r"network_args: .*unexpected keyword argument 'depth'"):
        build_model("small", depth=3)
