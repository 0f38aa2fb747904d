"""What nobody has foreseen: the whole of it in the log, a plain sentence for people."""

from __future__ import annotations

import logging
import secrets


def report(error: BaseException) -> str:
    """Log an error with its traceback under a number; returns the sentence that names this."""
    number = secrets.token_hex(4)
    logging.getLogger(__name__).error("Error %s", number, exc_info=error, extra={"error": number})
    return f"Something went wrong (error {number}). The log of the server says what."
