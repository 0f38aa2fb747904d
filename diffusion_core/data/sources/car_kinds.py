"""The eight body kinds of the procedural cars, their proportions and their paints.

Numbers only; this file does not know how a car is drawn. x runs from 0 (tail) to 100 (nose),
y upwards from the road, both in hundredths of the car's length.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_core.data.sources.scenery import Colour

Corner = tuple[float, float, float]  # x, y and the radius by which the corner is rounded

CLASSES: tuple[str, ...] = (
    "sedan",
    "hatchback",
    "estate",
    "van",
    "pick-up",
    "lorry",
    "bus",
    "coupé",
)

PAINTS: tuple[Colour, ...] = (
    (178, 38, 42),
    (126, 30, 46),
    (206, 92, 48),
    (222, 168, 58),
    (238, 226, 198),
    (240, 240, 238),
    (182, 188, 194),
    (98, 106, 116),
    (40, 43, 50),
    (34, 62, 116),
    (52, 112, 178),
    (134, 182, 208),
    (30, 112, 118),
    (28, 80, 58),
    (132, 160, 120),
    (122, 92, 70),
)
STRIPES: tuple[Colour, ...] = ((244, 238, 222), (58, 66, 80), (196, 198, 200))
LOADS: tuple[Colour, ...] = (
    (240, 238, 230),
    (214, 206, 188),
    (72, 108, 146),
    (150, 66, 56),
    (84, 120, 98),
)


@dataclass(frozen=True)
class Kind:
    """The proportions of one body kind, in hundredths of its length."""

    length: float  # in pixels of the large drawing
    belt: float  # height of the line under the windows
    roof: float
    body: tuple[Corner, ...]  # outline, clockwise from the tail's lower corner
    glass: tuple[Corner, ...]
    pillars: tuple[float, ...]  # x of the posts that part the glass
    wheels: tuple[float, ...]
    radius: float  # of a wheel
    seams: tuple[float, ...]  # x of the edges of the doors
    floor: float = 7.0  # lower edge of the body


KINDS: dict[str, Kind] = {
    "sedan": Kind(
        218, 24, 35,
        ((1, 7, 2), (0, 14, 2), (1.2, 23.5, 3), (17, 25, 5), (28.5, 35, 7), (53, 35.4, 9),
         (69, 25, 5), (95, 21, 7), (99.8, 14, 3), (99, 7, 2)),
        ((19.5, 25.4, 1), (29.5, 33.3, 3), (52.3, 33.6, 4), (64.5, 25.4, 1)),
        (29.5, 45), (20, 80), 8.6, (31, 46, 64),
    ),
    "hatchback": Kind(
        198, 28, 42,
        ((1.5, 8, 2), (0, 15, 2), (1.8, 28, 3), (9, 41, 5), (50, 42.4, 10), (71, 28.6, 5),
         (94, 24, 8), (99.8, 16, 3), (98.8, 8, 2)),
        ((7.5, 29, 1.5), (13.5, 39.6, 3), (49.4, 40.4, 5), (66.5, 29, 1)),
        (20, 42), (19.5, 80.5), 9.8, (28, 43, 66), 8.0,
    ),
    "estate": Kind(
        220, 24.5, 36,
        ((1, 7, 2), (0, 14, 2), (1, 24.5, 2), (6.5, 35.2, 4), (54, 36.4, 9), (69.5, 25.5, 5),
         (95, 21.2, 7), (99.8, 14, 3), (99, 7, 2)),
        ((5.8, 25.8, 1), (10, 33.8, 2), (53.2, 34.6, 4), (65, 25.6, 1)),
        (26, 45), (20, 80), 8.6, (30, 46, 64),
    ),
    "van": Kind(
        210, 31, 53,
        ((1, 7, 2), (0.3, 20, 2), (0.8, 52, 4), (64, 53.4, 9), (82, 32, 4), (96, 26, 6),
         (99.8, 15, 3), (99, 7, 2)),
        ((59, 31.5, 1), (59, 46.5, 2), (66.5, 46.5, 3), (77, 31.5, 1)),
        (), (19.5, 80), 8.8, (32, 57, 77),
    ),
    "pick-up": Kind(
        218, 28, 41,
        ((1, 10, 2), (0.2, 17, 1), (0.6, 28, 1.5), (35.5, 28.4, 1), (38, 40.4, 4),
         (56.5, 41, 7), (69, 29, 4), (95, 26, 6), (99.8, 18, 3), (99, 10, 2)),
        ((39.8, 29.4, 1), (41, 38.8, 2), (56, 39.3, 4), (65.5, 29.4, 1)),
        (50.5,), (19.5, 80), 9.8, (37, 51.5, 66), 10.0,
    ),
    "lorry": Kind(
        222, 29, 48,
        ((73.5, 7, 1), (73.5, 47, 4), (93, 48, 6), (98.6, 28, 3), (99.8, 12, 2), (99.5, 7, 2)),
        ((81, 29.5, 1), (81, 43.5, 2), (91.5, 43.5, 3), (95.4, 29.5, 1)),
        (), (15, 33, 86), 7.8, (79.5, 95.5),
    ),
    "bus": Kind(
        224, 23, 44,
        ((0.8, 7, 2), (0.2, 20, 2), (0.8, 43.6, 4), (96, 44, 5), (99.4, 24, 4), (99.8, 7, 2)),
        ((3, 24, 2), (3, 37.6, 2), (95.6, 37.6, 3), (98.2, 24, 2)),
        (17.5, 32, 46.5, 61, 75.5, 87), (22, 75.5), 7.6, (83, 91),
    ),
    "coupé": Kind(
        220, 21.5, 31,
        ((1.2, 6, 2), (0, 14, 2), (1.6, 22.8, 2), (12, 23.6, 8), (36, 30.8, 14), (49, 31.4, 12),
         (68, 21.8, 7), (94, 17.2, 9), (99.8, 10.5, 3), (98.6, 6, 2)),
        ((20.5, 23.4, 2), (36.5, 28.8, 6), (48.5, 29.3, 6), (62.5, 21.9, 1)),
        (33,), (19.5, 80), 9.0, (33, 63), 6.0,
    ),
}  # fmt: skip
