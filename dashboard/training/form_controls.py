"""The controls of the form that starts a run, and their settings.

A control whose `field` has a dot sets one entry of a dictionary: `schedule.kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboard.services.run_deeds import check_steps
from dashboard.ui.controls import Choice, Control, Number, Text, Toggle, whole_bounds
from dashboard.ui.pickers import SHIFT, ZERO_SNR
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.tables import DESIGNED, SCHEDULE_KINDS, USUAL_POINTS, Points
from diffusion_core.runs.config import RunConfig, meaning, usual_min_snr_gamma, with_settings
from diffusion_core.runs.designs import Design


def _help(field: str, more: str = "") -> str:
    """What a setting means, and more about it."""
    return f"{meaning(field)} {more}".strip()


def _number(*, field: str, step: float, more: str = "", **options: Any) -> Number:
    """The control of a number among a run's settings, within the bounds of the setting.

    `more`: sentences for its help, behind what the setting means.
    """
    low, high = map(type(step), whole_bounds(RunConfig, field))
    help = _help(field, more)
    return Number(field=field, step=step, low=low, high=high, help=help, **options)


def _choice(*, field: str, **options: Any) -> Choice:
    return Choice(field=field, help=_help(field), **options)


def _toggle(*, field: str, **options: Any) -> Toggle:
    return Toggle(field=field, help=_help(field), **options)


# ---------------------------------------------------------------- the images


def detail_control(kind: str) -> Number | Text | Choice:
    """The control for which images of a kind of data, or how many; its key is the kind."""
    source = SOURCES[kind]
    if source.names is not None and (names := source.names()):
        return Choice(key=kind, label=source.detail, options=names, default=names[0])
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
)
SEED = _number(
    key="seed",
    label="Seed",
    field="seed",
    step=1,
    optional=True,
)
SAMPLES = _number(
    key="every",
    label="Samples every",
    field="sample_every",
    step=25,
    follows=True,
    more="The default is smaller for few steps. Checkpoints and validation follow unless set "
    "below. The last step always has all three.",
)
BATCH = _number(key="batch", label="Batch size", field="batch_size", step=8)
RATE = _number(key="lr", label="Learning rate", field="learning_rate", step=1e-4)
MAIN: tuple[tuple[Control, ...], ...] = ((STEPS, SIZE), (BATCH, SEED), (RATE, SAMPLES))

# ---------------------------------------------------------------- more settings, by group

TARGET = _choice(
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
        "flow_x_0": "image of a flow",
    },
)
SNR = _number(
    key="snr",
    label="Min-SNR γ",
    field="min_snr_gamma",
    step=1.0,
    follows=True,
    more="The default is 5, but 0 for a flow or zero terminal SNR, which start sampling where the "
    "SNR is 0: there min-SNR would teach the network next to nothing. It is also 0 where the "
    "weights are learned or the loss is on v.",
)
LOSS_ON = _choice(
    key="loss_on",
    label="Loss on",
    field="loss_on",
    options=("prediction", "v"),
    titles={"v": "velocity"},
    default="prediction",
)
LEARNED = _toggle(key="weighting", label="Learn weights by noise level", field="learned_weighting")
KIND = _choice(
    key="schedule",
    label="Noise schedule",
    field="schedule.kind",
    default="linear",
    options=SCHEDULE_KINDS,
)
# The options are the points themselves: what is saved may change, the run keeps them.
DESIGN = _choice(
    key="design",
    label="Designed schedule",
    field="schedule.points",
    options=(USUAL_POINTS,),
    titles={USUAL_POINTS: "example"},
    default=USUAL_POINTS,
)
OBJECTIVE = (
    TARGET,
    LOSS_ON,
    _choice(
        key="loss",
        label="Loss",
        field="loss",
        options=LOSSES,
        titles={"l1": "L1", "l2": "L2", "huber": "Huber"},
    ),
    KIND,
    DESIGN,
    _number(key="T", label="Timesteps T", field="schedule.timesteps", default=300, step=100),
    ZERO_SNR.now(field="schedule.rescale_zero_terminal_snr"),
    SHIFT.now(field="schedule.shift_size"),
    LEARNED,
    SNR,
)
CHANNELS = Choice(
    key="channels",
    label="Channels",
    field="channels",
    options=(3, 1),
    titles={3: "colour", 1: "grey"},
)
IMAGES = (
    CHANNELS,
    _choice(
        key="resize",
        label="Resize to a square",
        field="resize",
        options=("squash", "crop", "pad"),
    ),
    _toggle(key="labels", label="Learn classes", field="class_conditional"),
    _number(key="dropout", label="Label dropout", field="label_dropout", step=0.05),
)
WARMUP = _number(
    key="warmup",
    label="Warm-up steps",
    field="warmup_steps",
    step=100,
    follows=True,
    more="The default is at most a tenth of all steps.",
)
OPTIMISATION = (
    _choice(
        key="optimizer",
        label="Optimizer",
        field="optimizer",
        options=("adam", "adamw", "muon"),
        titles={"adam": "Adam", "adamw": "AdamW", "muon": "Muon"},
    ),
    WARMUP,
    _choice(
        key="precision",
        label="Precision",
        field="mixed_precision",
        options=("auto", "bf16", "no"),
        titles={"auto": "automatic", "bf16": "bfloat16", "no": "float32"},
    ),
    _number(key="ema", label="EMA decay", field="ema_decay", step=1e-4),
    *(
        _number(
            key=f"ema_{name}",
            label=label,
            field=f"ema_decays.{name}",
            default=0.0,
            step=1e-4,
            more="0: none.",
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
        follows=True,
        more="The default is that of the samples, unless the preset or run sets another one.",
    )
    for key, label, field in (
        ("checkpoints", "Checkpoints every", "checkpoint_every"),
        ("validations", "Validation every", "validate_every"),
    )
)
MEASURED = (
    _number(
        key="evaluations",
        label="Measure quality every",
        field="evaluate_every",
        step=100,
    ),
    _number(
        key="evaluated",
        label="Images to measure",
        field="evaluate_images",
        step=16,
    ),
    _number(
        key="patience",
        label="Stop if no better for",
        field="stop_when_no_better",
        step=1,
    ),
)
KEPT = (
    *AS_SAMPLES,
    _number(
        key="keep",
        label="Newest checkpoints to keep",
        field="keep_checkpoints",
        step=1,
    ),
    _number(
        key="keep_every",
        label="Also keep every N steps",
        field="keep_every",
        step=1000,
    ),
    _toggle(key="keep_best", label="Keep the best", field="keep_best"),
    _toggle(key="report", label="Refresh a report", field="report"),
    _toggle(key="tensorboard", label="Write TensorBoard logs", field="tensorboard"),
)
# Two columns of groups.
MORE: tuple[dict[str, tuple[Control, ...]], ...] = (
    {"Objective": OBJECTIVE, "Images": IMAGES, "Quality": MEASURED},
    {"Optimisation": OPTIMISATION, "Checkpoints and logs": KEPT},
)
SAMPLING = _choice(
    key="t_sampling",
    label="Timesteps",
    field="timestep_sampling",
    options=("uniform", "logit_normal", "laplace"),
    titles={"logit_normal": "logit-normal", "laplace": "Laplace"},
)
LOG_SNR = _number(key="t_log_snr", label="Centre (log-SNR)", field="timestep_log_snr", step=0.5)
WIDTH = _number(key="t_width", label="Width (log-SNR)", field="timestep_width", step=0.5)
DECAY = _choice(
    key="decay",
    label="Learning rate decay",
    field="learning_rate_decay",
    options=("constant", "cosine", "inverse_sqrt"),
    titles={"constant": "none", "inverse_sqrt": "inverse square root"},
)
DECAY_AFTER = _number(key="decay_after", label="Decay after", field="decay_after", step=100)
RESTART = _number(key="restart", label="Restart at step", field="restart_at", step=100)
# Two columns of groups, of what few runs need.
ADVANCED: tuple[dict[str, tuple[Control, ...]], ...] = (
    {
        "Timesteps and noise": (
            SAMPLING,
            LOG_SNR,
            WIDTH,
            _toggle(key="immiscible", label="Near noise", field="immiscible"),
        ),
        "Augmentation": (_number(key="augment", label="Probability", field="augment", step=0.01),),
    },
    {
        "Learning rate": (DECAY, DECAY_AFTER, RESTART),
        "Averages of any length": (
            _number(key="snapshots", label="Snapshots every", field="average_snapshots", step=50),
        ),
    },
)
# Controls that are shown only where another one has one of some values.
ONLY_WITH: dict[str, tuple[Control, tuple[Any, ...]]] = {
    DESIGN.key: (KIND, (DESIGNED,)),
    LOSS_ON.key: (TARGET, tuple(n for n, kind in PREDICTION_TYPES.items() if kind.v_scale)),
    LOG_SNR.key: (SAMPLING, ("logit_normal", "laplace")),
    WIDTH.key: (SAMPLING, ("logit_normal", "laplace")),
    DECAY_AFTER.key: (DECAY, ("inverse_sqrt",)),
    RESTART.key: (DECAY, ("cosine", "inverse_sqrt")),
}
GROUPS = (*MAIN, *(group for column in (*MORE, *ADVANCED) for group in column.values()))
CONTROLS = tuple(control for group in GROUPS for control in group)
BY_FIELD = {control.field: control for control in CONTROLS}
DATA_KEYS = frozenset({DATA.key, *SOURCES, SIZE.key, CHANNELS.key, SEED.key})
KEYS = frozenset({control.key for control in CONTROLS}) | DATA_KEYS


def entries_of(config: RunConfig, max_steps: int | None) -> dict[str, Any]:
    """The values of the form's controls, by key, for these settings.

    `max_steps`: the most that the installation allows.
    """
    entries = {control.key: _setting(config, control) for control in CONTROLS}
    entries[STEPS.key] = min(config.steps, max_steps or config.steps)
    if SEED.problem(config.seed):  # more digits than a browser keeps
        entries[SEED.key] = None
    return entries | {DATA.key: DATA.default} | _data_entries(config.data)


def make_config(
    start: RunConfig, data: str, entries: dict[str, Any], max_steps: int | None
) -> RunConfig:
    """The settings of `start`, changed by the form's entries. Raises ConfigError."""
    check_steps(entries[STEPS.key], max_steps)
    entries = entries | ({SEED.key: start.seed} if entries[SEED.key] is None else {})
    changed = {
        control.field: entries[control.key]
        for control in CONTROLS
        # A gamma that is left out would follow the objective.
        if control is SNR or entries[control.key] != _setting(start, control)
    }
    if entries[KIND.key] == DESIGNED:
        changed[DESIGN.field] = [list(point) for point in entries[DESIGN.key]]
    config = with_settings(start, {"data": data, **changed})
    return config.replace(ema_decays={name: d for name, d in config.ema_decays.items() if d})


