"""Tensors as PNG images, and frames as animations."""
