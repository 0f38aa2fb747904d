"""The engine that samples in a browser: scripts of a worker, which are given to components as text.

It reads what `diffusion_core.sampling.browser_model` writes and computes what the core computes.
"""

from __future__ import annotations

import functools
from pathlib import Path

from dashboard.components.assemble import inline, scripts


@functools.cache
def worker_script() -> str:
    """The script of the worker with all that it imports."""
    parts = scripts(Path(__file__).with_name("worker.js"))
    return "".join(inline(script.read_text(encoding="utf-8")) for script in parts)
