"""The Chromium of this machine, and pages in it that may talk to the server under test and to nobody else."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.conftest import make_server, server, state_dir, toolchain

__all__ = ["make_server", "server", "state_dir", "toolchain"]  # fixtures

_QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
]
PATIENCE_MS = 90_000


@dataclass
class Seen:
    """What a page did.

    Attributes:
        hosts: whom it asked.
        said: what its console had to say.
    """

    hosts: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser) -> Iterator[tuple[Page, Seen]]:
    """An empty tab of a browser that nobody has used."""
    with ExitStack() as stack:
        context = stack.enter_context(browser.new_context())
        context.set_default_timeout(PATIENCE_MS)
        page, seen = context.new_page(), Seen()
        page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda message: seen.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.said.append(str(error)))
        yield page, seen


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, for one module: as long as it is there, its loop is this thread's, and no other can run."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("there is no chromium on this machine")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=executable, args=_QUIET)
        yield made
        made.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[tuple[Page, Seen]]:
    """An empty tab, and what it has done."""
    with opened(browser) as made:
        yield made
