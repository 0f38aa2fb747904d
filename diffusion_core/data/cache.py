"""Where decoded images and downloaded data sets are kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def default_cache_dir() -> Path:
    """DIFFUSION_LAB_CACHE_DIR, else ~/.cache/diffusion-lab, else a temporary folder."""
    named = os.environ.get("DIFFUSION_LAB_CACHE_DIR")
    if named:
        return Path(named)
    home = Path.home() / ".cache" / "diffusion-lab"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / "diffusion-lab"
    return home if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / "diffusion-lab"
