"""Real clients: a browser and packages of npm, and real servers for them."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.conftest import browser
from tests.integration.conftest import toolchain
from tests.integration.server import LocalServer, belongings

__all__ = ["browser", "toolchain"]  # fixtures

NODE = Path(__file__).parent / "node"
_NODE_FLOOR = 20


@pytest.fixture(scope="session")
def node() -> Path:
    """Where the clients of npm's packages are, installed as locked."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine")
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _NODE_FLOOR:
        pytest.skip(f"node is {version}; the clients need {_NODE_FLOOR} or newer")
    installed = NODE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (NODE / "package-lock.json").stat().st_mtime:
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, stdin=subprocess.DEVNULL)
    return NODE


@contextmanager
def serving(**environ: str) -> Iterator[LocalServer]:
    """A server with a state directory of its own; nothing of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="nfc-", ignore_cleanup_errors=True) as name:
        server = LocalServer(Path(name), **environ)
        try:
            server.start()
            yield server
        finally:
            if server.alive:
                server.stop()
            for process in belongings(Path(name)):
                process.kill()
