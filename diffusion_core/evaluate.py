"""How good a run's pictures are: draw many, hold them against real ones, write what is found.

`evaluate` is a generator, so that the dashboard can let other drawings go first in between. What
it measures with is in `quality.py`, `features.py` and `likelihood.py`; what it writes, in
`quality_results.py`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from diffusion_core import quality
from diffusion_core.batches import split
from diffusion_core.checkpoint import Checkpoint, load_model
from diffusion_core.config import MAIN_AVERAGE, ConfigError, RunConfig
from diffusion_core.data.store import ImageStore, build_store, load_picture, to_grey
from diffusion_core.device import describe
from diffusion_core.diffusion import Schedule
from diffusion_core.features import FeatureNet, feature_net
from diffusion_core.fidelity import fidelity_scores
from diffusion_core.flow import FlowSchedule
from diffusion_core.intervals import WIDTH, Estimate, mean_estimate
from diffusion_core.likelihood import bits_per_dim
from diffusion_core.order import EACH_IN_TURN, Loaded, Order
from diffusion_core.pictures import grid, png, to_uint8
from diffusion_core.presets import build_schedule
from diffusion_core.quality_results import (
    Estimates,
    Neighbour,
    Result,
    ResultError,
    read_result,
    read_results,
    result_path,
    write_result,
)
from diffusion_core.runs import Run
from diffusion_core.samplers import StepView, picture_noise, samplers_for

FEWEST = 16  # pictures; below that no interval means anything
SHOWN_NEIGHBOURS = 8
CARS_A_TURN = 250  # drawn before other work goes first; under a second
CHUNK = 2000  # training pictures in memory at once while neighbours are looked for
# The bits per dimension: of so many held-out pictures, each at so many timesteps.
BITS_PICTURES, BITS_TIMESTEPS = 256, 50

Turns = Generator[int, None, Result]
OnStep = Callable[[StepView], None]


class Pictures(NamedTuple):
    pixels: np.ndarray  # uint8 (n, H, W, C)
    labels: np.ndarray  # (n,) integers


def make_order(
    run: str,
    checkpoint: Checkpoint,
    *,
    n: int,
    sampler: str | None = None,
    steps: int = 20,
    seed: int = 0,
    guidance_scale: float = 1.0,
    average: str = MAIN_AVERAGE,
    spacing: str = "trailing",
) -> Order:
    """What to draw; by default by DPM-Solver++ 2M where the model takes it.

    Raises ConfigError with a sentence for what the checkpoint cannot be drawn with.
    """
    schedule = build_schedule(checkpoint.config)
    names = samplers_for(schedule)
    sampler = sampler or names[0]
    if sampler not in names:
        raise ConfigError(f"{run} is drawn from by {', '.join(names)}, not by {sampler!r}.")
    if not 1 <= steps <= schedule.timesteps:
        raise ConfigError(f"{run} is drawn from in 1 to {schedule.timesteps:,} steps, not {steps}.")
    if guidance_scale != 1 and not checkpoint.classes:
        raise ConfigError(f"{run} was trained without classes; it takes no guidance.")
    return Order(
        run=run,
        step=checkpoint.step,
        n=n,
        sampler=sampler,
        steps=steps,
        seed=seed,
        classes=checkpoint.classes,
        label=EACH_IN_TURN if checkpoint.classes else "",
        guidance_scale=guidance_scale,
        average=average,
        flow=isinstance(schedule, FlowSchedule),
        spacing=spacing,
    )


def cost(order: Order, schedule: Schedule, bits: bool) -> int:
    """The evaluations of the network, about: what `evaluate` counts up to."""
    return order.evaluations(schedule) + (BITS_PICTURES * BITS_TIMESTEPS if bits else 0)


def evaluate(
    run: Run,
    checkpoint: Checkpoint,
    order: Order,
    loaded: Loaded,
    *,
    bits: bool = False,
    again: bool = False,
    workers: int | None = None,
    on_step: OnStep | None = None,
) -> Turns:
    """Measure what `order` draws and write it into the run; what is there already is not made anew.

    Yields after every batch how many of the `cost` evaluations are done; returns the result.
    `bits`: also the bits per dimension, of the checkpoint and not of the sampling. `again`: make it
    anew. `workers`: see `build_store`. Raises DataError where the run's pictures cannot be had,
    ConfigError where there are too few or the network has no such number.
    """
    _, schedule, config = loaded
    result = None if again else _known(result_path(run.path, order))
    wanted = bits and (result is None or "bits_per_dim" not in result.metrics)
    if result is not None and not wanted:
        return result
    if bits and order.flow:
        raise ConfigError("Bits per dimension need a diffusion model; a flow has none.")
    store = build_store(config.data, config.image_size, config.channels, workers=workers)
    held_out = yield from held_out_pictures(config, store, order.n, order.seed)
    drawing = order.evaluations(schedule)
    if result is None:
        result, sheet = yield from _measure(run, order, loaded, store, held_out, again, on_step)
        write_result(run.path, result, sheet)
    if wanted:
        yield drawing
        known = None if again else _known_bits(run, order)
        if known is None:
            known = yield from _bits(checkpoint, order, loaded, store, held_out, drawing)
        metrics = result.metrics | {"bits_per_dim": known}
        result = dataclasses.replace(result, metrics=metrics)
        write_result(run.path, result)
    return result


def held_out_pictures(
    config: RunConfig, store: ImageStore, n: int, seed: int
) -> Generator[int, None, Pictures]:
    """Up to n real pictures that the training has not seen; yields 0 now and then.

    Of the drawn cars there are always more: those that come after the store's last one. Of other
    data they are those that the run held out for its validation.
    """
    if config.data.partition(":")[0] != "cars":
        return _rows(store, _some(split(config, len(store))[1], n, seed))
    spec, pixels, labels = f"cars:{len(store) + n}", [], []
    for k in range(n):
        if k % CARS_A_TURN == 0:
            yield 0
        picture, label, _ = load_picture(spec, len(store) + k, config.image_size)
        pixels.append(picture)
        labels.append(label)
    found = np.stack(pixels)
    if config.channels == 1:
        found = to_grey(found.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    return Pictures(found, np.array(labels))


def _some(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Up to n of the rows, in random order: those of a folder lie class by class."""
    return np.random.default_rng([seed, len(rows), n]).permutation(rows)[:n]


