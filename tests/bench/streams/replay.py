"""Replay: a long log read from its beginning through our server, beside the same log read from Redis and decoded.

    python -m tests.bench.streams.replay fill LINES    appends as many to the active run's log
    python -m tests.bench.streams.replay bare KEY      reads it by XRANGE, and prints the seconds by clock and core
    python -m tests.bench.streams.replay ours ASKED    reads it from a server, and prints the same

Both take pages of the same size. Who reads from Redis has the core that the server has otherwise.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import psutil
import uvloop
from redis.asyncio import Redis

from common.connection import Connection
from common.settings import Settings
from common.streams import Streams
from tests.bench.report import Row
from tests.bench.scene import API
from tests.bench.streams.connections import Follower, question
from tests.bench.streams.fanout import Say
from tests.bench.streams.stage import SIDES, Side, Stage, alone, beside
from tests.bench.streams.writer import TEXT_BYTES, batch
from tests.bench.streams.yardstick import Entry

_BOUND = 0.5
_BATCH, _PAGE = 1_000, 500
_COMPLETE = b"\x88\x0a\x03\xe8complete"  # the frame that ends a WebSocket
_NAME = "tests.bench.streams.replay"
ROOM = {"REDIS_LOG_LINES": "10000000", "REDIS_LOG_BYTES": str(1024**3)}  # settings for a log of a million lines


def rows(stage: Stage, lines: int, transports: list[str], rounds: int, say: Say) -> Iterator[Row]:
    """Both sides in turn, so often."""
    say(f"replay: writing {lines:,} lines")
    alone(stage, _NAME, "fill", stage.run_id, str(lines))
    held = stage.length()
    for transport in transports:
        found: dict[Side, list[tuple[float, float]]] = {side: [] for side in SIDES}
        for number in range(rounds):
            for side in SIDES:
                by_clock, by_core = _turn(stage, side, transport, held)
                say(f"replay by {transport}, {number + 1} of {rounds}, {side}: {held / by_clock:,.0f} lines/s")
                found[side].append((held / by_clock / 1000, held / by_core / 1000))
        for at, unit, bound in ((0, "k/s", _BOUND), (1, "k/CPU s", None)):
            ours, bare = ([figures[at] for figures in found[side]] for side in SIDES)
            yield Row(f"replay of {held:,} lines by {transport}", unit, ours, bare, bound, at_most=False)


def _turn(stage: Stage, side: Side, transport: str, held: int) -> tuple[float, float]:
    if side == "bare":
        said = alone(stage, _NAME, "bare", stage.key)
    else:
        server = stage.servers["ours"]
        asked = {
            "port": server.port,
            "path": f"{API}/stream?run_id={stage.run_id}&follow=false",
            "headers": {**stage.scene.headers, "connection": "close"},
            "transport": transport,
        }
        said = beside(stage, _NAME, "ours", json.dumps(asked), str(server.pid), str(held))
    by_clock, by_core = json.loads(said)
    return by_clock, by_core


async def _fill(run_id: str, lines: int) -> None:
    connection = Connection.open(settings := Settings.read(os.environ))
    streams = Streams(connection, settings)
    top, _ = await streams.top(run_id, 1)
    now_ns = time.time_ns()
    for number in range(0, lines, _BATCH):
        done, top = await streams.append(run_id, 1, top, batch(_BATCH, now_ns + number * 1_000))
        assert done
    await connection.close()


async def _bare(key: str) -> tuple[float, float]:
    settings = Settings.read(os.environ)
    me = psutil.Process()
    async with Redis.from_url(str(settings.redis_url)) as client:
        began, spent, after, letters = time.perf_counter(), _spent(me), "-", 0
        while page := cast("Sequence[Entry]", await client.xrange(key, min=after, count=_PAGE)):
            letters += sum(len(fields[b"t"].decode()) for _, fields in page)
            after = f"({page[-1][0].decode()}"
    return time.perf_counter() - began, _spent(me) - spent


async def _ours(asked: dict[str, Any], pid: int, held: int) -> tuple[float, float]:
    server, loop = psutil.Process(pid), asyncio.get_running_loop()
    asks = question(asked["path"], asked["headers"], asked["transport"])
    began, spent = time.perf_counter(), _spent(server)
    _, follower = await loop.create_connection(lambda: _Last(asks), "127.0.0.1", asked["port"])
    await follower.accepted
    while not follower.cut:
        await asyncio.sleep(0.01)
    took, spent = time.perf_counter() - began, _spent(server) - spent
    if follower.bytes < held * TEXT_BYTES:
        raise RuntimeError(f"{held} lines came in {follower.bytes} bytes")
    return took, spent


class _Last(Follower):
    """One that closes a WebSocket when it is told that all was sent."""

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = super().get_buffer(sizehint)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self._buffer[:nbytes][-len(_COMPLETE) :] == _COMPLETE and self.transport is not None:
            self.transport.abort()


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fill", run_id, lines]:
            asyncio.run(_fill(run_id, int(lines)))
        case ["bare", key]:
            print(json.dumps(asyncio.run(_bare(key))))
        case ["ours", asked, pid, held]:
            print(json.dumps(uvloop.run(_ours(json.loads(asked), int(pid), int(held)))))
