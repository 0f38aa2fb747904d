"""Diffusion in the plane, trained and sampled in the browser."""