def _rows(store: ImageStore, rows: np.ndarray) -> Pictures:
    return Pictures(store.read(rows).transpose(0, 2, 3, 1), store.labels[rows])


def _known(path: Path) -> Result | None:
    try:
        return read_result(path)
    except ResultError:
        return None


def _known_bits(run: Run, order: Order) -> Estimate | None:
    """Measured already with other settings: they are the same however pictures are drawn."""
    for other in read_results(run.path)[0]:
        same = (other.order.step, other.order.average) == (order.step, order.average)
        if same and "bits_per_dim" in other.metrics:
            return other.metrics["bits_per_dim"]
    return None


# ------------------------------------------------------------------------------ the measuring


class Nearest(NamedTuple):
    """The training picture nearest to each of a set's pictures."""

    row: np.ndarray  # in the store
    distance: np.ndarray  # as `quality.nearest` measures it


class Seen(NamedTuple):
    """Pictures as the metrics see them."""

    pixels: np.ndarray  # uint8 (n, H, W, C)
    labels: np.ndarray | None  # the classes that they should be of
    features: np.ndarray | None  # (n, d), where a classifier knows such pictures
    probabilities: np.ndarray | None  # (n, classes), likewise

    def first(self, count: int) -> Seen:
        pixels, *others = self
        return Seen(pixels[:count], *(None if part is None else part[:count] for part in others))


