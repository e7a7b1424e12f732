"""What no client sends: connections that say nothing, heads and bodies without an end, frames of every bad kind."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from common.connection import Connection
from common.settings import Settings
from common.web import http1
from common.web.http1 import HEAD_BYTES
from tests.unit.logs import World, eventually
from tests.unit.serving import OPEN, Served, counted, given, serve, served
from tests.unit.test_stream_websocket import handshake

__all__ = ["given", "served"]  # fixtures

pytestmark = pytest.mark.slow

STREAM = b"/api/v1/pipeline/stream"
TICKET = b"POST %b/ticket HTTP/1.1\r\nHost: localhost\r\n" % STREAM
SHORT_SECONDS = 0.2


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is slow is so sooner."""
    monkeypatch.setattr(http1, "_WHOLE_SECONDS", SHORT_SECONDS)


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that a test speaks on by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str]:
    """The problem that a connection ends with: status and type; nothing comes after it."""
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    problem = json.loads(body)
    assert problem["status"] == int(head.split()[1])
    return problem["status"], problem["type"].rpartition(":")[2]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for who has been refused."""
    monkeypatch.setattr(http1, "_LINGER_SECONDS", 0.5)


async def is_well(served: Served) -> None:
    """Others are served, and nothing of it is left."""
    assert (await served.http.get("/stream?follow=false")).status_code == httpx.codes.OK
    await served.http.aclose()
    await eventually(lambda: not served.server.server_state.connections)
    await eventually(lambda: not served.server.server_state.tasks)
    assert counted() == {}


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n",
        b"G",
        b"GET %b HTTP/1.1\r\nHost: loc" % STREAM,
        b"GET %b HTTP/1.1\r\nHost: localhost\r\n" % STREAM,
        TICKET + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        TICKET + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
async def test_who_does_not_finish_a_request_is_cut(given: World, served: Served, said: bytes) -> None:
    """Nothing, a blank line, half a head, half a body: 408 or, where it was answered already, an end."""
    given.runner.start()
    async with connected(served) as (reader, writer):
        writer.write(said)
        if said.startswith(b"POST"):
            assert (await reader.read()).split()[1] in (b"201", b"408", b"422")
        else:
            assert await refusal(reader) == (408, "too-slow")
    await is_well(served)


@pytest.mark.usefixtures("hurried")
async def test_a_byte_now_and_then_is_no_request(given: World, served: Served) -> None:
    """What counts is when the whole is there, not when the last byte came."""
    given.runner.start()
    async with connected(served) as (reader, writer):
        answer = asyncio.create_task(refusal(reader))
        while not answer.done():
            writer.write(b"\r\n")
            await asyncio.sleep(SHORT_SECONDS / 10)
        assert await answer == (408, "too-slow")
    await is_well(served)


@pytest.mark.usefixtures("hurried")
async def test_a_stream_may_last(given: World, served: Served) -> None:
    """The time is for requests: answers take as long as runs do, whatever else the client begins to say meanwhile."""
    run_id = given.runner.start()
    async with connected(served) as (reader, writer):
        writer.write(b"GET %b?types=log HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n" % STREAM)
        await reader.readuntil(b"event: status")
        writer.write(b"GET")
        await asyncio.sleep(3 * SHORT_SECONDS)
        given.runner.write(run_id, b"here")
        given.runner.end(run_id)
        await reader.readuntil(b"event: complete")
        await reader.readuntil(b"0\r\n\r\n")
        assert await refusal(reader) == (408, "too-slow")
    await is_well(served)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nX: %b" % (b"x" * HEAD_BYTES), b"\x00\x01 no HTTP\r\n\r\n"])
async def test_nothing_is_said_in_the_middle_of_an_answer(given: World, served: Served, said: bytes) -> None:
    """Who sends what is no request while it is answered is cut: a refusal would be read as a part of the stream."""
    given.runner.start()
    async with connected(served) as (reader, writer):
        writer.write(b"GET %b?types=log HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n" % STREAM)
        await reader.readuntil(b"event: status")
        writer.write(said)
        rest = b""
        with suppress(ConnectionError):
            while part := await reader.read(1000):
                rest += part
        assert b"HTTP/1.1" not in rest
    await is_well(served)


@pytest.mark.parametrize("whole", [False, True], ids=["endless", "whole"])
@pytest.mark.parametrize("line", [b"X-Bomb: %b", b"X-%b: x", b"GET /%b HTTP/1.1"], ids=["value", "name", "path"])
async def test_a_head_that_is_too_long(given: World, served: Served, whole: bool, line: bytes) -> None:
    """Refused as soon as that is seen: it is neither kept nor parsed any further."""
    given.runner.start()
    first = b"" if line.startswith(b"GET") else b"GET %b HTTP/1.1\r\nHost: localhost\r\n" % STREAM
    before, _, after = line.partition(b"%b")
    async with connected(served) as (reader, writer):
        writer.write(first + before)
        writer.write(b"x" * (HEAD_BYTES + 1))
        if whole:
            writer.write(after + b"\r\n\r\n")
        assert await refusal(reader) == (431, "head-too-long")
    await is_well(served)


async def test_many_headers_are_a_long_head(given: World, served: Served) -> None:
    """One by one they are short."""
    given.runner.start()
    async with connected(served) as (reader, writer):
        writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n" % STREAM + b"X-A: b\r\n" * 20_000 + b"\r\n")
        assert await refusal(reader) == (431, "head-too-long")
    await is_well(served)


async def test_the_next_heads_are_measured_each_by_itself(given: World, served: Served) -> None:
    """A connection that is kept open is not refused for what it has sent in all."""
    given.runner.start()
    request = b"GET %b?follow=false HTTP/1.1\r\nHost: localhost\r\nX-A: %b\r\n\r\n" % (STREAM, b"x" * (HEAD_BYTES // 2))
    async with connected(served) as (reader, writer):
        for _ in range(5):
            writer.write(request)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"0\r\n\r\n")
    await is_well(served)


async def test_a_client_that_sends_for_ever_behind_its_request(given: World, served: Served) -> None:
    """A body that nobody asked for is not kept while the stream goes on."""
    run_id = given.runner.start()
    async with connected(served) as (reader, writer):
        writer.write(
            b"GET %b?types=log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
            b"Accept: text/event-stream\r\n\r\n" % STREAM
        )
        await reader.readuntil(b"event: status")
        for _ in range(64):
            writer.write(b"x" * 65_536)
        connection: Any
        [connection] = served.server.server_state.connections
        await eventually(lambda: connection.flow.read_paused or not connection.cycle.body)
        given.runner.write(run_id, b"here")
        await reader.readuntil(b"event: log")
        given.runner.end(run_id)
        await reader.readuntil(b"event: complete")
    await is_well(served)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A frame as a client sends it, or as none does (RFC 6455, 5.2)."""
    head = bytes([fin << 7 | reserved << 4 | opcode])
    length = len(payload)
    if length < 126:
        head += bytes([masked << 7 | length])
    elif length < 65_536:
        head += bytes([masked << 7 | 126]) + length.to_bytes(2)
    else:
        head += bytes([masked << 7 | 127]) + length.to_bytes(8)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
