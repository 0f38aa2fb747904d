"""A grid of images that open large."""
