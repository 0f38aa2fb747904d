"""What a report of runs says, read from their folders: the same for HTML and PDF."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffusion_core import __version__
from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.evaluation.preference import (
    Agreement,
    Share,
    Strengths,
    agreement,
    bradley_terry,
    count_choices,
    shares,
)
from diffusion_core.evaluation.results import Result, read_results, result_path, sheet_path
from diffusion_core.review.differences import Difference, differences
from diffusion_core.review.index import settings_of
from diffusion_core.review.polls import results_for
from diffusion_core.review.report.images import ReportImage, some_of
from diffusion_core.review.report.recipes import sample_command, sample_python, train_command
from diffusion_core.runs.metrics import MetricsError, training_seconds
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.remarks import Remark, Remarks, Subject, read_remarks
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.votes import Vote, read_votes
from diffusion_core.sampling.capabilities import EACH_IN_TURN
from diffusion_core.sampling.metadata import Kind as MadeKind
from diffusion_core.sampling.metadata import Made, subject_of
from diffusion_core.sampling.registry import samplers_for, usual_spacing
from diffusion_core.sampling.series import Series, SeriesError, list_series
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.text import cut, value_text

MOST_RUNS = 8
# Bytes of images, of all runs together and of one; base64 makes them a third larger.
MOST_IMAGE_BYTES, MOST_IMAGE_BYTES_EACH = 12_800_000, 4_800_000
MOST_STRIPS = 24  # of a run, over its steps
MOST_SQUARES = 16  # images of a strip
MOST_SERIES, MOST_OF_SERIES = 3, 16
MOST_REMARK_CHARACTERS = 60_000  # of a run, the newest
MOST_RESULTS = 40  # of a run, over its steps
MOST_REVIEWS = 40  # whose votes are counted
MOST_POINTS = 600  # of a curve
LONGEST_LINE = 300  # characters of a text from a file that stands in one line
CURVES = {
    "loss": "loss",
    "validation_loss": "validation loss",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "images_per_second": "images per second",
}


class ReportError(ValueError):
    """A report that cannot be made; the message says why."""


@dataclass(frozen=True)
class Parts:
    """What a report takes along besides results and settings."""

    samples: bool = True  # the strips over the steps
    images: bool = True  # the newest series, and the samples nearest to training images
    remarks: bool = True
    votes: bool = True
    names: bool = True  # of those who said it
    person: str | None = None  # only votes that this person may see; None: all of them


@dataclass(frozen=True)
class Shown:
    """An image with what is said of it."""

    image: ReportImage
    caption: str
    remarks: tuple[Remark, ...] = ()
    python: str = ""  # makes this image again


@dataclass(frozen=True)
class Group:
    """Images that were generated with the same settings."""

    title: str
    images: tuple[Shown, ...]
    command: str = ""  # makes them again


@dataclass(frozen=True)
class Strip:
    step: int
    image: ReportImage
    command: str  # makes it again; empty where the weights of the step are gone


@dataclass(frozen=True)
class Curve:
    """A curve over the steps; a value is missing from `seconds` where no times are known."""

    step: list[int]
    value: list[float]
    seconds: list[float]


@dataclass(frozen=True)
class RunPart:
    """What the report says of one run."""

    seen: RunSnapshot
    facts: Mapping[str, str]
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    command: str  # trains it again
    curves: Mapping[str, Curve]  # by the names of CURVES
    results: tuple[Result, ...]
    strips: tuple[Strip, ...]
    groups: tuple[Group, ...]
    remarks: Remarks
    said: tuple[Remark, ...]  # of these, what the report has, the newest first
    notes: tuple[str, ...]  # sentences on what could not be read or was left out

    @property
    def name(self) -> str:
        return self.seen.name


@dataclass(frozen=True)
class Ballot:
    """The votes of one review."""

    review: str
    votes: int
    people: int
    shares: Mapping[str, Share]
    strengths: Strengths
    agreement: Agreement


@dataclass(frozen=True)
class Content:
    """A whole report."""

    title: str
    made: float  # seconds since 1970
    parts: Parts
    runs: tuple[RunPart, ...]
    differences: tuple[Difference, ...]
    ballots: tuple[Ballot, ...]
    notes: tuple[str, ...] = ()
    version: str = field(default=__version__)

    def every_note(self) -> list[str]:
        """What could not be read or was left out, as sentences."""
        return [*self.notes, *(f"{run.name}: {note}" for run in self.runs for note in run.notes)]


def gather(runs: Sequence[Run], parts: Parts, title: str = "") -> Content:
    """Read what a report of the runs says. Raises ReportError."""
    if not 1 <= len(runs) <= MOST_RUNS:
        raise ReportError(f"A report takes 1 to {MOST_RUNS} runs, not {len(runs)}.")
    if len({run.name for run in runs}) < len(runs):
        raise ReportError("Two of the runs have the same name; rename one of them.")
    room = min(MOST_IMAGE_BYTES_EACH, MOST_IMAGE_BYTES // len(runs))
    seen = [run.snapshot() for run in runs]
    ballots, notes = _ballots([run.path for run in runs], parts) if parts.votes else ([], [])
    usual = f"Run report: {runs[0].name}" if len(runs) == 1 else f"Review of {len(runs)} runs"
    return Content(
        title or usual,
        time.time(),
        parts,
        tuple(_read_run(each, parts, room) for each in seen),
        tuple(differences(seen)),
        tuple(ballots),
        tuple(notes),
    )


def _read_run(seen: RunSnapshot, parts: Parts, room: int) -> RunPart:
    notes = [seen.problem] if seen.problem else []
    curves: dict[str, Curve] = {}
    try:
        curves = _curves(seen.run)
    except MetricsError as error:
        notes.append(str(error))
    results, broken = read_results(seen.path)
    notes += broken[:3]
    results.sort(key=lambda each: (each.spec.step, each.written))
    if len(results) > MOST_RESULTS:
        notes.append(f"{MOST_RESULTS} of {len(results):,} measurements of quality are shown.")
        results = [results[k] for k in some_of(len(results), MOST_RESULTS)]
    remarks = read_remarks(seen.path) if parts.remarks else Remarks()
    if remarks.problem:
        notes.append(remarks.problem)
    said = _newest(remarks)
    if left := len(remarks.current) - len(said):
        notes.append(f"{left:,} older remarks are not in this report.")
    groups = _groups(seen, results, remarks, room, notes) if parts.images else []
    return RunPart(
        seen,
        _facts(seen, curves, results),
        _settings(seen),
        _environment(seen),
        train_command(seen.name, seen.start) if seen.start is not None else "",
        curves,
        tuple(results),
        tuple(_strips(seen, room) if parts.samples else ()),
        tuple(groups),
        remarks,
        tuple(said),
        tuple(cut(note, LONGEST_LINE) for note in notes),
    )


def _curves(run: Run) -> dict[str, Curve]:
    """Raises MetricsError."""
    found = {name: run.curve(name, MOST_POINTS) for name in CURVES}
    losses = found["loss"]
    seconds = training_seconds(losses["wall_time"])
    curves = {}
    for name, curve in found.items():
        if len(step := curve["step"]):
            at = np.interp(step, losses["step"], seconds).round(1) if len(seconds) else np.zeros(0)
            value = [float(f"{each:.5g}") for each in curve["value"]]
            curves[name] = Curve(step.tolist(), value, at.tolist())
    return curves


def _facts(
    seen: RunSnapshot, curves: Mapping[str, Curve], results: Sequence[Result]
) -> dict[str, str]:
    """The row of the run in the table of all."""
    status, details = seen.status, seen.details
    facts = {"State": str(seen.state), "Steps": f"{status.step:,} of {status.total:,}"}
    if seen.config is not None:
        facts["Images seen"] = f"{status.step * seen.config.batch_size:,}"
    if "loss" in curves and curves["loss"].seconds:
        facts["Training time"] = duration(curves["loss"].seconds[-1])
    device = (details and details.device) or status.device
    if device:
        facts["Device"] = cut(device, LONGEST_LINE)
    if details and details.parameters:
        facts["Parameters"] = f"{details.parameters:,}"
    for name in ("loss", "validation_loss"):
        if name in curves:
            facts[CURVES[name].capitalize()] = f"{curves[name].value[-1]:.4g}"
    if results:
        newest = results[-1]
        for name in list(newest.metrics)[:1]:
            metric = METRICS[name]
            facts[metric.title] = metric.format_estimate(newest.metrics[name])
    return facts


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def _settings(seen: RunSnapshot) -> dict[str, str]:
    """All settings as `--set` names them, with what was changed on the way."""
    if seen.config is None or seen.start is None:
        return {}
    texts = {name: value_text(value) for name, value in settings_of(seen.start).items()}
    for change in seen.changes:
        for name, value in change.settings.items():
            texts[name] = f"{texts.get(name, '')}, from step {change.step:,}: {value_text(value)}"
    return {name: cut(text, LONGEST_LINE) for name, text in texts.items()}


def _environment(seen: RunSnapshot) -> dict[str, str]:
    """Versions, machine and data, as the run's files have them."""
    details = seen.details
    if details is None:
        return {}
    found = dict(details.versions)
    machine = {
        "device": details.device,
        "processes": f"{details.processes:,}",
        "threads": f"{details.threads:,}" if details.threads else "",
        "precision": details.mixed_precision,
        "images": f"{details.pictures:,}, of these {details.training_pictures:,} for training and "
        f"{details.validation_pictures:,} for validation",
        "classes": ", ".join(details.classes),
        "data fingerprint": details.data_fingerprint,
        "data content": details.data_content,
    }
    found |= {name: text for name, text in machine.items() if text}
    return {cut(name): cut(text, LONGEST_LINE) for name, text in found.items()}


