"""A pixel chosen on an image, and maps of what it is about."""
