"""Drawing the images of an order and measuring them against real ones, in turns.

What takes long is a generator, so that the dashboard can let other drawings go first in between: it
yields how many evaluations of the network are done. What it measures with is in `quality.py`,
`features.py`, `fidelity.py` and `likelihood.py`; when, and what becomes of it, in `evaluate.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator, Set
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from diffusion_core.data.split import split
from diffusion_core.data.store import (
    ImageStore,
    load_image,
    to_grey,
)
from diffusion_core.device import describe, device_of, is_out_of_memory
from diffusion_core.evaluation import image_metrics
from diffusion_core.evaluation.features import FeatureNet, feature_net
from diffusion_core.evaluation.fidelity import Inception, fidelity_estimates, load_inception
from diffusion_core.evaluation.intervals import Estimate, mean_estimate
from diffusion_core.evaluation.likelihood import bits_per_dim
from diffusion_core.evaluation.results import (
    Estimates,
    Neighbour,
    Result,
    read_results,
)
from diffusion_core.media.images import grid, png, to_uint8
from diffusion_core.process.objective import Schedule
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.sampling.sample import StepView, image_noise
from diffusion_core.sampling.series import batch_for
from diffusion_core.sampling.spec import Loaded, SamplingSpec

FEWEST = 16  # images; below that no interval means anything
SHOWN_NEIGHBOURS = 8
CARS_A_TURN = 250  # drawn before other work goes first; under a second
INCEPTION_A_TURN = 128  # images that Inception sees before other work goes first
CHUNK = 2000  # training images in memory at once while neighbours are looked for
# The bits per dimension: of so many held-out images, each at so many timesteps.
BITS_IMAGES, BITS_TIMESTEPS = 256, 50

OnStep = Callable[[StepView], None]
Found = TypeVar("Found")


def cost(spec: SamplingSpec, schedule: Schedule, bits: bool) -> int:
    """The evaluations of the network, about: what the counting goes up to."""
    return spec.evaluations(schedule) + (BITS_IMAGES * BITS_TIMESTEPS if bits else 0)


class Images(NamedTuple):
    pixels: np.ndarray  # uint8 (n, H, W, C)
    labels: np.ndarray  # (n,) integers


def split_of(config: RunConfig, store: ImageStore) -> tuple[np.ndarray, np.ndarray]:
    """The rows that the run was trained on and those that it held out. Raises DataError."""
    return split(len(store), config.validation_count, config.batch_size, config.seed, config.data)


def held_out_images(
    config: RunConfig, store: ImageStore, n: int, seed: int, done: int = 0
) -> Generator[int, None, Images]:
    """Up to n real images that the training has not seen; yields `done` now and then.

    Of the drawn cars there are always more: those that come after the store's last one. Of other
    data they are those that the run held out for its validation.
    """
    if config.data.partition(":")[0] != "cars":
        return _rows(store, _some(split_of(config, store)[1], n, seed))
    spec, pixels, labels = f"cars:{len(store) + n}", [], []
    for k in range(n):
        if k % CARS_A_TURN == 0:
            yield done
        image, label, _ = load_image(spec, len(store) + k, config.image_size)
        pixels.append(image)
        labels.append(label)
    found = np.stack(pixels)
    if config.channels == 1:
        found = to_grey(found.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    return Images(found, np.array(labels))


def _some(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Up to n of the rows, in random order: those of a folder lie class by class."""
    return np.random.default_rng([seed, len(rows), n]).permutation(rows)[:n]


def _rows(store: ImageStore, rows: np.ndarray) -> Images:
    return Images(store.read(rows).transpose(0, 2, 3, 1), store.labels[rows])


class Nearest(NamedTuple):
    """The training image nearest to each of a set's images."""

    row: np.ndarray  # in the store
    distance: np.ndarray  # as `quality.nearest` measures it