# ---------------------------------------------------------------- images


def _strips(seen: RunSnapshot, room: int) -> list[Strip]:
    files = seen.run.samples()
    kept = {step for step, _ in seen.run.weights()}
    chosen = [files[k] for k in some_of(len(files), MOST_STRIPS)]
    most = room // 2 // max(1, len(chosen))
    return [
        Strip(
            step,
            ReportImage(path, most, MOST_SQUARES),
            _strip_command(seen, step) if step in kept else "",
        )
        for step, path in chosen
    ]


def _strip_command(seen: RunSnapshot, step: int) -> str:
    """The command for the images of a strip; see `training.strips`. The lecture's strip shows one
    image forming, which no command makes."""
    config = seen.config
    if config is None or not config.sample_steps:
        return ""
    schedule = build_schedule(config)
    classes = seen.details.classes if seen.details and config.class_conditional else ()
    sampler = samplers_for(schedule, config.distilled)[0]
    spec = SamplingSpec(
        run=seen.name,
        step=step,
        n=config.sample_count,
        sampler=sampler.name,
        steps=min(config.sample_steps, schedule.timesteps),
        seed=config.seed,
        classes=tuple(classes),
        label=EACH_IN_TURN if classes else "",
        flow=schedule.is_flow,
        spacing=usual_spacing(sampler, schedule),
    )
    return sample_command(spec, f"step-{step}.png")


