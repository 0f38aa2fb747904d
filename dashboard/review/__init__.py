"""The Review page's parts: the table in which runs are chosen, and what is done with those."""

from dashboard.review.view import show_review

__all__ = ["show_review"]
