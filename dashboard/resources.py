"""What all sessions of the app share, each computed once: schedules, pictures, models."""

from __future__ import annotations

import numpy as np
import streamlit as st
import torch
from torch import nn

from dashboard.settings import get_settings
from diffusion_core.checkpoint import Checkpoint, load_model
from diffusion_core.config import RunConfig
from diffusion_core.data import store
from diffusion_core.device import pick_device
from diffusion_core.schedule import NoiseSchedule


def device() -> torch.device:
    """The device that the pages compute on."""
    return pick_device(get_settings().device)


@st.cache_resource(max_entries=64, show_spinner=False)
def schedule(
    kind: str, timesteps: int, beta_start: float, beta_end: float, zero_terminal_snr: bool
) -> NoiseSchedule:
    """On the CPU; not to be changed. Raises ValueError as NoiseSchedule does."""
    return NoiseSchedule(kind, timesteps, beta_start, beta_end, zero_terminal_snr)


@st.cache_data(max_entries=512, show_spinner=False)
def picture(spec: str, index: int, size: int) -> tuple[np.ndarray, str]:
    """One picture of a data set: uint8 (size, size, 3), and its class's name.

    Raises DataError and PictureError.
    """
    pixels, _, name = store.load_picture(spec, index, size)
    return pixels, name


def model(checkpoint: Checkpoint) -> tuple[nn.Module, NoiseSchedule, RunConfig]:
    """A checkpoint's network in evaluation mode on the device, its schedule and settings.

    The two that were loaded last stay in memory. Raises CheckpointError.
    """
    return _model(str(checkpoint.path), checkpoint.time, str(device()), checkpoint)


@st.cache_resource(max_entries=2, show_spinner="Loading the checkpoint …")
def _model(
    path: str, written: float, where: str, _checkpoint: Checkpoint
) -> tuple[nn.Module, NoiseSchedule, RunConfig]:
    return load_model(_checkpoint, where)
