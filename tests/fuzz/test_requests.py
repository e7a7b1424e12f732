"""Bytes at a real server's port, of all functions at once: each connection is answered in HTTP, or ended."""

import asyncio
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import strategies as st
from redis.asyncio import Redis

from common.callers import Role, add
from common.observe import configure_logging
from common.web import http1
from functions.server import application
from tests.fuzz import fuzz, wires
from tests.fuzz.answers import Answer, asked, assert_a_problem, taken_apart
from tests.fuzz.place import Notebook, ended, process
from tests.unit import samples
from tests.unit.logs import PATIENCE_SECONDS, eventually
from tests.unit.serving import Served, serve

PASSWORD = "hush-redis-password"
_WHOLE_SECONDS = 1.0  # a plain request has to get through on a busy machine
_STREAM_SECONDS = 0.6  # after which a stream that goes on is let go of
_REFUSALS = range(400, 499)  # 499: nobody was there any more to be told what was done
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass
class Given:
    """A server with what is behind it, and all that it logs."""

    served: Served
    runner: Notebook
    client: "Redis"
    tokens: dict[str, str]
    log: io.StringIO = field(default_factory=io.StringIO)

    def wire(self, text: bytes) -> bytes:
        """The bytes to send, with the tokens in their places."""
        for name, token in self.tokens.items():
            text = text.replace(b"{%b}" % name.encode(), token.encode())
        return text

    async def state(self) -> tuple[Any, set[bytes], set[bytes]]:
        """What a refused request must not change: what is written of runs; and the tickets, which end by themselves."""
        keys = [key async for key in self.client.scan_iter("nfc:*")]
        kept = {key for key in keys if key.split(b":")[1] in (b"run", b"answer")}
        return self.runner.written(), kept, {key for key in keys if key.startswith(b"nfc:ticket:")}

    async def talk(self, wire: bytes, cuts: list[int]) -> list[Answer]:
        """What comes of these bytes over a connection of their own, and of a plain request behind them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.served.port)
        raw = b""
        with suppress(ConnectionError):
            for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
                writer.write(wire[begin:end])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(LAST)
            while part := await self._next(reader, raw):
                raw += part
        transport: Any = writer.transport
        transport.abort()
        await eventually(lambda: not self.served.server.server_state.tasks, self.log.getvalue)
        return taken_apart(raw)

    async def _next(self, reader: asyncio.StreamReader, before: bytes) -> bytes:
        try:
            async with asyncio.timeout(_STREAM_SECONDS):
                return await reader.read(65_536)
        except TimeoutError:
            if (found := taken_apart(before)) and found[-1].is_stream:
                return b""
        async with asyncio.timeout(PATIENCE_SECONDS):  # whatever this is, it is no stream, and has to end
            return await reader.read(65_536)

    def records(self) -> list[dict[str, Any]]:
        """What was logged since the last time, each line by itself one record."""
        text = self.log.getvalue()
        self.log.seek(0)
        self.log.truncate()
        assert text == "" or text.endswith("\n")
        found = [json.loads(line) for line in text.split("\n")[:-1]]
        assert all(set(one) >= {"timestamp", "level", "logger", "event"} for one in found), text
        for secret in (*self.tokens.values(), PASSWORD, "secret-ticket"):
            assert secret not in text
        return found


@pytest.fixture(scope="module")
def given(loop: asyncio.Runner, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    """All functions behind one port, with a run that has ended; whoever is too slow is so soon."""
    root, stack = logging.getLogger(), AsyncExitStack()
    before = root.handlers, root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http1, "_WHOLE_SECONDS", _WHOLE_SECONDS)
        patch.setattr(http1, "_LINGER_SECONDS", 0.05)
        made = loop.run(_given(stack, redis_url, tmp_path_factory.mktemp("tokens") / "tokens"))
        patch.setattr("sys.stderr", made.log)
        configure_logging("INFO")
        try:
            yield made
        finally:
            loop.run(stack.aclose())
            root.handlers, root.level = before[0], before[1]


async def _given(stack: AsyncExitStack, url: str, tokens: Path) -> Given:
    roles: dict[str, Role] = {"read": "read", "run": "run"}
    shown = {name: add(tokens, name, role) for name, role in roles.items()}
    client = await stack.enter_async_context(Redis.from_url(url))
    await client.flushall()
    runner = Notebook(brief=True)
    runner.runs[samples.run_id(2)] = ended(2)
    parts = await stack.enter_async_context(
        process(url, runner, tokens_file=tokens, redis_password=PASSWORD, heartbeat_seconds=5)
    )
    served = await stack.enter_async_context(serve(parts, app=application()))
    return Given(served, runner, client, shown)


async def _play(given: Given, wire: bytes, cuts: list[int]) -> None:
    wire = given.wire(wire)
    before = await given.state()
    answers = await given.talk(wire, sorted(cut % (len(wire) + 1) for cut in cuts))
    for answer in answers:
        assert answer.status != httpx.codes.INTERNAL_SERVER_ERROR
        assert answer.whole or answer.is_stream, answer
        if answer.status >= httpx.codes.BAD_REQUEST:
            assert_a_problem(answer)
        for secret in (*given.tokens.values(), PASSWORD):
            assert secret.encode() not in answer.body
    records = given.records()
    assert [one for one in records if one["level"] in ("ERROR", "CRITICAL") or "exc_info" in one] == []
    answered = [one for one in records if one["event"] == "answered"]
    if all(one["status"] in _REFUSALS or one["path"] == "/healthz" for one in answered):
        written, kept, tickets = await given.state()
        assert (written, kept) == before[:2]
        assert tickets <= before[2]
    _assert_seen_alike(wire + LAST, answered)
    alone = await given.talk(b"", [])
    assert [(answer.status, answer.body) for answer in alone] == [(200, b'{"status":"alive"}')]
    given.records()


def _assert_seen_alike(wire: bytes, answered: list[dict[str, Any]]) -> None:
    """Another server that takes all these requests takes the same: nothing can be smuggled past it."""
    seen = Counter(one["method"] for one in answered)
    if seen["WS"]:  # what comes after the handshake is no HTTP
        return
    other = Counter(method for method, _ in asked(wire))
    assert seen <= other or other <= seen, (wire, answered)
    paths = {target.partition(b"?")[0] for _, target in asked(wire)}
    if seen == other and all(path.startswith(b"/api/") and b"%" not in path and b"#" not in path for path in paths):
        assert {one["path"].encode("latin-1", "replace") for one in answered} == paths


@fuzz(wires.WIRES, wires.CUTS, share=2)
def test_bytes_at_the_port(
    given: Given,
    loop: asyncio.Runner,
    wire: bytes,
    cuts: list[int],  # what Hypothesis gives
) -> None:
    """Requests of every bad kind, in pieces: HTTP comes back, no 500, nothing is changed by what is refused."""
    loop.run(_play(given, wire, cuts))


@fuzz(st.lists(wires.FRAMINGS, min_size=1, max_size=3), wires.CUTS, share=4)
def test_bodies_one_behind_the_other(
    given: Given,
    loop: asyncio.Runner,
    framings: list[tuple[list[bytes], bytes]],
    cuts: list[int],  # what Hypothesis gives
) -> None:
    """Where one ends the next request begins, here as everywhere, or the connection ends."""
    head = b"POST /api/v1/pipeline/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {run}\r\n"
    wire = b"".join(
        head + b"".join(line + b"\r\n" for line in [b"Content-Type: application/json", *told]) + b"\r\n" + body
        for told, body in framings
    )
    loop.run(_play(given, wire, cuts))
