"""Backgrounds for the procedural cars: the time of day, sky, five sceneries and a studio.

Kept simple, with smooth gradients and few shapes, so that a small network can learn it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

BIG = 256  # side of the large drawing, in pixels

Colour = tuple[float, float, float]

WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Light:
    """A time of day: the sky's two colours and the tint it gives to everything else."""

    sky_top: Colour
    sky_low: Colour
    tint: Colour
    lamps: bool  # head lamps and windows are lit


LIGHTS: tuple[tuple[float, Light], ...] = (
    (0.38, Light((98, 158, 214), (208, 230, 242), (1.0, 1.0, 1.0), False)),
    (0.20, Light((138, 180, 212), (252, 230, 204), (1.0, 0.96, 0.89), False)),
    (0.16, Light((164, 176, 188), (218, 223, 226), (0.90, 0.92, 0.95), False)),
    (0.17, Light((84, 88, 142), (250, 182, 134), (0.96, 0.83, 0.78), True)),
    (0.09, Light((18, 26, 54), (66, 80, 122), (0.64, 0.66, 0.78), True)),
)
_STUDIOS: tuple[tuple[Colour, Colour], ...] = (  # wall, floor
    ((226, 221, 211), (188, 181, 170)),
    ((198, 212, 219), (158, 172, 180)),
    ((221, 203, 193), (184, 162, 150)),
    ((201, 212, 196), (160, 173, 156)),
    ((96, 106, 120), (66, 74, 86)),
)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def shade(colour: Colour, factor: float | Colour) -> Colour:
    factors = (factor,) * 3 if isinstance(factor, float) else factor
    return tuple(x * f for x, f in zip(colour, factors, strict=True))  # type: ignore[return-value]


def ink(colour: Colour) -> tuple[int, int, int]:
    return tuple(min(255, max(0, round(c))) for c in colour)  # type: ignore[return-value]


