"""The Network page's tab Skips: what the prediction becomes with each skip switched off."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from dashboard.explain.network_look import Look, result_of
from dashboard.figures.network import skips_figure
from dashboard.figures.theme import show
from dashboard.ui.images import show_row
from dashboard.ui.outside import plain
from diffusion_core.media.images import to_uint8
from diffusion_core.models import inside
from diffusion_core.models.inside import Given, Skip
from diffusion_core.process.noising import noise_to_uint8
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.config import RunConfig

MOST_SKIPS = 32
LARGEST = 128  # pixels of an image that is shown
SIDE = 112  # screen pixels


@dataclass(frozen=True, eq=False)
class Shown:
    """A prediction and its distance from the whole network's."""

    x_0: np.ndarray  # uint8 (H, W, C)
    epsilon: np.ndarray
    x_0_error: float
    epsilon_error: float


def show_skips(look: Look) -> None:
    all_skips = inside.skips_of(look.trace)
    skips = all_skips[:MOST_SKIPS]
    st.markdown(
        "Each skip is switched off alone: zeros arrive where its channels would. What the network "
        "then predicts from the same $x_t$ shows what the skip carries."
    )
    found = result_of(
        look,
        "skips switched off",
        None,
        1 + len(skips),
        lambda network, given, schedule, config: shown_of(network, given, schedule, config, skips),
    )
    if found is None:
        return
    names = [f"{skip.source} → {skip.target}" for skip in skips]
    show_predictions(found, names)
    if all(math.isfinite(each.x_0_error + each.epsilon_error) for each in found):
        show_errors(found, names)
    else:
        st.info("Some predictions are not finite here, so their errors are not compared.")
    if len(all_skips) > len(skips):
        st.caption(f"The deepest {len(skips)} of {len(all_skips)} skips.")
    st.caption(
        f"{plain(look.what)}, at t = {look.t:,}. Errors are root mean squares over all values, "
        "before clipping to −1 … 1."
    )


def shown_of(
    network: nn.Module, given: Given, schedule: Schedule, config: RunConfig, skips: Sequence[Skip]
) -> Generator[int, None, list[Shown]]:
    effects = yield from inside.effects_of_skips(
        network, given, schedule, config.prediction_type, skips
    )
    return [
        Shown(
            to_uint8(_small(effect.x_0))[0],
            noise_to_uint8(_small(effect.epsilon))[0],
            effect.x_0_error,
            effect.epsilon_error,
        )
        for effect in effects
    ]


def _small(images: Tensor) -> Tensor:
    images = images.nan_to_num(0.0)
    return images if images.shape[-1] <= LARGEST else adaptive_avg_pool2d(images, LARGEST)


def show_predictions(found: Sequence[Shown], names: Sequence[str]) -> None:
    captions = ["all skips", *(f"without {name}" for name in names)]
    for title, kind in ((r"Predicted $\hat x_0$", "x_0"), (r"Predicted $\hat\epsilon$", "epsilon")):
        st.markdown(f"**{title}**")
        errors = [getattr(each, f"{kind}_error") for each in found]
        show_row(
            [getattr(each, kind) for each in found],
            alt=f"The predicted {kind} with all skips, then without each",
            width=SIDE,
            captions=[
                text if not k else f"{text}: {_number(errors[k])}"
                for k, text in enumerate(captions)
            ],
        )


def _number(error: float) -> str:
    return f"{error:.3g}" if math.isfinite(error) else "not finite"


def show_errors(found: Sequence[Shown], names: Sequence[str]) -> None:
    errors = {
        title: {name: getattr(each, kind) for name, each in zip(names, found[1:], strict=True)}
        for title, kind in (("x₀", "x_0_error"), ("ε", "epsilon_error"))
    }
    show(
        skips_figure(errors, "error against the whole network"),
        key="skips",
        alt="Bars: how far the prediction is from the whole network's without each skip.",
    )
    if not any(error for of_skips in errors.values() for error in of_skips.values()):
        st.info(
            "Nothing changes: the last layer of a fresh network is zero, so it predicts 0 whatever "
            "it is given."
        )
