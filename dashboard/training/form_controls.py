"""The controls of the form that starts a run, and their settings.

A control whose `field` has a dot sets one entry of a dictionary: `schedule.kind`.
"""

from __future__ import annotations

from typing import Any

from dashboard.ui.controls import MOST_SHOWN, Choice, Control, Number, Text, Toggle
from dashboard.ui.pickers import ZERO_SNR
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import SCHEDULE_KINDS
from diffusion_core.records import bounds
from diffusion_core.runs.config import ConfigError, RunConfig, usual_min_snr_gamma, with_settings
from diffusion_core.runs.presets import PRESETS


def _number(*, field: str, step: float, **options: Any) -> Number:
    """The control of a number among a run's settings, within the bounds of the setting."""
    low, high = bounds(RunConfig, field)
    kind = type(step)
    return Number(
        field=field,
        step=step,
        low=kind(low or 0),
        high=kind(MOST_SHOWN if high is None else min(high, MOST_SHOWN)),
        **options,
    )


# ---------------------------------------------------------------- the images


def detail_control(kind: str) -> Number | Text:
    """The control for which images of a kind of data, or how many; its key is the kind."""
    source = SOURCES[kind]
    if source.most is None:
        return Text(key=kind, label=source.detail, placeholder=source.placeholder, longest=4096)
    return Number(
        key=kind,
        label=source.detail,
        low=1,
        high=source.most,
        default=source.most,
        step=100,
        help="A set is decoded when it is first used. Larger sets take longer.",
    )


DATA = Choice(
    key="data",
    label="Data",
    options=SOURCES,
    default="cars",
    help="\n".join(f"- {source.name}: {source.help}" for source in SOURCES.values()),
)

# ---------------------------------------------------------------- the main settings

STEPS = _number(key="steps", label="Total steps", field="steps", step=100)
SIZE = _number(
    key="size",
    label="Image size (px)",
    field="image_size",
    step=16,
    help="Height and width; a multiple of 8.",
)
SEED = _number(
    key="seed",
    label="Seed",
    field="seed",
    step=1,
    optional=True,
    help="The same settings and seed give the same run. If empty, that of the preset or run.",
)
SAMPLES = _number(
    key="every",
    label="Samples every",
    field="sample_every",
    step=25,
    help="In steps; 0: never. Checkpoints and validation follow unless set below. The last step "
    "always has all three.",
)
BATCH = _number(key="batch", label="Batch size", field="batch_size", step=8)
RATE = _number(key="lr", label="Learning rate", field="learning_rate", step=1e-4)
MAIN: tuple[tuple[Control, ...], ...] = ((STEPS, SIZE), (BATCH, SEED), (RATE, SAMPLES))

# ---------------------------------------------------------------- more settings, by group