def _measure(
    run: Run,
    order: Order,
    loaded: Loaded,
    store: ImageStore,
    held_out: Pictures,
    again: bool,
    on_step: OnStep | None,
) -> Generator[int, None, tuple[Result, bytes]]:
    """Draw and measure all but the bits per dimension; also the picture of the neighbours."""
    _, schedule, config = loaded
    device = _device(loaded)
    training, _ = split(config, len(store))
    real = _rows(store, _some(training, order.n, order.seed))
    asked = _asked(order, store, real)
    samples, seconds = yield from _draw(order, loaded, asked, on_step)
    drawn = order.evaluations(schedule)

    net = feature_net(config.data, config.channels, config.image_size, device)
    real_seen = _see(net, *real)
    named = asked if net is not None and tuple(net.classes) == order.classes else None
    metrics = yield from _compare(real_seen, _see(net, samples, named), order.seed, drawn)
    scores, _ = fidelity_scores(real.pixels, samples, device=device, seed=order.seed)
    if scores is not None:
        metrics |= _fidelity(scores, len(real.pixels), order.n)
    yield drawn
    sets = {"samples": samples}
    if len(held_out.pixels) >= FEWEST:
        sets["held out"] = held_out.pixels
    nearest = yield from _nearest(sets, store, training, config.random_flip, drawn)
    near = 0.0
    if "held out" in nearest:
        far = nearest["held out"].distance
        near = quality.near_distance(far)
        metrics["copies"] = quality.copies_estimate(nearest["samples"].distance, far, order.seed)
    floor, ceiling = ({}, {}) if again else _known_ends(run, store, order.n)
    if not floor and "held out" in nearest:
        count = min(len(held_out.pixels), len(real.pixels))
        unseen = _see(net, *held_out)
        floor = yield from _compare(real_seen.first(count), unseen, order.seed, drawn)
        floor["copies"] = quality.copies_estimate(far, far, order.seed)
    if not ceiling:
        noise = picture_noise(order.seed, order.n, _shape(config))()
        seen = _see(net, to_uint8(noise), named)
        ceiling = yield from _compare(real_seen, seen, order.seed, drawn)
    shown = np.argsort(nearest["samples"].distance)[:SHOWN_NEIGHBOURS]
    rows = nearest["samples"].row[shown]
    neighbours = [
        Neighbour(int(k), int(row), float(nearest["samples"].distance[k]))
        for k, row in zip(shown, rows, strict=True)
    ]
    result = Result(
        order=order,
        metrics=metrics,
        floor=floor,
        ceiling=ceiling,
        evaluations=round(drawn / order.n),
        seconds=seconds,
        device=describe(device),
        data=config.data,
        fingerprint=store.fingerprint,
        neighbours=tuple(neighbours),
        near=near,
        notes=tuple(_notes(run, config, store, net, len(held_out.pixels), order.n)),
        written=time.time(),
    )
    return result, _sheet(samples[shown], _rows(store, rows).pixels, config.random_flip)


def _asked(order: Order, store: ImageStore, real: Pictures) -> np.ndarray | None:
    """The class of each sample, (n,): each as often as the training met it.

    In turn where the data now has other classes than the network; None where it takes none.
    """
    if order.classes == store.classes:
        return real.labels[np.arange(order.n) % len(real.labels)]
    labels = order.labels()
    return None if labels is None else labels.numpy()


def _draw(
    order: Order, loaded: Loaded, asked: np.ndarray | None, on_step: OnStep | None
) -> Generator[int, None, tuple[np.ndarray, float]]:
    """The samples, uint8 (n, H, W, C), and the seconds that they took."""
    batch = 256 if _device(loaded).type == "cuda" else 16
    total, seconds, found = order.evaluations(loaded[1]), 0.0, []
    for first in range(0, order.n, batch):
        yield total * first // order.n
        started = time.monotonic()
        count = min(batch, order.n - first)
        more = {} if asked is None else {"labels": torch.from_numpy(asked[first : first + count])}
        found.append(to_uint8(order.make(loaded, on_step, first, count, **more)))
        seconds += time.monotonic() - started
    yield total
    return np.concatenate(found), seconds


def _see(net: FeatureNet | None, pixels: np.ndarray, labels: np.ndarray | None) -> Seen:
    if net is None:
        return Seen(pixels, labels, None, None)
    return Seen(pixels, labels, *net.features(pixels))


def _compare(real: Seen, fake: Seen, seed: int, done: int) -> Generator[int, None, Estimates]:
    """Everything that needs the two sets alone; yields `done` between its parts."""
    found: Estimates = {}
    if real.features is not None and fake.features is not None:
        found["frechet"] = quality.frechet_estimate(real.features, fake.features, seed)
        found |= quality.manifold_estimates(real.features, fake.features, seed)
        assert fake.probabilities is not None
        found |= quality.class_scores_estimates(fake.probabilities, fake.labels, seed)
        balance = found["balance"]
        found["balance"] = dataclasses.replace(balance, high=min(1.0, balance.high))
        yield done
    pixels = quality.sliced_wasserstein_estimates(real.pixels, fake.pixels, seed)
    found["sliced_wasserstein"] = pixels["mean"]
    yield done
    return found


