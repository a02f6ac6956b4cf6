"""One browser for all tests of this folder.

Needs Chromium (apt-get install chromium); without it they are skipped and say so.
"""

import shutil

import pytest

BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on the PATH (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=path, args=QUIET)
        yield chrome
        chrome.close()
