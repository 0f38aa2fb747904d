"""The One step page: a prediction beside the truth, over t, by pixel, and one step back."""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np
import streamlit as st
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from dashboard.components.chart.chart import show_live
from dashboard.components.flipbook.flipbook import Book, show_flipbook
from dashboard.components.gallery.gallery import Row, Tile, address_of, show_gallery
from dashboard.components.pixel.pixel import Panel, show_pixel
from dashboard.components.predictor.predictor import show_predictor
from dashboard.explain import noising
from dashboard.explain.network import Picked
from dashboard.explain.network_look import (
    SOURCE,
    Look,
    pick_checkpoint,
    pick_image,
    pick_label,
    pick_pixel,
    result_of,
    set_pixel,
)
from dashboard.explain.network_reach import logarithmic
from dashboard.figures.one_step import errors_figure, landing_figure
from dashboard.figures.theme import show
from dashboard.services import browser_models
from dashboard.services.settings import get_settings
from dashboard.ui.controls import Choice, Number
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import pick_run, pick_timestep
from dashboard.ui.run_wording import decimal
from dashboard.ui.tabs import open_tab
from diffusion_core.data.store import to_grey
from diffusion_core.media.images import png, to_uint8
from diffusion_core.models.inside import Given
from diffusion_core.process.noise import image_noise
from diffusion_core.process.noising import image_to_x_0, noise_to_uint8
from diffusion_core.process.prediction import FLOW_X_0, PREDICTION_TYPES
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import list_runs
from diffusion_core.sampling import one_step
from diffusion_core.sampling.browser_model import why_not_in_browser
from diffusion_core.sampling.one_step import LECTURE, Asked, Predicted

PREDICTION, OVER_T, PIXEL, BACK = TABS = ("Prediction", "Over t", "One pixel", "One step back")
TAB = Choice(key="tab", label="Tab", options=TABS)
GUIDANCE = Number(
    key="guidance",
    label="Guidance scale",
    low=1.0,
    high=20.0,
    default=1.0,
    step=0.5,
    help="1: the class alone. Higher values go further away from what is predicted for any class.",
)
AVERAGE = Choice(
    key="average",
    label="Averaged weights",
    options=(MAIN_AVERAGE,),
    default=MAIN_AVERAGE,
    segmented=True,
)
CHANNELS = ("red", "green", "blue")
CHANNEL = Choice(key="channel", label="Colour", options=CHANNELS, default="red", segmented=True)
V = "v_prediction"
SHORT = {V: "v", "flow_prediction": "ε − x₀"}
ROWS = {  # by prediction type
    "x_0": "Image",
    "epsilon": "Noise",
    V: "Velocity",
    "flow_prediction": "Direction of the flow",
}
SWEPT = 20  # timesteps
LARGEST = 128  # pixels of an image of a sweep
SIDE = 150  # screen pixels
TITLES = {"ddpm": "DDPM", "ddim": "DDIM", "euler": "Euler", LECTURE: "the lecture's step"}


@dataclass(frozen=True)
class Question:
    """What is asked of a network."""

    look: Look
    asked: Asked

    @property
    def noise(self) -> Tensor:
        """The seed's, (1, C, H, W)."""
        return image_noise(self.look.seed, 1, self.look.config.image_shape)()

    @property
    def cost(self) -> int:
        """Evaluations of the network for a prediction."""
        return 1 if self.asked.guidance_scale == 1 else 2

    def loaded(self, network: nn.Module, schedule: Schedule) -> LoadedModel:
        return LoadedModel(network, schedule, self.look.config)

    @property
    def x_0(self) -> Tensor:
        return image_to_x_0(self.look.image)


Images = dict[str, np.ndarray]  # by what they show: uint8 (H, W, C)


@dataclass(frozen=True, eq=False)
class Seen:
    """A prediction as it is shown."""

    rows: dict[str, Images]  # by prediction type
    loss: float
    weight: float
    weighted_loss: float
    zero_loss: float  # of a network that always answers 0
    x_0_error: float


