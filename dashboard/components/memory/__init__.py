"""A text that the visitor's browser remembers."""