def followed(start: RunConfig, entries: dict[str, Any]) -> dict[str, Any]:
    """The defaults of the controls that follow other entries, by key; without those of which
    `start` has a value of its own."""
    given = entries_of(start, None)
    usual = _usual(start, given)
    return {key: now for key, now in _usual(start, entries).items() if given[key] == usual[key]}


def _usual(start: RunConfig, entries: dict[str, Any]) -> dict[str, Any]:
    schedule = {"rescale_zero_terminal_snr": entries[ZERO_SNR.key]}
    objective = {"prediction_type": entries[TARGET.key], "schedule": schedule}
    objective |= {"loss_on": entries[LOSS_ON.key], "learned_weighting": entries[LEARNED.key]}
    steps = entries[STEPS.key]
    often = min(start.sample_every, max(1, steps // 10))
    return {
        SAMPLES.key: often if steps < start.steps else start.sample_every,
        WARMUP.key: min(start.warmup_steps, steps // 10),
        SNR.key: usual_min_snr_gamma(objective),
        **{control.key: entries[SAMPLES.key] for control in AS_SAMPLES},
    }


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
    value = value.get(entry, control.default) if entry else value
    return tuple(map(tuple, value)) if control is DESIGN else value


def design_control(points: Points, designs: Mapping[str, Design]) -> Choice:
    """The control of the designed schedules: those saved, the example, and `points`, which the
    settings have."""
    own: Points = tuple(tuple(point) for point in points)
    titles: dict[Points, str] = {each.points: name for name, each in designs.items()}
    titles.setdefault(USUAL_POINTS, "example")
    titles.setdefault(own, "of the settings")
    return DESIGN.now(options=tuple(titles), titles=titles, default=own)


def _data_entries(data: str) -> dict[str, Any]:
    """The kind of a data set, and its detail if the form can hold it."""
    kind, _, text = data.partition(":")
    if kind not in SOURCES:
        return {}
    detail: str | int = int(text) if text.isdecimal() and len(text) < 10 else text
    held = text and not detail_control(kind).problem(detail)
    return {DATA.key: kind, **({kind: detail} if held else {})}
