"""Shorter garbage collections, and freed memory that the next visitor can use."""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import os
import pkgutil
import sys

import dashboard

M_ARENA_MAX = -8  # malloc.h of glibc


def share_heaps() -> None:
    """Let all threads allocate from two heaps; call it before there are many threads.

    glibc gives up to eight a core, and a visit is a thread: what it has freed would stay in its
    heap. Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)


def give_back() -> None:
    """Give memory that visitors have left behind back to the system.

    glibc keeps what was freed between two pieces that are still used. Does nothing where the C
    library is another.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def import_all_and_spare_it() -> None:
    """Import what the pages use and exclude it from all later collections, at the server's start.

    Traversing all of PyTorch would take 0.2 s each time and stop every other thread of the server,
    sampling included. Call it only before there are visitors: their sessions would be excluded as
    well, and never be freed.
    """
    for module in pkgutil.walk_packages(dashboard.__path__, "dashboard."):
        if module.name != "dashboard.shell":  # that is a script
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


@functools.cache
def import_and_spare(name: str) -> None:
    """The same for a large package that only visits need, or some pages, when the first does.

    An idle server does without its 80 to 160 MB. The sessions that are open at this moment are
    excluded as well, but it is only once.
    """
    importlib.import_module(name)
    gc.collect()
    gc.freeze()


def is_imported(name: str) -> bool:
    """Whether a module has been imported to its end: another thread may be at it for seconds."""
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


# PyTorch imports it when a network is computed on the meta device, though it is not used then.
COMPILER = "torch._dynamo"
TABLES = "pandas"  # of every table that Streamlit shows