TARGET = Choice(
    key="target",
    label="Prediction target",
    field="prediction_type",
    options=PREDICTION_TYPES,
    # Titles are in links: these stay.
    titles={
        "epsilon": "noise",
        "x_0": "image",
        "v_prediction": "velocity",
        "flow_prediction": "flow",
    },
    help="What the network predicts from a noisy image: the noise ε, the clean image x₀, the "
    "velocity v (a mixture of both), or the flow from image to noise (rectified flow).",
)
SNR = _number(
    key="snr",
    label="Min-SNR γ",
    field="min_snr_gamma",
    step=1.0,
    optional=True,
    help="Caps the weight of timesteps with little noise (Hang et al. 2023; 5 is common). "
    "0 weights all timesteps equally. If empty, 5; but 0 for a flow or zero terminal SNR, which "
    "start sampling where the SNR is 0: there min-SNR would teach the network next to nothing.",
)
OBJECTIVE = (
    TARGET,
    Choice(
        key="loss",
        label="Loss",
        field="loss",
        options=LOSSES,
        titles={"l1": "L1", "l2": "L2", "huber": "Huber"},
        help="L1: absolute difference. L2: squared. Huber: squared near zero, linear beyond.",
    ),
    Choice(
        key="schedule",
        label="Noise schedule",
        field="schedule.kind",
        default="linear",
        options=SCHEDULE_KINDS,
        help="How the noise grows over the timesteps. See the Schedule page.",
    ),
    _number(key="T", label="Timesteps T", field="schedule.timesteps", default=300, step=100),
    ZERO_SNR.now(field="schedule.rescale_zero_terminal_snr"),
    SNR,
)
IMAGES = (
    Choice(
        key="channels",
        label="Channels",
        field="channels",
        options=(3, 1),
        titles={3: "colour", 1: "grey"},
    ),
    Toggle(
        key="labels",
        label="Learn classes",
        field="class_conditional",
        help="Condition the network on the class, where the data has classes. Samples can then be "
        "generated by class.",
    ),
    _number(
        key="dropout",
        label="Label dropout",
        field="label_dropout",
        step=0.05,
        help="Share of images shown without their class. Guidance needs some.",
    ),
)
WARMUP = _number(
    key="warmup",
    label="Warm-up steps",
    field="warmup_steps",
    step=100,
    optional=True,
    help="The learning rate rises to its value over these steps. Empty: as in the preset, at most "
    "a tenth of all steps.",
)
OPTIMISATION = (
    Choice(
        key="optimizer",
        label="Optimizer",
        field="optimizer",
        options=("adam", "adamw"),
        titles={"adam": "Adam", "adamw": "AdamW"},
    ),
    WARMUP,
    Choice(
        key="precision",
        label="Precision",
        field="mixed_precision",
        options=("auto", "bf16", "no"),
        titles={"auto": "automatic", "bf16": "bfloat16", "no": "float32"},
        help="automatic: bfloat16 where the device is fast with it.",
    ),
    _number(
        key="ema",
        label="EMA decay",
        field="ema_decay",
        step=1e-4,
        help="Share of the weight average that each step keeps: 0.999 averages over about 1,000 "
        "steps. Samples use the averaged weights.",
    ),
    *(
        _number(
            key=f"ema_{name}",
            label=label,
            field=f"ema_decays.{name}",
            default=0.0,
            step=1e-4,
            help="Decay of a second average, which you can choose when sampling. 0: none.",
        )
        for name, label in (("short", "Shorter average"), ("long", "Longer average"))
    ),
)
AS_SAMPLES = tuple(
    _number(
        key=key,
        label=label,
        field=field,
        step=25,
        optional=True,
        placeholder="as often as samples",
        help=f"In steps. Empty: as often as samples. 0: {never}.",
    )
    for key, label, field, never in (
        ("checkpoints", "Checkpoints every", "checkpoint_every", "only at the last step"),
        ("validations", "Validation every", "validate_every", "never"),
    )
)
KEPT = (
    *AS_SAMPLES,
    _number(
        key="keep",
        label="Newest checkpoints to keep",
        field="keep_checkpoints",
        step=1,
        help="0 keeps all.",
    ),
    _number(
        key="keep_every",
        label="Also keep every N steps",
        field="keep_every",
        step=1000,
        help="Checkpoints of steps divisible by N are never removed. 0: none.",
    ),
    Toggle(
        key="keep_best",
        label="Keep the best",
        field="keep_best",
        help="Also keep the checkpoint with the lowest validation loss.",
    ),
    Toggle(
        key="tensorboard",
        label="Write TensorBoard logs",
        field="tensorboard",
        help="In the run's folder tensorboard.",
    ),
)
# Two columns of groups.
MORE: tuple[dict[str, tuple[Control, ...]], ...] = (
    {"Objective": OBJECTIVE, "Images": IMAGES},
    {"Optimisation": OPTIMISATION, "Checkpoints and logs": KEPT},
)
GROUPS = (*MAIN, *(group for column in MORE for group in column.values()))
CONTROLS = tuple(control for group in GROUPS for control in group)
BY_FIELD = {control.field: control for control in CONTROLS}
DATA_KEYS = frozenset({DATA.key, *SOURCES, SIZE.key, SEED.key})
KEYS = frozenset({control.key for control in CONTROLS}) | DATA_KEYS


