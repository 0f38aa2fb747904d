"""What axe finds on each page, in light and dark, on a desktop and a phone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import quote_plus

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from dashboard.explain import embedding
from dashboard.explain.network import TABS
from dashboard.review.view import VIEWS
from dashboard.ui.addresses import PAGES
from tests.browser.chromium import wait_until_shown
from tests.browser.conftest import DESKTOP, PHONE, OpenPage
from tests.browser.server import Server
from tests.forks.client import ROOT

# Faults of Streamlit's own by axe's id, and where: in its menu the sections stand between the list
# and its items.
MENU = "[data-testid=stSidebarNavItems]"
STREAMLITS = {"list": MENU, "listitem": MENU}
# Charts have the width of the page: they follow it a moment later.
FITTED = """
[...document.querySelectorAll(".js-plotly-plot")].every((x) => x.scrollWidth <= x.clientWidth)
"""
ADDRESSES = [
    *(page.url_path for page in PAGES),
    *(f"embedding?view={quote_plus(view)}&run=demo-cars" for view in embedding.VIEWS[1:]),
    *(f"review?view={quote_plus(view)}&runs=demo-cars" for view in VIEWS),
    "review?view=Look&runs=demo-cars&look_nearest=true",
    "schedule?view=Design",
    "schedule?view=Training&kinds=linear&kinds=cosine",
    "noising?source=drawing",
    "noising?plot=Spectrum&more=Step+by+step",
    "noising?more=Wrong+shapes",
    "noising?more=Notes+on+tensors",
    "one_step?tab=Over+t",
    "one_step?tab=One+pixel",
    "one_step?tab=One+step+back",
    *(f"network?network=run+demo-cars&block=middle.0&tab={quote_plus(tab)}" for tab in TABS[1:]),
]


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ADDRESSES)
def test_axe_finds_nothing_serious(
    path: str, scheme: Literal["light", "dark"], open_page: OpenPage, server: Server
) -> None:
    demo = Path("checkpoints") / "demo-cars"
    shutil.copytree(ROOT / demo, server.runs_dir / demo.name)
    page = open_page(f"/{path}", viewport=DESKTOP, color_scheme=scheme)
    found = serious(page)
    page.set_viewport_size(PHONE)
    wait_until_shown(page)
    page.wait_for_function(FITTED)
    assert not found | serious(page)


def serious(page: Page) -> set[str]:
    """Each fault that is ours as a sentence."""
    return {
        f"{fault['id']}: {node['html'][:300]} {node.get('failureSummary', '')}"
        for fault in Axe().run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
        if not is_streamlits(page, fault["id"], node["target"])
    }


def is_streamlits(page: Page, fault: str, target: list[str]) -> bool:
    place = STREAMLITS.get(fault)
    return place is not None and page.evaluate(
        "([target, place]) => document.querySelector(target).closest(place) !== null",
        [target[-1], place],
    )