class Seen(NamedTuple):
    """Images as the metrics see them."""

    pixels: np.ndarray  # uint8 (n, H, W, C)
    labels: np.ndarray | None  # the classes that they should be of
    features: np.ndarray | None  # (n, d), where a classifier knows such images
    probabilities: np.ndarray | None  # (n, classes), likewise
    inception: np.ndarray | None  # (n, 2048), where FID and KID can be had

    def first(self, count: int) -> Seen:
        pixels, *others = self
        return Seen(pixels[:count], *(None if part is None else part[:count] for part in others))


def measure(
    run: Run,
    checkpoint: Checkpoint,
    spec: SamplingSpec,
    loaded: Loaded,
    store: ImageStore,
    again: bool,
    on_step: OnStep | None,
) -> Generator[int, None, tuple[Result, bytes]]:
    """Draw and measure all but the bits per dimension; also the image of the neighbours."""
    model, schedule, config = loaded
    device = device_of(model)
    held_out = yield from held_out_images(config, store, spec.n, spec.seed)
    training, _ = split_of(config, store)
    real = _rows(store, _some(training, spec.n, spec.seed))
    asked = _asked(spec, store, real)
    samples, seconds = yield from _draw(spec, loaded, asked, on_step)
    drawn = spec.evaluations(schedule)

    net = feature_net(config.data, config.channels, config.image_size, device)
    inception, without = load_inception(device)
    see = functools.partial(_see, net, inception, drawn)
    real_seen = yield from see(*real)
    named = asked if net is not None and tuple(net.classes) == spec.classes else None
    seen = yield from see(samples, named)
    metrics = yield from _compare(real_seen, seen, spec.seed, drawn)
    enough = len(held_out.pixels) >= FEWEST
    wanted = metrics.keys() | ({"copies"} if enough else set())
    floor, ceiling = ({}, {}) if again else _known_ends(run, store, spec.n, wanted)
    sets = {"samples": samples}
    if enough:
        sets["held out"] = held_out.pixels
    if not ceiling:
        sets["noise"] = to_uint8(image_noise(spec.seed, spec.n, _shape(config))())
    nearest = yield from _nearest(sets, store, training, config.random_flip, drawn)
    near, copies = 0.0, {name: Estimates() for name in sets}
    if enough:
        far = nearest["held out"].distance
        near = image_metrics.near_distance(far)
        for name, found in nearest.items():
            copies[name] = {"copies": image_metrics.copies_estimate(found.distance, far, spec.seed)}
    metrics |= copies["samples"]
    if not floor and enough:
        count = min(len(held_out.pixels), len(real.pixels))
        unseen = yield from see(*held_out)
        floor = yield from _compare(real_seen.first(count), unseen, spec.seed, drawn)
        floor |= copies["held out"]
    if not ceiling:
        seen = yield from see(sets["noise"], named)
        ceiling = yield from _compare(real_seen, seen, spec.seed, drawn)
        ceiling |= copies["noise"]
    row, distance = nearest["samples"]
    shown = np.argsort(distance)[:SHOWN_NEIGHBOURS]
    neighbours = [
        Neighbour(
            sample=int(k),
            training=int(row[k]),
            distance=float(distance[k]),
            label="" if asked is None else spec.classes[asked[k]],
        )
        for k in shown
    ]
    notes = _notes(run, config, store, net, len(held_out.pixels), spec.n)
    if without:
        notes.append(without)
    result = Result(
        spec=spec,
        metrics=metrics,
        floor=floor,
        ceiling=ceiling,
        evaluations=round(drawn / spec.n),
        seconds=seconds,
        device=describe(device),
        data=config.data,
        fingerprint=store.fingerprint,
        checkpoint_time=checkpoint.time,
        neighbours=tuple(neighbours),
        near=near,
        notes=tuple(notes),
        written=time.time(),
    )
    return result, _sheet(samples[shown], _rows(store, row[shown]).pixels, config.random_flip)


def _asked(spec: SamplingSpec, store: ImageStore, real: Images) -> np.ndarray | None:
    """The class of each sample, (n,): each as often as the training met it.

    In turn where the data now has other classes than the network; None where it takes none.
    """
    if spec.classes == store.classes:
        return real.labels[np.arange(spec.n) % len(real.labels)]
    labels = spec.labels()
    return None if labels is None else labels.numpy()


