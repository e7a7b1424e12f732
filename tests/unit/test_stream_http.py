"""Streams over HTTP, as bytes: what is sent on each transport, and how input is refused."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from common.events import Cursor
from common.follow import followers
from common.observe import FOLLOWERS, TAILERS
from common.platform import Platform
from common.web.app import App, Endpoint
from common.web.stream import respond
from tests.unit import samples
from tests.unit.logs import World, eventually, world
from tests.unit.test_follow import hurry, texts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "fixtures"
SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process()
        yield made


@asynccontextmanager
async def serve(parts: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server on a free port."""

    async def stream(request: Any, platform: Platform) -> Any:
        return await respond(request, followers(platform), platform.settings)

    app = App(Endpoint("stream", "GET", "/stream", stream), open_platform=lambda: parts)
    app._begun = True  # neither logging nor signal handlers in a test
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=10))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined] # of older versions
    task = asyncio.create_task(server._serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)


@pytest.fixture
async def client(given: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the world's first process; when it is closed nobody follows any more."""
    async with serve(given.processes[0]) as made:
        yield made
    await eventually(lambda: _counted() == (0, 0, 0))


def _counted() -> tuple[float, ...]:
    return tuple(gauge._value.get() for gauge in (FOLLOWERS.labels("sse"), FOLLOWERS.labels("text"), TAILERS))


def _finished(given: World) -> str:
    run_id = given.runner.start()
    given.runner.write(
        run_id, b"2026-11-24T01:02:03Z begins", b"", "ünï # \u2028".encode(), b"\xff\x00\r raw", b"oops!"
    )
    given.runner.end(run_id)
    return run_id


def _recorded(name: str, body: str) -> None:
    """Compare a body with the one that was recorded, but for the time at which notices were made."""
    now = re.compile(r'("type":"(?:status|complete|gap|error|progress)","run_id":"[^"]+","timestamp":)"[^"]+"')
    assert now.sub(r'\1"NOW"', body) == (FIXTURES / name).read_bytes().decode()


async def test_a_finished_run_as_server_sent_events(given: World, client: httpx.AsyncClient) -> None:
    """Byte for byte as recorded; never cached, collected or compressed on its way."""
    _finished(given)
    answer = await client.get("/stream", headers=SSE)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in ("content-type", "cache-control", "x-accel-buffering")} == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    _recorded("finished.eventsource", answer.text)


async def test_a_finished_run_as_text(given: World, client: httpx.AsyncClient) -> None:
    """The log's own bytes, a line a line; with `timestamps` each begins with its cursor."""
    run_id = _finished(given)
    log = [raw.text for raw in given.runner.runs[run_id].raw]
    answer = await client.get("/stream", headers={"accept": "text/plain"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == b"".join(text + b"\n" for text in log)
    lines = given.runner.runs[run_id].lines
    stamped = await client.get("/stream?timestamps=true&tail=2")
    assert stamped.content == b"".join(b"%b %b\n" % (str(Cursor(run_id, 1, x.id)).encode(), x.text) for x in lines[-2:])
    states = await client.get("/stream?types=status")
    assert [line.partition(b":")[0] for line in states.content.splitlines()] == [b"# status", b"# complete"]
    rest = await client.get(f"/stream?after={Cursor(samples.run_id(9), 1, lines[0].id)}&tail=1")
    assert rest.content.startswith(b'# gap: {"reason":"The cursor ')


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", "text/event-stream"),
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("text/html, */*;q=0.1", "text/plain"),
        ("text/plain;q=0.5, text/event-stream;q=0.6", "text/event-stream"),
        ("text/event-stream;q=0, text/plain", "text/plain"),
        ("TEXT/EVENT-STREAM", "text/event-stream"),
        ("application/json", None),
        ("text/event-stream;q=0", None),
        ("text/event-stream;q=nonsense", None),
        ("text/plain;q=nan", None),
        ("", None),
    ],
)
async def test_accept_decides(given: World, client: httpx.AsyncClient, accept: str, expected: str | None) -> None:
    """What the client would rather have; 406 where there is none of it."""
    _finished(given)
    answer = await client.get("/stream?follow=false", headers={"accept": accept})
    kind = answer.headers["content-type"].partition(";")[0]
    assert (answer.status_code, kind) == ((200, expected) if expected else (406, "application/problem+json"))