def _fidelity(scores: dict[str, float], n_real: int, n_fake: int) -> Estimates:
    """FID has no interval. That of KID is from its subsets, and so on the wide side."""
    fid, kid, spread = scores["fid"], 1000 * scores["kid"], WIDTH * 1000 * scores["kid_std"]
    return {
        "fid": Estimate(fid, fid, fid, n_real, n_fake),
        "kid": Estimate(kid, kid - spread, kid + spread, n_real, n_fake),
    }


def _nearest(
    sets: dict[str, np.ndarray],
    store: ImageStore,
    training: np.ndarray,
    mirrored: bool,
    done: int,
) -> Generator[int, None, dict[str, Nearest]]:
    """For the pictures of each set their nearest training pictures.

    The training pictures are read some at a time: there may be more than fit the memory.
    """
    best = {
        name: Nearest(np.zeros(len(pictures), np.int64), np.full(len(pictures), np.inf))
        for name, pictures in sets.items()
    }
    for start in range(0, len(training), CHUNK):
        rows = training[start : start + CHUNK]
        pixels = _rows(store, rows).pixels
        for name, pictures in sets.items():
            index, distance = quality.nearest(pictures, pixels, mirrored=mirrored)
            old, nearer = best[name], distance < best[name].distance
            best[name] = Nearest(
                np.where(nearer, rows[index], old.row), np.minimum(distance, old.distance)
            )
        yield done
    return best


def _known_ends(run: Run, store: ImageStore, n: int) -> tuple[Estimates, Estimates]:
    """Floor and ceiling as they were measured before, for the same pictures and count."""
    for other in read_results(run.path)[0]:
        if (other.fingerprint, other.order.n) == (store.fingerprint, n):
            return dict(other.floor), dict(other.ceiling)
    return {}, {}


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
    trained_on = run.details.get("data_fingerprint")
    if trained_on and trained_on != store.fingerprint:
        notes.append(
            f"The pictures of {config.data} are not those of the training: they have changed "
            "since, or lie in another place."
        )
    if held_out < FEWEST:
        notes.append("The run held out too few pictures for a floor, and to tell copies by.")
    elif held_out < n:
        notes.append(
            f"Only {held_out:,} pictures were held out. The floor is measured with so many on each "
            f"side; with fewer pictures than {n:,} distances come out larger."
        )
    return notes


def _sheet(samples: np.ndarray, training: np.ndarray, mirrored: bool) -> bytes:
    """PNG: the samples side by side, below each its training picture, turned as it fits better."""
    if mirrored:
        apart = [
            np.square(samples.astype(np.float32) - turned).mean(axis=(1, 2, 3))
            for turned in (training, training[:, :, ::-1])
        ]
        turn = (apart[1] < apart[0])[:, None, None, None]
        training = np.where(turn, training[:, :, ::-1], training)
    return png(grid(np.concatenate([samples, training]), len(samples)))


def _bits(
    checkpoint: Checkpoint,
    order: Order,
    loaded: Loaded,
    store: ImageStore,
    held_out: Pictures,
    done: int,
) -> Generator[int, None, Estimate]:
    """The bits per dimension of held-out pictures, by the plain network in float32."""
    pixels, labels = (part[:BITS_PICTURES] for part in held_out)
    if len(pixels) < FEWEST:
        raise ConfigError("The run held out too few pictures to measure bits per dimension.")
    known = store.classes == order.classes
    device = _device(loaded)
    model, schedule, config = load_model(checkpoint, device, order.average, exact=True)
    batch, found = (256 if device.type == "cuda" else 16), []
    for first in range(0, len(pixels), batch):
        yield done + first * BITS_TIMESTEPS
        part = torch.from_numpy(pixels[first : first + batch].transpose(0, 3, 1, 2))
        asked = torch.from_numpy(labels[first : first + batch]) if known else None
        bits = bits_per_dim(
            model,
            schedule,
            part.to(device).float() / 127.5 - 1,
            config.prediction_type,
            order.seed,
            None if asked is None else asked.to(device),
            min(BITS_TIMESTEPS, schedule.timesteps),
            first=first,
        )
        found.append(bits.total)
    return mean_estimate(np.concatenate(found))


def _device(loaded: Loaded) -> torch.device:
    return next((p.device for p in loaded[0].parameters()), torch.device("cpu"))


def _shape(config: RunConfig) -> tuple[int, int, int]:
    return config.channels, config.image_size, config.image_size
