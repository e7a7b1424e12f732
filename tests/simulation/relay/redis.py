"""The one Redis of a history: what it has, when it is away, emptied or set back to what it was."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.simulation.redis_client import Client
from tests.simulation.relay.steps import Process, Steps

_T = TypeVar("_T")


class RelayRedis:
    """A server, and the way to it.

    Attributes:
        store: what it has.
        scripts: what a script (name, source) is to be run as.
        away: nobody gets an answer.
        unsettled: when something last happened to it, of which it may hold less, or be asked in vain.
    """

    def __init__(self, store: Any, steps: Steps, rng: random.Random, away: float) -> None:
        self.store = store
        self.scripts: Callable[[str, str], str] = lambda name, source: source
        self.away = False
        self.unsettled = -1e9
        self._steps, self._rng, self._chance = steps, rng, away
        self._news = asyncio.Event()
        self._kept: dict[bytes, Any] = {}
        self._expiries: dict[str, float] = {}

    def client(self, process: Process) -> Any:
        """A process' way to it."""
        return _Client(self, process)

    async def redis_step(self, process: Process, what: str, act: Callable[[], _T]) -> _T:
        """One command, script or pipeline."""
        await self._steps.pause(process)
        if self.away or self._rng.random() < self._chance:
            self.unsettled = self._steps.time
            done = not self.away and self._rng.random() < 0.5
            if done:
                act()
                self._tell()
            self._steps.note(process.name, f"{what}: no answer{' but done' if done else ''}")
            raise self._rng.choice([RedisConnectionError, RedisTimeoutError])("the model Redis is away")
        self._expire()
        result = act()
        if what == "append":
            self._steps.note(process.name, f"append -> {result}")
        if not what.startswith(("xr", "told", "time", "get", "hget", "exists")):
            self._tell()
        await self._steps.pause(process)
        return result

    async def read(self, process: Process, streams: dict[str, str], count: int, block_ms: int) -> Any:
        """What is behind an id in a stream, awaited for so long."""
        until = self._steps.time + block_ms / 1000

        def act() -> Any:
            return self.store.xread(streams, count=count)

        found = await self.redis_step(process, "xread", act)
        while not found and self._steps.time < until:
            news = self._news
            try:
                async with asyncio.timeout(until - self._steps.time):
                    await news.wait()
            except TimeoutError:
                break
            await self._steps.alive(process)
            found = await self.redis_step(process, "xread", act) if self.away else act()
        return found

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def expire_in(self, key: str, seconds: float) -> None:
        """Let a key expire, in virtual time."""
        self._expiries[key] = self._steps.time + seconds

    def _expire(self) -> None:
        for key in [key for key, at in self._expiries.items() if at <= self._steps.time]:
            del self._expiries[key]
            self.store.delete(key)

    # Weather.

    async def disturb(self) -> None:
        """Let something happen to it."""
        what = self._rng.choice(["flush", "flush", "keep", "set back", "set back", "away", "away"])
        self._steps.note("redis", f"*** {what}")
        match what:
            case "keep":
                self._keep()
            case "away":
                self.away = True
                self._tell()  # who is connected is cut off
                await asyncio.sleep(self._rng.choice([0.1, 1.0, 5.0, 15.0]))
                self.back()
            case _:
                self.store.flushall()
                if what == "set back":
                    for key, value in self._kept.items():
                        self.store.restore(key, 0, value)
                self.unsettled = self._steps.time
        if self._rng.random() < 0.5:
            self._keep()

    def back(self) -> None:
        """It answers again."""
        if self.away:
            self._steps.note("redis", "*** back")
            self.away = False
            self.unsettled = self._steps.time

    def calm(self) -> None:
        """From now on it answers."""
        self._chance = 0.0
        self.back()

    def _keep(self) -> None:
        """What a replica has that may be promoted later."""
        self._kept = {key: self.store.dump(key) for key in self.store.scan_iter()}


class _Client(Client):
    """The client of the other histories, whose reads wait."""

    def __init__(self, world: RelayRedis, process: Process) -> None:
        super().__init__(world, process)
        self._server = world

    async def xread(self, streams: dict[str, str], *, count: int, block: int) -> Any:
        """What is behind an id, awaited for some milliseconds."""
        return await self._server.read(self._process, streams, count, block)
