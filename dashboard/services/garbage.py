"""Shorter garbage collections."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import dashboard


def import_all_and_spare_it() -> None:
    """Import what the pages use and exclude it from all later collections, at the server's start.

    Streamlit collects after every rerun of a page. Traversing all of PyTorch would take 0.2 s each
    time and stop every other thread of the server, sampling included. Call it only before there
    are visitors: their sessions would be excluded as well, and never be freed.
    """
    for module in pkgutil.walk_packages(dashboard.__path__, "dashboard."):
        if module.name != "dashboard.shell":  # that is a script
            importlib.import_module(module.name)
    # PyTorch imports its compiler when a network is built on the meta device; it makes half of all
    # objects.
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.freeze()
