"""What a checkpoint's network makes of the timesteps, computed once for all sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from diffusion_core.models import conditioning
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.process.embedding import embed
from diffusion_core.process.sinusoids import spread_timesteps
from diffusion_core.runs.checkpoint import Checkpoint, load_conditioning
from diffusion_core.runs.presets import build_schedule

MOST_TIMESTEPS = 200  # of a heatmap; as many rows as a screen shows well
_OF_FILE: dict[str | type, Callable[[Any], Any]] = {
    Checkpoint: lambda checkpoint: (str(checkpoint.path), checkpoint.time)
}


def timesteps_of(checkpoint: Checkpoint) -> np.ndarray:
    """The timesteps for which the functions below compute."""
    return spread_timesteps(build_schedule(checkpoint.config).timesteps, MOST_TIMESTEPS)


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs=_OF_FILE)
def network(checkpoint: Checkpoint) -> SimpleUnet | Unet:
    """See `load_conditioning`; must not be changed. Raises CheckpointError."""
    return load_conditioning(checkpoint)


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_OF_FILE)
def time_rows(checkpoint: Checkpoint) -> np.ndarray:
    """What `time_mlp` returns, (N, size). Raises CheckpointError."""
    return embed(network(checkpoint).time_mlp, timesteps_of(checkpoint))


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs=_OF_FILE)
def block_terms(checkpoint: Checkpoint, block: str, label: int | None) -> dict[str, np.ndarray]:
    """See `conditioning.block_terms`. Raises CheckpointError."""
    steps = timesteps_of(checkpoint)
    return conditioning.block_terms(network(checkpoint), steps, block, label)


@st.cache_data(max_entries=128, show_spinner=False, hash_funcs=_OF_FILE)
def term_sizes(checkpoint: Checkpoint, label: int | None) -> dict[str, np.ndarray]:
    """See `conditioning.term_sizes`. Raises CheckpointError."""
    return conditioning.term_sizes(network(checkpoint), timesteps_of(checkpoint), label)


@st.cache_data(max_entries=256, show_spinner=False, hash_funcs=_OF_FILE)
def term_variations(checkpoint: Checkpoint, label: int | None) -> dict[str, np.ndarray]:
    """See `conditioning.term_variations`. Raises CheckpointError."""
    return conditioning.term_variations(network(checkpoint), timesteps_of(checkpoint), label)