@dataclass(frozen=True, eq=False)
class Sweep:
    """Predictions over t."""

    timesteps: list[int]
    losses: list[float]
    weighted_losses: list[float]
    x_0_errors: list[float]
    frames: dict[str, np.ndarray]  # uint8 (k, 1, H, W, C)


@dataclass(frozen=True, eq=False)
class Back:
    """Steps back from one point."""

    x_t: np.ndarray  # float32 (C, H, W), as all images here
    after: dict[str, np.ndarray]  # by the way to step; none where the prediction is not finite
    means: dict[str, np.ndarray] = field(default_factory=dict)  # of the posterior
    variance: float = 0.0


def show_one_step() -> None:
    question = ask_question()
    if question is None:
        return
    for title in open_tab(TAB):
        {
            PREDICTION: show_prediction,
            OVER_T: show_over_t,
            PIXEL: show_pixel_of,
            BACK: show_back,
        }[title](question)


def ask_question() -> Question | None:
    """The controls; None after a sentence where something is missing."""
    runs = [run for run in list_runs(get_settings().runs_dir) if run.latest_checkpoint()]
    if not runs:
        st.info("No run has a checkpoint yet. Train a model, and its predictions appear here.")
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        with st.container(width=220):
            run = pick_run(runs, last_first=True)
        latest = run.latest_checkpoint()
        assert latest is not None
        checkpoint = pick_checkpoint(Picked(run.name, latest.config, run)) or latest
        config = checkpoint.config
        average = pick_average(checkpoint)
        label = pick_label(config, checkpoint)
        guides = label is not None and config.label_dropout > 0
        scale = GUIDANCE.ask(width=150) if guides else 1.0
        seed = noising.SEED.ask(width=130)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = SOURCE.ask()
        image, what = pick_image(source, config.image_size, config.data)
    timesteps = build_schedule(config).timesteps
    t = pick_timestep(timesteps, default=timesteps // 3)
    if image is None:
        if what:
            st.info(plain(what))
        return None
    if config.channels == 1:
        image = to_grey(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    look = Look(run.name, config, checkpoint, image, what, t, seed, label, average)
    return Question(look, Asked(t, label, float(scale)))


def pick_average(checkpoint: Checkpoint) -> str:
    """Which averaged weights; no question where there is one."""
    if len(checkpoint.averages) < 2:
        return MAIN_AVERAGE
    decays = ", ".join(map(checkpoint.average_text, checkpoint.averages))
    control = AVERAGE.now(segmented=not checkpoint.snapshots)
    return control.now(options=checkpoint.averages, help=f"By decay: {plain(decays)}.").ask()


def show_images(look: Look, rows: dict[str, Images], key: str) -> None:
    """Rows of images by their titles; a click enlarges one, and it can be downloaded."""
    tiles = {
        title: tuple(
            Tile(address_of(png(image)), name, f"one-step-t{look.t}-{key}-{k}-{j}.png")
            for j, (name, image) in enumerate(images.items())
        )
        for k, (title, images) in enumerate(rows.items())
    }
    shown = [Row(row, look.size, SIDE, title=title, named=True) for title, row in tiles.items()]
    show_gallery(shown, f"Images at t = {look.t:,}", key)


def error_of(predicted: Tensor, true: Tensor, name: str = "error") -> Images:
    """The mean error over the colours, from 0 (black) to the largest (white), with that value."""
    error = (predicted - true).abs().mean(dim=1, keepdim=True)
    if not error.isfinite().all():
        return {f"{name}: not finite": to_uint8(torch.full_like(error, -1.0))[0]}
    largest = float(error.max())
    return {f"{name}, white: {largest:.2g}": to_uint8(error * (2 / (largest or 1.0)) - 1)[0]}


def say_not_finite(look: Look) -> None:
    st.error(
        f"The answer of {code(look.name)} at t = {look.t:,} is not finite: its training has "
        "diverged. Choose an earlier checkpoint."
    )


# ---------------------------------------------------------------- one prediction


def show_prediction(question: Question) -> None:
    look = question.look
    show_at_once(question)
    seen = result_of(
        look,
        "prediction",
        question.asked.guidance_scale,
        question.cost,
        lambda network, given, schedule, config: seen_of(
            one_step.predict(
                question.loaded(network, schedule), question.x_0, question.noise, question.asked
            ),
            config,
        ),
    )
    if seen is None:
        return
    kind = PREDICTION_TYPES[look.config.prediction_type]
    asked = "x_0" if kind is FLOW_X_0 else kind.name
    titles = {
        name: f"{ROWS[name]}, which this network answers" if asked == name else ROWS[name]
        for name in seen.rows
    }
    show_images(look, {titles[name]: row for name, row in seen.rows.items()}, "prediction")
    is_finite = bool(np.isfinite(seen.x_0_error))
    with st.container(horizontal=True, gap="large"):
        for name, value in {
            "Loss": f"{seen.loss:.4f}",
            "Weight in training": f"{seen.weight:.4g}",
            "Loss × weight": f"{seen.weighted_loss:.4f}",
            "Error of x₀ (RMS)": decimal(seen.x_0_error) if is_finite else "not finite",
        }.items():
            st.metric(name, value, width="content")
    st.caption(
        f"{plain(look.what)}. {code(look.name)} is trained to predict {kind.formula}; the loss is "
        f"its own, {code(look.config.loss)}, of this image. A network that always answers 0 would "
        f"have {seen.zero_loss:.4f}. Images are shown from −1 to 1, the rest from −3 to 3; errors "
        "are means over the colours."
    )
    if not is_finite:
        say_not_finite(look)


def show_at_once(question: Question) -> None:
    """The prediction of a run that fits into the browser, which moves with t there."""
    look, asked = question.look, question.asked
    if look.checkpoint is None or why_not_in_browser(look.config):
        return
    st.markdown("**While t moves**, computed in your browser; the rest follows when you let go.")
    address = browser_models.address(look.checkpoint, look.average)
    show_predictor(
        address,
        look.image,
        timesteps_of(look),
        seed=look.seed,
        label=asked.label,
        guidance=asked.guidance_scale,
        key="predictor",
    )


def seen_of(found: Predicted, config: RunConfig) -> Seen:
    image = found.predicted_x_0.clamp(-1, 1) if found.is_finite else found.predicted_x_0
    velocity = "flow_prediction" if PREDICTION_TYPES[config.prediction_type].flow else V
    rows = {
        "x_0": {
            "xₜ": to_uint8(found.x_t)[0],
            "x₀": to_uint8(found.x_0)[0],
            "predicted x₀": to_uint8(image.nan_to_num(0.0))[0],
            **error_of(image, found.x_0),
        },
        "epsilon": beside("ε", found.predicted_noise, found.noise),
        velocity: beside(SHORT[velocity], found.predicted_velocity, found.velocity),
    }
    return Seen(
        rows,
        found.loss,
        found.weight,
        found.weighted_loss,
        one_step.loss_of(torch.zeros_like(found.target), found.target, config.loss),
        found.x_0_error,
    )


def beside(name: str, predicted: Tensor, true: Tensor) -> Images:
    return {
        name: noise_to_uint8(true)[0],
        f"predicted {name}": noise_to_uint8(predicted.nan_to_num(0.0))[0],
        **error_of(predicted, true),
    }


# ---------------------------------------------------------------- over t


def show_over_t(question: Question) -> None:
    look = question.look
    timesteps = sorted({round(t) for t in np.linspace(0, timesteps_of(look) - 1, SWEPT)})
    found = result_of(
        replace(look, t=0),  # all t have the same sweep
        "predictions over t",
        question.asked.guidance_scale,
        len(timesteps) * question.cost,
        lambda network, given, schedule, config: swept(
            question.loaded(network, schedule), question, timesteps
        ),
    )
    if found is None:
        return
    curves = {"loss": found.losses}
    if found.weighted_losses != found.losses:
        curves["loss × weight"] = found.weighted_losses
    curves["RMS error of x₀"] = found.x_0_errors
    show_flipbook(
        found,
        lambda: Book(
            found.frames,
            [f"t = {t:,}" for t in found.timesteps],
            ["1"],
            {name: np.array(values)[:, None] for name, values in curves.items()},
            timesteps=found.timesteps,
        ),
        "predictions",
    )
    show_live(
        errors_figure(found.timesteps, curves),
        key="over-t",
        alt="The loss and the error of the predicted image over t.",
        cursor="x",
    )
    st.caption(
        f"The same image and the same noise at {len(found.timesteps)} timesteps; the nearest to t "
        "is shown. Early ones hide little of the image; late ones leave the network to guess."
    )


def timesteps_of(look: Look) -> int:
    return build_schedule(look.config).timesteps


def swept(
    loaded: LoadedModel, question: Question, timesteps: list[int]
) -> Generator[int, None, Sweep]:
    found = []
    for t in timesteps:
        asked = replace(question.asked, t=t)
        found.append(one_step.predict(loaded, question.x_0, question.noise, asked))
        yield len(found) * question.cost
    rows = {
        "xₜ": [to_uint8(small(each.x_t)) for each in found],
        "predicted x₀": [to_uint8(small(each.predicted_x_0.nan_to_num(0.0))) for each in found],
    }
    return Sweep(
        timesteps,
        [each.loss for each in found],
        [each.weighted_loss for each in found],
        [each.x_0_error for each in found],
        {name: np.stack(images) for name, images in rows.items()},
    )


def small(images: Tensor) -> Tensor:
    return images if images.shape[-1] <= LARGEST else adaptive_avg_pool2d(images, LARGEST)


# ---------------------------------------------------------------- one pixel


def show_pixel_of(question: Question) -> None:
    look = question.look
    st.markdown(
        r"What one pixel of $\hat x_0$ depends on: $\lVert\partial\,\hat x_0 / \partial x_t\rVert$ "
        "for each pixel of $x_t$. Click a pixel."
    )
    pixel = pick_pixel(look.size)
    found = result_of(
        look,
        "what a pixel depends on",
        (pixel, question.asked.guidance_scale),
        # A pass back costs about two forward.
        question.cost * (1 + 2 * look.config.channels),
        lambda network, given, schedule, config: dependence_of(
            question.loaded(network, schedule), given, question.asked, pixel
        ),
    )
    if found is None:
        return
    x_t, gradient = found
    if not np.isfinite(gradient).all():
        say_not_finite(look)
        return
    panels = [
        Panel(f"xₜ at t = {look.t:,}", x_t),
        Panel("Gradient", gradient),
        Panel("Gradient, logarithmic", logarithmic(gradient)),
    ]
    show_pixel(panels, look.size, pixel, "one-step-pixel", set_pixel)
    rows = io.StringIO()
    np.savetxt(rows, gradient, "%.9g", ",")
    st.download_button(
        "CSV",
        rows.getvalue(),
        f"one-step-t{look.t}-gradient-{pixel[0]}-{pixel[1]}.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
        help="The gradient, a line for each row of pixels.",
    )
    st.caption(
        "With little noise the pixel depends on itself and its neighbours; with much noise on the "
        "whole image. The logarithmic map shows four powers of ten."
    )


def dependence_of(
    loaded: LoadedModel, given: Given, asked: Asked, pixel: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    gradient = one_step.dependence(loaded, given.x, asked, pixel)
    return to_uint8(given.x)[0], gradient.cpu().numpy()


# ---------------------------------------------------------------- one step back


def show_back(question: Question) -> None:
    look = question.look
    found: Back | None = result_of(
        look,
        "one step back",
        question.asked.guidance_scale,
        question.cost,
        lambda network, given, schedule, config: back_of(
            question.loaded(network, schedule), question
        ),
    )
    if found is None:
        return
    if not found.after:
        say_not_finite(look)
        return
    show_images(look, rows_of(found), "back")
    if not found.means:
        st.caption(
            "A flow has no noise in its steps: Euler's method goes along the straight line to the "
            "predicted image."
        )
    elif not found.variance:
        st.caption(
            f"At t = {look.t:,} the posterior has no variance: the step lands on the predicted "
            "image and adds no noise."
        )
    else:
        show_landing(look, found)


def rows_of(found: Back) -> dict[str, Images]:
    """Where each step lands, how far apart, and the posterior's means."""

    def shown(images: dict[str, np.ndarray]) -> Images:
        return {name: to_uint8(batch(image))[0] for name, image in images.items()}

    after = {TITLES[name]: image for name, image in found.after.items()}
    rows = {"Where each step lands": shown({"xₜ": found.x_t, **after})}
    first, *others = after
    differences: Images = {}
    for name in others:
        rms = float(np.sqrt(np.square(after[name] - after[first]).mean()))
        differences |= error_of(batch(after[name]), batch(after[first]), f"{name}: RMS {rms:.2g}")
    if differences:
        rows[f"Differences from {first}"] = differences
    if found.means:
        predicted, true = found.means.values()
        rows["Mean of the posterior"] = shown(found.means) | error_of(
            batch(predicted), batch(true), "difference"
        )
    return rows


def batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image)[None]


def show_landing(look: Look, found: Back) -> None:
    st.markdown(
        r"**One value of $x_{t-1}$**: the posterior $q(x_{t-1} \mid x_t, x_0)$ is normal. Its "
        rf"variance is $\tilde\beta_t = {found.variance:.3g}$ everywhere; its mean mixes $x_t$ "
        "with the image, the predicted one in sampling. Click a pixel."
    )
    with st.container(horizontal=True):
        pixel = pick_pixel(look.size)
        channel = CHANNELS.index(CHANNEL.ask()) if look.config.channels == 3 else 0
    where, densities = st.columns([2, 3], gap="medium")
    place = (channel, *pixel)
    predicted, true = found.means.values()
    panels = [
        Panel("Mean for predicted x₀", to_uint8(batch(predicted))[0]),
        Panel("Distance of the means", np.abs(predicted - true)[channel]),
    ]
    with where:
        show_pixel(panels, look.size, pixel, "back-pixel", set_pixel)
    with densities:
        show(
            landing_figure(
                {name: float(mean[place]) for name, mean in found.means.items()},
                found.variance**0.5,
                {TITLES[name]: float(each[place]) for name, each in found.after.items()},
            ),
            key="landing",
            alt="The posterior's density at a pixel for the predicted and the true image, and "
            "where DDPM, DDIM and the lecture's step land.",
        )
    st.caption(
        "DDPM adds noise of this variance to the mean for the predicted image; the lecture adds "
        r"$\tilde\beta_t z$ in place of $\sqrt{\tilde\beta_t} z$; DDIM adds none and keeps the "
        "predicted noise instead. All three start from the same prediction and, where they add "
        "noise, the same $z$."
    )


def back_of(loaded: LoadedModel, question: Question) -> Back:
    asked = question.asked
    found = one_step.predict(loaded, question.x_0, question.noise, asked)
    if not found.is_finite:
        return Back(numbers(found.x_t), {})
    draw = image_noise(question.look.seed, 1, question.look.config.image_shape)
    draw()  # the noise of x_t
    after = one_step.steps_from(loaded, found, asked, draw())
    means, variance = {}, 0.0
    if isinstance(loaded.schedule, NoiseSchedule):
        predicted, true, variance = one_step.posteriors(loaded.schedule, found, asked)
        means = {"for predicted x₀": predicted, "for x₀": true}
    return Back(
        numbers(found.x_t),
        {name: numbers(image) for name, image in after.items()},
        {name: numbers(mean) for name, mean in means.items()},
        variance,
    )


def numbers(image: Tensor) -> np.ndarray:
    return image[0].float().cpu().numpy()
