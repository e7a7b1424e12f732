"""The cluster, Redis, time, and what befalls callers on their way to them.

Every call to the API server and every command to Redis is one step. Before and after each a caller may be
overtaken, held up for long, or killed with its whole process; a write may do its work and not say so, or later
than it says; Redis may be away, lost, or set back to what it was.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from unittest.mock import patch

from aiohttp import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common.connection import Connection
from common.kube import prepare
from common.kube.runner import KubernetesRunner
from common.kube.transport import Api, Object
from common.platform import Platform
from common.settings import Settings
from tests.simulation import virtual
from tests.simulation.api_server import Answer, ApiServer
from tests.simulation.cluster import Cluster
from tests.simulation.job_rules import over
from tests.simulation.node import is_head
from tests.simulation.redis_client import Client
from tests.simulation.truth import Truth
from tests.simulation.weather import Weather
from tests.simulation.words import describe, short

if TYPE_CHECKING:
    import aiohttp

_T = TypeVar("_T")
_CALL_SECONDS = 10  # the transport's time-out
_NOWHERE = ClientConnectorError(ConnectionKey("api", 443, True, True, None, None, None), OSError("the model is away"))


@dataclass
class Actor:
    """Somebody who called the library.

    Attributes:
        calls: how many steps it has taken.
    """

    name: str
    reads_only: bool = False
    calls: int = 0


actor: ContextVar[Actor] = ContextVar("actor")
_preparing: ContextVar["Process"] = ContextVar("preparing")


@dataclass(eq=False)
class Process:
    """A replica of the functions, or what prepares a head: dies as a whole.

    Attributes:
        killed: is told when it does.
        decisions: when steps took place by which somebody in it, for all there, learned who has the slot.
    """

    name: str
    killed: Callable[[], None] = lambda: None
    dead: bool = False
    decisions: list[float] = field(default_factory=list)
    platform: Platform = field(init=False)


class World:
    """One history's world.

    Attributes:
        store: Redis, as it is: a RedisModel, or a synchronous client of a real server.
        interfere: told of each call to the API server before it is done, with what does it; may raise instead.
        scripts: what a script of Redis' (name, source) is to be run as.
        accepted: when each run was first told to somebody as started.
        refused: runs whose callers were refused, or attached elsewhere.
        made: the last run id of each actor.
    """

    def __init__(self, seed: int | str | random.Random, store: Any, weather: Weather | None = None) -> None:
        self.rng = seed if isinstance(seed, random.Random) else random.Random(f"world {seed}")
        self.weather = Weather.draw(self.rng) if weather is None else weather
        climate = self.weather.climate
        self.cluster = Cluster(self.rng, climate.life_seconds, climate.leftovers)
        self.cluster.controller.delays, self.cluster.controller.refuses = climate.controller, climate.unready
        node = self.cluster.node
        node.taken, node.refused, node.stuck = climate.taken, climate.unready, climate.unready
        node.reach_seconds = climate.life_seconds or node.reach_seconds
        node.prepare = self._prepare
        self.truth = Truth(self.cluster, climate.max_attempts)
        self.truth.forgets = climate.forgets
        self.cluster.server.watchers.append(self._watch)
        self.store = store
        self.redis_is_away = False
        self.broken = self.truth.broken
        self.accepted: dict[str, float] = {}
        self.refused: set[str] = set()
        self.made: dict[str, str] = {}
        self.interfere: Callable[[str, Callable[[], Any]], None] = lambda what, act: None
        self.scripts: Callable[[str, str], str] = lambda name, source: source
        self.settings = Settings(
            cancel_wait_seconds=6,
            busy_wait_seconds=10,
            cancel_grace_seconds=3,
            pipeline_sources=("*",),
            history_max_runs=climate.max_runs,
            history_ttl_seconds=climate.ttl_seconds,
            start_deadline_seconds=climate.start_deadline_seconds,
            task_resource=climate.task_resource,
            controller_image="functions:1",
            work_claim="work",
            max_attempts=climate.max_attempts,
        )
        self.runner = KubernetesRunner(self.settings, _Direct(self.cluster))
        self._trace: list[tuple[float, str, str, Any]] = []
        self._over = False
        self._expiries: dict[str, float] = {}
        self._names = 0
        self._processes = 0

    # Who there is.

    def process(self) -> Process:
        """A fresh replica."""
        self._processes += 1
        process = Process(f"p{self._processes}")
        client: Any = Client(self, process)
        api = _Disturbed(self, process)
        process.platform = Platform.assemble(
            self.settings, lambda: KubernetesRunner(self.settings, api), Connection(client)
        )
        return process

    def run_id(self) -> str:
        """The next run id, in order."""
        self._names += 1
        letters = "abcdefghijklmnopqrstuvwxyz234567"
        run_id = "run-" + "a" * 14 + letters[self._names // 32] + letters[self._names % 32]
        self.made[actor.get().name] = run_id
        return run_id

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time()

    def calm(self) -> None:
        """From now on nothing goes wrong on anybody's way, and heads come up, though they may still be taken."""
        self.weather = Weather(climate=self.weather.climate)
        node, controller = self.cluster.node, self.cluster.controller
        node.refused = node.stuck = controller.refuses = 0.0

    def end(self) -> None:
        """Let everybody go."""
        self._over = True

    def left(self) -> list[str]:
        """What there is besides the Jobs of ended runs and their ended heads, and a Lease that names somebody."""
        cluster = self.cluster
        kept = {run.run_id: run for run in self.truth.ever if not run.gone}
        jobs = [job["metadata"]["name"] for job in cluster.server.objects(cluster.controller.jobs)]
        found = [name for name in jobs if name not in kept or not kept[name].ended]
        for pod in cluster.server.objects(cluster.controller.pods):
            name = pod["metadata"]["name"]
            if not is_head(pod) or not over(pod) or cluster.runs_of[name] not in kept:
                found.append(name)
        holder = self.at_once(self.runner.lease()).holder
        return found if holder is None else [*found, f"the Lease of {holder.run_id}"]

    def at_once(self, call: Coroutine[Any, Any, _T]) -> _T:
        """The result of a call to `runner`, which nothing disturbs and nobody comes between."""
        try:
            call.send(None)
        except StopIteration as done:
            return cast("_T", done.value)
        raise AssertionError("it waits")

    # The trace.

    def note(self, who: str, text: str, result: Any = None) -> None:
        """Add to the trace."""
        self._trace.append((self.time, who, text, result))

    def trace(self) -> list[str]:
        """What has happened, a line a step."""
        return [
            f"{time:9.3f}  {who:22}  {text}{'' if result is None else f' -> {short(result)}'}"
            for time, who, text, result in self._trace
        ]

    def _watch(self, before: Object | None, after: Object | None) -> None:
        self.note("cluster", "changed" if after is not None else "gone", after or before)

    async def _prepare(self, pod: Object) -> None:
        """What a pod does before its head is started, with trouble of its own."""
        name = pod["metadata"]["name"]
        _preparing.set(Process(f"pod {name}", killed=lambda: self.cluster.node.end(name, 137)))
        actor.set(Actor("prepares"))
        await prepare._end_earlier(self.settings, self.cluster.runs_of[name])

    # Steps.

    async def pause(self, process: Process) -> None:
        """Time passes, or this caller's process is killed and never goes on."""
        rng, weather = self.rng, self.weather
        if self._over:
            raise asyncio.CancelledError
        if not process.dead and rng.random() < weather.kill:
            self.note(process.name, "*** killed")
            process.dead = True
            process.killed()
        if process.dead:
            await asyncio.Future()
        seconds = rng.random() * weather.step_seconds
        if rng.random() < weather.hold_up:
            seconds = rng.choice([0.3, 1.1, 3, 12])
        await asyncio.sleep(seconds)
        if process.dead:
            await asyncio.Future()

    async def api_step(
        self, process: Process, method: str, path: str, body: Object | None, query: Mapping[str, str]
    ) -> Answer:
        """One call to the API server."""
        caller, who = self._enter(process)
        what, writes = describe(method, path, body, query), method != "GET"

        def act() -> Answer:
            return self.cluster.server.call(method, path, body, query)

        await self.pause(process)
        if self.rng.random() < self.weather.runner_away:
            return await self._turned_away(who, what, writes=writes)
        self.interfere(what, act)
        if writes and caller.reads_only:
            self.broken.append(f"{caller.name}, a reader, wrote to the cluster: {what}")
        fate = "done"
        if writes and self.rng.random() < self.weather.unknown:
            fate = self.rng.choice(["done, but not told", "not done", "done later"])
            if fate == "done later":
                asyncio.get_running_loop().call_later(self.rng.choice([0.05, 0.5, 5]), self._late, who, what, act)
        if fate.startswith("done") and fate != "done later":
            answer = act()
            if answer.status < 300 and what.startswith(("job ", "create", "launch", "seal", "stop")):
                process.decisions.append(self.time)
            self.note(who, f"{what}: {fate}", answer)
            if fate == "done":
                await self.pause(process)
                return answer
        else:
            self.note(who, f"{what}: unknown, {fate}")
        return await self._no_answer(process)

    async def _turned_away(self, who: str, what: str, *, writes: bool) -> Answer:
        how = self.rng.choice([429, 0] if writes else [429, 0, 500])
        self.note(who, f"{what}: turned away ({how})")
        if not how:
            raise _NOWHERE
        return Answer(how, {"message": "the model is busy"})

    async def _no_answer(self, process: Process) -> Answer:
        """An error, or a time-out, which comes after a while."""
        if self.rng.random() < 0.5:
            await self.pause(process)
            return Answer(self.rng.choice([500, 503, 504]), {"message": "the model has lost its way"})
        await asyncio.sleep(self.rng.choice([0, 0.3, 3, _CALL_SECONDS]))
        await self.pause(process)
        raise TimeoutError

    def _late(self, who: str, what: str, act: Callable[[], Answer]) -> None:
        self.note(who, f"{what}: done late", act())

    async def redis_step(self, process: Process, what: str, act: Callable[[], _T]) -> _T:
        """One command, script or pipeline."""
        _, who = self._enter(process)
        await self.pause(process)
        if self.redis_is_away or self.rng.random() < self.weather.redis_away:
            done = not self.redis_is_away and self.rng.random() < 0.5
            if done:
                act()
            self.note(who, f"{what}: no answer{' but done' if done else ''}")
            raise self.rng.choice([RedisConnectionError, RedisTimeoutError])("the model Redis is away")
        self._expire()
        if what == "ask":
            process.decisions.append(self.time)
        result = act()
        self.note(who, what, result)
        await self.pause(process)
        return result

    def _enter(self, process: Process) -> tuple[Actor, str]:
        caller = actor.get()
        caller.calls += 1
        return caller, f"{process.name} {caller.name}"

    def expire_in(self, key: str, seconds: float) -> None:
        """Redis' own clock does not follow the virtual one, so expiry is kept here."""
        self._expiries[key] = self.time + seconds

    def _expire(self) -> None:
        for key in [key for key, at in self._expiries.items() if at <= self.time]:
            del self._expiries[key]
            self.store.delete(key)

    # What happens to Redis.

    async def redis_weather(self, horizon: float) -> None:
        """Flush it, set it back, take it away for a while: at random times, so many times."""
        kept: dict[bytes, bytes] = {}
        for _ in range(self.weather.redis_events):
            await asyncio.sleep(self.rng.random() * horizon / 2)
            match self.rng.choice(["flush", "keep", "set back", "away"]):
                case "flush":
                    self.note("redis", "*** flushed")
                    self.store.flushall()
                case "keep":
                    kept = {key: self.store.dump(key) for key in self.store.scan_iter()}
                case "set back":
                    self.note("redis", "*** set back")
                    self.store.flushall()
                    for key, value in kept.items():
                        self.store.restore(key, 0, value)
                case _:
                    self.note("redis", "*** away")
                    self.redis_is_away = True
                    await asyncio.sleep(self.rng.choice([0.1, 1, 5]))
                    self.redis_is_away = self.rng.random() < 0.2  # sometimes to the end

    @contextmanager
    def names(self) -> Iterator[None]:
        """While this holds, the library's clock is the loop's, and its run ids are in order."""
        with ExitStack() as stack:
            for module in ("claim", "cancel", "settle", "store", "kube.runner"):
                stack.enter_context(patch(f"common.{module}.datetime", virtual.Datetime))
            stack.enter_context(patch("common.claim.new_run_id", self.run_id))
            stack.enter_context(patch("common.kube.transport._PAGE", str(self.weather.climate.page)))
            stack.enter_context(patch("common.kube.prepare.Api", lambda: _Disturbed(self, _preparing.get())))
            stack.enter_context(patch("asyncio.to_thread", _here))
            yield


class _Disturbed(Api):
    """The library's own transport, with a process' way to the model in place of a connection."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__()
        self._world, self._process = world, process

    async def _send(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str], limit: Any
    ) -> "aiohttp.ClientResponse":
        return _response(
            self._world.cluster.server, await self._world.api_step(self._process, method, path, body, query)
        )


class _Direct(Api):
    """The same for those who are not disturbed."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    async def _send(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str], limit: Any
    ) -> "aiohttp.ClientResponse":
        return _response(self._cluster.server, self._cluster.server.call(method, path, body, query))


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes

    async def read(self) -> bytes:
        return self.body


def _response(server: ApiServer, answer: Answer) -> "aiohttp.ClientResponse":
    return cast("aiohttp.ClientResponse", _Response(answer.status, server.encoded(answer.body)))


async def _here(function: Callable[..., _T], *args: Any) -> _T:
    """What `asyncio.to_thread` does, without a thread."""
    return function(*args)
