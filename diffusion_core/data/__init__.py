"""Data sets: where the images come from and how they are kept."""
