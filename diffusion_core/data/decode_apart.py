"""Decode an image that a visitor has sent, in a process of its own with a memory limit.

One at a time, so that many visitors take no more memory than one. The process reduces the image to
the size that is wanted, so that this one never holds more than that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from diffusion_core.data.decode import (
    SQUASH,
    WHOLE_PIXELS,
    ImageError,
    read_square,
    upright_size,
)

MEMORY = 240 * 2**20  # bytes that decoding may take beyond what Python and NumPy take
SECONDS = 30.0  # that decoding may take
PATIENCE = 60.0  # seconds to wait for others
REFUSED = 3  # exit status, with the reason as the output
ROOT = Path(__file__).resolve().parents[2]

_turn = threading.Lock()


class ReaderBusy(ImageError):
    """Others' images are being read; nothing is wrong with this one."""


def decode_apart(data: bytes, size: int, fit: str = SQUASH) -> np.ndarray:
    """Decode an image file to uint8 (size, size, 3); `fit` is one of `decode.FITS`.

    Raises ImageError, and ReaderBusy of these.
    """
    if not _turn.acquire(timeout=PATIENCE):
        raise ReaderBusy("Many images are being read at the moment. Try again in a minute.")
    try:
        # One thread: the others of NumPy's BLAS would each reserve memory.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(size), fit, str(MEMORY)],
            input=data,
            capture_output=True,
            cwd=ROOT,
            env=environment,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"The image takes longer than {SECONDS:.0f} s to read. Make it smaller and try again."
        ) from error
    finally:
        _turn.release()
    if done.returncode == REFUSED:
        raise ImageError(done.stdout.decode())
    if done.returncode != 0 or len(done.stdout) != size * size * 3:
        raise ImageError(no_memory(MEMORY))  # it was killed, or a library has ended it
    return np.frombuffer(done.stdout, np.uint8).reshape(size, size, 3).copy()


def no_memory(memory: int, or_else: str = "") -> str:
    return (
        f"The image {or_else}needs more than {memory // 2**20} MB of memory to be read. Make it "
        "smaller, or save it as JPEG, and try again."
    )


def limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has; no limit where there is none to set."""
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (OSError, ValueError):  # macOS has no /proc
        return


def main(size: int, fit: str, memory: int) -> int:
    limit_memory(memory)
    large = True  # until the header says otherwise
    try:
        data = sys.stdin.buffer.read()
        width, height = upright_size(data)
        large = width * height > WHOLE_PIXELS
        sys.stdout.buffer.write(read_square(data, size, fit).tobytes())
        return 0
    except MemoryError:
        said = no_memory(memory)
    except ImageError as error:
        cause = error.__cause__
        said = str(error)
        if isinstance(cause, MemoryError):
            said = no_memory(memory)
        elif large and cause is not None and not isinstance(cause, UnidentifiedImageError):
            said = no_memory(memory, "is damaged or ")  # most decoders do not say which
    sys.stdout.buffer.write(said.encode())
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
