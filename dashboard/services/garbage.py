"""Keeps Python's collection of garbage short."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import dashboard


def import_all_and_spare_it() -> None:
    """Import what the pages use and leave it out of all later collections, at the server's start.

    Streamlit collects after every rerun of a page. To go through all of PyTorch would take 0.2 s of
    each, in which no other thread of the server, drawings included, goes on. Not to be called when
    many visitors are there: their sessions would be left out as well, and never be freed.
    """
    for module in pkgutil.walk_packages(dashboard.__path__, "dashboard."):
        if module.name != "dashboard.shell":  # that is a script
            importlib.import_module(module.name)
    # PyTorch imports its compiler by itself as soon as a network is built for its shapes alone;
    # half of all objects are then its.
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.freeze()
