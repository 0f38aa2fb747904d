"""The error of data sets that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """A data set that cannot be used; the message says why and what to do."""


class TooLong(DataError):
    """A data set that takes longer to look through than allowed."""

    def __init__(self) -> None:
        super().__init__(
            "There are too many files to count here. What is found is said when the run prepares "
            "the images."
        )
