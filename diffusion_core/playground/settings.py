"""All that a playground is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from diffusion_core.playground.drawing import read_drawing
from diffusion_core.process.tables import DESIGNED, SCHEDULE_KINDS
from diffusion_core.records import Record

KINDS = tuple(kind for kind in SCHEDULE_KINDS if kind != DESIGNED)
SHAPES = ("two moons", "spiral", "rings")
DRAWING, IMAGES = "drawing", "images"
DATA = (*SHAPES, DRAWING, IMAGES)
TIMESTEPS = (20, 50, 100, 200, 300)
SAMPLERS = {"ddpm": "epsilon", "ddim": "epsilon", "flow": "flow", "exact": "epsilon"}


class Settings(Record):
    """A data set in the plane, a small network, its training and its sampling.

    `drawing`: see `drawing.read_drawing`; used where `data` is "drawing". `images`: a data set of
    images, such as "cars", whose two main components are the points where `data` is "images".
    `classes`: the network is told the class, except for the share `dropout` of each batch.
    """

    data: str = "two moons"
    drawing: str = ""
    images: Annotated[str, Field(max_length=4096)] = "cars"
    kind: str = "linear"
    timesteps: Annotated[int, Field(ge=2, le=1000)] = 300
    classes: bool = False
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    width: Annotated[int, Field(ge=1, le=256)] = 64
    layers: Annotated[int, Field(ge=1, le=6)] = 3
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.003
    batch: Annotated[int, Field(ge=1, le=4096)] = 128
    steps: Annotated[int, Field(ge=0, le=100_000)] = 2000
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    particles: Annotated[int, Field(ge=1, le=10_000)] = 300
    guidance_scale: Annotated[float, Field(ge=0, le=20)] = 1.0

    @field_validator("data")
    @classmethod
    def _known_data(cls, name: str) -> str:
        if name not in DATA:
            raise ValueError(f"must be one of {', '.join(DATA)}")
        return name

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, name: str) -> str:
        if name not in KINDS:
            raise ValueError(f"must be one of {', '.join(KINDS)}")
        return name

    @field_validator("drawing")
    @classmethod
    def _readable_drawing(cls, text: str) -> str:
        read_drawing(text)
        return text
