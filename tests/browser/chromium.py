"""Chromium for the tests and the screenshots: where it is, its flags, when a page is drawn.

`python -m tests.browser.chromium` prints its path, or exits with 1 where there is none.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Without a screen, and without the things that a browser does on the network by itself.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path in CHROMIUM, else the system's, else the one of `playwright install`, else None."""
    if given := os.environ.get("CHROMIUM"):
        return shutil.which(given)
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def wait_until_shown(page: Page) -> None:
    """Wait until Streamlit is connected, has run the page's script and has drawn its outcome."""
    page.wait_for_selector(
        "[data-testid=stApp][data-test-connection-state=CONNECTED]"
        "[data-test-script-state=notRunning]:not(:has([data-testid=stSkeleton])):has(h1)"
    )


if __name__ == "__main__":
    found = find_chromium()
    if found is None:
        sys.exit(1)
    print(found)
