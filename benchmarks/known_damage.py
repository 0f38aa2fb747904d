"""Do the distances rank known damage in the right order, and how many images do they need?

    python -m benchmarks.known_damage                    # cars, digits, emoji
    python -m benchmarks.known_damage torchvision:CIFAR10

compares two sets of real images of one source, of which the second is damaged more and more, and
prints Markdown tables for `docs/benchmarks.md`. The undamaged second set is the floor.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageFilter

from diffusion_core.data.sources import cars
from diffusion_core.data.split import split
from diffusion_core.data.store import build_store
from diffusion_core.evaluation import image_metrics
from diffusion_core.evaluation.features import feature_net, general_net
from diffusion_core.evaluation.intervals import WIDTH, Estimate
from diffusion_core.evaluation.sliced_features import sliced_feature_estimate

SETS = ("cars", "digits", "emoji")
MOST = 1024  # images in each of the two sets
COUNTS = (64, 128, 256, 512, 1024)
PARTS = 8
OTHER = {"cars": "emoji"}  # the set that is mixed in; otherwise cars
CARS_SEED = 2_000_003  # neither a run's nor that of the training of a network


class Images(NamedTuple):
    pixels: np.ndarray  # uint8 (n, H, W, 3)
    labels: np.ndarray  # int (n,)


Damage = Callable[[Images, np.random.Generator], np.ndarray]
Look = Callable[[np.ndarray], np.ndarray]  # features (n, d) of pixels
Measure = tuple[Look, Callable[[np.ndarray, np.ndarray], Estimate]]  # of two sets' features
Value = TypeVar("Value")


# ------------------------------------------------------------------------------ damage


def blurred(images: Images, _: np.random.Generator, sigma: float) -> np.ndarray:
    """By a Gaussian with a standard deviation of `sigma` pixels."""
    return _each(images.pixels, lambda image: image.filter(ImageFilter.GaussianBlur(sigma)))


def noisy(images: Images, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """By Gaussian noise with a standard deviation of `sigma` grey levels."""
    noise = sigma * rng.standard_normal(images.pixels.shape, np.float32)
    return np.clip(np.rint(images.pixels + noise), 0, 255).astype(np.uint8)


def compressed(images: Images, _: np.random.Generator, quality: int) -> np.ndarray:
    """As JPEG of a quality from 1 to 95."""

    def press(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(images.pixels, press)


def fewer_classes(images: Images, rng: np.random.Generator, share: float) -> np.ndarray:
    """With a share of the images of half of the classes replaced by others of the other half.

    (To leave out more and more classes has no certain order: 5 of CIFAR-10's are as many animals
    and vehicles as all 10, and 8 are not.)
    """
    classes = np.unique(images.labels)
    stays = np.isin(images.labels, classes[: len(classes) // 2])
    goes = rng.permutation(np.flatnonzero(~stays))
    instead = rng.choice(np.flatnonzero(stays), len(goes))
    count = round(share * len(goes))
    found = images.pixels.copy()
    found[goes[:count]] = images.pixels[instead[:count]]
    return found


def repeated(images: Images, rng: np.random.Generator, distinct: int) -> np.ndarray:
    """As many images, of which only so many are distinct."""
    n = len(images.pixels)
    return images.pixels[np.resize(rng.permutation(n)[:distinct], n)]


def mixed(images: Images, _: np.random.Generator, share: float, other: np.ndarray) -> np.ndarray:
    """With a share of the images replaced by those of another set."""
    found = images.pixels.copy()
    count = round(share * len(found))
    found[:count] = other[np.arange(count) % len(other)]
    return found


def damages(images: Images, other: np.ndarray) -> dict[str, dict[str, Damage]]:
    """Each kind, by rising strength."""
    n = len(images.pixels)
    return {
        "blur": {f"σ = {s:g} px": partial(blurred, sigma=s) for s in (0.5, 1, 2)},
        "noise": {f"σ = {s:g} grey levels": partial(noisy, sigma=s) for s in (5, 15, 45)},
        "JPEG": {f"quality {q}": partial(compressed, quality=q) for q in (60, 30, 10)},
        "missing classes": {
            f"half of them, by {s:.0%}": partial(fewer_classes, share=s) for s in (0.4, 0.7, 1)
        },
        "copies": {
            f"{n // k} of {n} distinct": partial(repeated, distinct=n // k) for k in (4, 16, 64)
        },
        "mixed in": {f"{s:.0%}": partial(mixed, share=s, other=other) for s in (0.05, 0.2, 0.5)},
    }


SMALL: dict[str, Damage] = {
    "blur, σ = 0.5 px": partial(blurred, sigma=0.5),
    "noise, σ = 5 grey levels": partial(noisy, sigma=5),
    "half of the classes left": partial(fewer_classes, share=1),
}


def _each(pixels: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(each))) for each in pixels])


# ------------------------------------------------------------------------------ images


def images_of(data: str, n: int) -> Images:
    """Up to n images, of a large set only such as the general network was not trained on."""
    if data == "cars":
        drawn = [cars.draw_car(k, CARS_SEED) for k in range(n)]
        return Images(np.stack([x for x, _ in drawn]), np.array([label for _, label in drawn]))
    store = build_store(data, 32 if ":" in data else 64)
    rows = np.arange(len(store))
    if len(rows) >= 10 * n:
        _, rows = split(len(store), 5_000, 1, 0, data)
    rows = np.random.default_rng(0).permutation(rows)[:n]
    return Images(store.read(rows).transpose(0, 2, 3, 1), store.labels[rows])


def halves(images: Images) -> tuple[Images, Images]:
    n = len(images.pixels) // 2
    return Images(*(each[:n] for each in images)), Images(*(each[n : 2 * n] for each in images))


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    return _each(pixels, lambda image: image.resize((size, size), Image.Resampling.BOX))


# ------------------------------------------------------------------------------ the tables


def measures(data: str) -> dict[str, Measure]:
    """By title, those of general features and, where the set has a classifier, of its own."""
    general, own = general_net().features, feature_net(data)
    found: dict[str, Measure] = {
        "Fréchet (general)": (general, image_metrics.frechet_estimate),
        "Sliced (general)": (general, sliced_feature_estimate),
    }
    if own is not None:
        net = own
        found["Fréchet"] = (lambda pixels: net.features(pixels)[0], image_metrics.frechet_estimate)
    return found


def ranking(
    measures: Mapping[str, tuple[Look, Callable[[np.ndarray, np.ndarray], Value]]],
    real: Images,
    second: Images,
    other: np.ndarray,
) -> Iterator[tuple[str, str, dict[str, Value]]]:
    """Kind, strength and distances of each damage by rising strength; first the floor, "", ""."""
    looks = {look for look, _ in measures.values()}
    of_real = {look: look(real.pixels) for look in looks}

    def measured(pixels: np.ndarray) -> dict[str, Value]:
        seen = {look: look(pixels) for look in looks}
        return {name: of(of_real[look], seen[look]) for name, (look, of) in measures.items()}

    yield "", "", measured(second.pixels)
    for kind, strengths in damages(second, other).items():
        for strength, damage in strengths.items():
            yield kind, strength, measured(damage(second, np.random.default_rng(0)))


def print_ranking(data: str, named: Mapping[str, Measure], images: Images, other: Images) -> None:
    real, second = halves(images)
    size = real.pixels.shape[1]
    print(f"\n`{data}`, {len(real.pixels)} images on each side\n")
    print(f"| damage | strength | {' | '.join(named)} |\n|---|---|{'---:|' * len(named)}")
    floor, before, last = dict[str, float](), dict[str, float](), ""
    for kind, strength, found in ranking(named, real, second, resized(other.pixels, size)):
        if kind != last:
            floor = floor or before
            before, last = floor, kind
        cells = [
            f"{each.value:.3g} ({each.low:.3g} to {each.high:.3g})"
            + ("" if each.value > before.get(name, -1) else " **not above**")
            for name, each in found.items()
        ]
        print(f"| {kind or 'none (floor)'} | {strength} | {' | '.join(cells)} |", flush=True)
        before = {name: each.value for name, each in found.items()}


def print_counts(data: str, named: Mapping[str, Measure], images: Images) -> None:
    """How many standard errors a little damage lies above the floor, by the number of images.

    Means over at most PARTS disjoint pairs of sets.
    """
    real, second = halves(images)
    counts = [n for n in COUNTS if n <= len(real.pixels)]
    print(f"\n`{data}`\n\n| damage | distance | {' | '.join(f'{n:,}' for n in counts)} |")
    print(f"|---|---|{'---:|' * len(counts)}")
    for title, damage in SMALL.items():
        damaged = damage(second, np.random.default_rng(0))
        for name, (look, distance) in named.items():
            seen = [look(each) for each in (real.pixels, second.pixels, damaged)]
            cells = []
            for n in counts:
                ratios, above = [], []
                for start in range(0, min(len(real.pixels) // n, PARTS) * n, n):
                    a, b, c = (each[start : start + n] for each in seen)
                    floor, found = distance(a, b), distance(a, c)
                    error = (found.high - found.value) / WIDTH
                    ratios.append(found.value / error)
                    above.append((found.value - floor.value) / error)
                cells.append(f"{np.mean(above):.1f} ({np.mean(ratios):.0f})")
            print(f"| {title} | {name} | {' | '.join(cells)} |", flush=True)


def main(sets: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    for data in sets:
        named, images = measures(data), images_of(data, 2 * MOST)
        print_ranking(data, named, images, images_of(OTHER.get(data, "cars"), MOST))
        print_counts(data, named, images)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or SETS)
