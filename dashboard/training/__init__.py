"""The Training page's parts: the form that starts a run, one run's view and buttons, all runs."""

from dashboard.training.latest import show_latest_run
from dashboard.training.overview import show_training

__all__ = ["show_latest_run", "show_training"]