BAD_FRAMES: dict[str, tuple[bytes, int]] = {
    "not masked": (frame(TEXT, b"x", masked=False), 1002),
    "reserved bits": (frame(TEXT, b"x", reserved=4), 1002),
    "opcode 3": (frame(3, b"x"), 1002),
    "opcode 11": (frame(11), 1002),
    "a control frame in pieces": (frame(PING, fin=False), 1002),
    "a long control frame": (frame(PING, b"x" * 126), 1002),
    "goes on with nothing": (frame(CONT, b"x"), 1002),
    "begins twice": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "too long": (frame(BINARY, b"x" * 1025), 1009),
    "too long in pieces": (frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 600), 1009),
    "says that it is endless": (bytes([0x82, 0xFF]) + (2**63 - 1).to_bytes(8) + b"mask", 1009),
    "a length beyond 63 bits": (bytes([0x82, 0xFF]) + (2**64 - 1).to_bytes(8) + b"mask", 1009),
    "no UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "a close of one byte": (frame(CLOSE, b"x"), 1002),
    "a close with a code that is none": (frame(CLOSE, (1005).to_bytes(2)), 1002),
    "a close with a code below all": (frame(CLOSE, (999).to_bytes(2)), 1002),
    "a close whose reason is no UTF-8": (frame(CLOSE, (1000).to_bytes(2) + b"\xff"), 1007),
    "a text": (frame(TEXT, b"hello"), 1003),
    "a text in pieces with a ping between": (
        frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONT, b"b"),
        1003,
    ),
}


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code of the close frame that a WebSocket ends with, whatever was sent before it."""
    while True:
        opcode, length = await reader.readexactly(2)
        size = {126: 2, 127: 8}.get(length)
        payload = await reader.readexactly(int.from_bytes(await reader.readexactly(size)) if size else length)
        if opcode == 0x80 | CLOSE:
            return int.from_bytes(payload[:2])


@asynccontextmanager
async def upgraded(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket, shaken hands on, that a test speaks on by itself."""
    async with connected(served) as (reader, writer):
        writer.write(handshake(served.port))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        yield reader, writer


