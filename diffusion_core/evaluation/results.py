"""What measurements of a run's images found: their names, and their files in the run folder.

`quality/step-00005000-1a2b3c4d5e6f.json` holds one: of one checkpoint, drawn with one set of
settings, which the letters stand for. Beside it `….png` shows the samples that are nearest to a
training image, above that image. Making them is `evaluate.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.files import make_folder, read_json, replacing, write_json
from diffusion_core.sampling.spec import SamplingSpec, SpecError

VERSION = 1  # of the way to measure; results of another are not compared


class ResultError(ValueError):
    """A result that cannot be used; the message says why."""


@dataclass(frozen=True)
class Metric:
    title: str
    better: str  # lower, higher, or nearest to that of held-out images: floor
    percent: bool = False


METRICS = {
    "frechet": Metric("Fréchet distance", "lower"),
    "precision": Metric("Precision", "higher", percent=True),
    "recall": Metric("Recall", "higher", percent=True),
    "density": Metric("Density", "higher"),
    "coverage": Metric("Coverage", "higher", percent=True),
    "accuracy": Metric("Class accuracy", "higher", percent=True),
    "balance": Metric("Class balance", "higher"),
    "sliced_wasserstein": Metric("Sliced Wasserstein", "lower"),
    "copies": Metric("Near copies", "floor", percent=True),
    "fid": Metric("FID", "lower"),
    "kid": Metric("KID × 1,000", "lower"),
    "bits_per_dim": Metric("Bits per dimension", "lower"),
}
Estimates = dict[str, Estimate]  # by the names of METRICS


@dataclass(frozen=True)
class Neighbour:
    """A sample and the training image nearest to it."""

    sample: int  # number of the image in its order
    training: int  # its row in the data set
    distance: float  # as `quality.nearest` measures it
    label: str  # the class that the sample was asked to be; empty where none was


@dataclass(frozen=True)
class Result:
    """One measurement."""

    # How the images were drawn, n of them. But of a network with classes each class was asked for
    # as often as the training met it, and not in turn: the neighbours tell their own.
    spec: SamplingSpec
    metrics: Estimates
    floor: Estimates  # of real images that the training has not seen, in place of the drawn ones
    ceiling: Estimates  # of pure noise in their place
    evaluations: int  # of the network for an image
    seconds: float  # that the drawing took
    device: str  # in words
    data: str  # the run's data set
    fingerprint: str  # of its images
    checkpoint_time: float  # when the checkpoint was written; 0 in files that do not say
    neighbours: tuple[Neighbour, ...]  # the nearest ones, as in the image beside the file
    near: float  # a sample nearer than this counts as a near copy; 0 where nothing says
    notes: tuple[str, ...]  # sentences on what could not be measured
    written: float  # seconds since 1970

    def way(self, *, with_steps: bool = True) -> str:
        """How it was drawn, in words, without what is usual: "dpmpp_2m, 20 steps".

        Of the classes nothing: they are asked for as often as the training met each.
        """
        usual = {"seed 0", "each class in turn"}
        if not with_steps:
            usual.add(f"{self.spec.steps} step{'s' if self.spec.steps > 1 else ''}")
        return ", ".join(part for part in self.spec.parts()[1:] if part not in usual)


def same_sampling(one: SamplingSpec, other: SamplingSpec) -> bool:
    """Whether both draw the same way from the same step, whatever the run and its classes are
    called."""
    return _bare(one) == _bare(other)


def _bare(spec: SamplingSpec) -> dict[str, Any]:
    return spec.model_dump(exclude={"run", "classes"})


def result_path(run: Path, spec: SamplingSpec) -> Path:
    """Where the result of an order is, or else belongs.

    A file of an older version, whose order has fewer settings, has letters of its own: whatever it
    is called, it is the one whose order is the same.
    """
    start = f"step-{spec.step:08d}-"
    for path in sorted((run / "quality").glob(f"{start}*.json")):
        try:
            if same_sampling(read_result(path).spec, spec):
                return path
        except ResultError:
            continue
    told = spec.to_dict()
    for name in ("run", "step", "classes"):
        del told[name]
    text = json.dumps({"version": VERSION, **told}, sort_keys=True)
    letters = hashlib.sha256(text.encode()).hexdigest()[:12]
    return run / "quality" / f"{start}{letters}.json"


def sheet_path(result: Path) -> Path:
    return result.with_suffix(".png")


def write_result(run: Path, result: Result, sheet: bytes | None = None) -> Path:
    """Write a result, and before it its image (PNG). Raises DiskFull."""
    path = result_path(run, result.spec)
    make_folder(path.parent)
    if sheet is not None:
        with replacing(sheet_path(path)) as file:
            file.write(sheet)
    values = asdict(result)
    del values["spec"]
    values["order"] = result.spec.to_dict()  # its name in the files since the first version
    write_json(path, {"version": VERSION, **values})
    return path


def read_result(path: Path) -> Result:
    """Raises ResultError, for a result of another version too."""
    values = read_json(path)
    if values is None:
        raise ResultError(f"{path.name} is damaged or cannot be read.")
    if values.get("version") != VERSION:
        raise ResultError(f"{path.name} was measured by another version; measure it again.")
    try:
        return _from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{path.name} does not hold a whole result ({error}).") from error


def read_results(run: Path) -> tuple[list[Result], list[str]]:
    """All results of a run by step, sampler and cost, and a sentence for each that cannot be used.

    The results name the run as its folder is called now.
    """
    good, broken = [], []
    for path in sorted((run / "quality").glob("step-*.json")):
        try:
            result = read_result(path)
        except ResultError as error:
            if path.exists():
                broken.append(str(error))
            continue
        good.append(dataclasses.replace(result, spec=_called(result.spec, run.name)))
    good.sort(key=lambda r: (r.spec.step, r.spec.method, r.evaluations, r.spec.n))
    return good, broken


def _called(spec: SamplingSpec, run: str) -> SamplingSpec:
    return spec.replace(run=run)


def _from_dict(values: dict[str, Any]) -> Result:
    """Believes nothing; raises KeyError, TypeError or ValueError."""
    try:
        spec = SamplingSpec.from_dict(values["order"])
    except SpecError as error:
        raise ValueError(f"order: {error}") from error
    return Result(
        spec=spec,
        metrics=_estimates(values["metrics"]),
        floor=_estimates(values["floor"]),
        ceiling=_estimates(values["ceiling"]),
        evaluations=_whole(values["evaluations"]),
        seconds=_number(values["seconds"]),
        device=_text(values["device"]),
        data=_text(values["data"]),
        fingerprint=_text(values["fingerprint"]),
        checkpoint_time=_number(values.get("checkpoint_time", 0)),
        neighbours=tuple(
            Neighbour(
                _whole(v["sample"]),
                _whole(v["training"]),
                _number(v["distance"]),
                _text(v.get("label", "")),
            )
            for v in values["neighbours"]
        ),
        near=_number(values["near"]),
        notes=tuple(_text(note) for note in values["notes"]),
        written=_number(values["written"]),
    )


def _estimates(values: dict[str, Any]) -> Estimates:
    """Those of METRICS; what a newer version adds is left out."""
    return {name: _estimate(values[name]) for name in METRICS if name in values}


def _estimate(values: dict[str, Any]) -> Estimate:
    value, low, high = (_number(values[part]) for part in ("value", "low", "high"))
    return Estimate(value, low, high, _whole(values["n_real"]), _whole(values["n_fake"]))


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


# ------------------------------------------------------------------------------ in words


def number_words(name: str, value: float) -> str:
    """A metric's value: "12.3", or "87.1 %" where it is a share."""
    value += 0.0  # a zero has no sign
    if METRICS[name].percent:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def estimate_words(name: str, estimate: Estimate) -> str:
    """With its 95 % interval, where it has one: "12.3 (11.8 to 12.9)"."""
    if estimate.low == estimate.high:
        return number_words(name, estimate.value)
    low, high = number_words(name, estimate.low), number_words(name, estimate.high)
    return f"{number_words(name, estimate.value)} ({low.removesuffix(' %')} to {high})"


def known_metrics(results: list[Result]) -> list[str]:
    """The names of METRICS that any of the results has, in their order."""
    return [name for name in METRICS if any(name in result.metrics for result in results)]


def yardsticks(results: list[Result]) -> list[Result]:
    """One result for each pair of floor and ceiling: the newest of the same data and count."""
    newest = {}
    for result in sorted(results, key=lambda result: result.written):
        newest[result.data, result.fingerprint, result.spec.n] = result
    return list(newest.values())