def _groups(
    seen: RunSnapshot,
    results: Sequence[Result],
    remarks: Remarks,
    room: int,
    notes: list[str],
) -> list[Group]:
    most = room // 2 // (MOST_SERIES * MOST_OF_SERIES + 8)
    groups = []
    for series in list_series(seen.path)[:MOST_SERIES]:
        try:
            if group := _group_of(seen, series, remarks, most):
                groups.append(group)
        except SeriesError as error:
            notes.append(str(error))
    for result in reversed(results):
        if (sheet := sheet_path(result_path(seen.path, result.spec))).exists():
            title = f"Nearest to training images, step {result.spec.step:,}, {result.way()}"
            caption = "Generated images, each above the training image nearest to it"
            groups.append(Group(title, (Shown(ReportImage(sheet, 8 * most), caption),)))
            break
    return groups


def _group_of(seen: RunSnapshot, series: Series, remarks: Remarks, most: int) -> Group | None:
    """The images of a series, first those that something is said of. Raises SeriesError."""
    spec = series.spec.replace(run=seen.name)
    about: dict[int, list[Remark]] = {}
    for remark in remarks.current:
        k = remark.subject.image
        if k is not None and k < spec.n and remark.subject == _subject(spec, k):
            about.setdefault(k, []).append(remark)
    there = series.numbers()
    chosen = sorted(there, key=lambda k: (k not in about, k))[:MOST_OF_SERIES]
    if not chosen:
        return None
    images = tuple(
        Shown(
            ReportImage(series.image(k), most),
            f"image {k + 1:,}" + (f", {label}" if (label := spec.class_of(k)) else ""),
            tuple(about.get(k, ())),
            sample_python(spec, k),
        )
        for k in sorted(chosen)
    )
    more = f"; {len(images)} of {len(there):,} are shown" if len(images) < len(there) else ""
    title = f"Step {spec.step:,}: {', '.join(spec.details().values())}{more}"
    return Group(title, images, sample_command(spec, f"{series.name}/"))


