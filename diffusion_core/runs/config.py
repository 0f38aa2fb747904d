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
from diffusion_core.process.tables import (
    DESIGNED,
    MOST_POINTS,
    MOST_TIMESTEPS,
    ScheduleTables,
)
from diffusion_core.records import Record, sentences
from diffusion_core.text import cut, shown, some, value_text

# The name of the average that `ema_decay` makes; `ema_decays` names further ones.
MAIN_AVERAGE = "main"
MOST_SAID = 8  # sentences of one message
MOST_CLOSE = 2**14  # by what the gap between two noise levels can be divided, in float32

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

    kind: Annotated[
        Word,
        Field(description="How the noise grows over the timesteps. See the Schedule page."),
    ]
    timesteps: Annotated[
        int,
        Field(ge=2, le=MOST_TIMESTEPS, description="The number T of noise levels to train on."),
    ]
    beta_start: Annotated[
        float, Field(gt=0, lt=1, description="Variance of the noise that the first step adds.")
    ]
    beta_end: Annotated[
        float, Field(gt=0, lt=1, description="Variance of the noise that the last step adds.")
    ]
    rescale_zero_terminal_snr: Annotated[
        bool,
        Field(
            description="Rescale the schedule so that nothing of the image is left at the last "
            "timestep (zero terminal SNR, Lin et al. 2024)."
        ),
    ]
    points: Annotated[
        list[Annotated[list[float], Field(strict=False, min_length=2, max_length=2)]],
        Field(
            strict=False,
            max_length=MOST_POINTS,
            description="The points of a schedule of the kind designed: pairs of a time from 0 to "
            "1 and the log-SNR there.",
        ),
    ]
    shift_size: Annotated[
        int,
        Field(
            ge=0,
            le=4096,
            description="Image size in pixels for which the log-SNR is shifted by 2 log(64 / size) "
            "(Hoogeboom et al. 2023). 0: no shift.",
        ),
    ]


@with_config(_STRICT)
class NetworkArgs(TypedDict, total=False):
    """Arguments of `Unet`, which has the defaults; `SimpleUnet` takes `widths` and `channels`.

    `channels`, `num_classes` and `augment_dim` follow from other settings and the data: the trainer
    adds them.
    """

    widths: Annotated[
        list[Annotated[int, Field(ge=1, le=16_384)]],
        Field(
            strict=False,
            min_length=1,
            max_length=12,
            description="Channels of each level of the network, from fine to coarse.",
        ),
    ]
    blocks: Annotated[int, Field(ge=1, le=64, description="Residual blocks per level.")]
    attention_levels: Annotated[
        list[Annotated[int, Field(ge=0, le=11)]],
        Field(
            strict=False,
            max_length=12,
            description="The levels with self-attention; 0 is the finest.",
        ),
    ]
    patch: Annotated[
        int, Field(ge=1, le=256, description="Pixels per side that the network takes as one.")
    ]
    channels: Annotated[
        Literal[1, 3], Field(description="Channels of the images that the network takes.")
    ]
    num_classes: Annotated[
        int,
        Field(ge=0, le=10**6, description="Classes that the network learned; 0: none."),
    ]
    augment_dim: Annotated[
        int,
        Field(ge=0, le=64, description="Numbers that the network is told of an augmentation."),
    ]


def usual_min_snr_gamma(values: Mapping[str, Any]) -> float:
    """That of a run whose objective has these settings: 5, or 0 where its SNR reaches 0 or its
    losses are weighted otherwise.

    Flows and schedules of zero terminal SNR start sampling where SNR is 0, and min-SNR would teach
    them next to nothing just before it.
    """
    kind = PREDICTION_TYPES.get(values.get("prediction_type", ""))
    zero = values.get("schedule", {}).get("rescale_zero_terminal_snr", False)
    own = values.get("learned_weighting", False) or values.get("objective") == "consistency"
    return 0.0 if own or zero or (kind and kind.flow) else 5.0


def split_origin(text: str, name: str = "init_from") -> tuple[str, int | None]:
    """The run and the step of RUN or RUN@STEP, as the setting `name` has them. Raises
    ConfigError."""
    run, at, step = text.rpartition("@")
    if not at or "/" in step:  # an @ in the name of a folder
        return text, None
    if not run or not step.isdecimal() or len(step) > 18:
        raise ConfigError(f"{name} is {shown(text)}; use RUN or RUN@STEP, STEP a whole number.")
    return run, int(step)


