"""What can be wrong with a data set."""

from __future__ import annotations


class DataError(ValueError):
    """A data set that cannot be used; the message says why and what to do."""
