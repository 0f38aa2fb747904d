"""Diffusion in the plane: the Playground page's mathematics, in NumPy.

The page computes the same in the browser (`dashboard/components/playground`), from the same random
numbers, so that losses, weights and samples agree.

    settings = Settings(data="two moons", steps=500)
    data = make_data(settings)
    model = train(settings, data, "epsilon")
    paths = sample(settings, model, data, "ddim")
"""

from diffusion_core.playground.code import python_code
from diffusion_core.playground.data import Data, make_data
from diffusion_core.playground.model import Model, exact_model, sample, start, train, train_step
from diffusion_core.playground.settings import Settings

__all__ = [
    "Data",
    "Model",
    "Settings",
    "exact_model",
    "make_data",
    "python_code",
    "sample",
    "start",
    "train",
    "train_step",
]
