"""Puts runs into the history, lines into a log, and asks for its last ones; a process of its own.

python -m tests.bench.streams.shelves fill RUN_ID RUNS LINES     all under the REDIS_PREFIX of the environment
python -m tests.bench.streams.shelves tail ASKED TIMES           prints the milliseconds of each answer, as JSON
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from common.connection import Connection
from common.models import RunInfo
from common.names import new_run_id
from common.phases import State
from common.settings import Settings
from common.store import Store
from common.streams import Streams
from common.tasks import end
from tests.bench.streams.connections import question
from tests.bench.streams.writer import batch

_AT_ONCE, _BATCH = 100, 1_000
_CLAIM_SECONDS = 1.0


def past_run(number: int, now: datetime) -> RunInfo:
    """One that has ended, the longer ago the greater its number."""
    run_id, began = new_run_id(), now - timedelta(seconds=number + 60)
    return RunInfo(
        run_id=run_id,
        status=State.SUCCEEDED,
        pipeline="tests/pipelines/params.nf",
        created_at=began,
        started_at=began,
        finished_at=began + timedelta(seconds=1),
        duration_seconds=1.0,
        exit_code=0,
        job_name=run_id,
        session_id="00000000-0000-0000-0000-000000000000",
    )


@asynccontextmanager
async def _redis() -> AsyncIterator[tuple[Settings, Connection]]:
    connection = Connection.open(settings := Settings.read(os.environ))
    try:
        yield settings, connection
    finally:
        await connection.close()


async def _fill(run_id: str, runs: int, lines: int) -> None:
    now, now_ns = datetime.now(UTC), time.time_ns()
    async with _redis() as (settings, connection):
        store, streams = Store(connection, settings), Streams(connection, settings)
        stamp_ms = await store.now_ms()
        for begin in range(0, runs, _AT_ONCE):
            some = [past_run(number, now) for number in range(begin, min(runs, begin + _AT_ONCE))]
            await asyncio.gather(*(store.record(run, stamp_ms) for run in some))
        top, _ = await streams.top(run_id, 1)
        for begin in range(0, lines, _BATCH):
            done, top = await streams.append(run_id, 1, top, batch(_BATCH, now_ns + begin * 1_000))
            assert done


async def _claim(streams: Streams, run_id: str) -> None:
    while True:
        await streams.pumping(run_id, 1, "bench", insist=True)
        await asyncio.sleep(_CLAIM_SECONDS)


async def _tail(asked: dict[str, Any], times: int) -> list[float]:
    """Ask again and again, while somebody relays the log as in a run that goes on."""
    asks, found = question(asked["path"], asked["headers"], "text"), []
    async with _redis() as (settings, connection):
        claiming = asyncio.create_task(_claim(Streams(connection, settings), asked["run_id"]))
        await asyncio.sleep(_CLAIM_SECONDS / 2)
        for _ in range(times):
            began = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", asked["port"])
            writer.write(asks)
            answer = await reader.read()
            found.append((time.perf_counter() - began) * 1000)
            writer.close()
            if answer.count(b"Submitted") != asked["lines"]:
                raise RuntimeError(answer.decode())
        await end([claiming])
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fill", run_id, runs, lines]:
            asyncio.run(_fill(run_id, int(runs), int(lines)))
        case ["tail", asked, times]:
            print(json.dumps(asyncio.run(_tail(json.loads(asked), int(times)))))
