"""The stream function of a world's process, served as it is deployed, in the test's own loop; and clients of it."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from common.metrics import FOLLOWERS, TAILERS
from common.platform import Platform
from common.web.app import App
from common.web.endpoint import PREFIX
from functions.server import configuration
from functions.stream.main import stream
from tests.unit.logs import World, eventually, world

FIXTURES = Path(__file__).parents[1] / "fixtures"
SSE = {"accept": "text/event-stream"}
NDJSON = {"accept": "application/x-ndjson"}
OPEN: dict[str, Any] = {"auth": "off", "rate_limits": "off"}  # settings of a process that lets everybody in
_SMALL_BYTES = 4096
_READ_SECONDS = 60


@dataclass
class Served:
    """A server, and clients that find it by themselves."""

    port: int
    http: httpx.AsyncClient
    server: uvicorn.Server

    def socket(self, query: str = "", path: str = PREFIX + "/stream", **options: Any) -> connect:
        """A WebSocket; no proxy of the environment stands before this machine."""
        url = f"ws://127.0.0.1:{self.port}{path}{query and '?' + query}"
        return connect(url, proxy=None, compression=None, max_size=None, **options)

    async def told(self, query: str = "", **options: Any) -> "Told":
        """All that a WebSocket is sent until the server closes it."""
        async with self.socket(query, **options) as client:
            return await read(client)


@dataclass
class Told:
    """What came over a WebSocket, and how it ended."""

    messages: list[str]
    code: int
    reason: str

    @property
    def end(self) -> tuple[int, str]:
        """The close frame."""
        return self.code, self.reason

    @property
    def events(self) -> list[dict[str, Any]]:
        """The messages' events."""
        return [json.loads(message) for message in self.messages]


async def read(client: ClientConnection) -> Told:
    """Read a WebSocket to its end."""
    messages: list[str] = []
    with suppress(ConnectionClosed):
        async with asyncio.timeout(_READ_SECONDS):
            while True:
                message = await client.recv()
                assert isinstance(message, str)
                messages.append(message)
    end = client.protocol.close_rcvd
    assert end is not None, "no close frame came"
    return Told(messages, end.code, end.reason)


@asynccontextmanager
async def serve(parts: Platform, *, narrow: bool = False, app: App = stream.app) -> AsyncIterator[Served]:
    """A real server of an application on a free port; `narrow`: the kernel takes little off its hands."""
    config = configuration(App(*app.endpoints, open_platform=lambda: parts), parts.settings)
    config.lifespan = "off"  # the world lets go of its platforms
    config.timeout_graceful_shutdown = 10
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        if narrow:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BYTES)
        # The test's logging and signal handlers stay as they are.
        patch.setattr("common.web.app.configure_logging", lambda level: None)
        patch.setattr("common.shutdown.Shutdown.listen", lambda self: None)
        task = asyncio.create_task(server._serve([listener]))
        await eventually(lambda: server.started)
        port = listener.getsockname()[1]
        base = f"http://127.0.0.1:{port}{PREFIX}"
        try:
            async with httpx.AsyncClient(base_url=base, timeout=20, trust_env=False) as client:
                yield Served(port, client, server)
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, 20)


def small_socket(port: int) -> socket.socket:
    """A client's socket that the kernel keeps next to nothing for."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


TRANSPORTS = ("sse", "ndjson", "text", "websocket")


def counted() -> dict[str, float]:
    """Who follows, by transport, and how many logs are read for them; what there is none of is left out."""
    gauges = {name: FOLLOWERS.labels(name) for name in TRANSPORTS} | {"readers": TAILERS}
    return {name: gauge._value.get() for name, gauge in gauges.items() if gauge._value.get()}


def finish(given: World) -> str:
    """A run that has ended, with the lines that are hard to carry."""
    run_id = given.runner.start()
    given.runner.write(
        run_id, b"2026-11-24T01:02:03Z begins", b"", "ünï # \u2028".encode(), b"\xff\x00\r raw", b"oops!"
    )
    given.runner.end(run_id)
    return run_id


_NOW = re.compile(r'("type":"(?:status|complete|gap|restarted|error|progress)","run_id":"[^"]+","timestamp":)"[^"]+"')


def recorded(name: str, body: str) -> None:
    """Compare a body with the one that was recorded, but for the time at which notices were made."""
    assert _NOW.sub(r'\1"NOW"', body) == (FIXTURES / name).read_bytes().decode()


def unstamped(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events but for the time at which notices were made."""
    return [event if event["type"] == "log" else {**event, "timestamp": "NOW"} for event in events]


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process(**OPEN)
        yield made


@pytest.fixture
async def served(given: World) -> AsyncIterator[Served]:
    """The world's first process, served; when it is closed nobody follows any more."""
    async with serve(given.processes[0]) as made:
        yield made
    await eventually(lambda: counted() == {}, counted)
