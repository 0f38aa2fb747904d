"""The settings of a run: one flat record, written to `config.json`, set on the command line."""

from __future__ import annotations

import difflib
import functools
import json
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
    with_config,
)
from typing_extensions import TypedDict

from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import kind_of
from diffusion_core.models.unet import SINGLE_PIXEL
from diffusion_core.process.noise import MAX_SEED
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import MOST_TIMESTEPS, NoiseSchedule
from diffusion_core.records import Record, sentences
from diffusion_core.text import cut, shown, some

# The name of the average that `ema_decay` makes; `ema_decays` names further ones.
MAIN_AVERAGE = "main"
MOST_SAID = 8  # sentences of one message

# Steps between two of something; 0: never.
Every = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Word = Annotated[str, Field(min_length=1, max_length=80)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ConfigError(ValueError):
    """A setting that cannot be used; the message says which and what would be allowed."""


@with_config(_STRICT)
class ScheduleArgs(TypedDict, total=False):
    """Arguments of `NoiseSchedule`, which has the defaults; a flow takes `timesteps` alone."""

    kind: Word
    timesteps: Annotated[int, Field(ge=2, le=MOST_TIMESTEPS)]
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]
    rescale_zero_terminal_snr: bool


@with_config(_STRICT)
class NetworkArgs(TypedDict, total=False):
    """Arguments of `Unet`, which has the defaults; `SimpleUnet` takes `widths` and `channels`.

    `channels` and `num_classes` follow from other settings and the data: the trainer adds them.
    """

    widths: Annotated[
        list[Annotated[int, Field(ge=1, le=16_384)]],
        Field(strict=False, min_length=1, max_length=12),
    ]
    blocks: Annotated[int, Field(ge=1, le=64)]
    attention_levels: Annotated[
        list[Annotated[int, Field(ge=0, le=11)]], Field(strict=False, max_length=12)
    ]
    patch: Annotated[int, Field(ge=1, le=256)]
    channels: Literal[1, 3]
    num_classes: Annotated[int, Field(ge=0, le=10**6)]


def usual_min_snr_gamma(values: Mapping[str, Any]) -> float:
    """That of a run whose objective has these settings: 5, or 0 where its SNR reaches 0.

    Flows and schedules of zero terminal SNR start sampling where SNR is 0, and min-SNR would teach
    them next to nothing just before it.
    """
    kind = PREDICTION_TYPES.get(values.get("prediction_type", ""))
    zero = values.get("schedule", {}).get("rescale_zero_terminal_snr", False)
    return 0.0 if zero or (kind and kind.flow) else 5.0


def split_origin(text: str) -> tuple[str, int | None]:
    """The run and the step of RUN or RUN@STEP, as `init_from` has them. Raises ConfigError."""
    run, at, step = text.rpartition("@")
    if not at or "/" in step:  # an @ in the name of a folder
        return text, None
    if not run or not step.isdecimal() or len(step) > 18:
        raise ConfigError(f"init_from is {shown(text)}; use RUN or RUN@STEP, STEP a whole number.")
    return run, int(step)


