"""What to sample from a checkpoint, as one record: pages, command line and files share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from diffusion_core.process.noise import MAX_SEED
from diffusion_core.process.schedule import Schedule
from diffusion_core.process.tables import MOST_TIMESTEPS
from diffusion_core.records import Record, RecordError, record_of
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.edits import last_steps
from diffusion_core.sampling.levels import OF_SIGMA, TIMESTEP_SPACINGS, make_levels
from diffusion_core.sampling.registry import (
    count_evaluations,
    find_sampler,
    sampler_names,
    sampler_of,
)
from diffusion_core.sampling.sample import LECTURE_SAMPLING, StepView, sample
from diffusion_core.sampling.solvers import VARIANCES
from diffusion_core.sampling.stability import MOST_NOISE, predicted_noise
from diffusion_core.text import cut, either, shown, some

MOST_IMAGES = 4096
VARIANCE_TITLES = {"large": "variance β", "lecture": "the lecture's noise term"}
MAX_GUIDANCE = 20.0
_LECTURES = {"sampler": "ddpm", "spacing": "trailing", "variance": "posterior"}

Name = Annotated[str, Field(max_length=255)]
Timestep = Annotated[float, Field(ge=0, le=MOST_TIMESTEPS)]


class SpecError(ValueError):
    """Sampling settings that cannot be used; the message says which part."""


class SamplingSpec(Record):
    """What to sample; together with the checkpoint's file it determines every pixel.

    The constructor and `replace` check types and bounds and raise pydantic.ValidationError;
    `problems` says whether the values fit together and fit a checkpoint.
    """

    run: Annotated[str, Field(min_length=1, max_length=255)]
    step: Annotated[int, Field(ge=0, le=2**53)]  # of the checkpoint
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 16
    sampler: Name = "dpmpp_2m"
    steps: Annotated[int, Field(ge=1, le=MOST_TIMESTEPS)] = 20
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0  # ddim only
    # Of the network; empty where it takes no labels.
    classes: Annotated[tuple[str, ...], Field(max_length=10_000)] = ()
    label: str = ""  # one of the classes, EACH_IN_TURN or ANY_CLASS
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] = 1.0
    negative: str = ""  # the class that guidance leads away from; empty for any class
    guidance_interval: tuple[Timestep, Timestep] | None = None  # both included; None: all
    as_lecture: bool = False  # LECTURE_SAMPLING, its two slips included
    average: Annotated[str, Field(min_length=1, max_length=255)] = MAIN_AVERAGE
    flow: bool = False  # whether the model predicts the direction of a flow
    # Of the steps, one of `levels.TIMESTEP_SPACINGS`. Files and links that say nothing about it
    # mean `trailing`, whatever the sampler's usual spacing is.
    spacing: Name = "trailing"
    variance: Name = "posterior"  # ddpm only, of its noise: one of VARIANCES
    exact: bool = False  # image by image, identical in every batch; see `sample.sample`

    def replace(self, **changes: Any) -> SamplingSpec:
        """A copy with these values."""
        return SamplingSpec(**{**dict(self), **changes})

    def labels(self, first: int = 0, n: int | None = None) -> Tensor | None:
        """The labels of images first to first + n - 1 (all of them), (n,) integers; None where the
        network takes none or any class will do."""
        n = self.n if n is None else n
        if not self.classes or self.label == ANY_CLASS:
            return None
        if self.label == EACH_IN_TURN:
            return torch.arange(first, first + n) % len(self.classes)
        return torch.full((n,), self.classes.index(self.label))

    def class_of(self, k: int) -> str:
        """The class that image k is generated for; empty where there is none."""
        labels = self.labels(k, 1)
        return "" if labels is None else self.classes[int(labels[0])]

    def columns(self, n: int | None = None) -> int:
        """Columns of a nearly square grid of n images (all of them). Classes in turn have columns
        of their own; otherwise no place is left empty where up to 8 columns allow it."""
        n = self.n if n is None else n
        square = math.ceil(n**0.5)
        classes = len(self.classes)
        if self.label == EACH_IN_TURN and classes <= min(n, max(8, square)):
            return max(1, round(square / classes)) * classes
        return next((k for k in range(square, 9) if n % k == 0), square)

    @property
    def method(self) -> str:
        """The sampler's name, also where it samples as the lecture does."""
        return "ddpm" if self.as_lecture else self.sampler

    def evaluations(self, schedule: Schedule) -> int:
        """Evaluations of the network on one image, over all images; guidance needs two, with and
        without the class, at the timesteps of its interval."""
        return self.n * count_evaluations(
            sampler_of(self.method, self.flow),
            make_levels(schedule, self.steps, self.spacing),
            guided=self.guidance_scale != 1.0,
            guidance_interval=self.guidance_interval,
        )

    def options(self, first: int = 0, n: int | None = None) -> dict[str, Any]:
        """The arguments of `sample` for images first to first + n - 1 (all of them), except the
        shape and the prediction type."""
        n = self.n if n is None else n
        how: dict[str, Any] = {"sampler": self.sampler, "eta": self.eta}
        how |= {"timestep_spacing": self.spacing, "noise_term": self.variance}
        options = (dict(LECTURE_SAMPLING) if self.as_lecture else how) | {
            "n": n,
            "steps": self.steps,
            "seed": self.seed,
            "labels": self.labels(first, n),
            "exact": self.exact,
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
        loaded: LoadedModel,
        on_step: Callable[[StepView], None] | None = None,
        first: int = 0,
        n: int | None = None,
        **more: Any,
    ) -> Tensor:
        """Generate images first to first + n - 1 (all of them): (n, C, H, W) in [-1, 1].

        `more`: further arguments of `sample`. Raises ValueError with a sentence where the network
        answers with NaN.
        """
        model, schedule, config = loaded
        images = sample(
            model,
            schedule,
            prediction_type=config.prediction_type,
            shape=config.image_shape,
            on_step=on_step,
            **(self.options(first, n) | more),
        )
        if not images.isfinite().all():
            raise ValueError(
                f"The network of {cut(self.run)} at step {self.step:,} answers with NaN or "
                f"infinity; choose another checkpoint."
            )
        return images

    def describe(self) -> str:
        """For display: "demo-cars at step 250: 16 images, ddim, 50 steps, seed 0, van"."""
        return f"{self.run} at step {self.step:,}: {', '.join(self.details().values())}"

    def details(self) -> dict[str, str]:
        """What `describe` says after the run and its step, by field."""
        found = {
            "n": f"{self.n:,} image{'s' if self.n > 1 else ''}",
            "sampler": "as the lecture does" if self.as_lecture else self.sampler,
            "steps": f"{self.steps} step{'s' if self.steps > 1 else ''}",
            "seed": f"seed {self.seed}",
        }
        if self.exact:
            found["exact"] = "exact"
        if self.spacing != "trailing" and not self.as_lecture:
            found["spacing"] = f"{self.spacing} spacing"
        if not self.as_lecture and self.variance in VARIANCE_TITLES:
            found["variance"] = VARIANCE_TITLES[self.variance]
        if self.eta and not self.as_lecture:
            found["eta"] = f"η {self.eta:g}"
        if self.classes:
            in_turn = self.label == EACH_IN_TURN
            found["label"] = "each class in turn" if in_turn else self.label
        if self.guidance_scale != 1.0:
            away = f" away from {self.negative}" if self.negative else ""
            where = ""
            if self.guidance_interval is not None:
                low, high = self.guidance_interval
                where = f" where {low:g} ≤ t ≤ {high:g}"
            found["guidance_scale"] = f"guidance {self.guidance_scale:g}{away}{where}"
        if self.average != MAIN_AVERAGE:
            found["average"] = f"{self.average} average"
        return found

    # ------------------------------------------------------------------- what is wrong with it

    def problems(
        self, capabilities: Capabilities | None = None, strength: float = 1.0
    ) -> list[str]:
        """What is wrong with the request, as sentences; empty where it can be sampled.

        `capabilities`: of the checkpoint. Without them, or where the values do not fit together
        by themselves, only that is said. `strength`: of the variation of an image, which takes the
        last steps only.
        """
        found = list(self._contradictions())
        if capabilities is None or found:
            return found
        return list(self._misfits(capabilities, strength))

    def warning(self, capabilities: Capabilities, strength: float = 1.0) -> str:
        """What will be wrong with the images of a request that has no `problems`, as a sentence;
        empty where nothing is known."""
        if self.problems(capabilities, strength) or not self._diverges(capabilities, strength):
            return ""
        usual = capabilities.usual_spacing[self.method]
        stable = [
            name
            for name in sorted(capabilities.spacings, key=lambda name: name != usual)
            if not self.replace(spacing=name)._diverges(capabilities, strength)
        ]
        use = f"{either(stable)} spacing" if stable else "more steps or another sampler"
        return (
            f"{self.method} diverges on this schedule with {self.spacing} spacing and "
            f"{self.steps:,} step{'s' if self.steps > 1 else ''}: the images will be noisy "
            f"or wrong. Use {use}."
        )

    def _diverges(self, can: Capabilities, strength: float) -> bool:
        sampler = sampler_of(self.method, self.flow)
        levels = last_steps(make_levels(can.schedule, self.steps, self.spacing), strength)
        given = {"eta": self.eta, "noise_term": self.variance}
        options = {name: given[name] for name in sampler.options & given.keys()}
        return predicted_noise(sampler, levels, options) > MOST_NOISE

    def checked(self, capabilities: Capabilities) -> SamplingSpec:
        """The same request. Raises SpecError where it cannot be sampled."""
        if problems := self.problems(capabilities):
            raise SpecError(problems[0])
        return self

    def _contradictions(self) -> Iterator[str]:
        """What is wrong whatever the checkpoint is."""
        sampler = find_sampler(self.method, self.flow)
        options = sampler.options if sampler is not None else {"eta", "noise_term"}
        if sampler is None:
            yield _unknown("sampler", self.method, sampler_names(self.flow))
        if self.spacing not in TIMESTEP_SPACINGS:
            yield _unknown("step spacing", self.spacing, TIMESTEP_SPACINGS)
        elif self.flow and self.spacing in OF_SIGMA:
            yield f"{self.spacing} spacing needs a schedule that does not end in pure noise."
        if self.variance not in VARIANCES:
            yield _unknown("variance", self.variance, VARIANCES)
        if self.as_lecture:
            for name, usual in _LECTURES.items():
                if getattr(self, name) != usual:
                    yield f"Sampling as the lecture does needs the {name} {usual}."
        elif self.variance != VARIANCES[0] and "noise_term" not in options:
            yield self._no_effect("variance", "noise_term")
        if self.eta and ("eta" not in options or self.as_lecture):
            yield self._no_effect("eta", "eta")
        yield from self._contradictions_of_classes()

    def _contradictions_of_classes(self) -> Iterator[str]:
        choices = (EACH_IN_TURN, ANY_CLASS, *self.classes) if self.classes else ("",)
        if self.label not in choices:
            yield self._unknown_class(self.label)
        if self.negative and self.negative not in self.classes:
            yield self._unknown_class(self.negative)
        guided = self.guidance_scale != 1
        if guided and not self.classes:
            yield (
                f"{cut(self.run)} was trained without classes, so nothing can guide it; set the "
                "guidance scale to 1."
            )
        elif guided and self.label == ANY_CLASS:
            yield "Guidance needs a class to lead to; choose one, or set the guidance scale to 1."
        if not guided and (self.negative or self.guidance_interval):
            yield (
                "A negative class and a guidance interval have no effect without guidance; set a "
                "guidance scale other than 1."
            )
        if self.guidance_interval and self.guidance_interval[0] > self.guidance_interval[1]:
            low, high = self.guidance_interval
            yield f"The guidance interval ends before it starts: it is {low:g} to {high:g}."

    def _no_effect(self, field: str, option: str) -> str:
        """That a field belongs to other samplers, which are those with an option."""
        names = sampler_names(self.flow)
        takers = [name for name in names if option in sampler_of(name, self.flow).options]
        use = f"; use {' or '.join(takers)}" if takers else ""
        return f"{field} has no effect with {self.method}{use}."

    def _unknown_class(self, name: str) -> str:
        if self.classes:
            return _unknown("class", name, self.classes)
        return f"There is no class {shown(name)}; {cut(self.run)} was trained without classes."

    def _misfits(self, can: Capabilities, strength: float) -> Iterator[str]:
        """What the checkpoint cannot do."""
        where = f"{cut(self.run)} at step {self.step:,}"
        distils = sampler_of(self.method, self.flow).distilled
        if distils and not can.distilled:
            yield (
                f"{self.method} needs a distilled run, and {cut(self.run)} is not one; choose one "
                f"of {', '.join(can.samplers)}."
            )
        elif can.distilled and not distils:
            yield (
                f"{cut(self.run)} is a distilled run, which {self.method} cannot sample; choose "
                f"{either(can.samplers)}."
            )
        elif self.flow != can.flow or self.method not in can.samplers:
            yield f"{self.method} cannot sample {where}; choose one of {', '.join(can.samplers)}."
        if self.steps > can.timesteps:
            yield f"{where} takes 1 to {can.timesteps:,} steps, not {self.steps:,}."
        if self.spacing not in can.spacings:
            yield (
                f"{self.spacing} spacing cannot be used with {where}; choose one of "
                f"{', '.join(can.spacings)}."
            )
        if not can.has_average(self.average):
            yield (
                f"{where} has no averaged weights called {shown(self.average)}; it has "
                f"{some(can.averages)}."
            )
        if self.as_lecture and not can.takes_lecture:
            yield (
                f"{where} cannot be sampled as the lecture does: that needs the lecture's network "
                "and images of more than 16 pixels."
            )
        if self.classes != can.classes:
            yield f"{where} has other classes: {some(can.classes) or 'none'}."
        elif can.classes and not can.any_class:
            if self.label == ANY_CLASS:
                yield f"{where} was trained with the class always given; choose a class."
            elif self.guidance_scale != 1 and not self.negative:
                yield (
                    f"{where} was trained with the class always given, so it cannot be guided away "
                    "from any class; set the guidance scale to 1 or choose a negative class."
                )
        if self.guidance_interval and self.guidance_interval[1] >= can.timesteps:
            low, high = self.guidance_interval
            yield (
                f"The guidance interval is {low:g} to {high:g}; it must end at "
                f"{can.timesteps - 1:,} or before for {where}."
            )
        elif self.guidance_interval and self.guidance_scale != 1:
            yield from self._guides_nowhere(can, strength)

    def _guides_nowhere(self, can: Capabilities, strength: float) -> Iterator[str]:
        """That no timestep at which the network is evaluated lies in the guidance interval."""
        if self.steps > can.timesteps or self.spacing not in can.spacings:
            return  # said above
        levels = make_levels(can.schedule, self.steps, self.spacing)
        at = [level.t for level in last_steps(levels, strength)[:-1]]
        low, high = self.guidance_interval or (0.0, math.inf)
        if not any(low <= t <= high for t in at):
            where = some([f"{round(t, 4):g}" for t in at])
            last = f"last {len(at)} " if len(at) < self.steps else ""
            more = ", more steps or a greater strength" if last else " or more steps"
            yield (
                f"The guidance interval is {low:g} to {high:g}, where none of the {last}steps is: "
                f"their timesteps are {where}. Choose a wider interval{more}."
            )

    def without_unused(self) -> SamplingSpec:
        """The same request without settings that have no effect beside the others."""
        changes: dict[str, Any] = {"sampler": self.method}
        if self.guidance_scale == 1:
            changes |= {"negative": "", "guidance_interval": None}
        sampler = find_sampler(self.method, self.flow)
        if sampler is not None and ("eta" not in sampler.options or self.as_lecture):
            changes["eta"] = 0.0
        if self.variance in VARIANCES and sampler and "noise_term" not in sampler.options:
            changes["variance"] = VARIANCES[0]
        return self.replace(**changes)

    # ------------------------------------------------------------------------------- as JSON

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it. `exact` is left out where it is off, as it was before it was there."""
        values = self.model_dump(mode="json")
        if not self.exact:
            del values["exact"]
        return values

    @classmethod
    def from_dict(cls, values: Any, source: str = "The settings") -> SamplingSpec:
        """From values of any origin, which messages call `source`.

        Raises SpecError with one sentence for values that are not allowed or do not fit together;
        unknown names are of a newer version and left out.
        """
        try:
            spec = record_of(cls, values, source)
        except RecordError as error:
            raise SpecError(str(error)) from error
        if problems := spec.without_unused().problems():
            raise SpecError(problems[0])
        return spec


def _unknown(what: str, value: str, known: Sequence[str]) -> str:
    return f"There is no {what} {shown(value)}; choose one of {some(known)}."
