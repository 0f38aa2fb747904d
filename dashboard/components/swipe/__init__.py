"""A grid of images, two of which are compared large."""
