"""The settings of a run: one flat record, written to `config.json`, typed on the command line.

Knows nothing of how they are used.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from diffusion_core.process.objective import LOSSES
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import NoiseSchedule

# The name of the average that `ema_decay` makes; `ema_decays` names further ones.
MAIN_AVERAGE = "main"


class ConfigError(ValueError):
    """A setting that cannot be used; the message says which and what would be allowed."""


@dataclass(frozen=True)
class RunConfig:
    # What is trained
    preset: str = "small"
    network: str = "unet"  # "lecture" (SimpleUnet) or "unet" (Unet)
    network_args: dict[str, Any] = field(default_factory=dict)  # arguments of Unet
    class_conditional: bool = True  # teach the classes where the data has any and the network can
    label_dropout: float = 0.1  # share of labels replaced by "any class", for guidance

    # The objective
    schedule: dict[str, Any] = field(default_factory=dict)  # arguments of NoiseSchedule
    prediction_type: str = "v_prediction"
    loss: str = "l2"
    min_snr_gamma: float = 5.0  # 0 switches the weighting off

    # The data
    data: str = "cars"  # cars, cars:N, digits, folder:PATH, torchvision:NAME
    image_size: int = 64  # pixels, both sides
    channels: int = 3  # 3 for colour, 1 for grey
    random_flip: bool = True  # left to right, half of the time
    validation_count: int = 256  # images held out for the validation loss

    # The optimisation
    steps: int = 6000
    batch_size: int = 32  # images per step over all processes
    micro_batch: int = 0  # images that a process takes at once; 0: as many as fit its memory
    seed: int = 0
    optimizer: str = "adamw"  # adam or adamw
    learning_rate: float = 1e-3
    weight_decay: float = 0.01  # adamw only
    warmup_steps: int = 500  # the learning rate rises linearly over these
    gradient_clip: float = 1.0  # largest gradient norm; 0 switches it off
    ema_decay: float = 0.9995  # of the averaged weights; rises towards it in the first steps
    ema_decays: dict[str, float] = field(default_factory=dict)  # further averages, by name

    # The machine
    mixed_precision: str = "auto"  # auto, bf16 or no
    num_workers: int = -1  # processes that decode the images once; -1: one per core

    # What is written, every so many steps; 0 switches it off
    checkpoint_every: int = 250
    keep_checkpoints: int = 10  # the newest so many weights stay; 0 keeps all
    keep_every: int = 0  # weights of steps divisible by it stay too
    keep_best: bool = True  # and those with the lowest validation loss
    sample_every: int = 250
    sample_count: int = 8  # images in a strip
    sample_steps: int = 12  # of DPM-Solver++; 0: the lecture's strip, one image forming in ten
    validate_every: int = 250
    tensorboard: bool = False  # write event files for TensorBoard as well

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError(" ".join(problems))

    def _problems(self) -> typing.Iterator[str]:
        choices = {
            "network": ("lecture", "unet"),
            "prediction_type": PREDICTION_TYPES,
            "loss": LOSSES,
            "optimizer": ("adam", "adamw"),
            "mixed_precision": ("auto", "bf16", "no"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                yield f"{name} is {getattr(self, name)!r}; it must be {' or '.join(allowed)}."
        least = {"steps": 1, "batch_size": 1, "sample_count": 1, "num_workers": -1, "seed": 0}
        for name in ("warmup_steps", "checkpoint_every", "keep_checkpoints", "sample_every"):
            least[name] = 0
        for name in ("sample_steps", "validate_every", "validation_count", "micro_batch"):
            least[name] = 0
        least["keep_every"] = 0
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                yield f"{name} is {getattr(self, name)}; it must be at least {smallest}."
        if not 0 < self.learning_rate < 10:
            yield f"learning_rate is {self.learning_rate}; it must lie between 0 and 10."
        if not 0 <= self.ema_decay < 1:
            yield f"ema_decay is {self.ema_decay}; it must be at least 0 and below 1."
        for name, decay in self.ema_decays.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name) or name == MAIN_AVERAGE:
                yield f"ema_decays: {name!r} cannot be a name; use letters, not {MAIN_AVERAGE!r}."
            elif type(decay) not in (int, float) or not 0 <= decay < 1:
                yield f"ema_decays: {name} is {decay}; it must be at least 0 and below 1."
        if self.channels not in (1, 3):
            yield f"channels is {self.channels}; it must be 3 (colour) or 1 (grey)."
        if not 0 <= self.label_dropout <= 1:
            yield f"label_dropout is {self.label_dropout}; it must lie between 0 and 1."
        for name in ("min_snr_gamma", "gradient_clip", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                yield f"{name} is {getattr(self, name)}; it must be 0 or more."
        if self.image_size % 8 or not 16 <= self.image_size <= 256:
            yield f"image_size is {self.image_size}; it must be divisible by 8, from 16 to 256."
        try:
            schedule = NoiseSchedule(**self.schedule)
        except (TypeError, ValueError) as error:
            yield f"schedule: {error}"
        else:
            if (
                schedule.rescale_zero_terminal_snr
                and self.prediction_type in PREDICTION_TYPES
                and not PREDICTION_TYPES[self.prediction_type].learns_pure_noise
            ):
                yield (
                    "A schedule rescaled to zero terminal SNR cannot be learned through epsilon; "
                    "choose v_prediction or x_0."
                )

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with these settings; raises ConfigError for a name that does not exist."""
        unknown = sorted(set(changes) - {f.name for f in dataclasses.fields(self)})
        if unknown:
            raise ConfigError(f"There is no setting called {', '.join(unknown)}.")
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """From `config.json`; what newer versions added beside the settings is left out.

        Raises ConfigError, for values of another type too.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in names})
        except TypeError as error:  # a word where a number belongs cannot be compared
            raise ConfigError(f"A setting is of another type than it must be: {error}.") from error


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` words of the command line as typed settings; dictionaries are JSON.

    `schedule.kind=linear` changes one entry of a dictionary: its key is returned with the dot.
    Raises ConfigError.
    """
    hints = typing.get_type_hints(RunConfig)
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, not {pair!r}.")
        group, dot, _ = name.partition(".")
        if dot and typing.get_origin(hints.get(group)) is dict:
            settings[name] = _parse_json(text)
        elif name not in hints:
            raise ConfigError(f"There is no setting called {name}; there are {', '.join(hints)}.")
        else:
            settings[name] = _parse(name, text, hints[name])
    return settings


def with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """`config` with settings as `parse_settings` returns them."""
    plain = {name: value for name, value in settings.items() if "." not in name}
    for name, value in settings.items():
        group, dot, key = name.partition(".")
        if dot:
            plain[group] = {**plain.get(group, getattr(config, group)), key: value}
    return config.replace(**plain)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _parse(name: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.GenericAlias):
        value = _parse_json(text)
        if not isinstance(value, dict):
            raise ConfigError(f"{name} takes a JSON object, not {text!r}.")
        return value
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise ConfigError(f"{name} takes true or false, not {text!r}.")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} takes {wanted}, not {text!r}.") from error
