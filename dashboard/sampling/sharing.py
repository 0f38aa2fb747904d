"""A link to what a page of the mode Generate, Edit, Interpolate, Compare or Batch shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from dashboard.sampling.compare_lists import SAMPLED_AT
from dashboard.sampling.controls import COUNT, link_settings
from diffusion_core.sampling.spec import SamplingSpec


def offer_link(
    spec: SamplingSpec, page: Mapping[str, Any] | None = None, not_linked: str = ""
) -> None:
    """A button that shows the link; see `link`. `not_linked`: what it does not carry, as a
    sentence."""
    with st.popover("Link to this", icon=":material/link:"):
        st.caption(
            f"Opens this page with these settings. {not_linked}"
            if not_linked
            else "Opens this page with these settings, which give the same result."
        )
        st.code(link(spec, page), language=None, wrap_lines=True)


def link(spec: SamplingSpec, page: Mapping[str, Any] | None = None) -> str:
    """This page with the settings of a spec, the checkpoint's step included.

    `page`: the controls of another mode than Generate by their keys, with its `mode`.
    """
    settings = link_settings(spec)
    if page:
        settings.pop(COUNT.key, None)  # such a mode has a number of its own
        settings |= {key: value for key, value in page.items() if key != SAMPLED_AT}
    return f"{st.context.url or ''}?{urlencode(settings, doseq=True)}"