@pytest.mark.parametrize("kind", BAD_FRAMES)
async def test_bad_frames_end_a_websocket(
    given: World, served: Served, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """With the code that says why; others go on, and nothing is logged as an error of ours."""
    run_id = given.runner.start()
    sent, code = BAD_FRAMES[kind]
    async with served.socket() as other, upgraded(served) as (reader, writer):
        await other.recv()
        writer.write(sent)
        assert await close_code(reader) == code
        assert await reader.read() == b""
        await eventually(lambda: counted() == {"websocket": 1, "readers": 1}, counted)
        given.runner.write(run_id, b"here")
        assert '"line":"here"' in str(await other.recv())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    await is_well(served)


async def test_half_a_frame_holds_nobody_up(given: World) -> None:
    """Whoever says no more answers no ping either."""
    given.runner.start()
    async with serve(given.process(**OPEN, heartbeat_seconds=0.2)) as served:
        async with upgraded(served) as (reader, writer):
            writer.write(frame(TEXT, b"x" * 100)[:7])
            await reader.read()
        await is_well(served)


async def test_a_flood_of_pings_is_answered_in_bounded_memory(given: World, served: Served) -> None:
    """Pongs that their sender does not read are not piled up without an end."""
    run_id = given.runner.start()
    async with upgraded(served) as (reader, writer):
        await eventually(lambda: counted() == {"websocket": 1, "readers": 1}, counted)
        connection: Any
        [connection] = [one for one in served.server.server_state.connections if hasattr(one, "conn")]
        most = 0
        for _ in range(500):
            writer.write(frame(PING, b"x" * 125) * 100)
            await asyncio.sleep(0)
            most = max(most, connection.transport.get_write_buffer_size())
        assert most < 1024 * 1024
        given.runner.end(run_id)
        while await reader.read(65_536):
            pass
    await is_well(served)


@pytest.mark.parametrize("part", ["handshake", "stream"])
async def test_clients_that_vanish(given: World, served: Served, part: str) -> None:
    """A hundred that are reset at once leave nothing behind."""
    given.runner.start()

    async def vanish(number: int) -> None:
        async with connected(served) as (reader, writer):
            if number % 2:
                writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n" % STREAM)
            else:
                writer.write(handshake(served.port))
            if part == "stream":
                await reader.read(10)
            transport: Any = writer.transport
            transport.abort()

    await asyncio.gather(*map(vanish, range(100)))
    await eventually(lambda: counted() == {}, counted)
    await is_well(served)


async def test_text_with_control_characters_does_not_get_into_the_log(
    given: World, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """A path or a request id with line ends or escapes is one line of the access log, or none at all."""
    given.runner.start()
    caplog.set_level("INFO")
    await served.http.get("/stream%0Afake:%20line%1B[31m")
    await served.http.get("/stream?follow=false", headers=[("x-request-id", "a b\tc")])
    answered = [vars(record) for record in caplog.records if record.name == "access"]
    assert len(answered) == 2
    assert all("a b" not in str(one.get("request_id")) for one in answered)


async def statuses(reader: asyncio.StreamReader) -> list[int]:
    """Of all answers until the connection ends."""
    return [int(part[:3]) for part in (await reader.read()).split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("behind", "status"),
    [(b"\x00\x01 no HTTP\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nX: %b" % (b"x" * 3 * HEAD_BYTES), 431), (b"shake", 400)],
    ids=["noise", "endless", "a WebSocket"],
)
async def test_what_was_asked_before_is_answered_before_a_refusal(
    given: World, served: Served, caplog: pytest.LogCaptureFixture, behind: bytes, status: int
) -> None:
    """Or the refusal would be taken for its answer, though it has been done; and each is answered once."""
    given.runner.start()
    behind = handshake(served.port) if behind == b"shake" else behind
    async with connected(served) as (reader, writer):
        asked = b"GET %b?follow=false HTTP/1.1\r\nHost: localhost\r\n\r\n" % STREAM
        writer.write(asked + TICKET + b"Content-Length: 2\r\n\r\n{}" + behind)
        assert await statuses(reader) == [200, 201, status]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    await is_well(served)


async def test_what_is_not_whole_is_not_done(given: World, served: Served) -> None:
    """A request that changes something is refused for a broken body, though nobody reads that."""
    given.runner.start()
    client = Connection.open(Settings(redis_url=given.url))
    async with connected(served) as (reader, writer), client.use() as redis:
        asked = b"GET %b?follow=false HTTP/1.1\r\nHost: localhost\r\n\r\n" % STREAM
        writer.write(TICKET + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n" + asked)
        assert await statuses(reader) == [400]
        assert await redis.keys("nfc:ticket:*") == []
    await client.close()
    await is_well(served)


async def test_a_websocket_whose_handshake_has_a_body(given: World, served: Served) -> None:
    """It is refused, and not waited on for ever."""
    given.runner.start()
    async with connected(served) as (reader, writer):
        writer.write(handshake(served.port).replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"))
        assert await refusal(reader) == (400, "http")
    await is_well(served)
