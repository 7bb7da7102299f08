"""A page in a real browser: Debian's Chromium, headless, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@contextmanager
def opened(path: Path, scheme: str = "light", width: int = 1280) -> Iterator[tuple[Any, list[str], list[str]]]:
    """A page in Chromium, with what it said on the console and what it asked for besides itself."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        missing = "no browser: apt-get install chromium makes this test run"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function(
            "[...document.querySelectorAll('[data-chart]')].every((each) => each.querySelector('svg'))"
        )
        yield page, said, [url for url in asked if url != path.as_uri()]
        browser.close()
