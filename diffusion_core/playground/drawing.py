"""A drawing as a short text: what a link holds of it."""

from __future__ import annotations

import base64

import numpy as np

MOST_POINTS = 400
EDGE = 2.5  # a drawing reaches from -EDGE to EDGE
LEVELS = 4095  # of each coordinate


def read_drawing(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) and their classes (N,), 0 or 1.

    Base64 (of URLs, unpadded) of four bytes a point: the class in the highest bit, then 12 bits
    for each coordinate, from the left and from the bottom, in the lowest. Raises ValueError.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        data = b"?"
    if len(data) % 4 or len(data) > 4 * MOST_POINTS:
        raise ValueError(f"must be a drawing of at most {MOST_POINTS} points")
    words = np.frombuffer(data, ">u4").astype(np.int64)
    places = np.stack([words >> 12 & LEVELS, words & LEVELS], axis=1)
    return (2 * places / LEVELS - 1) * EDGE, words >> 31


def write_drawing(points: np.ndarray, labels: np.ndarray) -> str:
    """The text of a drawing; coordinates are rounded and clipped."""
    places = np.rint((np.clip(points / EDGE, -1, 1) + 1) / 2 * LEVELS).astype(np.int64)
    words = labels << 31 | places[:, 0] << 12 | places[:, 1]
    return base64.urlsafe_b64encode(words.astype(">u4").tobytes()).decode().rstrip("=")