class RunConfig(Record):
    """The settings of a run. Raises ConfigError, which names everything that is wrong."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    # What is trained
    preset: Word = "small"
    """The settings that the run started from; only a name."""
    preset_version: Annotated[int, Field(ge=1, le=1000)] = 1
    """Which version of that preset: it is redrawn where better settings are found. Only a name."""
    network: Literal["lecture", "unet"] = "unet"
    """The lecture's network (SimpleUnet), or one with attention and classes (Unet)."""
    network_args: NetworkArgs = Field(default_factory=NetworkArgs)
    """The size of the network."""
    class_conditional: bool = True
    """Condition the network on the class, where the data has classes. Samples can then be generated
    by class."""
    label_dropout: Share = 0.1
    """Share of images shown without their class. Guidance needs some."""

    init_from: Annotated[str, Field(max_length=4096)] = ""  # see `origin.py`
    """The run whose weights this one starts from, as RUN or RUN@STEP; empty: random weights."""
    init_average: Word = MAIN_AVERAGE
    """Which averaged weights of that run."""

    # The objective
    objective: Literal["denoising", "consistency"] = "denoising"
    """What is learned. denoising: to predict what a noisy image hides, for sampling in many steps.
    consistency: to answer from any noise with the finished image, for sampling in one or two
    (distillation of the run in init_from)."""
    consistency_by: Literal["paths", "tuning"] = "tuning"
    """How a distillation learns. paths: from noise that the run in init_from samples from, and each
    point on the way, to the image that it arrives at (Luhman & Luhman 2021). tuning: from images
    with noise, by agreeing with itself at two levels that come closer (Geng et al. 2024, ECT)."""
    consistency_steps: Annotated[int, Field(ge=2, le=1000)] = 10
    """Steps in which the run in init_from samples, with consistency_by=paths: more make better
    images to learn from, and a step slower."""
    consistency_q: Annotated[float, Field(gt=1, le=10**6)] = 2.0
    """How much closer to each other two noise levels become at each stage of consistency_by=tuning.
    Their distance, relative to the noise, ends at about 1/q^stages."""
    consistency_stages: Annotated[int, Field(ge=1, le=100)] = 8
    """Stages of consistency_by=tuning, equally long."""
    perceptual_weight: Annotated[float, Field(ge=0, le=10**6)] = 0.0
    """With consistency_by=paths: weight of the squared distance between the features of the
    predicted and the wanted image, which is added to the loss (Zhang et al. 2018, LPIPS). The
    features are those of the general network, which also measures quality. 0: none."""
    matching_share: Share = 0.0
    """With consistency_by=paths: share of the steps, at the end, of which every other one follows
    no path: all samples together are to be distributed as those of the run in init_from (Yin et al.
    2024, DMD)."""
    matching_rate: Annotated[float, Field(gt=0, lt=10)] = 5e-5
    """The learning rate in those steps, with Adam."""
    schedule: ScheduleArgs = Field(default_factory=ScheduleArgs)
    """How much noise each timestep has."""
    prediction_type: Word = "v_prediction"
    """What the network predicts from a noisy image: the noise ε, the clean image x₀, the velocity v
    (a mixture of both), the flow from image to noise (rectified flow), or the clean image of such a
    flow."""
    loss_on: Literal["prediction", "v"] = "prediction"
    """What the loss compares: the prediction, or the velocity v (of a flow its direction) that
    follows from a predicted image (Li & He 2025, JiT)."""
    loss: Word = "l2"
    """L1: absolute difference. L2: squared. Huber: squared near zero, linear beyond."""
    learned_weighting: bool = False
    """Learn the weight of each noise level during training, so that all have about the same loss
    (Kendall et al. 2018; Karras et al. 2024, EDM2, config C). It undoes other weights."""
    min_snr_gamma: Annotated[float, Field(ge=0, le=10**6, default_factory=usual_min_snr_gamma)]
    """Caps the weight of timesteps with little noise (Hang et al. 2023; 5 is common). 0 weights all
    timesteps equally."""
    timestep_sampling: Literal["uniform", "logit_normal", "laplace"] = "uniform"
    """How often each timestep is trained on. uniform: all equally. logit_normal and laplace: mostly
    those near a log-SNR, where images are half noise (Esser et al. 2024; Hang et al. 2024)."""
    timestep_log_snr: Annotated[float, Field(ge=-20, le=20)] = 0.0
    """The log-SNR at which most timesteps are drawn, where timestep_sampling is not uniform."""
    timestep_width: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Width in log-SNR around it: the standard deviation (logit_normal) or scale (laplace)."""
    immiscible: bool = False
    """Give each image of a batch the noise that is near to it, so that the network has fewer
    crossing paths to learn (Li et al. 2024)."""

    # The data
    data: Annotated[str, Field(min_length=1, max_length=4096)] = "cars"  # see `data/store.py`
    """The images to train on."""
    image_size: Annotated[int, Field(ge=16, le=256, multiple_of=8)] = 64
    """Height and width in pixels; a multiple of 8."""
    channels: Literal[1, 3] = 3
    """3 for colour, 1 for grey."""
    resize: Literal["squash", "crop", "pad"] = "squash"  # see `data/decode.py`
    """How an image becomes a square. squash: all of it, with another aspect ratio, as in the
    lecture. crop: its central square. pad: all of it, between white borders."""
    random_flip: bool = True
    """Mirror an image, left to right, half of the times that it is shown."""
    augment: Share = 0.0
    """Probability of each change that is made to an image and told to the network (flips, quarter
    turns, scale, small rotation, shift), so that samples show none (Karras et al. 2022, EDM, where
    it is 0.12). For sets of fewer than 10,000 images. 0: no change."""
    validation_count: Annotated[int, Field(ge=0, le=10**9)] = 256
    """Images that are held out of the training to measure with."""

    # The optimisation
    steps: Annotated[int, Field(ge=1, le=10**9)] = 6000
    """Training steps in total."""
    pause_at: Every = 0
    """The run pauses after this step; 0: never."""
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 32
    """Images per step, over all processes."""
    micro_batch: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Images that a process takes at once; 0: as many as fit its memory."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """The same settings and seed give the same run."""
    optimizer: Literal["adam", "adamw", "muon"] = "adamw"
    """How the weights follow the gradient. AdamW also lets them decay. Muon moves matrices equally
    in all directions (Jordan 2024) and the other weights as AdamW does."""
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 1e-3
    """How far each step moves the weights."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """How fast AdamW lets the weights decay towards 0."""
    warmup_steps: Every = 500
    """The learning rate rises to its value over these steps."""
    learning_rate_decay: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    """How the learning rate falls after the warm-up. cosine: to 0 at the last step (Loshchilov &
    Hutter 2017). inverse_sqrt: as 1/√step after decay_after steps (Karras et al. 2024, EDM2)."""
    decay_after: Annotated[int, Field(ge=1, le=10**9)] = 1000
    """Steps at the full learning rate before an inverse_sqrt decay."""
    restart_at: Every = 0
    """The learning rate warms up and decays again from this step on; 0: never. Set where a finished
    run with a decay is given more steps."""
    gradient_clip: Annotated[float, Field(ge=0, le=10**9)] = 1.0
    """Largest norm of the gradient; a longer one is shortened. 0: no limit."""
    ema_decay: Decay = 0.9995  # rises towards it in the first steps
    """Share of the weight average that each step keeps: 0.999 averages over about 1,000 steps.
    Samples use the averaged weights."""
    ema_decays: dict[str, Decay] = Field(default_factory=dict)
    """Decay of a further average, which can be chosen when sampling."""

    average_snapshots: Every = 0
    """Steps between two snapshots of two averages of which one of any length can be made afterwards
    (post-hoc EMA; Karras et al. 2024, EDM2). Each takes 4 bytes of disk per weight. 0: none."""

    # The machine
    mixed_precision: Literal["auto", "bf16", "no"] = "auto"
    """bfloat16 or float32 (no); automatic: bfloat16 where the device is fast with it."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # an exact resume is relative to this number
    """Threads of each process on the CPU; 0: its share of the cores, which follows what else
    computes."""
    fast_layers: bool = True
    """Compute each wide layer in the way that was measured to be the fastest on this CPU."""
    num_workers: Annotated[int, Field(ge=-1, le=4096)] = -1
    """Processes that decode the images once; -1: one per core."""

    # What is written, every so many steps
    checkpoint_every: Every = 250
    """Steps between two checkpoints; 0: only at the last step."""
    keep_checkpoints: Annotated[int, Field(ge=0, le=10**9)] = 10
    """How many of the newest checkpoints stay; 0 keeps all."""
    keep_every: Every = 0
    """Checkpoints of steps divisible by this number are never removed. 0: none."""
    keep_best: bool = True
    """Also keep the checkpoints with the lowest validation loss and the best quality."""
    sample_every: Every = 250
    """Steps between two strips of samples; 0: never."""
    sample_count: Annotated[int, Field(ge=1, le=4096)] = 8
    """Images in a strip of samples."""
    sample_steps: Annotated[int, Field(ge=0, le=MOST_TIMESTEPS)] = 12
    """Steps of DPM-Solver++ for a strip; 0: the lecture's strip, one image forming in ten."""
    validate_every: Every = 250
    """Steps between two measurements of the validation loss; 0: never."""
    evaluate_every: Every = 0
    """Steps between two measurements of quality; 0: never. They run beside the training, for at
    most 5 % of its time, so they may be fewer."""
    evaluate_images: Annotated[int, Field(ge=16, le=1024)] = 256
    """Images that a measurement generates. More make the intervals narrower and take longer."""
    evaluate_steps: Annotated[int, Field(ge=1, le=MOST_TIMESTEPS)] = 10
    """Steps of the usual sampler for these images."""
    evaluate_share: Share = 0.05
    """Share of the training's time that measurements may cost; 1: whatever they cost."""
    stop_when_no_better: Every = 0
    """End the run after so many measurements in a row without a better one: a value below the
    interval of the best one before. 0: train all steps."""
    report: bool = False
    """Write report.html in the run folder again at each checkpoint."""
    tensorboard: bool = False
    """Also write event files for TensorBoard, to the folder tensorboard in the run folder."""

    sweep: Annotated[str, Field(max_length=80)] = ""  # see `sweep.py`
    """The sweep that the run is part of."""

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
            _check_schedule(json.dumps(self.schedule))
        except ValueError as error:
            yield f"schedule: {error}"
        if self.schedule.get("kind") == DESIGNED and not self.schedule.get("points"):
            yield "A schedule of the kind designed needs its points; see the Schedule page."
        learns = PREDICTION_TYPES[self.prediction_type].learns_pure_noise
        if self.schedule.get("rescale_zero_terminal_snr") and not learns:
            yield (
                "A schedule rescaled to zero terminal SNR cannot be learned through epsilon; "
                "choose v_prediction or x_0."
            )
        if self.loss_on == "v" and PREDICTION_TYPES[self.prediction_type].v_scale is None:
            can = [each.name for each in PREDICTION_TYPES.values() if each.v_scale is not None]
            yield f"loss_on=v needs the prediction_type {' or '.join(can)}."
        part = min(self.micro_batch or self.batch_size, self.batch_size)
        single = 1 in (part, self.batch_size % part)
        halvings = len(self.network_args.get("widths", [0] * 5)) - 1
        if self.network == "lecture" and single and self.image_size <= 2**halvings:
            yield SINGLE_PIXEL
        if self.distilled:
            yield from self._not_to_be_distilled()
        if self.perceptual_weight and not self.learns_from_paths:
            yield (
                "perceptual_weight is for a distillation with consistency_by=paths; set "
                "perceptual_weight to 0."
            )
        if self.matching_share and not self.learns_from_paths:
            yield (
                "matching_share is for a distillation with consistency_by=paths; set "
                "matching_share to 0."
            )
        if self.matching_share and self.learned_weighting:
            yield "learned_weighting has no weights for matched samples; set matching_share to 0."
        if self.stop_when_no_better and not self.evaluate_every:
            yield "stop_when_no_better needs evaluations; set evaluate_every."
        if self.augment and self.network == "lecture":
            yield "augment needs the network unet: the lecture's cannot be told of it."
        unknown = sorted(self.network_args.keys() - {"widths", "channels"})
        if self.network == "lecture" and unknown:
            yield f"network_args: the lecture's network takes widths, not {unknown[0]}."

    def _not_to_be_distilled(self) -> Iterator[str]:
        """What a distillation needs, or has of its own."""
        if not self.init_from:
            yield "objective=consistency distils another run; name that run with init_from."
        own: dict[str, Any]
        if self.consistency_by == "paths":
            what = "images, timesteps and weights"
            own = {"augment": 0, "immiscible": False, "timestep_sampling": "uniform"}
            timesteps = self.schedule.get("timesteps", 1000)
            if self.consistency_steps > timesteps:
                yield (
                    f"consistency_steps is {self.consistency_steps}; it must be at most "
                    f"{timesteps}, the timesteps of the schedule."
                )
        else:
            what = "a loss and weights"
            own = {"loss": "l2", "loss_on": "prediction", "learned_weighting": False}
            if self.consistency_q**self.consistency_stages > MOST_CLOSE:
                yield (
                    "The noise levels that a distillation compares become too close to differ; "
                    "choose a smaller consistency_q or fewer consistency_stages."
                )
        for name, value in {**own, "min_snr_gamma": 0}.items():
            if getattr(self, name) != value:
                yield (
                    f"consistency_by={self.consistency_by} has {what} of its own; set {name} to "
                    f"{value_text(value)}."
                )
        if not self.sample_steps:
            yield "objective=consistency shows finished images; set sample_steps to 1 or more."

    @property
    def distilled(self) -> bool:
        """Whether the network learns to sample in one or two steps."""
        return self.objective == "consistency"

    @property
    def learns_from_paths(self) -> bool:
        """Whether it learns from the paths on which another run samples."""
        return self.distilled and self.consistency_by == "paths"

    @property
    def follows_until(self) -> int:
        """The last step of a distillation from paths before its samples are matched, too."""
        return self.steps - round(self.matching_share * self.steps)

    def begun_to_match(self, step: int) -> bool:
        """Whether a step is one of the `matching_share` at the end."""
        return bool(self.matching_share) and step > self.follows_until

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

    def alone(self) -> RunConfig:
        """A copy that is part of no sweep and was not continued, for another run with these
        settings."""
        return self.replace(sweep="", pause_at=0, restart_at=0)

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
def _check_schedule(arguments: str) -> None:
    """Raises ValueError for arguments, as JSON, that make no schedule to learn."""
    schedule = ScheduleTables(**json.loads(arguments))
    left = schedule.alphas_cumprod
    if left[-2 if schedule.rescale_zero_terminal_snr else -1] <= 0:
        raise ValueError(
            "alphas_cumprod becomes 0 before the last timestep; choose fewer timesteps or a "
            "smaller beta_end."
        )


