"""The Quality tab of a run: measure its images, and the results."""

from dashboard.quality.view import show_quality

__all__ = ["show_quality"]
