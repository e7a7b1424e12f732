"""`python -m functions.server NAME`: one function by itself, as the image serves it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from common.callers import add
from common.settings import Settings
from common.tasks import end
from common.web.app import App
from functions.server import FUNCTIONS, _until_stopped
from tests.functions.test_alone import CALLS, OPEN
from tests.integration.server import API, ROOT, poll
from tests.redis_server import OwnRedis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment that all functions share."""
    root = tmp_path_factory.mktemp("alone")
    own = OwnRedis(root / "redis")
    yield {**os.environ, "STATE_DIR": str(root), "REDIS_URL": own.url}
    own.stop()


@contextmanager
def served(name: str, environ: dict[str, str]) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A function that answers at an address, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "functions.server", name]
    process = subprocess.Popen(command, cwd=ROOT, env={**environ, "PORT": str(port)}, stderr=subprocess.PIPE, text=True)
    try:
        for _ in poll(f"{name} to answer"):
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.TransportError:
                assert process.poll() is None, process.stderr and process.stderr.read()
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()


def token(environ: dict[str, str], name: str) -> dict[str, str]:
    """The header of a new caller."""
    return {"authorization": f"Bearer {add(Path(environ['STATE_DIR']) / 'tokens', name, 'run')}"}


def test_what_has_missed_its_cancellation_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader may (see `common.tasks.end`), and asyncio asks once."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def served(server: uvicorn.Server, sockets: object) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        try:
            with socket.socket() as unused:
                await _until_stopped(App(), Settings(), unused)
            assert task.cancelled()
        finally:
            await end([task])

    monkeypatch.setattr(uvicorn.Server, "serve", served)
    monkeypatch.setattr("functions.server.signal.signal", lambda number, handler: None)
    asyncio.run(main())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_function_is_served(name: str, environ: dict[str, str]) -> None:
    """At its own path and at nobody else's; it ends with 0 when it is told to stop."""
    with served(name, environ) as (place, process):
        shown = token(environ, name)
        answers = {
            other: httpx.request(method, f"http://{place}{path}", headers=shown).status_code
            for other, (method, path, _) in CALLS.items()
        }
        assert answers == {other: expected if other == name else 404 for other, (_, _, expected) in CALLS.items()}
        method, path, _ = CALLS[name]
        assert httpx.request(method, f"http://{place}{path}").status_code == (200 if name in OPEN else 401)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_stream_is_a_websocket_too(environ: dict[str, str]) -> None:
    """Where functions-framework would know none."""
    with (
        served("stream", environ) as (place, _),
        connect(f"ws://{place}{API}/stream", additional_headers=token(environ, "socket"), proxy=None) as client,
        pytest.raises(ConnectionClosedError) as closed,
    ):
        client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404


def test_one_function_imports_nothing_of_the_others() -> None:
    """Nor anything of the local runner: a cold start is a user waiting."""
    code = "import sys; from functions.server import function; function('status'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = [name for name in done.stdout.split() if name.startswith(("functions.", "common.local", "common.kube"))]
    assert sorted(ours) == ["functions.server", "functions.status", "functions.status.main"]


@pytest.mark.parametrize("arguments", [["nothing"], ["run", "status"], ["--help"]])
def test_what_is_no_function_is_refused(arguments: list[str]) -> None:
    """With a line that says which there are."""
    command = [sys.executable, "-m", "functions.server", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "usage: python -m functions.server [run | status | active | cancel | history | stream | docs | archive]\n",
    )
