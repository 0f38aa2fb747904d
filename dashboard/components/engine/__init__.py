"""Samples a small network in the browser: the layers, the noise and the samplers."""
