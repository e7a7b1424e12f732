"""How late a line is on the cluster: one follower through the Ingress beside `kubectl logs --follow`.

Both follow the same run at the same time: a head that says what its clock is, two hundred times a second. The clock is
the node's, so the cluster has to be on this machine. The chart is installed for it, with the images of `make images`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from statistics import median, quantiles

from common.kube.objects import OPENING
from tests.bench.report import Row
from tests.cluster.release import HELD_LOG, Caller, Release

_ROUNDS, _LINES, _PER_SECOND = 3, 2_000, 200
_BOUND_MS = 10.0
# Each line at its time, however late the one before it was; not before both are there.
_SAYS = f"""\
echo {HELD_LOG[0]}; until [ -e /tmp/go ]; do sleep 0.1; done; exec python3 -c '
import time
began = time.monotonic()
for number in range({_LINES}):
    time.sleep(max(0, began + number / {_PER_SECOND} - time.monotonic()))
    print(time.time_ns(), flush=True)
'"""


def rows(say: Callable[[str], None]) -> list[Row]:
    """Milliseconds from a line's making to its arrival."""
    release = Release(secrets.token_hex(3))
    try:
        say("how late lines are: installing the chart")
        release.install()
        found = asyncio.run(_rounds(release, say))
    finally:
        release.uninstall()
    ours, theirs = zip(*found, strict=True)
    mine, others = ([quantiles(ages, n=100)[98] for ages in side] for side in (ours, theirs))
    what = f"a line on the cluster, {_PER_SECOND} a second"
    return [
        Row(f"median age of {what}", "ms", [median(ages) for ages in ours], [median(ages) for ages in theirs]),
        Row(f"p99 age of {what}", "ms", mine, others),
        Row(
            "the same, above that of kubectl logs",
            "ms",
            [one - other for one, other in zip(mine, others, strict=True)],
            [0.0],
            _BOUND_MS,
            "figure",
        ),
    ]


async def _rounds(release: Release, say: Callable[[str], None]) -> list[tuple[list[float], list[float]]]:
    found = []
    async with release.caller() as caller:
        for number in range(_ROUNDS):
            found.append(await _round(release, caller))
            say(f"how late lines are, round {number + 1} of {_ROUNDS}")
    return found


async def _round(release: Release, caller: Caller) -> tuple[list[float], list[float]]:
    run_id = await caller.started(_SAYS)
    await caller.ready(run_id)  # kubectl does not wait for it
    there = asyncio.Barrier(3)
    async with asyncio.TaskGroup() as sides:
        ours = sides.create_task(_ages(_ours(caller, run_id), there))
        theirs = sides.create_task(_ages(_kubectl(release, run_id), there))
        sides.create_task(_let(release, run_id, there))
    await caller.ended(run_id)
    return ours.result(), theirs.result()


async def _let(release: Release, run_id: str, there: asyncio.Barrier) -> None:
    await there.wait()
    await asyncio.to_thread(release.let, run_id)


async def _ages(lines: AsyncIterator[str], there: asyncio.Barrier) -> list[float]:
    assert await anext(lines) == HELD_LOG[0]
    await there.wait()
    ages = [(time.time_ns() - int(line)) / 1e6 async for line in lines]
    if len(ages) != _LINES:
        raise RuntimeError(f"{len(ages)} of {_LINES} lines have come")
    return ages


async def _ours(caller: Caller, run_id: str) -> AsyncIterator[str]:
    async with caller.http.stream("GET", "/stream", params={"run_id": run_id, "types": "log"}) as response:
        async for line in response.aiter_lines():
            yield line


async def _kubectl(release: Release, run_id: str) -> AsyncIterator[str]:
    command = ("kubectl", "logs", "--follow", "--namespace", release.runs, f"job/{run_id}")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async for line in process.stdout:
        if (said := line.decode().rstrip("\n")) != OPENING:
            yield said
    await process.wait()
