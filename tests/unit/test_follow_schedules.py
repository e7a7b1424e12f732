"""Any order of losses, failures, restarts and resumptions: each follower has the log, exactly and in order."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import Unavailable
from common.platform import Platform
from common.pump import Pump
from common.tasks import end
from tests.redis_server import OwnRedis
from tests.unit.logs import Follower, Run, World, world
from tests.unit.test_follow import entries, hurry
from tests.unit.test_follow_attempts import restarts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow

STEPS = 40
ATTEMPTS = 3


@pytest.fixture(scope="module")
def server() -> Iterator[OwnRedis]:
    """A Redis to be stopped and started."""
    with tempfile.TemporaryDirectory(prefix="nfc-") as directory:
        made = OwnRedis(Path(directory) / "r")
        yield made
        made.stop()


@pytest.fixture
async def given(server: OwnRedis) -> AsyncIterator[World]:
    """An empty world with two processes."""
    async with world(server.url) as made:
        made.process()
        made.process()
        yield made


@pytest.fixture
async def bounded(server: OwnRedis) -> AsyncIterator[World]:
    """The same, where Redis holds little, and as much as whoever wrote last lets it."""
    async with world(server.url) as made:
        made.process(redis_log_lines=10)
        made.process(redis_log_lines=100, redis_log_bytes=2500)
        yield made


class Schedule:
    """One run, and what happens to it."""

    def __init__(self, given: World, server: OwnRedis, seed: int) -> None:
        self.random = random.Random(seed)
        self.given, self.server = given, server
        self.run_id = given.runner.start()
        self.away = False
        self.snapshot: dict[bytes, bytes] = {}
        self.pumps: list[asyncio.Task[None]] = []
        self.chains: list[list[Follower]] = []

    @property
    def run(self) -> Run:
        return self.given.runner.runs[self.run_id]

    @property
    def process(self) -> Platform:
        return self.random.choice(self.given.processes)

    async def step(self) -> None:
        """Let one thing happen, and some of what follows from it."""
        name = self.random.choice(
            (
                "write",
                "write",
                "write",
                "jump",
                "flush",
                "save",
                "restore",
                "stop",
                "pump",
                "kill",
                "follow",
                "cut",
                "cut",
                "restart",
            )
        )
        await getattr(self, f"_{name}")()
        await asyncio.sleep(self.random.choice((0, 0, 0.002, 0.02, 0.05)))

    async def _write(self) -> None:
        count = len(self.run.texts)
        texts = (b"%d" % (count + n) for n in range(self.random.choice((1, 3, 30, 200))))
        self.given.runner.write(self.run_id, *texts)

    async def _jump(self) -> None:
        """A line from a clock that is elsewhere."""
        count = len(self.run.texts)
        at_ns = 1_900_000_000_000_000_000 + self.random.randint(-(10**6), 10**6)
        self.given.runner.write(self.run_id, b"%d" % count, at_ns=at_ns)

    async def _restart(self) -> None:
        """The head is taken from its node, and started again."""
        if len(self.run.logs) < ATTEMPTS:
            self.given.runner.restart(self.run_id)

    async def _redis(self, *commands: tuple[Any, ...]) -> list[Any]:
        async with self.process.connection.use() as client:
            return [await client.execute_command(*command) for command in commands]  # type: ignore[no-untyped-call] # its

    async def _flush(self) -> None:
        if not self.away:
            await self._try(("FLUSHALL",))

    async def _try(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Do that; Redis may just have come back, which not everybody has noticed."""
        while True:
            try:
                return await self._redis(*commands)
            except Unavailable:
                await asyncio.sleep(0.01)

    async def _save(self) -> None:
        """Remember what a replica that now stops being one would have."""
        if not self.away:
            (keys,) = await self._try(("KEYS", f"nfc:log:{self.run_id}:[0-9]"))
            values = await self._try(*(("DUMP", key) for key in keys))
            self.snapshot = dict(zip(keys, values, strict=True))

    async def _restore(self) -> None:
        """Fail over to it."""
        if not self.away:
            await self._try(("FLUSHALL",), *(("RESTORE", key, 0, value) for key, value in self.snapshot.items()))

    async def _stop(self) -> None:
        """Stop Redis, or start it again."""
        await asyncio.to_thread(self.server.start if self.away else self.server.stop)
        self.away = not self.away

    async def _pump(self) -> None:
        if len(self.pumps) < 3:
            parts = self.process
            attempt = self.random.randint(1, len(self.run.logs))
            pump = Pump(parts.runner, parts.streams, self.run_id, attempt, who=f"p{len(self.pumps)}", lasting=True)
            self.pumps.append(asyncio.create_task(pump.run()))

    async def _kill(self) -> None:
        if self.pumps:
            await end([self.pumps.pop(self.random.randrange(len(self.pumps)))])

    async def _follow(self) -> None:
        if len(self.chains) < 6:
            self.chains.append([self.given.follow(self.process, run_id=self.run_id)])

    async def _cut(self) -> None:
        """Cut a follower, and have it come back to any process with what it saw last."""
        if self.chains:
            chain = self.random.choice(self.chains)
            if chain[-1].frames:
                await chain[-1].leave()
                chain.append(self.given.follow(self.process, run_id=self.run_id, after=chain[-1].place))

    async def settle(self) -> None:
        """Redis is back, and all followers are told the rest."""
        if self.away:
            await self._stop()
        for chain in self.chains:
            await chain[-1].end()

    def crossed(self) -> list[list[int]]:
        """The boundaries that each follower was told of."""
        return [restarts(*chain) for chain in self.chains]

    def told(self) -> list[list[bytes]]:
        """What each follower has seen."""
        return [[text for part in chain for text in part.texts] for chain in self.chains]


