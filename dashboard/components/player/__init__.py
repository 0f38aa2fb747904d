"""Slider, play button, speed and loop, shared by the components that play frames."""
