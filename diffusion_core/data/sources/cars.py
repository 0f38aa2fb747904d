"""The procedural `cars` set: side views of eight kinds of car, drawn with Pillow.

Each image depends on (seed, index) only, so the set needs no download and no licence.

The proportions come from car_kinds.py and the background from scenery.py. Everything is drawn
facing right at four times the size, mirrored for half of the images and reduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from diffusion_core.data.source import IndexedSource, SourceKind, parse_count
from diffusion_core.data.sources.car_kinds import CLASSES, KINDS, LOADS, PAINTS, STRIPES, Corner
from diffusion_core.data.sources.scenery import (
    BIG,
    LIGHTS,
    WHITE,
    Colour,
    Light,
    banded,
    disc,
    ink,
    lit_from_side,
    mix,
    outdoors,
    shade,
    studio,
)

SIZE = BIG // 4
COUNT = 20_000  # images of `cars`
MOST = 10**7  # of `cars:N`
# Change it whenever the same index gives other pixels: stores and runs of the old ones are then not
# taken for the new. It was once the hash of the source text, and is kept because old runs hold it.
PIXELS = "39fd65dff1e523514a9df2618d196c644859a8ffc3bbb2aaba126336a501c477"

Point = tuple[float, float]

_BLACK: Colour = (26, 27, 30)


def draw_car(index: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Draw image `index` of the set of that `seed`.

    Returns (image, label): uint8 of shape (64, 64, 3), RGB in 0..255, and the position of
    the body kind in `CLASSES`, which is index % 8. Raises ValueError for a negative index
    or seed.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must be 0 or more, not {index} and {seed}.")
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    label = label_of(index)
    indoors = rng.random() < 0.16
    light = LIGHTS[0 if indoors else rng.choice(len(LIGHTS), p=[p for p, _ in LIGHTS])][1]
    car = _Car(CLASSES[label], light, rng)
    image = studio(car.road, rng) if indoors else outdoors(light, car.road, rng)
    car.paint_on(image)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)), label


def _rounded(corners: Sequence[Corner]) -> list[Point]:
    """The polygon with each corner replaced by a quadratic curve."""
    points: list[Point] = []
    for i, (x, y, radius) in enumerate(corners):
        ends = []
        for other in (corners[i - 1], corners[(i + 1) % len(corners)]):
            dx, dy = other[0] - x, other[1] - y
            share = min(0.5, radius / math.hypot(dx, dy))
            ends.append((x + dx * share, y + dy * share))
        for k in range(7):
            t = k / 6
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
            points.append(
                (
                    a * ends[0][0] + b * x + c * ends[1][0],
                    a * ends[0][1] + b * y + c * ends[1][1],
                )
            )
    return points


class _Car:
    """One car: its draws from the generator, and the strokes that paint it."""

    def __init__(self, name: str, light: Light, rng: np.random.Generator) -> None:
        self.name, self.kind, self.light, self.rng = name, KINDS[name], light, rng
        self.scale = self.kind.length * rng.uniform(0.95, 1.04) / 100
        self.left = (BIG - 100 * self.scale) / 2 + rng.uniform(-5, 5)
        tall = name in ("van", "lorry", "bus")
        self.road = int(rng.integers(190, 199) if tall else rng.integers(178, 190))
        self.stretch = rng.uniform(0.92, 1.1)
        self.lean = rng.uniform(-2.0, 2.0) if name not in ("lorry", "bus", "van") else 0.0
        self.radius = self.kind.radius * rng.uniform(0.95, 1.07) * self.scale
        jitter = rng.uniform(-8, 8, 3)
        paint = PAINTS[rng.integers(len(PAINTS))]
        self.colour: Colour = tuple(np.clip(paint + jitter, 12, 248).tolist())
        self.double = name == "bus" and rng.random() < 0.3

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Pixel of a point given in hundredths of the length, after the car's own variation."""
        kind = self.kind
        above = max(0.0, y - kind.belt)
        x += self.lean * min(1.0, above / (kind.roof - kind.belt))
        y = min(y, kind.belt) + above * self.stretch
        return round(self.left + x * self.scale), round(self.road - y * self.scale)

    def outline(self, corners: Sequence[Corner]) -> list[tuple[int, int]]:
        return [self.at(x, y) for x, y in _rounded(corners)]

    def box(self, x0: float, y0: float, x1: float, y1: float) -> list[int]:
        left, bottom = self.at(x0, y0)
        right, top = self.at(x1, y1)
        return [min(left, right), top, max(left, right), bottom]

    def tinted(self, colour: Colour, factor: float = 1.0) -> tuple[int, int, int]:
        return ink(shade(shade(colour, self.light.tint), factor))

    def paint_on(self, image: Image.Image) -> None:
        """Draw the car, with its shadow, on the large image."""
        self._shadow(image)
        mask = Image.new("L", (BIG, BIG))
        shape = ImageDraw.Draw(mask)
        body = self._coat(self.colour)
        pen = ImageDraw.Draw(body)
        corners = self.kind.body
        if self.double:  # the upper deck
            corners = tuple((x, y + 17 if y > 40 else y, r) for x, y, r in corners)
        shape.polygon(self.outline(corners), fill=255)
        if self.name == "lorry":
            self._load(body, pen, shape)
        self._trim(pen)
        self._windows(body)
        self._doors(pen)
        self._lamps(pen)
        for x in self.kind.wheels:
            centre = self.left + x * self.scale
            pen.ellipse(disc(centre, self.road - self.radius, self.radius * 1.2), ink(_BLACK))
        image.paste(body, mask=mask)
        pen = ImageDraw.Draw(image)
        self._extras(pen)
        style = int(self.rng.integers(4))
        for x in self.kind.wheels:
            self._wheel(pen, self.left + x * self.scale, style)

    def _shadow(self, image: Image.Image) -> None:
        mask = Image.new("L", (BIG, BIG))
        pen = ImageDraw.Draw(mask)
        middle = self.left + 50 * self.scale + self.rng.uniform(-6, 6)
        depth = 0.7 if self.light.tint[0] < 0.7 else 1.0
        for k in range(8):
            spread = 1 - k / 8
            ellipse = disc(middle, self.road, (46 + 8 * spread) * self.scale, 4 + 8 * spread)
            pen.ellipse(ellipse, fill=round((24 + 22 * k) * depth))
        image.paste((22, 24, 32), mask=mask)
        pen = ImageDraw.Draw(image)
        x, y = self.at(5, self.kind.floor - 2)
        pen.rectangle([x, y - 20, self.at(95, 0)[0], y], fill=(20, 21, 25))

    def _coat(self, paint: Colour) -> Image.Image:
        """Paint lit from above: dark sill, bright shoulder under the windows, bright roof."""
        kind = self.kind
        roof = 61 if self.double else kind.roof
        stops = (  # height, share of the paint's brightness, share of sky reflected
            (roof + 1, 1.0, 0.42),
            (roof - 3, 1.0, 0.12),
            (kind.belt + 3, 0.92, 0.02),
            (kind.belt, 1.0, 0.30),
            (kind.belt - 3.5, 1.0, 0.10),
            (kind.belt * 0.62, 0.86, 0.0),
            (kind.belt * 0.57, 0.78, 0.0),
            (kind.floor, 0.52, 0.0),
        )
        sky = mix(shade(WHITE, self.light.tint), self.light.sky_low, 0.4)
        lit = shade(paint, self.light.tint)
        rows = banded([(self.at(50, y)[1], mix(shade(lit, f), sky, s)) for y, f, s in stops])
        side = self.rng.uniform(0.04, 0.18) * (1 if self.rng.random() < 0.5 else -1)
        return lit_from_side(rows, side)

    def _load(
        self, body: Image.Image, pen: ImageDraw.ImageDraw, shape: ImageDraw.ImageDraw
    ) -> None:
        """The lorry's chassis and what it carries: a box, a tank or a curtain-sided trailer."""
        rng = self.rng
        cover = LOADS[rng.integers(len(LOADS))]
        chassis = self.box(1, 9, 76, 14)
        shape.rectangle(chassis, fill=255)
        sort = rng.choice(3, p=(0.5, 0.2, 0.3))
        if sort == 1:
            load = self.outline(((0.5, 14, 9), (0.5, 44, 11), (71, 44, 11), (71, 14, 9)))
        else:
            load = self.outline(((0.3, 13, 1), (0.3, 57, 2), (71.5, 57, 2), (71.5, 13, 1)))
        shape.polygon(load, fill=255)
        cut = Image.new("L", (BIG, BIG))
        ImageDraw.Draw(cut).polygon(load, fill=255)
        sky = shade(WHITE, self.light.tint)
        lit = shade((200, 204, 208) if sort == 1 else cover, self.light.tint)
        if sort == 1:
            stops = [(44, shade(lit, 0.9)), (36, mix(lit, sky, 0.8)), (27, lit),
                     (14, shade(lit, 0.5))]  # fmt: skip
        else:
            stops = [(57, mix(lit, sky, 0.5)), (55, lit), (16, shade(lit, 0.82)),
                     (13, shade(lit, 0.6))]  # fmt: skip
        body.paste(banded([(self.at(0, y)[1], c) for y, c in stops]), mask=cut)
        pen.rectangle(chassis, fill=self.tinted((52, 54, 60)))
        if sort == 1:
            pen.rectangle(self.box(0.5, 27, 71, 31), fill=self.tinted(self.colour, 0.9))
        elif sort == 2:
            for x in range(9, 70, 9):
                pen.rectangle(self.box(x, 17, x + 1.2, 54), fill=ink(shade(lit, 0.84)))
        elif rng.random() < 0.6:
            pen.rectangle(self.box(0.3, 26, 71.5, 36), fill=self.tinted(self.colour, 0.92))

    def _trim(self, pen: ImageDraw.ImageDraw) -> None:
        """Sill, bumpers and, on vans and buses, a stripe."""
        rng, kind = self.rng, self.kind
        dark = self.tinted((46, 48, 54))
        if self.name in ("van", "bus") and rng.random() < 0.5:
            stripe = STRIPES[rng.integers(len(STRIPES))]
            top = 22.5 if self.name == "bus" else 24.0
            pen.rectangle(self.box(0, top - 5, 101, top), fill=self.tinted(stripe))
        if self.name == "lorry":
            pen.rectangle(self.box(73, 0, 101, 11.5), fill=dark)
            pen.rectangle(self.box(94.5, 14, 101, 19), fill=dark)
            return
        chrome = rng.random() < 0.3
        bumper = self.tinted((206, 210, 214)) if chrome else dark
        low = kind.floor + (2.5 if chrome else 0)
        pen.rectangle(self.box(0, 0, 100, kind.floor + 1.6), fill=dark)
        pen.rectangle(self.box(-1, low, 6, kind.floor + 5.5), fill=bumper)
        pen.rectangle(self.box(94, low, 101, kind.floor + 5.5), fill=bumper)

    def _windows(self, body: Image.Image) -> None:
        """Glass that reflects the sky, parted by pillars; lit from inside in a bus at dusk."""
        rng, kind, light = self.rng, self.kind, self.light
        mask = Image.new("L", (BIG, BIG))
        shape = ImageDraw.Draw(mask)
        shape.polygon(self.outline(kind.glass), fill=255)
        decks = [(kind.belt, kind.roof)]
        if self.double:
            shape.polygon(self.outline([(x, y + 17.5, r) for x, y, r in kind.glass]), fill=255)
            decks.append((kind.belt + 17.5, kind.roof + 17.5))
        for x in kind.pillars:
            for low, high in decks:
                shape.line([self.at(x, low), self.at(x, high)], fill=0, width=5)
        if self.name == "van" and rng.random() < 0.45:  # a minibus
            for x in (6, 32):
                pane = ((x, 32, 2), (x, 46.5, 2), (x + 22, 46.5, 2), (x + 22, 32, 2))
                shape.polygon(self.outline(pane), fill=255)
        dark = mix((38, 46, 56), (52, 74, 88), rng.random())
        top = mix(shade(dark, light.tint), light.sky_low, rng.uniform(0.3, 0.5))
        low_tone = shade(dark, light.tint)
        if self.name == "bus" and light.lamps:
            top, low_tone = (250, 222, 160), (222, 178, 112)
        high_y = self.at(50, decks[-1][1])[1]
        glass = banded([(high_y, top), (self.at(50, kind.belt)[1], low_tone)])
        pen = ImageDraw.Draw(glass)
        glint = ink(mix(top, WHITE, 0.22))
        left, right = kind.glass[0][0], kind.glass[-1][0]
        x = left + (right - left) * rng.uniform(0.5, 0.8)
        low, high = kind.belt, decks[-1][1]
        pen.polygon([self.at(x, low), self.at(x + 5, high), self.at(x + 9, high),
                     self.at(x + 4, low)], fill=glint)  # fmt: skip
        body.paste(glass, mask=mask)

    def _doors(self, pen: ImageDraw.ImageDraw) -> None:
        kind = self.kind
        seam = self.tinted(self.colour, 0.58)
        handle = self.tinted(mix(self.colour, _BLACK, 0.65))
        low = kind.floor + 4
        if self.name == "bus":
            a, b = kind.seams
            pane = self.tinted((136, 154, 166))
            pen.rectangle(self.box(a, 8, b, 36), fill=self.tinted((40, 46, 54)))
            pen.rectangle(self.box(a + 1.2, 12, (a + b) / 2 - 0.5, 34.5), pane)
            pen.rectangle(self.box((a + b) / 2 + 0.5, 12, b - 1.2, 34.5), pane)
            return
        for x in kind.seams:
            pen.line([self.at(x, low), self.at(x, kind.belt)], fill=seam, width=3)
        for x in kind.seams[:-1]:
            pen.rectangle(self.box(x + 1.5, kind.belt - 4.6, x + 5, kind.belt - 3.2), fill=handle)

    def _lamps(self, pen: ImageDraw.ImageDraw) -> None:
        kind, lit = self.kind, self.light.lamps
        tail = (226, 44, 40) if lit else self.tinted((186, 36, 36))
        head = (255, 246, 206) if lit else self.tinted((236, 238, 232))
        edge = self.tinted((70, 74, 80))
        if self.name in ("lorry", "bus"):
            pen.rectangle(self.box(-1, 13, 2.2, 18), fill=tail)
            pen.rectangle(self.box(96, 11.5, 101, 15.5), fill=head)
            if self.name == "bus":
                pen.rectangle(self.box(94.5, 39, 101, 42.5), fill=(240, 168, 60))
            return
        nose = kind.body[-3][1]  # height of the bonnet's front edge
        tall = self.name in ("van", "pick-up")
        pen.rectangle(
            self.box(-1, kind.belt - (13 if tall else 8), 4.2, kind.belt - 2.5), fill=tail
        )
        lamp = [self.at(89.5, nose - 1.8), self.at(101, nose - 3), self.at(101, nose - 7),
                self.at(93, nose - 6)]  # fmt: skip
        pen.polygon(lamp, fill=head, outline=edge)

    def _extras(self, pen: ImageDraw.ImageDraw) -> None:
        """The mirror, and now and then roof rails, a spoiler or a beam of light."""
        rng, kind = self.rng, self.kind
        trim = self.tinted(mix(self.colour, _BLACK, 0.35))
        x = kind.glass[-1][0]
        if self.name == "bus":
            pen.line([self.at(97, 40), self.at(101, 38), self.at(101, 33)], self.tinted(_BLACK), 4)
        elif self.name == "lorry":
            pen.rectangle(self.box(94.5, 33, 97, 41), fill=self.tinted(_BLACK))
        else:
            pen.rounded_rectangle(self.box(x - 4.5, kind.belt, x - 0.5, kind.belt + 3.4), 3, trim)
        if self.name == "estate" and rng.random() < 0.5:
            metal = self.tinted((88, 92, 98))
            pen.line([self.at(11, kind.roof + 0.5), self.at(50, kind.roof + 1)], metal, 3)
        if self.name == "coupé" and rng.random() < 0.3:
            pen.polygon(self.outline(((-0.5, 25.6, 0.5), (0, 27.2, 0.5), (9, 26.4, 0.5),
                                      (8, 25, 0.5))), fill=trim)  # fmt: skip
            pen.line([self.at(5, 22), self.at(5, 26)], trim, 4)

    def _wheel(self, pen: ImageDraw.ImageDraw, x: float, style: int) -> None:
        """A tyre with spokes (0, 1), a hub cap (2) or a steel rim (3)."""
        r, y = self.radius, self.road - self.radius
        pen.ellipse(disc(x, y, r), fill=ink((24, 25, 28)))
        silver = self.tinted((208, 211, 215))
        dim = self.tinted((122, 126, 132))
        dark = self.tinted((58, 61, 67))
        if style <= 1:
            pen.ellipse(disc(x, y, r * 0.68), fill=silver)
            pen.ellipse(disc(x, y, r * 0.56), fill=dark)
            count = 5 if style == 0 else 8
            for k in range(count):
                angle = 2 * math.pi * k / count - math.pi / 2
                tip = (x + r * 0.6 * math.cos(angle), y + r * 0.6 * math.sin(angle))
                pen.line(
                    [(round(x), round(y)), (round(tip[0]), round(tip[1]))], silver, 7 - 3 * style
                )
            pen.ellipse(disc(x, y, r * 0.2), fill=silver)
        elif style == 2:
            pen.ellipse(disc(x, y, r * 0.66), fill=silver)
            pen.ellipse(disc(x, y, r * 0.46), fill=dim)
            pen.ellipse(disc(x, y, r * 0.34), fill=silver)
        else:
            pen.ellipse(disc(x, y, r * 0.64), fill=dim)
            pen.ellipse(disc(x, y, r * 0.5), fill=dark)
            pen.ellipse(disc(x, y, r * 0.3), fill=silver)


def label_of(index: int) -> int:
    return index % len(CLASSES)


def open_cars(detail: str) -> IndexedSource:
    count = parse_count("cars", detail, COUNT, MOST)
    return IndexedSource(count, CLASSES, SIZE, f"cars {PIXELS}", draw_car, label_of=label_of)


SOURCE = SourceKind(
    name="cars",
    help="drawn by this app, eight kinds.",
    usage=("cars", "cars:N"),
    open=open_cars,
    size=SIZE,
    detail="Number of images",
    most=COUNT,
    largest=MOST,
    endless=True,
)
