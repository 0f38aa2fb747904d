"""The parts of the pages that explain, one module per page: its controls, figures and tables."""

from dashboard.explain import embedding, network, noising, schedule

__all__ = ["embedding", "network", "noising", "schedule"]
