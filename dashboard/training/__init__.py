"""The Training page's parts: the form that starts a run, one run's view and buttons, all runs."""

from dashboard.training.featured import show_featured_run
from dashboard.training.overview import show_training

__all__ = ["show_featured_run", "show_training"]
