"""Take screenshots of every page of a running dashboard: light and dark, wide and on a phone.

    python -m docs.take_screenshots http://localhost:8501 docs/screenshots [PAGE?SETTINGS ...]

Writes PAGE-light-wide.png and so on into the folder. A page is named by its address ("home",
"schedule?T=1000"); the default is every page of the menu. Needs requirements-dev.txt and Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from dashboard.ui.navigation import SECTIONS
from tests.browser.chromium import FLAGS, find_chromium, wait_until_shown

SIZES = {"wide": (1400, 900), "phone": (390, 844)}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


def take(browser: Browser, url: str, target: Path, scheme: Scheme, size: tuple[int, int]) -> None:
    """The whole page in one image."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(url)
    wait_until_shown(page)
    generate = page.get_by_role("button", name="Generate", exact=True)
    if generate.count():
        generate.click()
        page.get_by_role("button", name="Grid as PNG").wait_for()
        wait_until_shown(page)
    # Streamlit scrolls a container of its own: make the window as high as its content.
    for _ in range(3):  # charts that come into view can add height
        content = page.get_by_test_id("stMain").evaluate("e => e.scrollHeight")
        page.set_viewport_size({"width": width, "height": max(height, content)})
        page.wait_for_load_state("networkidle")
        wait_until_shown(page)
    page.screenshot(path=target, animations="disabled")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="*", help="addresses (default: every page)")
    arguments = parser.parse_args()
    everywhere = ["home", *(entry.url_path for pages in SECTIONS.values() for entry in pages)]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    chromium = find_chromium()
    if chromium is None:
        parser.error("Chromium is missing; `make test` says how to get it.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for address in arguments.pages or everywhere:
            name = address.partition("?")[0]
            url = f"{arguments.base_url.rstrip('/')}/{'' if address == 'home' else address}"
            for scheme in SCHEMES:
                for size_name, size in SIZES.items():
                    target = arguments.folder / f"{name}-{scheme}-{size_name}.png"
                    take(browser, url, target, scheme, size)
                    print(target)
        browser.close()


if __name__ == "__main__":
    main()
