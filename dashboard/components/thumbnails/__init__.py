"""A row of small images to choose from."""
