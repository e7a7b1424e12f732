"""Follows a server's stream many times over; a process of its own, on the core that the server has not.

    python -m tests.bench.streams.followers ASKED     with an `Asked` as JSON; prints a `Turn` as JSON

It connects everybody, waits, has a writer write, and measures while the log grows: how much arrives, how late, and
what each process has spent of its core. What it spends itself is part of the result: it is to be less than
a core, or it is what was measured. Lines are not counted but by a few, all others by their bytes.
"""

import asyncio
import json
import math
import re
import resource
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
import uvloop

from tests.bench.load import Clock
from tests.bench.streams.connections import Follower, Sample, Slow, question
from tests.bench.streams.writer import Pace

_SAMPLES = 20
_AT_ONCE = 64
_ACCEPT_SECONDS = 120
_QUIET_SECONDS, _PAUSE_SECONDS = 10.0, 0.5
_EVEN = 0.99
_LOOKS, _LOOK_SECONDS = 50, 0.02


@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure.

    Attributes:
        followers: that read as fast as they can; `slow` ones come besides.
        idle_seconds: with everybody connected, before anything is written.
        warm_seconds: of writing, before anything is measured.
        pids: processes to measure, by name; `server` is one.
    """

    port: int
    path: str
    headers: Mapping[str, str]
    transport: str
    followers: int
    slow: int
    pace: Mapping[str, float | str]
    idle_seconds: float
    warm_seconds: float
    seconds: float
    pids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of it.

    Attributes:
        lines: that arrived, at all fast followers together.
        behind: fast followers that have got less than others by the time that nothing comes any more.
        ages_ms: how old lines were when they arrived: the median, and what 99 of 100 are below.
        cores: share of a core that each process used, this one as `load`.
        memory_mb: the server's resident memory before anybody came, with all connected, and at the end.
        sockets_mb: what the kernel keeps for all TCP sockets at the end, with nothing on its way to fast followers: a
            container is charged for its own.
        filling: what each slow follower's socket has taken in meanwhile, as a share of what a fast one was sent: next
            to nothing once all buffers are full.
        connected_cpu: seconds of its core that the server took to let everybody in.
        cut: followers that the server has ended.
    """

    seconds: float
    lines: float
    behind: int
    ages_ms: tuple[float, float]
    cores: Mapping[str, float]
    memory_mb: tuple[float, float, float]
    sockets_mb: float
    filling: float
    connected_cpu: float
    cut: int

    @property
    def rate(self) -> float:
        """Lines a second that arrived."""
        return self.lines / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Lines that arrived for a second of the server's core."""
        return self.rate / self.cores["server"]


async def measure(asked: Asked) -> Turn:
    """One turn."""
    server = psutil.Process(asked.pids["server"])
    memory = [server.memory_info().rss]
    connecting = Clock({"server": server})
    asks = question(asked.path, asked.headers, asked.transport)
    followers = await _connected(asked, asks)
    slow = [Slow(asks, asked.port) for _ in range(asked.slow)]
    took, spent = connecting.read()
    async with _writing(asked) as writer, _reading(slow):
        await asyncio.sleep(asked.idle_seconds)
        memory.append(server.memory_info().rss)
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        await asyncio.sleep(asked.warm_seconds)
        pids = {**asked.pids, "writer": writer.pid}
        clock = Clock({"load": psutil.Process(), **{name: psutil.Process(pid) for name, pid in pids.items()}})
        before, waiting = _counts(followers), waiting_bytes(slow)
        await asyncio.sleep(asked.seconds)
        seconds, cores = clock.read()
        after, waiting = _counts(followers), waiting_bytes(slow) - waiting
        sockets = await _sockets_mb()
        memory.append(server.memory_info().rss)
    await _quiet(followers)
    ages = [age for sample, begin in zip(_samples(followers), before[2], strict=True) for age in sample.ages[begin:]]
    cut = sum(one.cut for one in followers) + sum(one.cut for one in slow)
    lines = arrived(before, after)
    before_mb, idle_mb, active_mb = (size / 1e6 for size in memory)
    for one in followers:
        if one.transport is not None:
            one.transport.abort()
    return Turn(
        seconds,
        lines,
        behind([one.bytes for one in followers]),
        ages_ms(ages),
        cores,
        (before_mb, idle_mb, active_mb),
        sockets,
        waiting * asked.followers / (max(1, asked.slow) * max(1, after[0] - before[0])),
        took * spent["server"],
        cut,
    )


