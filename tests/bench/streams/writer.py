"""Appends to a run's log as its recorder would, at a fixed rate; a process of its own.

    python -m tests.bench.streams.writer PACE     with a `Pace` as JSON

It says at once, and goes on saying, that it relays this log, begins to write when it is told to by a line on its
standard input, and ends with that. Each line tells the monotonic time at which it was made, by which whoever receives
it on this machine knows how long it took.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass

from common.connection import Connection
from common.events import Line, LineId
from common.settings import Settings
from common.streams import Streams
from common.tasks import end

_CLAIM_SECONDS = 1.0
_FILLER = b" [ab/123456] Submitted process > NFCORE_RNASEQ:RNASEQ:ALIGN_STAR:STAR_ALIGN (SAMPLE_0001_REP1)"
TEXT_BYTES = len(b"@%019d" % 0 + _FILLER)


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is written to which run's log.

    Attributes:
        lines: of a batch, which is appended in one go.
        every_seconds: from one batch to the next.
    """

    run_id: str
    lines: int
    every_seconds: float


def batch(count: int, at_ns: int) -> list[Line]:
    """Lines that are made now, under the ids of their times: from this one on, a microsecond each."""
    text = b"@%019d" % time.monotonic_ns() + _FILLER
    times = range(at_ns, at_ns + count * 1_000, 1_000)
    return [Line(LineId.of_time(each), each, "stdout", text) for each in times]


async def write(streams: Streams, pace: Pace, begun: asyncio.Event) -> None:
    """Write from when `begun` is set; a batch that comes late does not delay those behind it."""
    top, _ = await streams.top(pace.run_id, 1)
    await begun.wait()
    due = time.monotonic()
    while True:
        done, top = await streams.append(pace.run_id, 1, top, batch(pace.lines, time.time_ns()))
        if not done:
            raise RuntimeError("somebody else writes to this log")
        due = max(due + pace.every_seconds, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def claim(streams: Streams, pace: Pace) -> None:
    """Say that this log is relayed."""
    while True:
        await streams.pumping(pace.run_id, 1, "bench", insist=True)
        await asyncio.sleep(_CLAIM_SECONDS)


async def main(pace: Pace) -> None:
    """Write until the standard input ends."""
    connection = Connection.open(settings := Settings.read(os.environ))
    streams, begun = Streams(connection, settings), asyncio.Event()
    tasks = [asyncio.create_task(claim(streams, pace)), asyncio.create_task(write(streams, pace, begun))]
    try:
        while await asyncio.to_thread(sys.stdin.readline):
            begun.set()
    finally:
        await end(tasks)
        await connection.close()
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            raise error


if __name__ == "__main__":
    asyncio.run(main(Pace(**json.loads(sys.argv[1]))))
