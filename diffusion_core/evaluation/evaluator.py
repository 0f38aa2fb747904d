"""Generate the images of a spec and measure them against real ones.

Long work is a generator that yields the number of network evaluations done, so that the dashboard
can let other requests go first. The metrics are in `metrics.py`; `evaluate.py` decides what is
measured and writes the result.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Mapping, Set
from typing import NamedTuple

import numpy as np
import torch

from diffusion_core.data.sources import kind_of
from diffusion_core.data.split import split
from diffusion_core.data.store import ImageStore, load_image, same_images, to_grey
from diffusion_core.device import describe, device_of, in_batches
from diffusion_core.evaluation import image_metrics
from diffusion_core.evaluation.dinov2 import SIZE, DinoV2, load_dinov2
from diffusion_core.evaluation.features import FeatureNet, GeneralNet, feature_net, general_net
from diffusion_core.evaluation.fidelity import Inception, load_inception
from diffusion_core.evaluation.intervals import Estimate, mean_estimate
from diffusion_core.evaluation.likelihood import bits_per_dim
from diffusion_core.evaluation.metrics import (
    CLASSIFIER,
    METRICS,
    NEIGHBOURHOOD,
    Comparison,
    Estimates,
    Views,
    compare,
    measurable,
)
from diffusion_core.evaluation.results import Neighbour, Result, read_results
from diffusion_core.media.images import grid, png, to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel, load_model
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.sampling.sample import StepView
from diffusion_core.sampling.series import batch_for
from diffusion_core.sampling.spec import SamplingSpec

FEWEST = 16  # images; with fewer no interval means anything
SHOWN_NEIGHBOURS = 8
READ_PER_TURN = 250  # new images between two yields; under a second
LARGE_PER_TURN = 128  # images that Inception or DINOv2 sees between two yields
CHUNK = 2000  # training images in memory at once in the search for neighbours
# Of the bits per dimension: held-out images, and timesteps of each.
BITS_IMAGES, BITS_TIMESTEPS = 256, 50

OnStep = Callable[[StepView], None]


def cost(spec: SamplingSpec, schedule: Schedule, bits: bool) -> int:
    """Evaluations of the network that `evaluate` counts up to, approximately."""
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
    """Return up to n real images that were not trained on; yields `done` now and then.

    Of an endless source, those after the last image of the store; otherwise those that the run held
    out for validation.
    """
    kind = kind_of(config.data)
    if not kind.endless:
        return _rows(store, _some(split_of(config, store)[1], n, seed))
    spec, pixels, labels = f"{kind.name}:{len(store) + n}", [], []
    for k in range(n):
        if k % READ_PER_TURN == 0:
            yield done
        image, label, _ = load_image(spec, len(store) + k, config.image_size, config.resize)
        pixels.append(image)
        labels.append(label)
    found = np.stack(pixels)
    if config.channels == 1:
        found = to_grey(found.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    return Images(found, np.array(labels))


def _some(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Up to n of the rows, in random order, since a folder's are sorted by class."""
    return np.random.default_rng([seed, len(rows), n]).permutation(rows)[:n]


def _rows(store: ImageStore, rows: np.ndarray) -> Images:
    return Images(store.read(rows).transpose(0, 2, 3, 1), store.labels[rows])


class Nearest(NamedTuple):
    """The training image nearest to each image of a set."""

    row: np.ndarray  # int (n,), in the store
    distance: np.ndarray  # float64 (n,), see `image_metrics.nearest`