def _subject(spec: SamplingSpec, k: int) -> Subject:
    return subject_of(Made(spec, k, MadeKind.IMAGE))


# ---------------------------------------------------------------- what people said


def _newest(remarks: Remarks) -> list[Remark]:
    """The newest first, as many as fit."""
    found, characters = [], 0
    for remark in sorted(remarks.current, key=lambda each: each.time, reverse=True):
        characters += len(remark.text) + 200
        if characters > MOST_REMARK_CHARACTERS:
            break
        found.append(remark)
    return found


def _ballots(runs: Sequence[Path], parts: Parts) -> tuple[list[Ballot], list[str]]:
    """The votes by review, and sentences on what is wrong with them."""
    read = read_votes(runs)
    votes: Sequence[Vote] = read.entries
    if parts.person is not None:
        votes = results_for(parts.person, votes, runs[0].parent)
    reviews: dict[str, list[Vote]] = {}
    for vote in votes:
        reviews.setdefault(vote.review, []).append(vote)
    found = []
    for review, cast in list(reviews.items())[-MOST_REVIEWS:]:
        choices = count_choices(cast)
        people = len({vote.by for vote in cast})
        found.append(
            Ballot(
                review,
                len(cast),
                people,
                shares(choices),
                bradley_terry(choices),
                agreement(cast),
            )
        )
    notes = [read.problem] if read.problem else []
    if left := len(reviews) - len(found):
        notes.append(f"The votes of {left:,} older reviews are not in this report.")
    return found, notes


def tags_of(remarks: Remarks) -> str:
    """Decision, stars and tags of a run in words; empty where there are none."""
    stars = remarks.stars()
    parts = [remarks.decision(), f"★ {stars}" if stars else "", *remarks.tags()]
    return ", ".join(filter(None, parts))


def about(remark: Remark) -> str:
    """What a remark is about, in words."""
    subject = remark.subject
    if subject.image is None:
        return str(subject)
    return f"step {subject.step:,}, image {subject.image + 1:,} of seed {subject.seed}"


def ballot_sentence(ballot: Ballot) -> str:
    """How many voted and how much they agree."""
    people = "1 person" if ballot.people == 1 else f"{ballot.people:,} people"
    votes = "1 vote" if ballot.votes == 1 else f"{ballot.votes:,} votes"
    found = f"{votes} of {people}; in brackets: 95 % intervals."
    agreed = ballot.agreement
    if agreed.share is not None:
        found += f" Two people agreed in {agreed.share:.0%} of {agreed.pairs:,} pairs of votes"
        found += f" (Krippendorff's α {agreed.alpha:.2f})." if agreed.alpha is not None else "."
    if ballot.strengths.penalised:
        found += " One was always or never chosen, so the strengths are pulled together."
    return found
