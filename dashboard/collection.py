"""Keeps Python's collection of garbage short. Knows nothing of Streamlit but what it does."""

from __future__ import annotations

import gc
import sys
import threading

_lock = threading.Lock()
_modules = 0  # loaded when it was done last


def spare_imports() -> None:
    """Leave all that was imported so far out of later collections.

    Streamlit collects after every rerun of a page. To go through all of PyTorch took 0.2 s of each,
    in which no other thread of the server, drawings included, could go on.
    """
    global _modules
    with _lock:
        if len(sys.modules) == _modules:
            return
        gc.unfreeze()  # what was live then, such as a visitor's session, may be garbage by now
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)
