"""Data sets: where the pictures come from and how they are kept."""
