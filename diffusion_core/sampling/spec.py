"""What to draw from a checkpoint, as one record: pages, command line and image files share it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.process.objective import Schedule
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.sampling.levels import OF_SIGMA, TIMESTEP_SPACINGS, make_levels
from diffusion_core.sampling.sample import (
    FLOW_SAMPLERS,
    LECTURE_SAMPLING,
    SAMPLERS,
    StepView,
    count_evaluations,
    sample,
)

EACH_IN_TURN = "each in turn"
ANY_CLASS = "any class"
MOST_IMAGES = 4096
MOST_TIMESTEPS = 10_000
MAX_SEED = 2**31 - 1
VARIANCES = ("posterior", "large", "lecture")  # the noise terms of `methods.ddpm`
VARIANCE_WORDS = {"large": "variance β", "lecture": "the lecture's noise term"}
MAX_GUIDANCE = 20.0

Loaded = tuple[nn.Module, Schedule, RunConfig]


class SpecError(ValueError):
    """An order that cannot be used; the message says which part."""


@dataclass(frozen=True)
class SamplingSpec:
    """What to draw; together with the checkpoint's file it determines every pixel."""

    run: str
    step: int  # of the checkpoint
    n: int = 16
    sampler: str = "dpmpp_2m"
    steps: int = 20
    seed: int = 0
    eta: float = 0.0  # ddim only
    classes: tuple[str, ...] = ()  # of the network; empty where it takes no labels
    label: str = ""  # one of the classes, EACH_IN_TURN or ANY_CLASS
    guidance_scale: float = 1.0
    negative: str = ""  # the class that guidance leads away from; empty for any class
    guidance_interval: tuple[float, float] | None = None  # timesteps, both included; None: all
    as_lecture: bool = False  # LECTURE_SAMPLING, its two slips included
    average: str = MAIN_AVERAGE  # which of the checkpoint's averaged weights
    flow: bool = False  # whether the model predicts the direction of a flow
    spacing: str = "trailing"  # of the steps, one of `levels.TIMESTEP_SPACINGS`
    variance: str = "posterior"  # ddpm only, of its noise: one of VARIANCES

    def labels(self, first: int = 0, n: int | None = None) -> Tensor | None:
        """Of images first to first + n - 1 (all of them), (n,) integers; None where the network
        takes none or any class will do."""
        n = self.n if n is None else n
        if not self.classes or self.label == ANY_CLASS:
            return None
        if self.label == EACH_IN_TURN:
            return torch.arange(first, first + n) % len(self.classes)
        return torch.full((n,), self.classes.index(self.label))

    def class_of(self, k: int) -> str:
        """The class that image k was asked to be; empty where it was not asked."""
        labels = self.labels(k, 1)
        return "" if labels is None else self.classes[int(labels[0])]

    def columns(self, n: int | None = None) -> int:
        """Of a grid of n of its images (all of them), which is nearly square: classes in turn
        have columns of their own, else no place is left empty where up to 8 columns do."""
        n = self.n if n is None else n
        square = math.ceil(n**0.5)
        classes = len(self.classes)
        if self.label == EACH_IN_TURN and classes <= min(n, max(8, square)):
            return max(1, round(square / classes)) * classes
        return next((k for k in range(square, 9) if n % k == 0), square)

    @property
    def method(self) -> str:
        """The sampler's name, also of the lecture's way."""
        return "ddpm" if self.as_lecture else self.sampler

    def evaluations(self, schedule: Schedule) -> int:
        """How often the network computes one image, over all images; guidance needs it twice,
        with and without the class, at the timesteps of its interval."""
        return self.n * count_evaluations(
            self.method,
            make_levels(schedule, self.steps, self.spacing),
            guided=self.guidance_scale != 1.0,
            guidance_interval=self.guidance_interval,
        )

    def options(self, first: int = 0, n: int | None = None) -> dict[str, Any]:
        """As arguments of `sample` for images first to first + n - 1 (all of them), all but the
        shape and the prediction type."""
        n = self.n if n is None else n
        how: dict[str, Any] = {"sampler": self.sampler, "eta": self.eta}
        how |= {"timestep_spacing": self.spacing, "noise_term": self.variance}
        options = (dict(LECTURE_SAMPLING) if self.as_lecture else how) | {
            "n": n,
            "steps": self.steps,
            "seed": self.seed,
            "labels": self.labels(first, n),
        }
        if first:
            options["first"] = first
        if self.guidance_scale != 1.0:
            options["guidance_scale"] = self.guidance_scale
            options["guidance_interval"] = self.guidance_interval
            if self.negative:
                options["negative_labels"] = torch.full((n,), self.classes.index(self.negative))
        return options

    def make(
        self,
        loaded: Loaded,
        on_step: Callable[[StepView], None] | None = None,
        first: int = 0,
        n: int | None = None,
        **more: Any,
    ) -> Tensor:
        """Draw images first to first + n - 1 (all of them): (n, C, H, W) in [-1, 1].

        `more`: further arguments of `sample`. Raises ValueError with a sentence where the network
        answers with NaN.
        """
        model, schedule, config = loaded
        images = sample(
            model,
            schedule,
            prediction_type=config.prediction_type,
            shape=(config.channels, config.image_size, config.image_size),
            on_step=on_step,
            **(self.options(first, n) | more),
        )
        if not images.isfinite().all():
            raise ValueError(
                f"The network of {self.run} at step {self.step:,} answers with NaN or infinity; "
                f"choose another checkpoint."
            )
        return images

    def words(self) -> str:
        """For people: "demo-cars at step 250: 16 images, ddim, 50 steps, seed 0, van"."""
        return f"{self.run} at step {self.step:,}: {', '.join(self.parts())}"

    def parts(self) -> list[str]:
        """The pieces of `words` after the run and its step."""
        parts = [
            f"{self.n:,} image{'s' if self.n > 1 else ''}",
            "as the lecture does" if self.as_lecture else self.sampler,
            f"{self.steps} step{'s' if self.steps > 1 else ''}",
            f"seed {self.seed}",
        ]
        if self.spacing != "trailing" and not self.as_lecture:
            parts.append(f"{self.spacing} spacing")
        if self.method == "ddpm" and not self.as_lecture and self.variance in VARIANCE_WORDS:
            parts.append(VARIANCE_WORDS[self.variance])
        if self.sampler == "ddim" and self.eta and not self.as_lecture:
            parts.append(f"η {self.eta:g}")
        if self.classes:
            parts.append("each class in turn" if self.label == EACH_IN_TURN else self.label)
        if self.guidance_scale != 1.0:
            away = f" away from {self.negative}" if self.negative else ""
            where = ""
            if self.guidance_interval is not None:
                low, high = self.guidance_interval
                where = f" where {low:g} ≤ t ≤ {high:g}"
            parts.append(f"guidance {self.guidance_scale:g}{away}{where}")
        if self.average != MAIN_AVERAGE:
            parts.append(f"{self.average} average")
        return parts

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SamplingSpec:
        """The order that `to_json` wrote, believed in nothing. Raises OrderError."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError("The settings are not readable JSON.") from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Any) -> SamplingSpec:
        """Raises OrderError; names that are not known are of a newer version and left out."""
        if not isinstance(values, dict):
            raise SpecError("The settings are not a record.")
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        if isinstance(classes := given.get("classes"), list):
            given["classes"] = tuple(classes)
        if isinstance(interval := given.get("guidance_interval"), list):
            given["guidance_interval"] = tuple(interval)
        try:
            spec = cls(**given)
        except TypeError as error:
            raise SpecError("The settings do not name the run and its step.") from error
        for name, sound in spec._checks().items():
            if not sound:
                raise SpecError(f"The settings have no usable {name.replace('_', ' ')}.")
        return spec

    def _checks(self) -> dict[str, bool]:
        """Which fields hold what they may."""
        classes, interval = self.classes, self.guidance_interval
        named = (
            isinstance(classes, tuple)
            and len(classes) <= 10_000
            and all(isinstance(name, str) for name in classes)
        )
        of_classes = (*classes, EACH_IN_TURN, ANY_CLASS) if named and classes else ("",)
        samplers = FLOW_SAMPLERS if self.flow is True else SAMPLERS
        return {
            "run": isinstance(self.run, str) and 0 < len(self.run) <= 255,
            "step": is_whole(self.step, 0, 2**53),
            "n": is_whole(self.n, 1, MOST_IMAGES),
            "sampler": isinstance(self.sampler, str) and self.sampler in samplers,
            "steps": is_whole(self.steps, 1, MOST_TIMESTEPS),
            "seed": is_whole(self.seed, 0, MAX_SEED),
            "eta": is_number(self.eta, 0, 1),
            "classes": named,
            "label": isinstance(self.label, str) and self.label in of_classes,
            "guidance_scale": is_number(self.guidance_scale, 0, MAX_GUIDANCE)
            and (self.guidance_scale == 1 or self.label not in ("", ANY_CLASS)),
            "negative": isinstance(self.negative, str)
            and (self.negative == "" or (named and self.negative in classes)),
            "guidance_interval": interval is None
            or (
                isinstance(interval, tuple)
                and len(interval) == 2
                and all(is_number(end, 0, MOST_TIMESTEPS) for end in interval)
                and interval[0] <= interval[1]
            ),
            "as_lecture": isinstance(self.as_lecture, bool)
            and not (
                self.as_lecture
                and (self.flow or self.spacing != "trailing" or self.variance != "posterior")
            ),
            "average": isinstance(self.average, str) and 0 < len(self.average) <= 255,
            "flow": isinstance(self.flow, bool),
            "spacing": isinstance(self.spacing, str)
            and self.spacing in TIMESTEP_SPACINGS
            and not (self.flow and self.spacing in OF_SIGMA),
            "variance": isinstance(self.variance, str) and self.variance in VARIANCES,
        }


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether it is a whole number from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float, high: float) -> bool:
    """Whether it is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return low <= value <= high
