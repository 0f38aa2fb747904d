"""The core of Diffusion Lab: the mathematics, the networks, the data and the training."""
