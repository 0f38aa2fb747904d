"""`python -m diffusion_core`: the command line, see `cli/main.py`."""

from __future__ import annotations

import os
import sys

from diffusion_core.cli.main import main

if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # of several processes one
        # A thread that still waits for another process would abort Python's own way out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