def measure(
    run: Run,
    checkpoint: Checkpoint,
    spec: SamplingSpec,
    loaded: LoadedModel,
    store: ImageStore,
    again: bool,
    on_step: OnStep | None,
) -> Generator[int, None, tuple[Result, bytes]]:
    """Generate the images and measure all but the bits per dimension.

    Returns the result and the PNG of the samples nearest to a training image.
    """
    model, schedule, config = loaded
    device = device_of(model)
    held_out = yield from held_out_images(config, store, spec.n, spec.seed)
    training, _ = split_of(config, store)
    real = _rows(store, _some(training, spec.n, spec.seed))
    labels = _labels(spec, store, real)
    guide = spec.load_guide(checkpoint, device)
    samples, seconds = yield from _generate(spec, loaded, guide, labels, on_step)
    done = spec.evaluations(schedule)

    net = feature_net(config.data, config.channels, config.image_size, device)
    general = general_net(device)
    inception, without = load_inception(device)
    dinov2, without_dinov2 = load_dinov2(device)
    large = {name: each for name, each in (("inception", inception), ("dinov2", dinov2)) if each}
    view = functools.partial(_view, net, general, large, done)
    known = labels if net is not None and tuple(net.classes) == spec.classes else None
    real_views = yield from view(*real)
    views = yield from view(samples, known)
    enough = len(held_out.pixels) >= FEWEST
    wanted = set(measurable([*views, *(["distance"] if enough else [])]))
    floor, ceiling = ({}, {}) if again else _known_ends(run, store, spec.n, wanted)
    sets = {"samples": samples}
    if enough:
        sets["held out"] = held_out.pixels
    if not ceiling:
        sets["noise"] = to_uint8(image_noise(spec.seed, spec.n, config.image_shape)())
    nearest = yield from _nearest(sets, store, training, config.random_flip, done)
    unseen = nearest["held out"].distance if enough else np.empty(0)

    def against_real(real: Views, fake: Views, name: str) -> Generator[int, None, Estimates]:
        if enough:
            fake = fake | {"distance": nearest[name].distance}
        return compare(Comparison(real, fake, unseen, spec.seed), done)

    metrics = yield from against_real(real_views, views, "samples")
    if not floor and enough:
        count = min(len(held_out.pixels), len(real.pixels))
        first = {name: rows[:count] for name, rows in real_views.items()}
        held_out_views = yield from view(*held_out)
        floor = yield from against_real(first, held_out_views, "held out")
    if not ceiling:
        noise_views = yield from view(sets["noise"], known)
        ceiling = yield from against_real(real_views, noise_views, "noise")
    row, distance = nearest["samples"]
    shown = np.argsort(distance)[:SHOWN_NEIGHBOURS]
    neighbours = [
        Neighbour(
            sample=int(k),
            training=int(row[k]),
            distance=float(distance[k]),
            label="" if labels is None else spec.classes[labels[k]],
        )
        for k in shown
    ]
    notes = _notes(run, config, store, net, len(held_out.pixels), spec.n)
    notes += filter(None, (without, without_dinov2))
    if dinov2 is not None:
        notes.append(f"FD-DINOv2: weights {dinov2.name}, images resized to {SIZE} × {SIZE} pixels.")
    result = Result(
        spec=spec,
        metrics=metrics,
        floor=floor,
        ceiling=ceiling,
        evaluations=round(done / spec.n),
        seconds=seconds,
        device=describe(device),
        data=config.data,
        fingerprint=store.fingerprint,
        content=store.content,
        checkpoint_time=checkpoint.time,
        guide_time=spec.guide_time(checkpoint),
        neighbours=tuple(neighbours),
        near=image_metrics.near_distance(unseen) if enough else 0.0,
        notes=tuple(notes),
        written=time.time(),
    )
    return result, _sheet(samples[shown], _rows(store, row[shown]).pixels, config.random_flip)


def _labels(spec: SamplingSpec, store: ImageStore, real: Images) -> np.ndarray | None:
    """The label of each sample, (n,): each class as often as in training.

    In turn if the data has other classes now; None if the network takes none.
    """
    if spec.classes == store.classes:
        return real.labels[np.arange(spec.n) % len(real.labels)]
    labels = spec.labels()
    return None if labels is None else labels.numpy()


