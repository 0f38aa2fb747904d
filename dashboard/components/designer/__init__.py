"""A noise schedule that is designed by dragging points."""
