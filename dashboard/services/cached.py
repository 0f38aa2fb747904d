"""What all sessions of the app share, computed once: schedules, images, models."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import streamlit as st
import torch

from dashboard.services import budgets
from dashboard.services.budgets import Budget
from dashboard.services.garbage import COMPILER, import_and_spare
from dashboard.services.model_cache import shared_model
from dashboard.services.settings import get_settings
from dashboard.services.shared_look import metrics_stamp, once
from dashboard.services.visitors import visitor
from diffusion_core.data import store
from diffusion_core.data.decode import PAD, SQUASH, ImageError, to_size, upright_size
from diffusion_core.data.decode_apart import ReaderBusy, decode_apart
from diffusion_core.data.errors import TooLong
from diffusion_core.data.found import Found
from diffusion_core.data.source import Source
from diffusion_core.data.sources import kind_of
from diffusion_core.device import pick_device
from diffusion_core.media.images import png
from diffusion_core.models.inside import kept_bytes as bytes_kept_by
from diffusion_core.models.trace import Trace, trace
from diffusion_core.playground import data
from diffusion_core.playground.data import ImagePlane
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.runs.presets import network_plan
from diffusion_core.runs.run import Run

LIST_SECONDS = 20.0  # the same, on the page that shows them
LOOK_SECONDS = 3.0  # that a visitor waits at most for what is in a folder


def device() -> torch.device:
    """The device that the pages compute on."""
    return pick_device(get_settings().device)


@st.cache_resource(max_entries=64, show_spinner=False)
def schedule(**settings: Any) -> NoiseSchedule:
    """On the CPU; must not be changed. `settings` and errors are those of NoiseSchedule."""
    return NoiseSchedule(**settings)


@st.cache_data(max_entries=512, show_spinner=False)
def image(spec: str, index: int, size: int, resize: str = SQUASH) -> tuple[np.ndarray, str]:
    """One image of a data set, uint8 (size, size, 3), and the name of its class.

    `resize`: one of `decode.FITS`. Raises DataError and ImageError.
    """
    pixels, _, name = store.load_image(spec, index, size, resize)
    return pixels, name


@st.cache_resource(max_entries=4, ttl=60, show_spinner="Looking at the images …")
def source(spec: str) -> Source:
    """A data set, which must not be changed. Downloads nothing. Raises DataError."""
    kind, detail = kind_of(spec), spec.partition(":")[2]
    return kind.open(detail) if kind.open_within is None else kind.open_within(detail, LIST_SECONDS)


@st.cache_data(max_entries=8, ttl=60, show_spinner="Looking up the classes …")
def labels(spec: str, most: int) -> np.ndarray:
    """The labels of a data set's first images, -1 where one cannot be read. Raises DataError."""
    found = source(spec)
    numbers = np.full(min(most, found.count), -1)
    for index in range(len(numbers)):
        with suppress(ImageError):
            numbers[index] = found.label(index)
    return numbers


@st.cache_data(max_entries=1024, ttl=600, show_spinner=False)
def tile(spec: str, index: int, size: int) -> tuple[bytes, str, tuple[int, int]]:
    """One image whole within a square as a PNG, the name of its class, and its own width and
    height. Raises DataError, ImageError."""
    found = source(spec)
    store.check_index(found, index, spec)
    image, label = found.read(index)
    return png(to_size(image, size, PAD)), found.classes[label], image.size


@st.cache_data(max_entries=64, ttl=60, show_spinner=False)
def image_count(spec: str) -> int:
    """The number of images of a data set. Raises DataError."""
    return store.count(spec)


@st.cache_data(max_entries=64, ttl=60, show_spinner=False)
def fingerprint(spec: str, size: int, channels: int, resize: str) -> str:
    """See `store.fingerprint_of`. Raises DataError."""
    return store.fingerprint_of(spec, size, channels, resize)


@st.cache_data(max_entries=64, ttl=60, show_spinner="Looking at the images …")
def found(spec: str) -> Found | str | None:
    """See `store.look`; a sentence where it took too long. Raises DataError."""
    try:
        return store.look(spec, LOOK_SECONDS)
    except TooLong as error:
        return str(error)


@st.cache_data(max_entries=16, show_spinner="Looking at the images …")
def image_plane(spec: str) -> ImagePlane:
    """See `playground.data.image_plane`. Raises DataError and ImageError."""
    return data.image_plane(spec)


def forget_images() -> None:
    """A data set has been made or deleted: its name may have stood for other images."""
    for kept in (image, source, labels, tile, image_count, fingerprint, found):
        kept.clear()


def uploaded_image(
    file_id: str, size: int, fit: str, data: bytes
) -> tuple[np.ndarray, tuple[int, int]]:
    """An image file's pixels, uint8 (size, size, 3), and its own width and height.

    `fit`: one of `decode.FITS`. `file_id` stands for the bytes, which are not compared. Counts in
    the budget of whoever asks, unless it is read already. Raises ImageError, OverBudget.
    """
    found = _uploaded_image(file_id, size, fit, data)
    if isinstance(found, str):
        raise ImageError(found)
    return found


@st.cache_data(max_entries=32, show_spinner="Reading the image …")
def _uploaded_image(
    file_id: str, size: int, fit: str, _data: bytes
) -> tuple[np.ndarray, tuple[int, int]] | str:
    """As `uploaded_image`, or what is wrong with the file: it is not read again for that."""
    try:
        width, height = upright_size(_data)
        amounts = {Budget.UPLOAD_BYTES: len(_data) / 1e6, Budget.PIXELS: width * height / 1e6}
        with budgets.charged(amounts, visitor(), get_settings(), ReaderBusy):
            return decode_apart(_data, size, fit), (width, height)
    except ReaderBusy:
        raise
    except ImageError as error:
        return str(error)


def curve(run: Run, name: str) -> dict[str, np.ndarray]:
    """See `Run.curve`; read again only after the file has changed. Raises MetricsError."""
    return once(("curve", run.path, name, metrics_stamp(run)), lambda: _frozen(run.curve(name)))


def last_values(run: Run) -> dict[str, tuple[int, float]]:
    """See `Run.last_values`; as `curve`."""
    return once(("last", run.path, metrics_stamp(run)), run.last_values)


def _frozen(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def model(checkpoint: Checkpoint, average: str = MAIN_AVERAGE) -> LoadedModel:
    """See `model_cache.shared_model`; for pages that compute in the page itself."""
    with st.spinner("Loading the checkpoint …"):
        return shared_model(checkpoint, average, device=device())


@st.cache_data(max_entries=256, show_spinner="Following an image through the network …")
def network_trace(network: str, network_args: Mapping[str, object], image_size: int) -> Trace:
    """Shapes and cost of every block and layer. Raises ConfigError and ValueError."""
    import_and_spare(COMPILER)
    return trace(network_plan(network, network_args), image_size)


@st.cache_data(max_entries=256, show_spinner=False)
def kept_bytes(network: str, network_args: Mapping[str, object], image_size: int) -> dict[str, int]:
    """See `inside.kept_bytes`. Raises ConfigError and ValueError."""
    return bytes_kept_by(network_plan(network, network_args), image_size)
