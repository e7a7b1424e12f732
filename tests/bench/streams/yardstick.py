"""The least that can fan a log out under uvicorn: one ASGI callable, served exactly as our functions are.

    python -m tests.bench.streams.yardstick KEY       says which port it listens on

One reader a process takes the stream at KEY from Redis, in the batches in which ours takes it, and makes of each
what is sent: the very bytes that ours sends (test_yardstick.py compares them), once for all. A follower is the task
that uvicorn made for it, which waits for the next batch and sends it, and one more that waits for the client to go,
as nothing else would end the first. There is no authentication, no status, no heartbeat, no paging: who has fallen
out of the newest batches goes on with what is left of them.
"""

import asyncio
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import uvicorn
from redis.asyncio import Redis
from starlette.types import Receive, Scope, Send

from common.pages import PAGE_LINES
from common.settings import Settings
from common.tasks import end
from common.web.app import App
from functions.server import configuration, run

Entry = tuple[bytes, Mapping[bytes, bytes]]

_BATCHES = 1_000  # kept for who is late
_BLOCK_MS = 1_000
_KINDS = {"text/event-stream": "sse", "application/x-ndjson": "ndjson"}


def _event(run_id: str, attempt: str, entry: Entry) -> tuple[str, str]:
    """The id and the JSON of a line's event, for ids that are the lines' own times."""
    entry_id, fields = entry
    ms, _, seq = entry_id.partition(b"-")
    seconds, fraction = divmod(int(ms) * 1_000_000 + int(seq) // 1_000, 1_000_000_000)
    place = f"{run_id}.{attempt}.{entry_id.decode()}"
    data = {"line": fields[b"t"].decode(), "stream": "stdout", "timestamp_source": "runtime"}
    at = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
    told = {"id": place, "type": "log", "run_id": run_id, "timestamp": at, "data": data}
    return place, json.dumps(told, separators=(",", ":"), ensure_ascii=False)


def encoders(run_id: str, attempt: str) -> dict[str, Callable[[Sequence[Entry]], list[dict[str, Any]]]]:
    """What is sent of a batch, by transport."""

    def body(data: str | bytes) -> list[dict[str, Any]]:
        return [
            {
                "type": "http.response.body",
                "body": data if isinstance(data, bytes) else data.encode(),
                "more_body": True,
            }
        ]

    def events(batch: Sequence[Entry]) -> list[tuple[str, str]]:
        return [_event(run_id, attempt, entry) for entry in batch]

    return {
        "text": lambda batch: body(b"".join(fields[b"t"] + b"\n" for _, fields in batch)),
        "ndjson": lambda batch: body("".join(f"{told}\n" for _, told in events(batch))),
        "sse": lambda batch: body(
            "".join(f"id: {place}\nevent: log\ndata: {told}\n\n" for place, told in events(batch))
        ),
        "websocket": lambda batch: [{"type": "websocket.send", "text": told} for _, told in events(batch)],
    }


class Log:
    """The newest batches of a log, read only while somebody follows."""

    def __init__(self, client: Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._encoders = encoders(*key.split(":")[-2:])
        self._batches: deque[tuple[Sequence[Entry], dict[str, list[dict[str, Any]]]]] = deque(maxlen=_BATCHES)
        self._followers = 0
        self._reader: asyncio.Task[None] | None = None
        self.count = 0
        self.changed = asyncio.Event()

    async def __aenter__(self) -> "Log":
        self._followers += 1
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._followers -= 1
        if not self._followers and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def after(self, place: int, transport: str) -> tuple[list[dict[str, Any]], int]:
        """The messages of the batch at a place, and the place behind it."""
        place = max(place, self.count - len(self._batches))
        entries, encoded = self._batches[place - self.count]
        if transport not in encoded:
            encoded[transport] = self._encoders[transport](entries)
        return encoded[transport], place + 1

    async def _read(self) -> None:
        newest = await self._client.xrevrange(self._key, count=1)
        top = newest[0][0] if newest else b"0-0"
        while self._followers:  # a cancellation that comes with a reply may be lost in redis-py
            found = await self._client.xread({self._key: top}, count=PAGE_LINES, block=_BLOCK_MS)  # type: ignore[dict-item]
            for _, batch in cast("list[tuple[bytes, Sequence[Entry]]]", found or []):
                top = batch[-1][0]
                self._batches.append((batch, {}))
                self.count += 1
                self.changed.set()
                self.changed = asyncio.Event()


def application(log: Log) -> Callable[[Scope, Receive, Send], Any]:
    """Follow the log, whoever asks, from now on until the client goes."""

    async def follow(send: Send, transport: str) -> None:
        place = log.count
        while True:
            while place < log.count:
                messages, place = log.after(place, transport)
                for message in messages:
                    await send(message)
                if place < log.count:
                    await asyncio.sleep(0)  # a fast client never makes us wait: others have their turn all the same
            await log.changed.wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        transport = "websocket"
        await receive()
        if scope["type"] == "http":
            accepted = dict(scope["headers"]).get(b"accept", b"").decode()
            transport = _KINDS.get(accepted, "text")
            headers = [(b"content-type", accepted.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        else:
            await send({"type": "websocket.accept"})
        async with log:
            sending = asyncio.create_task(follow(send, transport))
            await receive()
            sending.cancel()

    return app


async def main(key: str) -> None:
    """Serve until told to stop."""
    settings = Settings.read(os.environ)
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # named, or nobody switches Nagle off
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    app = application(Log(Redis.from_url(str(settings.redis_url), protocol=2), key))
    try:
        await uvicorn.Server(configuration(cast("App", app), settings)).serve(sockets=[listener])
    finally:
        await end(asyncio.all_tasks() - {asyncio.current_task()})


if __name__ == "__main__":
    run(main(sys.argv[1]))