def _generate(
    spec: SamplingSpec,
    loaded: LoadedModel,
    guide: LoadedModel | None,
    labels: np.ndarray | None,
    on_step: OnStep | None,
) -> Generator[int, None, tuple[np.ndarray, float]]:
    """Return the samples, uint8 (n, H, W, C), and the seconds that they took."""
    model, schedule, config = loaded

    def generate(first: int, count: int) -> tuple[np.ndarray, float]:
        started = time.monotonic()
        more = {}
        if labels is not None:
            more["labels"] = torch.from_numpy(labels[first : first + count])
        images = to_uint8(spec.make(loaded, on_step, first, count, guide=guide, **more))
        return images, time.monotonic() - started

    total, seconds, found = spec.evaluations(schedule), 0.0, []
    yield 0
    batch = batch_for(spec, config.image_size, device_of(model))
    for ready, (images, spent) in in_batches(spec.n, batch, generate):
        found.append(images)
        seconds += spent
        yield total * ready // spec.n
    return np.concatenate(found), seconds


def _view(
    net: FeatureNet | None,
    general: GeneralNet,
    large: Mapping[str, Inception | DinoV2],
    done: int,
    pixels: np.ndarray,
    labels: np.ndarray | None,
) -> Generator[int, None, Views]:
    """Return the views of these images that can be had; yields `done` now and then."""
    views = {"pixels": pixels}
    if labels is not None:
        views["labels"] = labels
    views["general"] = general.features(pixels)
    if net is not None:
        views["features"], views["probabilities"] = net.features(pixels)
    views["neighbourhood"] = views.get("features", views["general"])
    for name, network in large.items():
        parts = []
        for start in range(0, len(pixels), LARGE_PER_TURN):
            yield done
            parts.append(network.features(pixels[start : start + LARGE_PER_TURN]))
        views[name] = np.concatenate(parts)
    return views


def _nearest(
    sets: dict[str, np.ndarray],
    store: ImageStore,
    training: np.ndarray,
    mirrored: bool,
    done: int,
) -> Generator[int, None, dict[str, Nearest]]:
    """Find the nearest training image of each image of each set.

    The training images are read in chunks: there may be more than fit in memory.
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
    """Floor and ceiling of an earlier result for the same images and count, with all wanted
    metrics; each empty if there is none."""
    floor, ceiling = Estimates(), Estimates()
    for other in read_results(run.path)[0]:
        if other.spec.n == n and same_images(store, other.fingerprint, other.content):
            floor = other.floor if wanted <= other.floor.keys() else floor
            ceiling = other.ceiling if wanted <= other.ceiling.keys() else ceiling
    return dict(floor), dict(ceiling)


def _notes(
    run: Run, config: RunConfig, store: ImageStore, net: FeatureNet | None, held_out: int, n: int
) -> list[str]:
    """Sentences on what could not be measured, or not as usual."""
    notes = []
    if net is None:
        by_net = ", ".join(m.title for m in METRICS.values() if m.needs & CLASSIFIER)
        others = ", ".join(m.title for m in METRICS.values() if m.needs & NEIGHBOURHOOD)
        notes.append(
            f"No classifier for {config.data}; not measured: {by_net}. In the features of the "
            f"general network: {others}."
        )
    details = run.details
    trained_on = details.data_fingerprint
    if trained_on and not same_images(store, trained_on, details.data_content):
        notes.append(f"The images of {config.data} are not those trained on.")
    if held_out < FEWEST:
        notes.append("The run held out too few images for a floor and for near copies.")
    elif held_out < n:
        notes.append(
            f"Only {held_out:,} images were held out. The floor is measured with as many on each "
            f"side; distances are larger than with {n:,}."
        )
    return notes


def _sheet(samples: np.ndarray, training: np.ndarray, mirrored: bool) -> bytes:
    """PNG: the samples side by side, below each its training image, mirrored if nearer so."""
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
    loaded: LoadedModel,
    store: ImageStore,
    done: int,
) -> Generator[int, None, Estimate]:
    """Measure the bits per dimension of held-out images with the plain network in float32.

    A property of the checkpoint: of the spec only `average` matters.
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
    batch = batch_for(spec.replace(steps=timesteps), config.image_size, device)
    for ready, total in in_batches(len(pixels), batch, bits_of):
        if not np.isfinite(total).all():
            raise ValueError(
                f"The network of {spec.run} at step {spec.step:,} has no finite bits per "
                "dimension: it answers with NaN or infinity. Choose another checkpoint."
            )
        found.append(total)
        yield done + ready * BITS_TIMESTEPS
    return mean_estimate(np.concatenate(found))
