"""A real Chromium, if there is one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comm
import pytest
from browsers import QUIET, chromium
from widget_page import PageComm, WidgetPage

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / part) for part in ("unit", "unit/studio")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = chromium()
    if path is None:
        pytest.skip("needs Chromium: install it, or set CHROMIUM to its path")
    with sync_api.sync_playwright() as driver:
        yield (
            chrome := driver.chromium.launch(executable_path=path, args=[*QUIET, "--no-sandbox"])
        )
        chrome.close()


@pytest.fixture
def show(browser, monkeypatch) -> Iterator[Callable[..., WidgetPage]]:
    """show(*makers, width=1280, dark=False): the widgets that the makers make, on a page."""
    monkeypatch.setattr(comm, "create_comm", PageComm)
    contexts, problems = [], []

    def opened(make: Callable[[], list[Any]], width: int = 1280, dark: bool = False, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: line.type == "error" and problems.append(line.text))
        return WidgetPage(page, *make())

    yield opened
    for context in contexts:
        context.close()
    assert not problems
