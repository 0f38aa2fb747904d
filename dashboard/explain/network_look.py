"""What the Network page looks into: the weights, an image, a timestep; and the computations."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
import torch
from torch import nn

from dashboard.explain import noising
from dashboard.explain.network import Picked
from dashboard.services import cached
from dashboard.services.model_cache import fresh_model
from dashboard.services.roles import NotAllowed
from dashboard.services.sampling_tasks import Load, OnStep, Task
from dashboard.ui.controls import Choice, Number
from dashboard.ui.image_source import pick_own
from dashboard.ui.images import show_image
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import pick_timestep
from dashboard.ui.progress import answer_of
from diffusion_core.data.decode import ImageError
from diffusion_core.data.errors import DataError
from diffusion_core.data.store import to_grey
from diffusion_core.device import free_memory
from diffusion_core.media.images import to_uint8
from diffusion_core.models.inside import Given
from diffusion_core.models.trace import Trace
from diffusion_core.process.noise import image_noise
from diffusion_core.process.noising import image_to_x_0
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.presets import build_schedule, network_plan
from diffusion_core.sampling.capabilities import ANY_CLASS
from diffusion_core.sampling.spec import SamplingSpec

LATEST = "latest"
STEP = Choice(key="step", label="Checkpoint", default=LATEST)
LABEL = Choice(key="label", label="Class", default=ANY_CLASS)
SOURCE = Choice(
    key="source",
    label="Image source",
    options=(noising.DATA_SET, "upload"),
    default=noising.DATA_SET,
    segmented=True,
)
ROW, COLUMN = (Number(key=name.lower(), label=name, step=1) for name in ("Row", "Column"))

SIDE = 112  # screen pixels of x_t

# Of a network, what it is given, its schedule and its settings.
Compute = Callable[[nn.Module, Given, Schedule, RunConfig], Any]


@dataclass(frozen=True, eq=False)
class Look:
    """A network with weights, and what it is given."""

    name: str  # of the run or the preset
    config: RunConfig
    checkpoint: Checkpoint | None  # None: fresh weights
    image: np.ndarray  # uint8 (H, H, C)
    what: str  # the image shows
    t: int
    seed: int  # of the noise
    label: int | None  # None: any class, or a network that takes none
    average: str = MAIN_AVERAGE  # which averaged weights of the checkpoint

    @property
    def size(self) -> int:
        return self.image.shape[0]

    @property
    def trace(self) -> Trace:
        return cached.network_trace(self.config.network, dict(self.config.network_args), self.size)

    @property
    def weights_key(self) -> Hashable:
        if self.checkpoint is not None:
            return str(self.checkpoint.path), self.checkpoint.time, self.average
        return self.config.network, json.dumps(dict(self.config.network_args), sort_keys=True)

    @property
    def key(self) -> Hashable:
        """Of all that the network's answer depends on."""
        pixels = hashlib.blake2b(self.image.tobytes(), digest_size=16).digest()
        schedule = json.dumps(dict(self.config.schedule), sort_keys=True)
        where = self.size, self.t, self.seed, self.label
        return self.weights_key, pixels, schedule, self.config.prediction_type, where

    def given(self, schedule: Schedule, device: torch.device) -> Given:
        """x_t, t and the class, on the device."""
        x_0 = image_to_x_0(self.image)
        noise = image_noise(self.seed, 1, tuple(x_0.shape[1:]))()
        t = torch.tensor([self.t], device=device)
        x_t, _ = schedule.add_noise(x_0.to(device), t, noise.to(device))
        label = None if self.label is None else torch.tensor([self.label], device=device)
        return Given(x_t, t, label)