def _draw(
    spec: SamplingSpec, loaded: Loaded, asked: np.ndarray | None, on_step: OnStep | None
) -> Generator[int, None, tuple[np.ndarray, float]]:
    """The samples, uint8 (n, H, W, C), and the seconds that they took."""
    model, schedule, config = loaded

    def draw(first: int, count: int) -> tuple[np.ndarray, float]:
        started = time.monotonic()
        more = {} if asked is None else {"labels": torch.from_numpy(asked[first : first + count])}
        drawn = to_uint8(spec.make(loaded, on_step, first, count, **more))
        return drawn, time.monotonic() - started

    total, seconds, found = spec.evaluations(schedule), 0.0, []
    yield 0
    batch = batch_for(spec, config.image_size, device_of(model))
    for ready, (drawn, spent) in _in_batches(spec.n, batch, draw):
        found.append(drawn)
        seconds += spent
        yield total * ready // spec.n
    return np.concatenate(found), seconds


def _in_batches(
    n: int, batch: int, work: Callable[[int, int], Found]
) -> Iterator[tuple[int, Found]]:
    """What `work(first, count)` finds of n images, and how many are ready then.

    So many at once, and half as many each time that memory is short.
    """
    first = 0
    while first < n:
        count = min(batch, n - first)
        try:
            found = work(first, count)
        except (RuntimeError, MemoryError) as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        else:
            first += count
            yield first, found
            continue
        batch = count // 2
        if torch.cuda.is_available():  # after the error is gone, which held on to what there was
            torch.cuda.empty_cache()


def _see(
    net: FeatureNet | None,
    inception: Inception | None,
    done: int,
    pixels: np.ndarray,
    labels: np.ndarray | None,
) -> Generator[int, None, Seen]:
    """Yields `done` now and then."""
    features, probabilities = (None, None) if net is None else net.features(pixels)
    large = []
    for start in range(0, 0 if inception is None else len(pixels), INCEPTION_A_TURN):
        yield done
        assert inception is not None
        large.append(inception.features(pixels[start : start + INCEPTION_A_TURN]))
    return Seen(pixels, labels, features, probabilities, np.concatenate(large) if large else None)


def _compare(real: Seen, fake: Seen, seed: int, done: int) -> Generator[int, None, Estimates]:
    """Everything that needs the two sets alone; yields `done` between its parts."""
    found: Estimates = {}
    if real.features is not None and fake.features is not None:
        found["frechet"] = image_metrics.frechet_estimate(real.features, fake.features, seed)
        found |= image_metrics.manifold_estimates(real.features, fake.features, seed)
        assert fake.probabilities is not None
        found |= image_metrics.class_scores_estimates(fake.probabilities, fake.labels, seed)
        yield done
    if real.inception is not None and fake.inception is not None:
        found |= fidelity_estimates(real.inception, fake.inception, seed)
        yield done
    pixels = image_metrics.sliced_wasserstein_estimates(real.pixels, fake.pixels, seed)
    found["sliced_wasserstein"] = pixels["mean"]
    yield done
    return found


def _nearest(
    sets: dict[str, np.ndarray],
    store: ImageStore,
    training: np.ndarray,
    mirrored: bool,
    done: int,
) -> Generator[int, None, dict[str, Nearest]]:
    """For the images of each set their nearest training images.

    The training images are read some at a time: there may be more than fit the memory.
    """
    best = {
        name: Nearest(np.zeros(len(images), np.int64), np.full(len(images), np.inf))
        for name, images in sets.items()
    }
    for start in range(0, len(training), CHUNK):
        rows = training[start : start + CHUNK]
        pixels = _rows(store, rows).pixels
        for name, images in sets.items():
            index, distance = image_metrics.nearest(images, pixels, mirrored=mirrored)
            old, nearer = best[name], distance < best[name].distance
            best[name] = Nearest(
                np.where(nearer, rows[index], old.row), np.minimum(distance, old.distance)
            )
        yield done
    return best


