"""One history's world: the cluster, Redis, the volume, the runs that speak, and the servers that die between them."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import SecretStr

from common import pages
from common.connection import Connection
from common.events import Cursor, Line, LineId
from common.follow import Followers
from common.kube import log as logs
from common.kube.runner import KubernetesRunner
from common.platform import Platform
from common.pump import Pump
from common.settings import Settings
from tests.simulation.relay.cluster import Cluster, RelayApi
from tests.simulation.relay.ledger import Ledger
from tests.simulation.relay.redis import RelayRedis
from tests.simulation.relay.steps import Process, Steps, running
from tests.simulation.relay.volume import RelayArchive, Volume
from tests.simulation.relay.weather import Weather


class Server(Process):
    """A stream server: a process whose followers come and go.

    Attributes:
        closed: called when it is killed: all connections are cut.
    """

    def __init__(self, name: str, world: "World") -> None:
        super().__init__(name)
        settings = world.settings
        self.closed: list[Callable[[], None]] = []
        runner = KubernetesRunner(settings, RelayApi(world.cluster, self))
        runner._archive = RelayArchive(world.volume, self) if world.weather.archive else None
        self.platform = Platform.assemble(settings, lambda: runner, Connection(world.redis.client(self)))
        token = running.set(self)
        self.followers = Followers(self.platform)
        running.reset(token)


class World:
    """Everything there is.

    Attributes:
        runs_over: no run will come any more.
        seen: places in logs that followers were at: who comes with a cursor has it from somebody.
        is_calm: nothing goes wrong any more.
        broken: what was seen that must not be.
    """

    def __init__(self, rng: random.Random, store: Any, directory: Path, weather: Weather) -> None:
        self.rng, self.weather = rng, weather
        self.steps = Steps(rng, weather.step_seconds, weather.hold_up)
        self.ledger = Ledger()
        self.redis = RelayRedis(store, self.steps, rng, weather.redis_away)
        self.cluster = Cluster(self.steps, rng, weather.api_away)
        self.volume = Volume(directory, self.ledger, self.steps, rng, weather.archive_away)
        self.settings = Settings(
            redis_log_lines=weather.log_lines,
            redis_log_bytes=weather.log_bytes,
            work_path=str(directory),
            recorder_secret="redis" if weather.recorder else None,
            archive_url="http://archive.example" if weather.archive else None,
            archive_token=SecretStr("x") if weather.archive else None,
        )
        self.servers: list[Server] = []
        self.runs_over = False
        self.seen: list[Cursor] = []
        self.is_calm = False
        self.broken: list[str] = []
        self._names = 0
        self._twins: list[asyncio.Task[None]] = []

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return self.steps.time

    def server(self) -> Server:
        """One more stream server."""
        self._names += 1
        made = Server(f"s{self._names}", self)
        self.servers.append(made)
        return made

    def kill(self, server: Server) -> None:
        """A stream server dies, and another one comes in its place."""
        self.servers.remove(server)
        self.steps.kill(server)
        for cut in server.closed:
            cut()
        self.server()

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self.is_calm = True
        self.steps.note("world", "--- all is calm")
        self.steps.calm()
        self.redis.calm()
        self.cluster.calm()
        self.volume.calm()

    def trace(self) -> list[str]:
        """What has happened, a line a step."""
        return self.steps.trace()

    @property
    def disturbed(self) -> float:
        """When Redis, the API server or the archive last failed somebody."""
        return max(self.redis.unsettled, self.cluster.unsettled, self.volume.unsettled)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this holds, it is known when each gap was found, and when each line was archived."""
        real_gap, real_lost = logs.Log.gap, pages._lost

        def gap(log: logs.Log, at: LineId, why: bytes) -> Line:
            self.ledger.gaps.setdefault(at, self.time)
            return real_gap(log, at, why)

        def lost(until: LineId) -> Line:
            self.ledger.gaps.setdefault(until, self.time)
            return real_lost(until)

        with ExitStack() as stack:
            stack.enter_context(patch.object(logs.Log, "gap", gap))
            stack.enter_context(patch.object(pages, "_lost", lost))
            stack.enter_context(self.volume.watched())
            yield

    async def disturb(self, horizon: float) -> None:
        """Let things go wrong, at random times until then, so many times."""
        rng, weather = self.rng, self.weather
        events = [self._kill] * weather.kills + [self.redis.disturb] * weather.redis_events
        events += [self._runner_away] * (weather.api_away > 0) + [self._archive_away] * (weather.archive_away > 0)
        events += [self._twin] * (rng.random() < 0.3)
        times = sorted((rng.random() * horizon, number) for number in range(len(events)))
        for at, number in times:
            await asyncio.sleep(max(0.0, at - self.time))
            await events[number]()

    async def _kill(self) -> None:
        self.kill(self.rng.choice(self.servers))

    async def _twin(self) -> None:
        """One more pump, which gives way to nobody, though others are at work."""
        if self.ledger.order and (attempts := len(self.ledger.runs[self.ledger.order[-1]])):
            server = self.rng.choice(self.servers)
            parts = server.platform
            token = running.set(server)
            twin = Pump(parts.runner, parts.streams, self.ledger.order[-1], attempts, who="twin", lasting=True)
            self._twins.append(asyncio.create_task(twin.run()))
            running.reset(token)
            self.steps.note(server.name, "*** a twin pump")

    async def _runner_away(self) -> None:
        self.cluster.away = True
        await asyncio.sleep(self.rng.choice([0.5, 5.0]))
        self.cluster.away, self.cluster.unsettled = False, self.time

    async def _archive_away(self) -> None:
        self.volume.away = True
        await asyncio.sleep(self.rng.choice([0.5, 5.0]))
        self.volume.away, self.volume.unsettled = False, self.time