@pytest.mark.parametrize(
    ("query", "headers", "pointer"),
    [
        ("after=nonsense", {}, "after"),
        ("", {"last-event-id": "0-0"}, "Last-Event-ID"),
        ("types=log,nonsense", {}, "types"),
        ("types=", {}, "types"),
        ("tail=-1", {}, "/tail"),
        ("tail=many", {}, "/tail"),
        ("tail=100001", {}, "/tail"),
        ("run_id=../etc", {}, "/run_id"),
        ("follow=perhaps", {}, "/follow"),
        ("nonsense=1", {}, "/nonsense"),
        ("tail=1&tail=2", {}, "/tail"),
    ],
)
async def test_what_cannot_be_used_is_named(
    client: httpx.AsyncClient, query: str, headers: dict[str, str], pointer: str
) -> None:
    """422 with the place."""
    answer = await client.get(f"/stream?{query}", headers={**SSE, **headers})
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [pointer])


async def test_no_run_is_404_and_an_end_is_204(given: World, client: httpx.AsyncClient) -> None:
    """Before anything is streamed."""
    assert (await client.get("/stream", headers=SSE)).status_code == 404
    assert (await client.get(f"/stream?run_id={samples.run_id(7)}", headers=SSE)).status_code == 404
    end = f"{_finished(given)}.1.end"
    for options in ({"headers": {**SSE, "last-event-id": end}}, {"params": {"after": end}}):
        answer = await client.get("/stream", **options)  # type: ignore[arg-type] # each is one of its options
        assert (answer.status_code, answer.content) == (204, b"")
    # What a browser has seen last counts more than the URL it began with.
    again = await client.get(f"/stream?after={end[:-3]}0-0", headers={**SSE, "last-event-id": end})
    assert again.status_code == 204


async def test_head_ends(given: World, client: httpx.AsyncClient) -> None:
    """It has the headers of GET, and does not stay."""
    given.runner.start()
    answer = await client.head("/stream", headers=SSE)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_cut_and_resumed_by_last_event_id(given: World, client: httpx.AsyncClient) -> None:
    """A client that is cut after every few lines has each line once, and counts as gone at once."""
    run_id = given.runner.start()
    seen: list[str] = []
    last: str | None = None
    for cut in range(20):
        given.runner.write(run_id, *texts(5, 5 * cut))
        async with client.stream("GET", "/stream", headers=SSE | ({"last-event-id": last} if last else {})) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    last = line[4:]
                if line.startswith("data: ") and (event := json.loads(line[6:]))["type"] == "log":
                    seen.append(event["data"]["line"])
                    if len(seen) >= 3 + 5 * cut:
                        break
    given.runner.end(run_id)
    rest = await client.get("/stream", headers=SSE | {"last-event-id": str(last)})
    seen += re.findall(r'"data":{"line":"([^"]*)"', rest.text)
    assert [line.encode() for line in seen] == texts(100)


async def test_shutdown_says_farewell(given: World) -> None:
    """A server that stops ends its streams in the middle of their silence, with a place to go on."""
    run_id = given.runner.start()
    given.runner.write(run_id, b"one")
    parts = given.processes[0]
    cursor = Cursor(run_id, 1, given.runner.runs[run_id].lines[0].id)
    async with (
        serve(parts) as client,
        client.stream("GET", "/stream", headers=SSE) as sse_answer,
        client.stream("GET", "/stream") as text_answer,
    ):
        sse_chunks, text_chunks = sse_answer.aiter_raw(), text_answer.aiter_raw()
        sse, text = b"", b""
        while b"event: log" not in sse:
            sse += await anext(sse_chunks)
        while b"one" not in text:
            text += await anext(text_chunks)
        parts.shutdown.begin()
        sse += b"".join([chunk async for chunk in sse_chunks])
        text += b"".join([chunk async for chunk in text_chunks])
    assert sse.endswith(b": the server is stopping; come back with Last-Event-ID\n\n")
    assert f"id: {cursor}\n".encode() in sse
    assert text == b"one\n# the server is stopping; go on with after=%b\n" % str(cursor).encode()
    assert _counted() == (0, 0, 0)


async def test_a_silent_stream_has_heartbeats(given: World) -> None:
    """As comments, which no client takes for an event."""
    given.runner.start()
    async with (
        serve(given.process(heartbeat_seconds=0.05)) as client,
        client.stream("GET", "/stream", headers=SSE) as answer,
    ):
        found = b""
        async for chunk in answer.aiter_raw():
            found += chunk
            if found.count(b": still here\n\n") == 2:
                break
    assert re.fullmatch(rb"retry: 1000\n\nid: [^\n]+\nevent: status\ndata: [^\n]+\n\n(: still here\n\n){2}", found)
