"""Real servers for tests."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.server import ROOT, LocalServer, belongings, poll


@pytest.fixture(scope="session", autouse=True)
def toolchain() -> None:
    """Nextflow and Java, found or installed as `make test` does it."""
    subprocess.run([sys.executable, "-m", "common.local.toolchain"], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A state directory with a path short enough for a socket; nothing that uses it is left behind."""
    with tempfile.TemporaryDirectory(prefix="nfc-", ignore_cleanup_errors=True) as name:
        yield Path(name)
        for process in belongings(Path(name)):
            process.kill()


@pytest.fixture
def make_server(state_dir: Path) -> Iterator[Callable[..., LocalServer]]:
    """Makes servers on the state directory; they are stopped at the end."""
    made: list[LocalServer] = []

    def make(**environ: str) -> LocalServer:
        server = LocalServer(state_dir, **environ)
        server.start()
        made.append(server)
        return server

    yield make
    for server in made:
        if server.alive:
            server.stop()
    for _ in poll("everything to be gone with its server"):
        if not belongings(state_dir):
            break


@pytest.fixture
def server(make_server: Callable[..., LocalServer]) -> LocalServer:
    """A running server."""
    return make_server()
