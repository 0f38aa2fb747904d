"""Measurements of a run's images, and their files in the run folder.

`quality/step-00005000-1a2b3c4d5e6f.json` holds the result of one checkpoint and one way to sample,
which the letters stand for. `….png` beside it shows the samples nearest to a training image, above
that image. `evaluate.py` makes them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeInt, PlainSerializer

from diffusion_core.evaluation.metrics import METRICS, Estimates
from diffusion_core.files import listing, make_folder, replacing, write_json
from diffusion_core.records import Record, RecordError, read_record_file
from diffusion_core.sampling.capabilities import EACH_IN_TURN
from diffusion_core.sampling.spec import SamplingSpec

FOLDER = "quality"  # in a run
VERSION = 1  # of the way to measure; results of others are not compared


@dataclass(frozen=True)
class Neighbour:
    """A sample and the training image nearest to it."""

    sample: NonNegativeInt  # number of the sample, from 0
    training: NonNegativeInt  # row in the data set
    distance: float  # see `image_metrics.nearest`
    label: str = ""  # the class that the sample was generated for; empty without classes


def _same_version(version: Any) -> Any:
    if version != VERSION:
        raise ValueError("It was measured by another version; measure it again.")
    return version


def _known_metrics(values: Any) -> Any:
    """Those of METRICS, in that order: metrics of a newer version are left out."""
    if not isinstance(values, dict):
        return values
    return {name: values[name] for name in METRICS if name in values}


def _spec(value: Any) -> Any:
    return value if isinstance(value, SamplingSpec) else SamplingSpec.from_dict(value)


Measured = Annotated[Estimates, BeforeValidator(_known_metrics)]


class Result(Record):
    """One measurement."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    version: Annotated[int, BeforeValidator(_same_version)] = VERSION
    # How the `n` images were generated. Of a network with classes each class is sampled as often
    # as it occurs in training, not in turn; the neighbours hold theirs. "order" in the files.
    spec: Annotated[
        SamplingSpec,
        BeforeValidator(_spec),
        PlainSerializer(SamplingSpec.to_dict),
        Field(alias="order"),
    ]
    metrics: Measured
    floor: Measured  # of real images that were not trained on, instead of generated ones
    ceiling: Measured  # of pure noise instead
    evaluations: NonNegativeInt  # of the network, per image
    seconds: float  # of sampling
    device: str  # its description
    data: str  # the run's data set
    fingerprint: str  # of its images
    content: str = ""  # of its images, wherever they lie; empty in older files
    checkpoint_time: float = 0.0  # when the checkpoint was written; 0 in older files
    guide_time: float = 0.0  # likewise of the guide; 0 without one
    neighbours: tuple[Neighbour, ...]  # the nearest ones, as in the PNG
    near: float  # distance below which a sample is a near copy; 0 without near copies
    notes: tuple[str, ...]  # sentences on what could not be measured
    written: float  # Unix time, seconds

    def way(self, *, with_steps: bool = True, with_average: bool = True) -> str:
        """How the images were generated, without what is usual: "dpmpp_2m, 20 steps"."""
        details = self.spec.details()
        for field, usual in (
            ("n", True),
            ("seed", self.spec.seed == 0),
            ("label", self.spec.label == EACH_IN_TURN),
            ("steps", not with_steps),
            ("average", not with_average),
        ):
            if usual:
                details.pop(field, None)
        return ", ".join(details.values())


def same_sampling(one: SamplingSpec, other: SamplingSpec) -> bool:
    """Whether both sample the same way from the same step, whatever the names of the run and of
    its classes."""
    return _bare(one) == _bare(other)


def _bare(spec: SamplingSpec) -> dict[str, Any]:
    return spec.model_dump(exclude={"run", "classes"})


def result_path(run: Path, spec: SamplingSpec) -> Path:
    """Where the result of a spec is, or belongs.

    A file of an older version, whose spec had fewer settings, has other letters: the file with the
    same spec is the one, whatever its name.
    """
    start = f"step-{spec.step:08d}-"
    for path in listing(run / FOLDER, f"{start}*.json"):
        try:
            result = read_result(path)
        except RecordError:
            continue
        if result is not None and same_sampling(result.spec, spec):
            return path
    told = spec.to_dict()
    for name in ("run", "step", "classes"):
        del told[name]
    text = json.dumps({"version": VERSION, **told}, sort_keys=True)
    letters = hashlib.sha256(text.encode()).hexdigest()[:12]
    return run / FOLDER / f"{start}{letters}.json"


def sheet_path(result: Path) -> Path:
    return result.with_suffix(".png")


def write_result(run: Path, result: Result, sheet: bytes | None = None) -> Path:
    """Write a result, and before it its PNG. Raises DiskFull."""
    path = result_path(run, result.spec)
    make_folder(path.parent)
    if sheet is not None:
        with replacing(sheet_path(path)) as file:
            file.write(sheet)
    write_json(path, result.model_dump(mode="json", by_alias=True))
    return path


def read_result(path: Path) -> Result | None:
    """The result in a file; None if there is no file. Raises RecordError."""
    return read_record_file(Result, path)


def read_results(run: Path) -> tuple[list[Result], list[str]]:
    """All results of a run by step, sampler and cost, and a sentence for each unusable file.

    The results name the run as its folder is called now.
    """
    good, broken = [], []
    for path in listing(run / FOLDER, "step-*.json"):
        try:
            result = read_result(path)
        except RecordError as error:
            broken.append(str(error))
            continue
        if result is not None:
            spec = result.spec.replace(run=run.name)
            good.append(result.model_copy(update={"spec": spec}))
    good.sort(key=lambda r: (r.spec.step, r.spec.method, r.evaluations, r.spec.n, r.way()))
    return good, broken


def known_metrics(results: list[Result]) -> list[str]:
    """The names of METRICS that any of the results has, in that order."""
    return [name for name in METRICS if any(name in result.metrics for result in results)]


def yardsticks(results: list[Result]) -> list[Result]:
    """One result for each pair of floor and ceiling: the newest of the same data and count."""
    newest = {}
    for result in sorted(results, key=lambda result: result.written):
        newest[result.data, result.fingerprint, result.spec.n] = result
    return list(newest.values())