def entries_of(config: RunConfig, max_steps: int | None) -> dict[str, Any]:
    """The values of the form's controls, by key, for these settings.

    None: the value follows from another one. `max_steps`: the most that the installation allows.
    """
    entries = {control.key: _setting(config, control) for control in CONTROLS}
    entries[STEPS.key] = min(config.steps, max_steps or config.steps)
    if SEED.problem(config.seed):  # more digits than a browser keeps
        entries[SEED.key] = None
    if config == PRESETS.get(config.preset):
        entries[WARMUP.key] = None
    if config.min_snr_gamma == usual_min_snr_gamma(dict(config)):
        entries[SNR.key] = None
    for control in AS_SAMPLES:
        if entries[control.key] == config.sample_every:
            entries[control.key] = None
    return entries | {DATA.key: DATA.default} | _data_entries(config.data)


def make_config(
    start: RunConfig, data: str, entries: dict[str, Any], max_steps: int | None
) -> RunConfig:
    """The settings of `start`, changed by the form's entries.

    An empty warm-up is that of `start`, at most a tenth of the steps; an empty min-SNR gamma the
    usual one of the objective. Raises ConfigError.
    """
    check_steps(entries[STEPS.key], max_steps)
    usual = {control.key: entries[SAMPLES.key] for control in AS_SAMPLES}
    usual[SEED.key] = start.seed
    usual[WARMUP.key] = usual_warmup(start, entries[STEPS.key])
    changed = {}
    usual[SNR.key] = usual_gamma(entries)
    for control in CONTROLS:
        value = entries[control.key]
        if value is None:
            value = usual[control.key]
        # An unset gamma would follow the objective.
        if control is SNR or value != _setting(start, control):
            changed[control.field] = value
    config = with_settings(start, {"data": data, **changed})
    return config.replace(ema_decays={name: d for name, d in config.ema_decays.items() if d})


def check_steps(steps: int, max_steps: int | None) -> None:
    """Raises ConfigError for more steps than this installation allows."""
    if max_steps is not None and steps > max_steps:
        raise ConfigError(f"This installation allows at most {max_steps:,} steps.")


def usual_warmup(start: RunConfig, steps: int) -> int:
    """The warm-up of a run of so many steps if none is set."""
    return min(start.warmup_steps, steps // 10)


def usual_gamma(entries: dict[str, Any]) -> float:
    """The min-SNR gamma of a run with the form's objective if none is set."""
    schedule = {"rescale_zero_terminal_snr": entries[ZERO_SNR.key]}
    return usual_min_snr_gamma({"prediction_type": entries[TARGET.key], "schedule": schedule})


def data_spec(kind: str, detail: str | int) -> str:
    """A data set as the core names it; raises DataError where the folder or name is missing."""
    source, detail = SOURCES[kind], str(detail).strip()
    if not detail:
        raise DataError(source.missing)
    return kind if detail == str(source.most) else f"{kind}:{detail}"


def _setting(config: RunConfig, control: Control) -> Any:
    """The value of a control's field; the control's default where a dictionary lacks it."""
    name, _, entry = control.field.partition(".")
    value = getattr(config, name)
    return value.get(entry, control.default) if entry else value


def _data_entries(data: str) -> dict[str, Any]:
    """The kind of a data set, and its detail if the form can hold it."""
    kind, _, text = data.partition(":")
    if kind not in SOURCES:
        return {}
    detail: str | int = int(text) if text.isdecimal() and len(text) < 10 else text
    held = text and not detail_control(kind).problem(detail)
    return {DATA.key: kind, **({kind: detail} if held else {})}
