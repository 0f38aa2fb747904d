"""What to sample from a checkpoint, as one record: pages, command line and files share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from diffusion_core.process.noise import MAX_SEED
from diffusion_core.process.schedule import Schedule
from diffusion_core.process.tables import MOST_TIMESTEPS
from diffusion_core.records import Record, RecordError, record_of
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError, LoadedModel, load_model
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.edits import last_steps
from diffusion_core.sampling.guides import find_guide, misfit
from diffusion_core.sampling.learned import Timestep, Timesteps, falling
from diffusion_core.sampling.levels import (
    LEARNED,
    OF_SIGMA,
    TIMESTEP_SPACINGS,
    NoiseLevel,
    learned_levels,
    make_levels,
)
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
# What guidance leads away from: the prediction for another class or any, or that of a guide.
BY_CLASS, AUTOGUIDANCE = GUIDANCES = ("class", "autoguidance")
# Fields that were not always there.
LATER = ("exact", "timesteps", "guidance", "guide_run", "guide_step", "guide_average")
_LECTURES = {"sampler": "ddpm", "spacing": "trailing", "variance": "posterior"}

Name = Annotated[str, Field(max_length=255)]


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
    guidance: Name = BY_CLASS  # one of GUIDANCES
    # Of autoguidance, the weaker network; see `guides.py`. Empty for a checkpoint of the same run.
    guide_run: Name = ""
    guide_step: Annotated[int, Field(ge=0, le=2**53)] | None = None
    guide_average: Annotated[str, Field(min_length=1, max_length=255)] = MAIN_AVERAGE
    as_lecture: bool = False  # LECTURE_SAMPLING, its two slips included
    average: Annotated[str, Field(min_length=1, max_length=255)] = MAIN_AVERAGE
    flow: bool = False  # whether the model predicts the direction of a flow
    # Of the steps, one of `levels.TIMESTEP_SPACINGS`, or LEARNED. Files and links that say nothing
    # about it mean `trailing`, whatever the sampler's usual spacing is.
    spacing: Name = "trailing"
    # Of LEARNED, one for each step, falling: the images stay the same where others are learned.
    timesteps: Timesteps = ()
    variance: Name = "posterior"  # ddpm only, of its noise: one of VARIANCES
    exact: bool = False  # image by image, identical in every batch; see `sample.sample`

    @field_validator("guide_run")
    @classmethod
    def _own_run_is_empty(cls, guide_run: str, given: ValidationInfo) -> str:
        """One name for one guide, so that links, files and results compare."""
        return "" if guide_run == given.data.get("run") else guide_run

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

    def levels(self, schedule: Schedule) -> list[NoiseLevel]:
        """Those at which the network is evaluated, and the image."""
        if self.spacing == LEARNED:
            return learned_levels(schedule, self.timesteps)
        return make_levels(schedule, self.steps, self.spacing)

    @property
    def autoguided(self) -> bool:
        """Whether another network guides."""
        return self.guidance == AUTOGUIDANCE and self.guidance_scale != 1.0

    def evaluations(self, schedule: Schedule) -> int:
        """Evaluations of the network on one image, over all images; guidance needs two at the
        timesteps of its interval, with and without the class or by the network and its guide."""
        return self.n * count_evaluations(
            sampler_of(self.method, self.flow),
            self.levels(schedule),
            guided=self.guidance_scale != 1.0,
            guidance_interval=self.guidance_interval,
        )

    def options(self, first: int = 0, n: int | None = None) -> dict[str, Any]:
        """The arguments of `sample` for images first to first + n - 1 (all of them), except the
        shape and the prediction type."""
        n = self.n if n is None else n
        how: dict[str, Any] = {"sampler": self.sampler, "eta": self.eta}
        how |= {"noise_term": self.variance}
        if self.spacing == LEARNED:
            how["timesteps"] = self.timesteps
        else:
            how["timestep_spacing"] = self.spacing
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
            if self.negative and not self.autoguided:
                options["negative_labels"] = torch.full((n,), self.classes.index(self.negative))
        return options

    def make(
        self,
        loaded: LoadedModel,
        on_step: Callable[[StepView], None] | None = None,
        first: int = 0,
        n: int | None = None,
        guide: LoadedModel | None = None,
        **more: Any,
    ) -> Tensor:
        """Generate images first to first + n - 1 (all of them): (n, C, H, W) in [-1, 1].

        `guide`: that of `load_guide`. `more`: further arguments of `sample`. Raises ValueError
        with a sentence where the network answers with NaN, and where a guide is missing.
        """
        model, schedule, config = loaded
        if self.autoguided:
            if guide is None:
                raise ValueError("Autoguidance needs a guide; see SamplingSpec.load_guide.")
            more["guide"] = guide.model
            more["guide_prediction_type"] = guide.config.prediction_type
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

    def guide_of(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The checkpoint that guides `checkpoint`, that of the spec; None where none does.

        Raises CheckpointError where it is missing or broken.
        """
        if not self.autoguided or self.guide_step is None:
            return None
        return find_guide(checkpoint.path.parent.parent, self.guide_run, self.guide_step)

    def guide_time(self, checkpoint: Checkpoint) -> float:
        """When the checkpoint of `guide_of` was written, seconds since 1970; 0 without one. Raises
        CheckpointError."""
        guide = self.guide_of(checkpoint)
        return 0.0 if guide is None else guide.time

    def load_guide(
        self, checkpoint: Checkpoint, device: torch.device | str = "cpu"
    ) -> LoadedModel | None:
        """The network of `guide_of`, ready to sample. Raises CheckpointError."""
        guide = self.guide_of(checkpoint)
        if guide is None:
            return None
        return load_model(guide, device, self.guide_average, exact=self.exact)

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
            kind = AUTOGUIDANCE if self.autoguided else "guidance"
            by = f" by {self._guide_text()}" if self.autoguided else ""
            found["guidance_scale"] = f"{kind} {self.guidance_scale:g}{away}{by}{where}"
        if self.average != MAIN_AVERAGE:
            found["average"] = f"{self.average} average"
        return found

    def _guide_text(self) -> str:
        average = f"the {self.guide_average} average of "
        run = f"{self.guide_run} at " if self.guide_run else ""
        main = self.guide_average == MAIN_AVERAGE
        return f"{'' if main else average}{run}step {self.guide_step:,}"

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
            if not self.replace(spacing=name, timesteps=())._diverges(capabilities, strength)
        ]
        use = f"{either(stable)} spacing" if stable else "more steps or another sampler"
        return (
            f"{self.method} diverges on this schedule with {self.spacing} spacing and "
            f"{self.steps:,} step{'s' if self.steps > 1 else ''}: the images will be noisy "
            f"or wrong. Use {use}."
        )

    def _diverges(self, can: Capabilities, strength: float) -> bool:
        sampler = sampler_of(self.method, self.flow)
        levels = last_steps(self.levels(can.schedule), strength)
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
        if self.spacing == LEARNED:
            yield from self._contradictions_of_timesteps()
        elif self.spacing not in TIMESTEP_SPACINGS:
            yield _unknown("step spacing", self.spacing, (*TIMESTEP_SPACINGS, LEARNED))
        elif self.flow and self.spacing in OF_SIGMA:
            yield f"{self.spacing} spacing needs a schedule that does not end in pure noise."
        if self.timesteps and self.spacing != LEARNED:
            yield f"Timesteps have no effect with {self.spacing} spacing; use {LEARNED}."
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

    def _contradictions_of_timesteps(self) -> Iterator[str]:
        """Of LEARNED."""
        if not self.timesteps:
            yield (
                f"No timesteps were learned for {self.method} in {self.steps:,} "
                f"step{'s' if self.steps > 1 else ''} with the {self.average} average; choose "
                "another spacing, or learn them with the command tune."
            )
        elif len(self.timesteps) != self.steps:
            yield (
                f"There are {len(self.timesteps):,} timesteps for {self.steps:,} steps; each step "
                "needs one."
            )
        elif not falling(self.timesteps):
            yield "Timesteps must fall: each must be below the one before it."

    def _contradictions_of_classes(self) -> Iterator[str]:
        choices = (EACH_IN_TURN, ANY_CLASS, *self.classes) if self.classes else ("",)
        if self.label not in choices:
            yield self._unknown_class(self.label)
        if self.negative and self.negative not in self.classes:
            yield self._unknown_class(self.negative)
        yield from self._contradictions_of_guidance()

    def _contradictions_of_guidance(self) -> Iterator[str]:
        guided = self.guidance_scale != 1
        if self.guidance not in GUIDANCES:
            yield _unknown("guidance", self.guidance, GUIDANCES)
        elif self.guidance == AUTOGUIDANCE:
            yield from self._contradictions_of_autoguidance()
        elif self.guide_run or self.guide_step is not None or self.guide_average != MAIN_AVERAGE:
            yield f"A guide has no effect without autoguidance; set the guidance to {AUTOGUIDANCE}."
        elif guided and not self.classes:
            yield (
                f"{cut(self.run)} was trained without classes, so no class can guide it; set the "
                "guidance scale to 1 or use autoguidance."
            )
        elif guided and self.label == ANY_CLASS:
            yield (
                "Guidance needs a class to lead to; choose one, set the guidance scale to 1 or use "
                "autoguidance."
            )
        if not guided and (self.negative or self.guidance_interval):
            yield (
                "A negative class and a guidance interval have no effect without guidance; set a "
                "guidance scale other than 1."
            )
        if self.guidance_interval and self.guidance_interval[0] > self.guidance_interval[1]:
            low, high = self.guidance_interval
            yield f"The guidance interval ends before it starts: it is {low:g} to {high:g}."

    def _contradictions_of_autoguidance(self) -> Iterator[str]:
        if self.guidance_scale == 1:
            yield "Autoguidance has no effect with a guidance scale of 1; set another one."
        elif self.negative:
            yield (
                "Autoguidance leads away from a weaker network, not from a class; leave out the "
                "negative class."
            )
        if self.as_lecture:
            yield "Sampling as the lecture does takes no autoguidance."
        if self.guide_step is None:
            yield "Autoguidance needs the step of a guide, a weaker checkpoint."
        elif not self.guide_run and (self.guide_step, self.guide_average) == (
            self.step,
            self.average,
        ):
            yield (
                f"{cut(self.run)} at step {self.step:,} cannot guide itself; choose another step, "
                "run or average as the guide."
            )

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
        if self.timesteps and self.timesteps[0] > can.timesteps - 1:
            yield (
                f"The first timestep is {self.timesteps[0]:g}; it must be at most "
                f"{can.timesteps - 1:,} for {where}."
            )
        if self.spacing not in (*can.spacings, LEARNED):
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
            elif self.guidance_scale != 1 and not (self.negative or self.autoguided):
                yield (
                    f"{where} was trained with the class always given, so it cannot be guided away "
                    "from any class; set the guidance scale to 1 or choose a negative class."
                )
        if self.autoguided:
            yield from self._misfits_of_guide(can)
        if self.guidance_interval and self.guidance_interval[1] >= can.timesteps:
            low, high = self.guidance_interval
            yield (
                f"The guidance interval is {low:g} to {high:g}; it must end at "
                f"{can.timesteps - 1:,} or before for {where}."
            )
        elif self.guidance_interval and self.guidance_scale != 1:
            yield from self._guides_nowhere(can, strength)

    def _misfits_of_guide(self, can: Capabilities) -> Iterator[str]:
        assert self.guide_step is not None  # see `_contradictions`
        try:
            guide = find_guide(can.folder, self.guide_run, self.guide_step)
        except CheckpointError as error:
            yield f"The guide is missing. {error}"
            return
        if sentence := misfit(can, guide):
            yield sentence
        elif not guide.has_average(self.guide_average):
            yield (
                f"The guide has no averaged weights called {shown(self.guide_average)}; it has "
                f"{some(guide.averages)}."
            )
        elif self.label == ANY_CLASS and not guide.any_class:
            yield "The guide was trained with the class always given; choose a class."

    def _guides_nowhere(self, can: Capabilities, strength: float) -> Iterator[str]:
        """That no timestep at which the network is evaluated lies in the guidance interval."""
        if self.steps > can.timesteps or self.spacing not in (*can.spacings, LEARNED):
            return  # said above
        if self.timesteps and self.timesteps[0] > can.timesteps - 1:
            return
        levels = self.levels(can.schedule)
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
            changes |= {"negative": "", "guidance_interval": None, "guidance": BY_CLASS}
        if self.guidance_scale == 1 or self.guidance == BY_CLASS:
            changes |= {"guide_run": "", "guide_step": None, "guide_average": MAIN_AVERAGE}
        elif self.guidance == AUTOGUIDANCE:
            changes["negative"] = ""
        sampler = find_sampler(self.method, self.flow)
        if sampler is not None and ("eta" not in sampler.options or self.as_lecture):
            changes["eta"] = 0.0
        if self.variance in VARIANCES and sampler and "noise_term" not in sampler.options:
            changes["variance"] = VARIANCES[0]
        if self.spacing != LEARNED:
            changes["timesteps"] = ()
        return self.replace(**changes)

    # ------------------------------------------------------------------------------- as JSON

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it. Fields of LATER are left out where they say what was meant before."""
        fields = type(self).model_fields
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if name not in LATER or getattr(self, name) != fields[name].default
        }

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
