"""The dashboard's shell: the page configuration, the navigation and the sidebar.

Start it with `streamlit run streamlit_app.py`. What a page shows is the page's own business.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.settings import Settings, SettingsError, get_settings
from diffusion_core.device import describe, pick_device

st.set_page_config(page_title="Diffusion Lab", page_icon=":material/grain:", layout="wide")


def sidebar(settings: Settings) -> None:
    """Say which device computes and, where it is limited, what the visitor may do."""
    with st.sidebar:
        st.caption(f"Device: {describe(pick_device(settings.device))}")
        if not settings.may_operate:
            st.caption("Role: viewer. Looking and sampling; training is started by an operator.")


PAGES = {
    "": [("home", "Home", ":material/home:")],
    "Understand": [
        ("schedule", "Schedule", ":material/show_chart:"),
        ("noising", "Noising", ":material/blur_on:"),
        ("embedding", "Embedding", ":material/waves:"),
        ("unet", "Network", ":material/schema:"),
    ],
    "Train and draw": [
        ("training", "Training", ":material/model_training:"),
        ("sampling", "Sampling", ":material/brush:"),
    ],
}
page = st.navigation(
    {
        section: [
            st.Page(
                f"pages/{name}.py",
                title=title,
                icon=icon,
                url_path=title.lower(),
                default=name == "home",
            )
            for name, title, icon in pages
            if Path(__file__).with_name("pages").joinpath(f"{name}.py").exists()
        ]
        for section, pages in PAGES.items()
    }
)
try:
    sidebar(get_settings())
except (SettingsError, ValueError) as error:
    st.error(str(error))
    st.stop()
page.run()
