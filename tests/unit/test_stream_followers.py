"""Many followers of one run over different transports: the same events, read and encoded once, none slowing another."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from common import follow, reader
from common.events import ZERO, Encoded, LineId, encode_lines
from common.frames import Lines
from common.streams import Streams
from tests.unit.logs import World, asks, eventually
from tests.unit.serving import (
    NDJSON,
    SSE,
    Served,
    counted,
    finish,
    given,
    read,
    serve,
    served,
    small_socket,
    unstamped,
)
from tests.unit.test_follow import hurry, texts

__all__ = ["given", "hurry", "served"]  # fixtures

pytestmark = pytest.mark.slow


async def over_sse(served: Served) -> list[dict[str, Any]]:
    """The events of a run that ends, each with the id and type that an EventSource would see."""
    answer = await served.http.get("/stream", headers=SSE)
    events = []
    for block in answer.text.removeprefix("retry: 1000\n").split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        event = json.loads(fields["data"])
        assert (fields["id"], fields["event"]) == (event["id"], event["type"])
        events.append(event)
    return events


async def over_ndjson(served: Served) -> list[dict[str, Any]]:
    """The same over NDJSON."""
    answer = await served.http.get("/stream", headers=NDJSON)
    return [json.loads(line) for line in answer.text.split("\n") if line]


async def over_websocket(served: Served) -> list[dict[str, Any]]:
    """The same over WebSocket."""
    return (await served.told()).events


async def test_the_same_events_over_every_transport(given: World, served: Served) -> None:
    """Server-Sent Events, NDJSON and WebSocket: the same objects with the same ids, and text the same lines."""
    finish(given)
    sse, ndjson, websocket = (
        unstamped(events)
        for events in (await over_sse(served), await over_ndjson(served), await over_websocket(served))
    )
    assert sse == ndjson == websocket
    assert [event["type"] for event in sse] == ["status", *["log"] * 5, "complete"]
    text = await served.http.get("/stream?timestamps=true")
    logs = [event for event in sse if event["type"] == "log"]
    assert [line.split(b" ")[0].decode() for line in text.content.split(b"\n")[:-1]] == [event["id"] for event in logs]


async def test_ten_followers_are_one_reader(given: World, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a live run, over every transport: its log is read once, and each line made into JSON once."""
    encoded: Counter[str] = Counter()

    def count(*batch: Any) -> list[Encoded]:
        found = encode_lines(*batch)
        encoded.update(cursor for cursor, _, _ in found)
        return found

    monkeypatch.setattr("common.web.transports.encode_lines", count)
    run_id = given.runner.start()
    ways = [over_sse, over_ndjson, over_websocket] * 3
    others = [asyncio.create_task(way(served)) for way in ways]
    text = asyncio.create_task(served.http.get("/stream"))
    expected = {"sse": 3, "ndjson": 3, "websocket": 3, "text": 1, "readers": 1}
    await eventually(lambda: counted() == expected, counted)
    given.runner.write(run_id, *texts(1_200))
    await asyncio.sleep(0)
    given.runner.write(run_id, *texts(300, 1_200))
    given.runner.end(run_id)
    told = [unstamped(await other) for other in others]
    logs = [[event for event in events if event["type"] == "log"] for events in told]
    assert all(log == logs[0] for log in logs)
    assert [event["data"]["line"].encode() for event in logs[0]] == texts(1_500)
    assert (await text).content == b"".join(line + b"\n" for line in texts(1_500))
    assert {id: times for id, times in encoded.items() if times} == {event["id"]: 1 for event in logs[0]}


async def test_a_client_that_does_not_read_holds_nobody_up(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have everything meanwhile, the server keeps a bounded window and little else; then it has it too."""
    monkeypatch.setattr(reader, "_WINDOW_LINES", 1_000)
    monkeypatch.setattr(reader, "PAGE_LINES", 100)
    run_id = given.runner.start()
    lines = [b"%d " % number + b"x" * 500 for number in range(5_000)]
    given.runner.batch = 500
    parts = given.processes[0]
    async with (
        serve(parts, narrow=True) as served,
        served.socket("types=log", sock=small_socket(served.port), max_queue=1) as slow,
        served.socket("types=log") as fast,
    ):
        reading = asyncio.create_task(read(fast))
        await eventually(lambda: counted() == {"websocket": 2, "readers": 1}, counted)
        given.runner.write(run_id, *lines)
        shared = follow.followers(parts)._feeds._feeds[run_id]
        given.runner.end(run_id)
        assert [event["data"]["line"].encode() for event in (await reading).events[1:-1]] == lines
        assert shared.top.line == given.runner.runs[run_id].lines[-1].id
        assert shared._reader.window.lines <= 1_000
        assert counted() == {"websocket": 1, "readers": 1}  # the slow one
        waiting = [
            connection.transport.get_write_buffer_size() for connection in served.server.server_state.connections
        ]
        assert 0 < max(waiting) < 100 * (500 + 250), "no more than what is left of one batch"
        pong = await slow.ping()
        connections: Any = served.server.server_state.connections
        await eventually(lambda: any(getattr(one, "_pong", b"") for one in connections))  # there is no room for it
        told = await read(slow)
        await pong  # or the client would have been told that the connection has ended
    assert [event["data"]["line"].encode() for event in told.events[1:-1]] == lines
    assert told.end == (1000, "complete")


async def test_a_fast_client_leaves_others_their_turn(given: World) -> None:
    """One that takes all at once does not keep the process to itself: after each batch others go on."""
    run_id = given.runner.start()
    given.runner.batch = 500
    watching = given.follow(types=frozenset({"status"}))
    await watching.until(lambda follower: bool(follower.events))
    given.runner.write(run_id, *texts(5_000))
    followers = given.followers()
    await eventually(lambda: followers._feeds._feeds[run_id]._reader.window.lines == 5_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    before: list[int] = []  # the turns that others had had when a batch came
    async for frame in followers.follow(asks(follow=False), run_id):
        if isinstance(frame, Lines):
            before.append(turns)
    assert len(before) >= 10
    assert len(set(before)) == len(before)
    other.cancel()


async def test_a_cancellation_that_is_missed_leaves_nothing_at_work(
    given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that goes on for a moment after its last follower has left may begin to relay: that ends, too."""
    given.runner.start()
    asked = asyncio.Event()
    original = Streams.pumping

    async def pumping(self: Streams, *args: Any, **options: Any) -> tuple[LineId, bool] | None:
        if asked.is_set():
            return await original(self, *args, **options)
        asked.set()
        with suppress(asyncio.CancelledError):  # as redis-py loses one that meets a reply
            await asyncio.sleep(60)
        return ZERO, False

    monkeypatch.setattr(Streams, "pumping", pumping)
    before = given.tasks()
    follower = given.follow()
    await asked.wait()
    await follower.leave()
    await eventually(lambda: given.tasks() <= before, given.tasks)
    assert given.runner.reading == 0