def banded(stops: Sequence[tuple[float, Colour]]) -> Image.Image:
    """An image whose rows change colour smoothly from stop to stop; stops are (y, colour)."""
    ys = [y for y, _ in stops]
    rows = np.arange(BIG)
    channels = [np.interp(rows, ys, [colour[i] for _, colour in stops]) for i in range(3)]
    column = np.clip(np.stack(channels, axis=-1) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(column[:, None, :]).resize((BIG, BIG), Image.Resampling.NEAREST)


def lit_from_side(image: Image.Image, depth: float) -> Image.Image:
    """Darken one side by the share `depth` (0..1): the left if positive, else the right."""
    ramp = np.linspace(1 - abs(depth), 1, BIG) * 255
    row = (ramp if depth > 0 else ramp[::-1]).round().astype(np.uint8)
    shade = np.repeat(row[None, :, None], 3, axis=2)
    full = Image.fromarray(shade).resize((BIG, BIG), Image.Resampling.NEAREST)
    return ImageChops.multiply(image, full)


def disc(x: float, y: float, rx: float, ry: float | None = None) -> list[int]:
    ry = rx if ry is None else ry
    return [round(x - rx), round(y - ry), round(x + rx), round(y + ry)]


def studio(road: int, rng: np.random.Generator) -> Image.Image:
    """A plain wall, lit from one side, that curves into the floor."""
    wall, floor = _STUDIOS[rng.integers(len(_STUDIOS))]
    edge = road - rng.uniform(20, 30)
    stops = [
        (0.0, shade(wall, 0.9)),
        (edge - 12, mix(wall, WHITE, 0.25)),
        (edge + 6, floor),
        (BIG - 1.0, mix(floor, wall, 0.55)),
    ]
    return lit_from_side(banded(stops), rng.uniform(-0.16, 0.16))


def outdoors(light: Light, road: int, rng: np.random.Generator) -> Image.Image:
    """Sky, one of five simple sceneries, and a road."""
    horizon = road - int(rng.integers(22, 34))
    image = banded([(0, light.sky_top), (horizon, light.sky_low)])
    pen = ImageDraw.Draw(image)
    if light.lamps or rng.random() < 0.25:  # a low sun, or the moon
        glow = mix(light.sky_low, (255, 246, 222), 0.75)
        x, y = rng.uniform(20, 236), rng.uniform(28, 84)
        pen.ellipse(disc(x, y, 11), fill=ink(glow))
    sceneries: tuple[Callable[..., None], ...] = (_hills, _skyline, _trees, _sea, _fields)
    sceneries[rng.integers(len(sceneries))](pen, light, horizon, rng)

    asphalt = shade(mix((120, 122, 128), (150, 142, 132), rng.random()), light.tint)
    near = shade(asphalt, 0.8)
    surface = banded([(horizon, asphalt), (BIG - 1.0, near)])
    image.paste(surface.crop((0, horizon + 6, BIG, BIG)), (0, horizon + 6))
    pen.rectangle([0, horizon + 4, BIG, horizon + 8], fill=ink(mix(asphalt, WHITE, 0.3)))
    if rng.random() < 0.5:  # the line at the near side of the road
        y = min(road + 36, 236)
        pen.rectangle([0, y, BIG, y + 5], fill=ink(mix(near, WHITE, 0.5)))
    return image


def _wave(pen: ImageDraw.ImageDraw, level: float, height: float, phase: float, colour: Colour,
          floor: int) -> None:  # fmt: skip
    xs = range(0, BIG + 8, 8)
    tops = [(x, level - height * (0.5 + 0.5 * math.sin(x / 52 + phase))) for x in xs]
    pen.polygon([(0, floor), *((x, round(y)) for x, y in tops), (BIG + 8, floor)], ink(colour))


def _verge(pen: ImageDraw.ImageDraw, light: Light, horizon: int, colour: Colour) -> None:
    fill = ink(shade(colour, light.tint))
    pen.rectangle([0, horizon - 6, BIG, horizon + 8], fill=fill)


def _hills(pen: ImageDraw.ImageDraw, light: Light, horizon: int, rng: np.random.Generator) -> None:
    far = mix(shade((104, 132, 146), light.tint), light.sky_low, 0.5)
    near = mix(shade((122, 152, 108), light.tint), light.sky_low, 0.25)
    _wave(pen, horizon - 26, 38, rng.uniform(0, 6.28), far, horizon + 8)
    _wave(pen, horizon - 6, 24, rng.uniform(0, 6.28), near, horizon + 8)


def _fields(pen: ImageDraw.ImageDraw, light: Light, horizon: int, rng: np.random.Generator) -> None:
    sand = rng.random() < 0.5
    far, near = ((206, 164, 128), (222, 190, 146)) if sand else ((150, 170, 112), (206, 190, 120))
    back = mix(shade(far, light.tint), light.sky_low, 0.45)
    _wave(pen, horizon - 14, 22, rng.uniform(0, 6.28), back, horizon + 8)
    _verge(pen, light, horizon, near)


def _sea(pen: ImageDraw.ImageDraw, light: Light, horizon: int, rng: np.random.Generator) -> None:
    line = horizon - 30
    water = mix(shade((70, 132, 160), light.tint), light.sky_low, 0.2)
    pen.rectangle([0, line, BIG, horizon + 8], fill=ink(water))
    pen.rectangle([0, line, BIG, line + 5], fill=ink(mix(water, light.sky_low, 0.45)))
    _verge(pen, light, horizon, (222, 204, 168))


def _trees(pen: ImageDraw.ImageDraw, light: Light, horizon: int, rng: np.random.Generator) -> None:
    haze = mix(shade((116, 146, 112), light.tint), light.sky_low, 0.5)
    _wave(pen, horizon - 10, 14, rng.uniform(0, 6.28), haze, horizon + 8)
    leaf = mix(shade((84, 128, 84), light.tint), light.sky_low, 0.18)
    trunk = ink(shade((110, 90, 76), light.tint))
    conifer = rng.random() < 0.4
    step = 62
    for x in np.arange(rng.uniform(-20, 30), BIG + 30, step):
        size = rng.uniform(20, 27)
        pen.rectangle(disc(x, horizon - 8, 3, 16), fill=trunk)
        if conifer:
            foot = horizon - 14
            pen.polygon(
                [(x - size * 0.7, foot), (x, foot - size * 2.7), (x + size * 0.7, foot)], ink(leaf)
            )
        else:
            y = horizon - 18 - size
            pen.ellipse(disc(x, y, size), fill=ink(leaf))
            pen.ellipse(disc(x + 4, y - 5, size * 0.62), fill=ink(mix(leaf, light.sky_low, 0.16)))
    _verge(pen, light, horizon, (138, 164, 108))


def _skyline(
    pen: ImageDraw.ImageDraw, light: Light, horizon: int, rng: np.random.Generator
) -> None:
    for haze, low, high in ((0.62, 50, 92), (0.34, 20, 52)):
        x = -int(rng.integers(0, 24))
        while x < BIG:
            wide, tall = int(rng.integers(26, 46)), int(rng.integers(low, high))
            stone = shade((132, 138, 152), light.tint)
            wall = mix(stone, light.sky_low, haze + rng.uniform(-0.06, 0.06))
            pen.rectangle([x, horizon - tall, x + wide - 2, horizon + 8], fill=ink(wall))
            if light.lamps and haze < 0.5:
                lit = ink(mix(wall, (255, 214, 140), 0.7))
                for y in range(horizon - tall + 8, horizon - 12, 14):
                    for column in range(x + 6, x + wide - 8, 10):
                        pen.rectangle([column, y, column + 4, y + 5], fill=lit)
            x += wide
    _verge(pen, light, horizon, (170, 168, 164))
