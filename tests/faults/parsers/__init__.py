"""Every parser of what comes from outside, in one table: inputs, reader, refusal, and back."""

from tests.faults.parsers import (  # noqa: F401 - each puts its parsers into the table
    addresses,
    checkpoints,
    image_files,
    image_settings,
    run_records,
    words,
)
from tests.faults.parsers.table import PARSERS, Parser

__all__ = ["PARSERS", "Parser"]