class RunConfig(Record):
    """The settings of a run. Raises ConfigError, which names everything that is wrong."""

    model_config = ConfigDict(extra="forbid")

    # What is trained
    preset: Word = "small"
    network: Literal["lecture", "unet"] = "unet"  # SimpleUnet or Unet
    network_args: NetworkArgs = Field(default_factory=NetworkArgs)
    class_conditional: bool = True  # teach the classes where the data has any and the network can
    label_dropout: Share = 0.1  # share of labels replaced by "any class", for guidance

    # Weights of another run to start from, as RUN or RUN@STEP (see `origin.py`); empty: random ones
    init_from: Annotated[str, Field(max_length=4096)] = ""
    init_average: Word = MAIN_AVERAGE  # which averaged weights of it

    # The objective
    schedule: ScheduleArgs = Field(default_factory=ScheduleArgs)
    prediction_type: Word = "v_prediction"
    loss: Word = "l2"
    min_snr_gamma: Annotated[  # 0: no weighting
        float, Field(ge=0, le=10**6, default_factory=usual_min_snr_gamma)
    ]

    # The data
    data: Annotated[str, Field(min_length=1, max_length=4096)] = "cars"  # see `data/store.py`
    image_size: Annotated[int, Field(ge=16, le=256, multiple_of=8)] = 64  # pixels, both sides
    channels: Literal[1, 3] = 3  # 3 for colour, 1 for grey
    random_flip: bool = True  # left to right, half of the time
    validation_count: Annotated[int, Field(ge=0, le=10**9)] = 256  # images held out

    # The optimisation
    steps: Annotated[int, Field(ge=1, le=10**9)] = 6000
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 32  # per step, over all processes
    # Images that a process takes at once; 0: as many as fit its memory.
    micro_batch: Annotated[int, Field(ge=0, le=10**6)] = 0
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01  # adamw only
    warmup_steps: Every = 500  # the learning rate rises linearly over these
    gradient_clip: Annotated[float, Field(ge=0, le=10**9)] = 1.0  # largest gradient norm; 0: none
    ema_decay: Decay = 0.9995  # of the averaged weights; rises towards it in the first steps
    ema_decays: dict[str, Decay] = Field(default_factory=dict)  # further averages, by name

    # The machine
    mixed_precision: Literal["auto", "bf16", "no"] = "auto"
    # Of the CPU, of each process; 0: its share of the cores (see `cores.py`), which follows what
    # else computes. An exact resume is relative to this number.
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    # Compute each wide layer in the way that was measured to be the fastest on this CPU.
    fast_layers: bool = True
    # Processes that decode the images once; -1: one per core.
    num_workers: Annotated[int, Field(ge=-1, le=4096)] = -1

    # What is written, every so many steps; 0 switches it off
    checkpoint_every: Every = 250
    keep_checkpoints: Annotated[int, Field(ge=0, le=10**9)] = 10  # the newest; 0 keeps all
    keep_every: Every = 0  # weights of steps divisible by it stay too
    keep_best: bool = True  # and those with the lowest validation loss and the best quality
    sample_every: Every = 250
    sample_count: Annotated[int, Field(ge=1, le=4096)] = 8  # images in a strip
    # Of DPM-Solver++; 0: the lecture's strip, one image forming in ten.
    sample_steps: Annotated[int, Field(ge=0, le=MOST_TIMESTEPS)] = 12
    validate_every: Every = 250
    # Measure the quality of the averaged weights, beside the training.
    evaluate_every: Every = 0
    evaluate_images: Annotated[int, Field(ge=16, le=1024)] = 256
    evaluate_steps: Annotated[int, Field(ge=1, le=MOST_TIMESTEPS)] = 10  # of the usual sampler
    evaluate_share: Share = 0.05  # of the training's time that it may cost; 1: whatever it costs
    # End the run after so many evaluations in a row without a better one; 0: never.
    stop_when_no_better: Every = 0
    tensorboard: bool = False  # write event files for TensorBoard as well

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            said = sentences(error, RunConfig)
            if (more := len(said) - MOST_SAID) > 0:
                said[MOST_SAID:] = [f"{more:,} more cannot be used."]
            raise ConfigError(" ".join(said)) from error

    @field_validator("prediction_type", "loss")
    @classmethod
    def _is_known(cls, value: str, info: ValidationInfo) -> str:
        choices = LOSSES if info.field_name == "loss" else PREDICTION_TYPES
        if value not in choices:
            raise ValueError(
                f"{info.field_name} is {shown(value)}; it must be one of {', '.join(choices)}."
            )
        return value

    @field_validator("init_from")
    @classmethod
    def _names_a_run(cls, text: str) -> str:
        split_origin(text)
        return text

    @field_validator("data")
    @classmethod
    def _is_of_a_known_kind(cls, value: str) -> str:
        try:
            kind_of(value)
        except DataError as error:
            raise ValueError(f"data: {error}") from error
        return value

    @field_validator("ema_decays")
    @classmethod
    def _are_names(cls, decays: dict[str, float]) -> dict[str, float]:
        for name in decays:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name) or name == MAIN_AVERAGE:
                raise ValueError(
                    f"ema_decays: {shown(name)} cannot be a name; use up to 32 letters, digits, "
                    f"dashes and underscores, not {MAIN_AVERAGE!r}."
                )
        return decays

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := list(self._contradictions()):
            raise ValueError(" ".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        try:
            _check_schedule(**self.schedule)
        except ValueError as error:
            yield f"schedule: {error}"
        learns = PREDICTION_TYPES[self.prediction_type].learns_pure_noise
        if self.schedule.get("rescale_zero_terminal_snr") and not learns:
            yield (
                "A schedule rescaled to zero terminal SNR cannot be learned through epsilon; "
                "choose v_prediction or x_0."
            )
        part = min(self.micro_batch or self.batch_size, self.batch_size)
        single = 1 in (part, self.batch_size % part)
        halvings = len(self.network_args.get("widths", [0] * 5)) - 1
        if self.network == "lecture" and single and self.image_size <= 2**halvings:
            yield SINGLE_PIXEL
        if self.stop_when_no_better and not self.evaluate_every:
            yield "stop_when_no_better needs evaluations; set evaluate_every."
        unknown = sorted(self.network_args.keys() - {"widths", "channels"})
        if self.network == "lecture" and unknown:
            yield f"network_args: the lecture's network takes widths, not {unknown[0]}."

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.image_size, self.image_size

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with these settings. Raises ConfigError."""
        unknown = sorted(changes.keys() - RunConfig.model_fields.keys())
        if unknown:
            raise ConfigError(f"There is no setting called {some(unknown)}.")
        return RunConfig(**{**dict(self), **changes})

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """From `config.json`, without the settings that newer versions may have added.

        Raises ConfigError, also for an unknown entry of `schedule` or `network_args`: without it
        the run would be another one.
        """
        return cls(**{name: value for name, value in values.items() if name in cls.model_fields})


@functools.lru_cache(maxsize=256)
def _check_schedule(**arguments: Any) -> None:
    """Raises ValueError for arguments that make no schedule to learn."""
    schedule = NoiseSchedule(**arguments)
    left = schedule.alphas_cumprod
    if left[-2 if schedule.rescale_zero_terminal_snr else -1] <= 0:
        raise ValueError(
            "alphas_cumprod becomes 0 before the last timestep; choose fewer timesteps or a "
            "smaller beta_end."
        )


# ---------------------------------------------------------------- the command line

# Entries of `network_args` that follow from something else.
_FOLLOW = {
    "channels": "set channels instead",
    "num_classes": "it follows from the data; see class_conditional",
}


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` of the command line as typed settings; objects and lists are JSON.

    `schedule.kind=linear` changes one entry of an object: its key is returned with the dot.
    Raises ConfigError.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"{shown(pair)} is no setting; write it as KEY=VALUE.")
        value = _parse(name, text, setting_type(name))
        if name in settings and settings[name] != value:
            raise ConfigError(_contradiction(name, settings[name], value))
        settings[name] = value
        group, _, entry = name.partition(".")
        if group == "network_args":
            for key in {entry} if entry else value.keys():
                if key in _FOLLOW:
                    raise ConfigError(f"network_args.{key} cannot be set; {_FOLLOW[key]}.")
    for name, value in settings.items():
        group, _, entry = name.partition(".")
        whole = settings.get(group, {}) if entry else {}
        if entry in whole and whole[entry] != value:
            raise ConfigError(_contradiction(name, whole[entry], value))
    return settings


def with_options(settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Settings of `--set` together with those that have options of their own.

    `options`: by the name of the setting, None where the option was not given. Raises ConfigError
    where both are given and differ.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name in settings and settings[name] != value:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} is {shown(value)}, but --set {name} is {shown(settings[name])}; leave "
                "one of them out."
            )
    return settings | given


def _contradiction(name: str, first: Any, second: Any) -> str:
    return f"{name} is set to {shown(first)} and to {shown(second)}; leave one of them out."


def with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """`config` with settings as `parse_settings` returns them. Raises ConfigError.

    A min-SNR gamma that is the usual one stays so.
    """
    plain = {name: value for name, value in settings.items() if "." not in name}
    for name, value in settings.items():
        group, dot, key = name.partition(".")
        if dot:
            plain[group] = {**plain.get(group, getattr(config, group)), key: value}
    changed = config.replace(**plain)
    if "min_snr_gamma" in plain or config.min_snr_gamma != usual_min_snr_gamma(dict(config)):
        return changed
    return changed.replace(min_snr_gamma=usual_min_snr_gamma(dict(changed)))


def setting_type(name: str) -> Any:
    """The type of a setting or, with a dot, of an entry of one. Raises ConfigError."""
    group, dot, key = name.partition(".")
    hints = _hints(RunConfig)
    known = {each: hints[each] for each in RunConfig.model_fields}
    if group not in known or (dot and not _is_object(known[group])):
        near = difflib.get_close_matches(name, known, 1)
        there = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        raise ConfigError(f"There is no setting called {cut(name)}; {there}")
    if not dot:
        return known[group]
    if typing.get_origin(known[group]) is dict:
        return typing.get_args(known[group])[1]
    entries = _hints(known[group])
    if key not in entries:
        there = ", ".join(f"{group}.{each}" for each in entries if each not in _FOLLOW)
        raise ConfigError(f"There is no setting called {cut(name)}; there are {there}.")
    return entries[key]


# Each look takes milliseconds, and old configurations are read through it.
_hints = functools.cache(typing.get_type_hints)


def _no_name_twice(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of a setting. Raises ConfigError where it gives a name two values."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ConfigError(_contradiction(f"{name}.{key}", found[key], value))
        found[key] = value
    return found


def _is_object(kind: Any) -> bool:
    return kind in (ScheduleArgs, NetworkArgs) or typing.get_origin(kind) is dict


def _parse(name: str, text: str, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        kind = type(typing.get_args(kind)[0])
    if kind is bool:
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in known:
            raise ConfigError(f"{name} takes true or false, not {shown(text)}.")
        return known[text.lower()]
    if kind in (int, float, str):
        try:
            return kind(text if kind is str or text.isascii() else "")
        except ValueError as error:
            wanted = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{name} takes {wanted}, not {shown(text)}.") from error
    try:
        value = json.loads(text, object_pairs_hook=functools.partial(_no_name_twice, name))
    except ConfigError:
        raise
    except (ValueError, RecursionError):
        value = None
    is_object = _is_object(kind)
    if not isinstance(value, dict if is_object else list):
        what = "object" if is_object else "list"
        raise ConfigError(f"{name} takes a JSON {what}, not {shown(text)}.")
    return value
