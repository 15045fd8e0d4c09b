"""A headless Chromium for tests of web pages: the distribution's own (`make browser` installs it), by playwright."""

import shutil

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
"""A page that is slow on a busy machine is not broken."""


@pytest.fixture(scope="session")
def chromium():
    """A running browser, one a process; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no {PROGRAMS[0]} on this machine: `make browser` installs it, as root")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, and containers give /dev/shm 64 MB
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page of a fresh profile; at the end of the test it must have asked no other host for anything."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    own = ("http://127.0.0.1:", "http://localhost:", "data:", "blob:", "file:")
    assert [url for url in asked if not url.startswith(own)] == []
