"""Tabs of which only the open one is computed; which one that is stands in the page's address."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from dashboard.ui.controls import Choice


def open_tab(control: Choice) -> Iterator[str]:
    """Yield the option of the open tab once; what is shown meanwhile is shown in the tab."""
    control.check_link()
    names = list(control.options)
    tabs = st.tabs(names, key=control.key, bind="query-params")
    for name, tab in zip(names, tabs, strict=True):
        if tab.open:
            with tab:
                yield name
