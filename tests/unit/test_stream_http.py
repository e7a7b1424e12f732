"""Streams over HTTP, as bytes: what is sent on each transport, and how input is refused."""

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from common.events import Cursor
from tests.unit import samples
from tests.unit.logs import World, eventually, world
from tests.unit.serving import NDJSON, OPEN, SSE, counted, finish, recorded, serve
from tests.unit.test_follow import hurry, texts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process(**OPEN)
        yield made


@pytest.fixture
async def client(given: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the world's first process; when it is closed nobody follows any more."""
    async with serve(given.processes[0]) as served:
        yield served.http
    await eventually(lambda: counted() == {}, counted)


async def test_a_finished_run_as_server_sent_events(given: World, client: httpx.AsyncClient) -> None:
    """Byte for byte as recorded; never cached, collected or compressed on its way."""
    finish(given)
    answer = await client.get("/stream", headers=SSE)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in ("content-type", "cache-control", "x-accel-buffering")} == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    recorded("finished.eventsource", answer.text)


async def test_a_finished_run_as_ndjson(given: World, client: httpx.AsyncClient) -> None:
    """Byte for byte as recorded: one event a line."""
    finish(given)
    for accept in ("application/x-ndjson", "application/ndjson"):
        answer = await client.get("/stream", headers={"accept": accept})
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["cache-control"] == "no-store"
        recorded("finished.ndjson", answer.text)


async def test_a_finished_run_as_text(given: World, client: httpx.AsyncClient) -> None:
    """The log's own bytes, a line a line; with `timestamps` each begins with its cursor."""
    run_id = finish(given)
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
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/ndjson;q=0.9, text/plain;q=0.8", "application/x-ndjson"),
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
    finish(given)
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
        ("tail=-1", {}, "tail"),
        ("tail=many", {}, "tail"),
        ("tail=100001", {}, "tail"),
        ("run_id=../etc", {}, "run_id"),
        ("follow=perhaps", {}, "follow"),
        ("nonsense=1", {}, "nonsense"),
        ("tail=1&tail=2", {}, "tail"),
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
    end = f"{finish(given)}.1.end"
    for options in ({"headers": {**SSE, "last-event-id": end}}, {"params": {"after": end}}):
        answer = await client.get("/stream", **options)  # type: ignore[arg-type] # each is one of its options
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    # What a browser has seen last counts more than the URL it began with.
    again = await client.get(f"/stream?after={end[:-3]}0-0", headers={**SSE, "last-event-id": end})
    assert again.status_code == 204


async def test_head_ends(given: World, client: httpx.AsyncClient) -> None:
    """It has the headers of GET, and does not stay; how long a stream is going to be it does not claim to know."""
    given.runner.start()
    for accept, kind in ((SSE, "text/event-stream"), (NDJSON, "application/x-ndjson"), ({}, "text/plain")):
        answer = await client.head("/stream", headers=accept)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert "content-length" not in answer.headers


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


FAREWELLS = {
    "text/event-stream": ": the server is stopping; come back with Last-Event-ID\n",
    "application/x-ndjson": "",
    "text/plain": "# the server is stopping; go on with after={cursor}\n",
}


@pytest.mark.parametrize("accept", FAREWELLS)
async def test_shutdown_says_farewell(given: World, accept: str) -> None:
    """A server that stops ends its streams in the middle of their silence; from where they were all goes on."""
    run_id = given.runner.start()
    given.runner.write(run_id, b"one")
    parts = given.processes[0]
    cursor = Cursor(run_id, 1, given.runner.runs[run_id].lines[0].id)
    found = b""
    async with serve(parts) as served, served.http.stream("GET", "/stream", headers={"accept": accept}) as answer:
        chunks = answer.aiter_raw()
        while b"one" not in found:
            found += await anext(chunks)
        parts.shutdown.begin()
        found += b"".join([chunk async for chunk in chunks])
    assert accept == "text/plain" or f'"id":"{cursor}"'.encode() in found
    last = found.decode().rpartition("one")[2].partition("\n")[2].lstrip("\n")
    assert last == FAREWELLS[accept].format(cursor=cursor)
    assert counted() == {}
    given.runner.write(run_id, b"two")
    given.runner.end(run_id)
    async with serve(given.process(**OPEN)) as served:
        assert (await served.http.get("/stream", params={"after": str(cursor)})).text == "two\n"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", rb"retry: 1000\nid: [^\n]+\nevent: status\ndata: [^\n]+\n\n(: still here\n){2}"),
        ("application/x-ndjson", rb"{[^\n]+}\n\n\n"),
    ],
)
async def test_a_silent_stream_has_heartbeats(given: World, accept: str, expected: bytes) -> None:
    """As comments and empty lines, which no client takes for an event."""
    given.runner.start()
    parts = given.process(**OPEN, heartbeat_seconds=0.05)
    async with serve(parts) as served, served.http.stream("GET", "/stream", headers={"accept": accept}) as answer:
        found = b""
        async for chunk in answer.aiter_raw():
            found += chunk
            if re.fullmatch(expected, found):
                break
            assert len(found) < 2_000, found


async def test_text_has_no_heartbeats(given: World) -> None:
    """What `curl -N` prints is the log and nothing else, however long it is silent."""
    run_id = given.runner.start()
    parts = given.process(**OPEN, heartbeat_seconds=0.01)
    async with serve(parts) as served, served.http.stream("GET", "/stream") as text:
        async with served.http.stream("GET", "/stream", headers=NDJSON) as beside:
            beats = beside.aiter_raw()
            while (await anext(beats)) != b"\n":
                pass  # it was silent for longer than a heartbeat
        given.runner.write(run_id, b"line")
        given.runner.end(run_id)
        assert await text.aread() == b"line\n"