def _known_ends(
    run: Run, store: ImageStore, n: int, wanted: Set[str]
) -> tuple[Estimates, Estimates]:
    """Floor and ceiling with all that is wanted, as they were measured before for the same images
    and count; each empty where they were not."""
    floor, ceiling = Estimates(), Estimates()
    for other in read_results(run.path)[0]:
        if (other.fingerprint, other.spec.n) == (store.fingerprint, n):
            floor = other.floor if wanted <= other.floor.keys() else floor
            ceiling = other.ceiling if wanted <= other.ceiling.keys() else ceiling
    return dict(floor), dict(ceiling)


def _notes(
    run: Run, config: RunConfig, store: ImageStore, net: FeatureNet | None, held_out: int, n: int
) -> list[str]:
    """Sentences on what is not as one would like it."""
    notes = []
    if net is None:
        notes.append(
            f"There is no classifier for {config.data}: what is measured by one (Fréchet distance, "
            "precision, recall, density, coverage, classes) is left out."
        )
    trained_on = run.details.data_fingerprint
    if trained_on and trained_on != store.fingerprint:
        notes.append(
            f"The images of {config.data} are not those of the training: they have changed "
            "since, or lie in another place."
        )
    if held_out < FEWEST:
        notes.append("The run held out too few images for a floor, and to tell copies by.")
    elif held_out < n:
        notes.append(
            f"Only {held_out:,} images were held out. The floor is measured with so many on each "
            f"side; with fewer images than {n:,} distances come out larger."
        )
    return notes


def _sheet(samples: np.ndarray, training: np.ndarray, mirrored: bool) -> bytes:
    """PNG: the samples side by side, below each its training image, turned as it fits better."""
    if mirrored:
        apart = [
            np.square(samples.astype(np.float32) - turned).mean(axis=(1, 2, 3))
            for turned in (training, training[:, :, ::-1])
        ]
        turn = (apart[1] < apart[0])[:, None, None, None]
        training = np.where(turn, training[:, :, ::-1], training)
    return png(grid(np.concatenate([samples, training]), len(samples)))


def measure_bits(
    checkpoint: Checkpoint,
    spec: SamplingSpec,
    loaded: Loaded,
    store: ImageStore,
    done: int,
) -> Generator[int, None, Estimate]:
    """The bits per dimension of held-out images, by the plain network in float32.

    They belong to the checkpoint: of the order only its averaged weights matter.
    """
    device = device_of(loaded[0])
    model, schedule, config = load_model(checkpoint, device, spec.average, exact=True)
    held_out = yield from held_out_images(config, store, BITS_IMAGES, config.seed, done)
    pixels, labels = held_out
    if len(pixels) < FEWEST:
        raise ConfigError("The run held out too few images to measure bits per dimension.")
    known = store.classes == spec.classes
    timesteps = min(BITS_TIMESTEPS, schedule.timesteps)

    def bits_of(first: int, count: int) -> np.ndarray:
        part = torch.from_numpy(pixels[first : first + count].transpose(0, 3, 1, 2))
        bits = bits_per_dim(
            model,
            schedule,
            part.to(device).float() / 127.5 - 1,
            config.prediction_type,
            config.seed,
            torch.from_numpy(labels[first : first + count]) if known else None,
            timesteps,
            first=first,
        )
        return bits.total

    found = []
    batch = batch_for(dataclasses.replace(spec, steps=timesteps), config.image_size, device)
    for ready, total in _in_batches(len(pixels), batch, bits_of):
        if not np.isfinite(total).all():
            raise ValueError(
                f"The network of {spec.run} at step {spec.step:,} has no finite bits per "
                "dimension: it answers with NaN or infinity. Choose another checkpoint."
            )
        found.append(total)
        yield done + ready * BITS_TIMESTEPS
    return mean_estimate(np.concatenate(found))


def _shape(config: RunConfig) -> tuple[int, int, int]:
    return config.channels, config.image_size, config.image_size
