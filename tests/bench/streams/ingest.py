"""Ingest: lines appended by our library beside a raw pipeline of XADD, to the same Redis, from one process.

    python -m tests.bench.streams.ingest SIDE     appends, and prints lines a second by the clock and by the cores

Entries have the same fields. Ours compares the stream's top, names in each entry the one before it, counts bytes,
and trims; raw does nothing of that. Redis and who appends have a core each: by the clock the slower one counts, by the
cores both do, which says the same on a machine that has other things to do.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median

import hiredis
import psutil
from redis.asyncio import Redis

from common.connection import Connection
from common.events import ZERO, Line
from common.settings import Settings
from common.streams import Streams
from tests.bench.report import Row
from tests.bench.streams.fanout import Say
from tests.bench.streams.stage import SIDES, Stage, alone
from tests.bench.streams.writer import batch

_BOUND = 0.6
_AT_WORK = 0.6  # of a core; what is left is waiting for each other
_BATCH = 500  # a recorder that has much to relay takes as many at once
_BATCHES = 100
_RUN_ID = "run-aaaaaaaaaaaaaaaa"


def rows(stage: Stage, rounds: int, say: Say) -> Iterator[Row]:
    """Both sides in turn, so often."""
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES:
            by_clock, by_core = json.loads(alone(stage, "tests.bench.streams.ingest", side, str(stage.scene.redis_pid)))
            say(f"ingest, {number + 1} of {rounds}, {side}: {by_clock:,.0f} lines/s")
            found[side].append((by_clock / 1000, by_core / 1000))
    void = waited([clock / core for side in SIDES for clock, core in found[side]])
    for at, unit, why in ((0, "k/s", void), (1, "k/CPU s", "")):
        ours, bare = ([figures[at] for figures in found[side]] for side in SIDES)
        yield Row(f"ingest: lines appended, {_BATCH} at once", unit, ours, bare, _BOUND, at_most=False, void=why)


def waited(shares: Sequence[float]) -> str:
    """Why the clock says nothing, if it does not: there is always one of the two that has work to do."""
    return f"they took {median(shares):.0%} of a core: others had it" if median(shares) < _AT_WORK else ""


async def _ours(settings: Settings, batches: list[list[Line]]) -> None:
    connection = Connection.open(settings)
    streams, top = Streams(connection, settings), ZERO
    for lines in batches:
        done, top = await streams.append(_RUN_ID, 1, top, lines)
        assert done
    await connection.close()


async def _bare(settings: Settings, batches: list[list[Line]]) -> None:
    # Not redis-py's pipeline, which takes longer over its commands than Redis does.
    reader, writer = await asyncio.open_unix_connection(str(settings.redis_url).removeprefix("unix://"))
    replies = hiredis.Reader()
    for lines in batches:
        writer.write(b"".join(_xadd(settings, line) for line in lines))
        for _ in lines:
            while (reply := replies.gets()) is False:
                replies.feed(await reader.read(65_536))
            assert isinstance(reply, bytes)
    writer.close()


def _xadd(settings: Settings, line: Line) -> bytes:
    fields = ("p", "0-0", "b", "0", "t", line.text, "s", line.letter)
    packed: bytes = hiredis.pack_command(("XADD", _key(settings), str(line.id), *fields))  # type: ignore[arg-type]  # any number
    return packed


def _key(settings: Settings) -> str:
    return f"{settings.redis_prefix}:log:{_RUN_ID}:1"


async def _measure(side: str, redis: psutil.Process) -> tuple[float, float]:
    settings = Settings.read(os.environ)
    now_ns = time.time_ns()
    batches = [batch(_BATCH, now_ns + number * _BATCH * 1_000) for number in range(_BATCHES)]
    async with Redis.from_url(str(settings.redis_url)) as client:
        await client.delete(_key(settings))
        began, spent = time.perf_counter(), _spent(redis)
        await (_ours if side == "ours" else _bare)(settings, batches)
        took, spent = time.perf_counter() - began, _spent(redis) - spent
        await client.delete(_key(settings))
    return _BATCH * _BATCHES / took, _BATCH * _BATCHES / spent


def _spent(redis: psutil.Process) -> float:
    return sum(times.user + times.system for times in (redis.cpu_times(), psutil.Process().cpu_times()))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(sys.argv[1], psutil.Process(int(sys.argv[2]))))))
