"""A crowd that asks one server for more than it can do; a process of its own, on the core that the server has not.

    python -m tests.bench.crowd.clients     takes a `Plan` as JSON, prints what came of it, a `Told`, as JSON

Each client has a connection, on which it asks again so long after it last asked, or at once where the answer took
longer: one that is greedy does not heed what it is told. Where it is cut off it comes back.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import cast

import psutil
import uvloop

from tests.bench.load import Clock

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_PROBLEM = re.compile(rb'"urn:nextflow-controller:problem:([a-z-]+)"')
_SAMPLE_SECONDS = 1.0
_LEAST_SECONDS = 0.005  # before somebody who was cut off comes back


@dataclass(frozen=True, slots=True)
class Kind:
    """Clients that are alike.

    Attributes:
        every_seconds: after it has asked, each asks again; of followers, how long each follows before it comes anew.
        asks: requests, whole; a client takes one of them by chance. By the name under which answers are counted.
    """

    name: str
    clients: int
    every_seconds: float
    asks: Mapping[str, str]
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and for how long; `pids` are processes to measure, of which `server` is one."""

    port: int
    seconds: float
    kinds: Sequence[Kind]
    pids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one kind of client was told.

    Attributes:
        statuses: how many of each, by what was asked: `status 200`, `run busy`.
        most: of those that were let in, the most within a minute of the clock, by what was asked.
        ages_ms: of those that were let in, the median, and what 99 of 100 are below, by what was asked, and of `all`.
        bad: the first answers that nobody should get, as they were.
    """

    statuses: Mapping[str, int]
    most: Mapping[str, int]
    ages_ms: Mapping[str, tuple[float, float]]
    cut: int
    received_bytes: int
    bad: Sequence[str]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a plan; `memory_mb` is the server's resident memory, a figure a second."""

    kinds: Mapping[str, Answers]
    cores: Mapping[str, float]
    memory_mb: Sequence[float]


@dataclass(slots=True)
class _Tally:
    statuses: Counter[str] = field(default_factory=Counter)
    windows: Counter[tuple[str, int]] = field(default_factory=Counter)
    ages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cut: int = 0
    received: int = 0
    bad: list[str] = field(default_factory=list)

    def answers(self) -> Answers:
        most = Counter[str]()
        for (name, _), count in self.windows.items():
            most[name] = max(most[name], count)
        every = [age for ages in self.ages.values() for age in ages]
        ages_ms = {name: _ages_ms(ages) for name, ages in {**self.ages, "all": every}.items() if ages}
        return Answers(dict(self.statuses), dict(most), ages_ms, self.cut, self.received, self.bad[:5])


def _ages_ms(ages: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(ages)
    return ordered[len(ordered) // 2] * 1000, ordered[len(ordered) * 99 // 100] * 1000


class _Client(asyncio.Protocol):
    """One connection after the other of one client."""

    def __init__(self, plan: Plan, kind: Kind, tally: _Tally, chance: random.Random) -> None:
        self._plan, self._kind, self._tally, self._chance = plan, kind, tally, chance
        self._transport: asyncio.WriteTransport | None = None
        self._asked, self._at = "", 0.0
        self._answer = b""
        self.ended = False

    async def live(self) -> None:
        """Connect, and again whenever it was cut off."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._chance.random() * self._kind.every_seconds)  # not all at once
        while not self.ended:
            self._lost: asyncio.Future[None] = loop.create_future()
            try:
                await loop.create_connection(lambda: self, "127.0.0.1", self._plan.port)
                await self._lost
            except OSError:
                self._tally.statuses["refused connections"] += 1
            await asyncio.sleep(_LEAST_SECONDS)

    def end(self) -> None:
        self.ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._ask()
        if self._kind.follows:
            self._loop.call_later(self._kind.every_seconds * (0.5 + self._chance.random()), self._transport.abort)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked and not self._kind.follows and not self.ended:
            self._tally.cut += 1
        self._asked, self._transport, self._answer = "", None, b""
        if not self._lost.done():
            self._lost.set_result(None)

    def _ask(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._asked = self._chance.choice(list(self._kind.asks))
        self._at = time.perf_counter()
        self._transport.write(self._kind.asks[self._asked].encode())

    def data_received(self, data: bytes) -> None:
        self._tally.received += len(data)
        if self._kind.follows and not self._asked:
            return
        self._answer += data
        head = self._answer.find(b"\r\n\r\n") + 4
        if head < 4 or not (self._kind.follows or self._is_whole(head)):
            return
        self._take(int(self._answer[9:12]))
        if not self._kind.follows:
            passed = time.perf_counter() - self._at
            self._loop.call_later(max(0.0, self._kind.every_seconds - passed), self._ask)

    def _is_whole(self, head: int) -> bool:
        if length := _LENGTH.search(self._answer, 0, head):
            return len(self._answer) >= head + int(length[1])
        return self._answer.endswith(b"\r\n0\r\n\r\n")  # a stream, in chunks

    def _take(self, status: int) -> None:
        problem = _PROBLEM.search(self._answer)
        self._tally.statuses[f"{self._asked} {problem[1].decode() if problem else status}"] += 1
        if status < 300:
            self._tally.ages[self._asked].append(time.perf_counter() - self._at)
            self._tally.windows[self._asked, int(time.time() // 60)] += 1
        if status >= 500 and (status != 503 or b"\r\nretry-after: " not in self._answer):
            self._tally.bad.append(self._answer.decode("utf-8", "replace")[:500])
        self._asked, self._answer = "", b""


async def crowd(plan: Plan) -> Told:
    """Let them ask."""
    chance = random.Random(7)
    tallies = {kind.name: _Tally() for kind in plan.kinds}
    clients = [
        _Client(plan, kind, tallies[kind.name], random.Random(chance.random()))
        for kind in plan.kinds
        for _ in range(kind.clients)
    ]
    server = psutil.Process(plan.pids["server"])
    clock = Clock({"load": psutil.Process(), **{name: psutil.Process(pid) for name, pid in plan.pids.items()}})
    tasks = [asyncio.create_task(client.live()) for client in clients]
    memory = []
    for _ in range(round(plan.seconds / _SAMPLE_SECONDS)):
        await asyncio.sleep(_SAMPLE_SECONDS)
        memory.append(server.memory_info().rss / 1e6)
    _, cores = clock.read()
    for client in clients:
        client.end()
    await asyncio.gather(*tasks)
    return Told({name: tally.answers() for name, tally in tallies.items()}, cores, memory)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    given["kinds"] = [Kind(**kind) for kind in given["kinds"]]
    print(json.dumps(asdict(uvloop.run(crowd(Plan(**given))))))
