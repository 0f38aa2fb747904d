"""The images of the grid: the strips of training, and those that are generated for it.

What was generated is kept for all visitors, so that sliders move over it without computing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboard.services.sampling_tasks import Load, OnStep, Task, load_guide, pace_key_of
from dashboard.services.shared_look import Shared
from dashboard.ui.images import read_strip
from diffusion_core.data.decode import ImageError
from diffusion_core.errors import explains_itself
from diffusion_core.media.images import png, to_uint8
from diffusion_core.review.grid import RUN, STEP, Cell, spec_of
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.spec import SamplingSpec

MOST_BYTES = 64 * 2**20  # of generated images
# The file, when it was written, and the settings without the number of images.
Key = tuple[str, float, SamplingSpec]


class MadeImages:
    """PNG files of generated images, those that were not used for longest forgotten first."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._files: dict[Key, list[bytes]] = {}
        self._size = 0

    def get(self, key: Key, n: int) -> list[bytes] | None:
        """The first n images; None where there are fewer."""
        with self._lock:
            files = self._files.pop(key, None)
            if files is None:
                return None
            self._files[key] = files
            return files[:n] if len(files) >= n else None

    def keep(self, key: Key, files: list[bytes]) -> None:
        with self._lock:
            self._size -= sum(map(len, self._files.pop(key, [])))
            self._files[key] = files
            self._size += sum(map(len, files))
            while self._size > self.most and len(self._files) > 1:
                self._size -= sum(map(len, self._files.pop(next(iter(self._files)))))


MADE = MadeImages()  # of this server
_strips = Shared(512)


@dataclass(frozen=True)
class Wanted:
    """What a cell is to show, or why it cannot."""

    cell: Cell
    problem: str = ""
    checkpoint: Checkpoint | None = None
    spec: SamplingSpec | None = None

    @property
    def key(self) -> Key:
        assert self.checkpoint is not None and self.spec is not None
        return str(self.checkpoint.path), self.checkpoint.time, self.spec.replace(n=1)

    @property
    def made(self) -> list[bytes] | None:
        return None if self.spec is None else MADE.get(self.key, self.spec.n)


def want(
    cells: Sequence[Sequence[Cell]], runs: Mapping[str, RunSnapshot], n: int, seed: int
) -> list[list[Wanted]]:
    """What to generate for each cell; opens each checkpoint once."""
    opened: dict[tuple[str, int], tuple[Checkpoint, Capabilities] | str] = {}

    def one(cell: Cell) -> Wanted:
        if cell.problem:
            return Wanted(cell, cell.problem)
        place = cell.values[RUN], cell.values[STEP]
        if place not in opened:
            try:
                checkpoint = runs[place[0]].run.checkpoint(place[1])
                opened[place] = checkpoint, Capabilities.of(checkpoint)
            except CheckpointError as error:
                opened[place] = str(error)
        found = opened[place]
        if isinstance(found, str):
            return Wanted(cell, found)
        spec = spec_of(cell, *found, n=n, seed=seed)
        if problems := spec.problems(found[1]):
            return Wanted(cell, problems[0])
        return Wanted(cell, "", found[0], spec)

    return [[one(cell) for cell in row] for row in cells]


def missing(wanted: Sequence[Sequence[Wanted]]) -> list[Wanted]:
    """What is still to be generated, each once, those of one checkpoint together."""
    found = {
        each.key: each
        for row in wanted
        for each in row
        if each.spec is not None and each.made is None
    }
    return sorted(found.values(), key=lambda each: each.key[:2])


def generate_task(cells: Sequence[Wanted]) -> Task:
    """The result is a sentence for each that failed, by its key; the images are kept in MADE."""
    specs = [(each.spec, each.checkpoint) for each in cells]
    pairs = [(spec, place.config) for spec, place in specs if spec and place]
    counts = [spec.evaluations(build_schedule(config)) for spec, config in pairs]

    def work(load: Load, on_step: OnStep) -> dict[Key, str]:
        failed = {}
        for each, (spec, _) in zip(cells, pairs, strict=True):
            assert each.checkpoint is not None
            if each.made is not None:  # somebody else has asked for it too
                continue
            try:
                loaded = load(each.checkpoint, spec.average, spec.exact)
                guide = load_guide(load, spec, each.checkpoint)
                images = to_uint8(spec.make(loaded, on_step, guide=guide))
            except ValueError as error:
                if not explains_itself(error):
                    raise
                failed[each.key] = str(error)
                continue
            MADE.keep(
                each.key, [png(image, text=entries(spec, k)) for k, image in enumerate(images)]
            )
        return failed

    return Task(
        pairs[0][0],
        f"Grid of {len(cells)} cells",
        sum(spec.steps for spec, _ in pairs),
        sum(counts),
        pace_key_of(pairs),
        work,
    )


def strip_of(path: Path) -> list[bytes]:
    """The images of a strip of training, as PNG files. Raises ImageError."""
    try:
        stat = path.stat()
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read: {error.strerror}.") from error

    def read() -> list[bytes]:
        return [png(image) for image in read_strip(path)]

    return _strips.get((path, stat.st_mtime_ns, stat.st_size), read)


def image_count(run: RunSnapshot) -> int:
    """The finished images of a run's strips; the lecture's strip shows one of them forming."""
    if run.config is None:
        return 1
    return run.config.sample_count if run.config.sample_steps else 1


def noise_of(run: RunSnapshot) -> tuple[int, int, int] | None:
    """The seed, pixels and channels from which the noise of a run's strips follows."""
    config = run.config
    return None if config is None else (config.seed, config.image_size, config.channels)


def png_side(file: bytes) -> int:
    """The pixels of a side of a square PNG, as its first chunk has them."""
    return int.from_bytes(file[16:20], "big")