def ask_look(picked: Picked, size: int) -> Look | None:
    """The controls; None after a sentence where something is missing."""
    controls, preview = st.columns([6, 1], gap="medium")
    with controls:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            checkpoint = pick_checkpoint(picked)
            config = picked.config if checkpoint is None else checkpoint.config
            label = pick_label(config, checkpoint)
            source = SOURCE.ask()
            image, what = pick_image(source, size, config.data)
            seed = noising.SEED.ask(width=130)
        schedule = build_schedule(config)
        t = pick_timestep(schedule.timesteps, default=min(150, schedule.timesteps // 3))
    if image is None:
        if what:
            st.info(plain(what))
        return None
    if config.channels == 1:
        image = to_grey(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    look = Look(picked.name, config, checkpoint, image, what, t, seed, label)
    with preview:
        x_t, _, _ = look.given(schedule, torch.device("cpu"))
        show_image(to_uint8(x_t)[0], f"The image with noise, x_t at t = {t}", SIDE, "$x_t$")
    if checkpoint is None and not has_room(4 * parameters_of(config), "A fresh network"):
        return None
    return look


def pick_checkpoint(picked: Picked) -> Checkpoint | None:
    """A checkpoint of the run; None, and a sentence, where the weights are fresh."""
    usable, broken = picked.run.checkpoints() if picked.run is not None else ([], [])
    for sentence in broken:
        st.warning(f"{plain(sentence)} It is skipped.")
    if not usable:
        why = f"{code(picked.name)} has no checkpoint" if picked.run else "A preset has no weights"
        st.info(f"{why}, so the weights are freshly initialised.", icon=":material/casino:")
        return None
    steps = {str(checkpoint.step): checkpoint for checkpoint in reversed(usable)}
    chosen = STEP.now(options=(LATEST, *steps)).ask(width=160)
    return steps.get(chosen, usable[-1])


def pick_label(config: RunConfig, checkpoint: Checkpoint | None) -> int | None:
    """The number of a class; None for any."""
    classes = list(checkpoint.classes) if checkpoint is not None else []
    if not config.network_args.get("num_classes") or not classes:
        return None
    chosen = LABEL.now(options=[ANY_CLASS, *classes]).ask(width=160)
    return None if chosen == ANY_CLASS else classes.index(chosen)


def pick_image(source: str, size: int, data: str) -> tuple[np.ndarray | None, str]:
    """uint8 (size, size, 3) and what it shows; None and a hint before a choice. `data`: the data
    set of the run."""
    kind = data.partition(":")[0]
    usual = kind if kind in noising.DATA.options else noising.DATA.default
    try:
        if source != noising.DATA_SET:
            return pick_own(source, size, "to show it to the network")
        with st.container(horizontal=True, width=320):
            return noising.pick_from_data_set(size, usual)
    except (DataError, ImageError, NotAllowed) as error:
        st.error(plain(error))
        return None, ""


def pick_pixel(size: int) -> tuple[int, int]:
    """The row and the column of a pixel, at first the middle; what the links and the keyboard set
    is also set by `set_pixel`."""
    with st.container(horizontal=True, width="content"):
        row, column = (
            control.now(high=size - 1, default=size // 2).ask(width=120)
            for control in (ROW, COLUMN)
        )
    return row, column


def set_pixel(row: int, column: int) -> None:
    st.session_state[ROW.key], st.session_state[COLUMN.key] = row, column


def parameters_of(config: RunConfig) -> int:
    plan = network_plan(config.network, config.network_args)
    return sum(parameter.numel() for parameter in plan.parameters())


def has_room(needed: int, what: str) -> bool:
    """Whether the device has memory for it, with as much to spare; says so where it has not."""
    if needed <= free_memory(cached.device()) // 2:
        return True
    st.info(
        f"{what} of this size takes {needed / 1e6:,.0f} MB, more than this server has to spare. "
        "Choose a smaller network or image."
    )
    return False


def result_of(
    look: Look,
    what: str,
    more: Hashable,
    evaluations: int,
    compute: Compute,
    any_image: bool = False,
) -> Any:
    """What `compute` returns, computed once on the sampling queue; None while there is nothing.

    `what` says what is computed; `more` is what it depends on beside the look, of which `any_image`
    has the same result.
    """
    key = (what, (look.weights_key, look.size) if any_image else look.key, more)
    make_task = functools.partial(_task, look, what, evaluations, compute)
    return answer_of(key, make_task)


def _task(look: Look, what: str, evaluations: int, compute: Compute) -> Task:
    def work(load: Load, on_step: OnStep) -> Any:
        device = cached.device()
        if look.checkpoint is None:
            loaded: LoadedModel = fresh_model(look.config, device)
        else:
            loaded = load(look.checkpoint, look.average, True)
        return compute(
            loaded.model, look.given(loaded.schedule, device), loaded.schedule, look.config
        )

    step = look.checkpoint.step if look.checkpoint is not None else 0
    # An evaluation of a larger image than the network's own counts as the several that it costs.
    times = max(1, round((look.size / look.config.image_size) ** 2))
    return Task(
        SamplingSpec(run=look.name, step=step, n=1),
        f"{look.name} at step {step:,}: {what}",
        evaluations,
        evaluations * times,
        (f"{what} {look.config.network} {look.config.network_args} {look.size}", 1),
        work,
    )
