"""`python -m diffusion_core`: the command line, see `cli/main.py`."""

from __future__ import annotations

from diffusion_core.cli.main import entry

if __name__ == "__main__":
    entry()