# ---------------------------------------------------------------- the command line

# Entries of `network_args` that follow from something else.
FOLLOWING = {
    "channels": "set channels instead",
    "num_classes": "it follows from the data; see class_conditional",
    "augment_dim": "set augment instead",
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
                if key in FOLLOWING:
                    raise ConfigError(f"network_args.{key} cannot be set; {FOLLOWING[key]}.")
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

    A min-SNR gamma that is the usual one stays so, and a loss on v is left to those prediction
    types that have one.
    """
    plain = {name: value for name, value in settings.items() if "." not in name}
    kind = PREDICTION_TYPES.get(plain.get("prediction_type", ""))
    if kind is not None and kind.v_scale is None:
        plain.setdefault("loss_on", "prediction")
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
        there = ", ".join(f"{group}.{each}" for each in entries if each not in FOLLOWING)
        raise ConfigError(f"There is no setting called {cut(name)}; there are {there}.")
    return entries[key]


def meaning(name: str) -> str:
    """What a setting or, with a dot, an entry of one means, in sentences. Raises ConfigError."""
    setting_type(name)
    group, _, entry = name.partition(".")
    kind = _hints(RunConfig)[group]
    if entry and kind in (ScheduleArgs, NetworkArgs):
        hint = typing.get_type_hints(kind, include_extras=True)[entry]
        return str(typing.get_args(hint)[-1].description)
    return " ".join(str(RunConfig.model_fields[group].description).split())


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