async def played(given: World, server: OwnRedis, seed: int) -> Run:
    """A run of which each follower had no hole, no duplicate and no other order, whatever happened."""
    schedule = Schedule(given, server, seed)
    try:
        for _ in range(STEPS):
            await schedule.step()
        given.runner.end(schedule.run_id)
        await schedule._follow()
        await schedule.settle()
        run = schedule.run
        assert schedule.told() == [run.texts] * len(schedule.chains)
        assert schedule.crossed() == [list(range(2, len(run.logs) + 1))] * len(schedule.chains)
        assert [chain[-1].kinds[-1] for chain in schedule.chains] == ["complete"] * len(schedule.chains)
        assert [kind for chain in schedule.chains for part in chain for kind in part.kinds if kind == "gap"] == []
        return run
    finally:
        await end(schedule.pumps)
        if schedule.away:
            server.start()


async def held(given: World, run: Run, attempt: int) -> list[bytes]:
    """The ids of an attempt's lines in Redis, where they have one end, at the end, if any."""
    assert run.job is not None
    stream = await entries(given, run.job.run_id, attempt)
    assert [b"end" in fields for _, fields in stream[:-1]].count(True) == 0
    return [entry_id for entry_id, fields in stream if b"end" not in fields]


@pytest.mark.parametrize("seed", range(8))
async def test_each_follower_has_the_log(given: World, server: OwnRedis, seed: int) -> None:
    """And Redis has the beginning of it, or all."""
    run = await played(given, server, seed)
    for attempt, log in enumerate(run.logs, 1):
        ids = await held(given, run, attempt)
        assert ids == [str(line.id).encode() for line in log.lines][: len(ids)]


@pytest.mark.parametrize("seed", range(200, 208))
async def test_each_follower_has_a_log_that_redis_holds_little_of(bounded: World, server: OwnRedis, seed: int) -> None:
    """And Redis has a part of it without a hole, that is within one of the bounds."""
    run = await played(bounded, server, seed)
    for attempt, log in enumerate(run.logs, 1):
        ids = await held(bounded, run, attempt)
        expected = [str(line.id).encode() for line in log.lines]
        start = expected.index(ids[0]) if ids else 0
        assert ids == expected[start : start + len(ids)]
        assert len(ids) <= 2500 // 64


@pytest.mark.parametrize("seed", range(100, 104))
async def test_what_is_gone_is_named(given: World, server: OwnRedis, seed: int) -> None:
    """With the Job gone in the middle each follower has the log up to somewhere, and is told of the rest."""
    schedule = Schedule(given, server, seed)
    try:
        for _ in range(STEPS // 2):
            await schedule.step()
        await end(schedule.pumps)
        await schedule._follow()
        attempts = list(range(2, len(schedule.run.logs) + 1))
        for chain in schedule.chains:  # who comes later gets 404, and of an attempt that nobody saw there is no telling
            await chain[-1].until(lambda last, chain=chain: bool(last.frames) and restarts(*chain) == attempts)  # type: ignore[misc]
        given.runner.lose(schedule.run_id)
        await schedule.settle()
        texts = given.runner.runs[schedule.run_id].texts
        for chain, told in zip(schedule.chains, schedule.told(), strict=True):
            gaps = [kind for part in chain for kind in part.kinds].count("gap")
            assert gaps
            assert [text for text in texts if text in set(told)] == told
            assert chain[-1].kinds[-1] == "error"
    finally:
        await end(schedule.pumps)
        if schedule.away:
            server.start()