_Counts = tuple[int, int, Sequence[int]]  # bytes of all; bytes of the samples; lines of each sample


def arrived(before: _Counts, after: _Counts) -> float:
    """Lines that arrived at all followers between two counts."""
    told = sum(after[2]) - sum(before[2])
    in_bytes = after[1] - before[1]
    return (after[0] - before[0]) * told / in_bytes if in_bytes else 0.0


def behind(received: Sequence[int]) -> int:
    """How many have received less than others; what they were greeted with may differ a little."""
    return sum(each < _EVEN * max(received) for each in received)


def ages_ms(ages: Sequence[int]) -> tuple[float, float]:
    """The median and the 99th of 100, of nanoseconds."""
    if not ages:
        return math.inf, math.inf
    return median(ages) / 1e6, sorted(ages)[len(ages) * 99 // 100] / 1e6


async def _sockets_mb() -> float:
    """What the kernel keeps for all TCP sockets of the machine while nothing is under way: the least of some looks."""
    pages = [_socket_pages()]
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_SECONDS)
        pages.append(_socket_pages())
    return min(pages) * resource.getpagesize() / 1e6


def _socket_pages() -> int:
    (pages,) = re.findall(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text("ascii"), re.MULTILINE)
    return int(pages)


def waiting_bytes(slow: Sequence[Slow]) -> int:
    """What has been sent to them and waits in the server's sockets."""
    ports = {f"{one.port:04X}" for one in slow}
    waiting = 0
    for row in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        _, _, peer, _, queues, *_ = row.split()  # addresses, the state, what waits to be sent and to be read
        if peer.rpartition(":")[2] in ports:
            waiting += int(queues.partition(":")[0], 16)
    return waiting


async def _quiet(followers: Sequence[Follower]) -> None:
    """Wait until nothing comes any more, for a bounded time."""
    before, received = -1, 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_QUIET_SECONDS):
            while before != received:
                before, received = received, sum(one.bytes for one in followers)
                await asyncio.sleep(_PAUSE_SECONDS)


def sampled(followers: int) -> range:
    """Whom to look at: some of all, as those that came first are served first."""
    return range(0, followers, max(1, followers // _SAMPLES))


def _samples(followers: Sequence[Follower]) -> list[Sample]:
    return [follower for follower in followers if isinstance(follower, Sample)]


def _counts(followers: Sequence[Follower]) -> _Counts:
    samples = _samples(followers)
    of_all, of_samples = (sum(one.bytes for one in some) for some in (followers, samples))
    return of_all, of_samples, [len(sample.ages) for sample in samples]


async def _connected(asked: Asked, asks: bytes) -> list[Follower]:
    """All fast followers, each with the beginning of its answer."""
    loop, places = asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)
    samples = sampled(asked.followers)

    async def connect(number: int) -> Follower:
        kind = Sample if number in samples else Follower
        async with places:
            _, follower = await loop.create_connection(lambda: kind(asks), "127.0.0.1", asked.port)
            await follower.accepted
        return follower

    async with asyncio.timeout(_ACCEPT_SECONDS):
        return await asyncio.gather(*(connect(number) for number in range(asked.followers)))


@asynccontextmanager
async def _writing(asked: Asked) -> AsyncIterator[asyncio.subprocess.Process]:
    """A writer that is about to begin."""
    pace = Pace(**asked.pace)  # type: ignore[arg-type]  # as it comes out of JSON
    command = [sys.executable, "-m", "tests.bench.streams.writer", json.dumps(asdict(pace))]
    writer = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    try:
        yield writer
    finally:
        if writer.stdin is not None:
            writer.stdin.close()
        if await writer.wait():
            raise RuntimeError("the writer has failed")


@asynccontextmanager
async def _reading(slow: Sequence[Slow]) -> AsyncIterator[None]:
    """Have the slow followers read, a little every second."""

    async def read() -> None:
        while True:
            for one in slow:
                one.read()
            await asyncio.sleep(1)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        for one in slow:
            one.close()


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(measure(Asked(**json.loads(sys.argv[1])))))))
