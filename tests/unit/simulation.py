"""One seed, one history: callers, readers and cancels against the model cluster, disturbed at every step.

Every call to the runner and every command to Redis is one step. Before and after each a caller may be
overtaken, held up for long, or killed with its whole process; a write may do its work and not say so, or
later than it says; Redis may be away, lost, or set back to what it was. At the end all is calm, every caller
is dead, and one fresh caller must get the slot; then the histories are compared with the truth.

    SEED=123 pytest tests/unit/test_promises.py -k seed      replays one history and shows its trace
"""

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common import cancel as cancelling
from common import claim, look
from common.connection import Connection
from common.errors import (
    Busy,
    Conflict,
    ControllerError,
    KeyReused,
    NothingActive,
    OutcomeUnknown,
    RunNotFound,
    Unavailable,
)
from common.events import Line
from common.jobs import Holder, Job, Lease
from common.models import CancelMark, Progress, RunInfo, RunRecord, RunRequest
from common.phases import State
from common.platform import Platform
from common.settings import Settings
from tests.unit import virtual
from tests.unit.cluster import Cluster, now

_T = TypeVar("_T")
_FRESH_SECONDS = 1.0
_LUA = Path(claim.__file__).parent / "lua"
_HANG_SECONDS = 2_000.0  # far more than all delays of one caller together


@dataclass
class Actor:
    """Somebody who called the library.

    Attributes:
        decided_at: when the step took place by which it last learned who has the slot.
        calls: how many steps it has taken.
    """

    name: str
    reads_only: bool = False
    decided_at: float = 0.0
    calls: int = 0


_actor: ContextVar[Actor] = ContextVar("actor")


@dataclass(eq=False)
class Process:
    """A replica of the functions: dies as a whole."""

    name: str
    dead: bool = False
    platform: Platform = field(init=False)


@dataclass(frozen=True)
class Weather:
    """How often what goes wrong, in one history."""

    step_seconds: float = 0.002
    hold_up: float = 0.0
    kill: float = 0.0
    runner_away: float = 0.0
    unknown: float = 0.0
    redis_away: float = 0.0
    redis_events: int = 0
    hang_up: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random) -> "Weather":
        """Each kind of trouble is absent, rare or frequent: together they would hide each other."""
        if rng.random() < 0.3:  # at the fence alone
            return cls(step_seconds=0.02, hold_up=0.1, runner_away=rng.choice([0, 0.1]), unknown=0.5)
        return cls(
            step_seconds=rng.choice([0.001, 0.01, 0.05, 0.2]),
            hold_up=rng.choice([0, 0.02, 0.1]),
            kill=rng.choice([0, 0.01, 0.04]),
            runner_away=rng.choice([0, 0, 0.03, 0.1]),
            unknown=rng.choice([0, 0.1, 0.3, 0.5]),
            redis_away=rng.choice([0, 0, 0.05]),
            redis_events=rng.choice([0, 1, 4]),
            hang_up=rng.choice([0, 0.1]),
        )


CALM = Weather()


class World:
    """The cluster, Redis, time, and what befalls callers on their way to them."""

    def __init__(self, seed: int | str | random.Random, store: "redis.Redis", weather: Weather | None = None) -> None:
        self.rng = seed if isinstance(seed, random.Random) else random.Random(f"world {seed}")
        self.weather = Weather.draw(self.rng) if weather is None else weather
        self.cluster = Cluster(self.rng, self.rng.choice([3.0, 3.0, 0.3]), leftovers=self.rng.choice([0.0, 0.5]))
        self.cluster.watch = lambda text: self.note("cluster", text)
        self.store = store
        self.redis_is_away = False
        self.trace: list[str] = []
        self.broken = self.cluster.broken
        self.accepted: dict[str, float] = {}
        self.refused: set[str] = set()
        self.made: dict[str, str] = {}
        self.answers: dict[str, list[tuple[str, bool]]] = {}
        self._over = False
        self._expiries: dict[str, float] = {}
        self._names = 0
        self._processes = 0
        self.interfere: Callable[[str, Callable[[], object]], None] = lambda what, act: None
        self.scripts: Callable[[str, str], str] = lambda name, source: source
        self.settings = Settings(cancel_wait_seconds=6, busy_wait_seconds=10)

    # Who there is.

    def process(self) -> Process:
        """A fresh replica."""
        self._processes += 1
        process = Process(f"p{self._processes}")
        client: Any = _Client(self, process)
        process.platform = Platform.assemble(self.settings, lambda: _Runner(self, process), Connection(client))
        return process

    def run_id(self) -> str:
        """The next run id, in order."""
        self._names += 1
        letters = "abcdefghijklmnopqrstuvwxyz234567"
        run_id = "run-" + "a" * 14 + letters[self._names // 32] + letters[self._names % 32]
        self.made[_actor.get().name] = run_id
        return run_id

    def note(self, who: str, text: str) -> None:
        """Add to the trace."""
        self.trace.append(f"{self.time:9.3f}  {who:22}  {text}")

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time()

    def end(self) -> None:
        """Let everybody go."""
        self._over = True

    # Steps.

    async def pause(self, process: Process) -> None:
        """Time passes, or this caller's process is killed and never goes on."""
        rng, weather = self.rng, self.weather
        if self._over:
            raise asyncio.CancelledError
        if not process.dead and rng.random() < weather.kill:
            self.note(process.name, "*** killed")
            process.dead = True
        if process.dead:
            await asyncio.Future()
        seconds = rng.random() * weather.step_seconds
        if rng.random() < weather.hold_up:
            seconds = rng.choice([0.3, 1.1, 3, 12])
        await asyncio.sleep(seconds)
        if process.dead:
            await asyncio.Future()

    async def runner_step(self, process: Process, what: str, act: Callable[[], _T], *, writes: bool = False) -> _T:
        """One call to the runner."""
        actor, who = self._enter(process)
        await self.pause(process)
        weather = self.weather
        if self.rng.random() < weather.runner_away:
            self.note(who, f"{what}: unavailable")
            raise Unavailable("runner", "the model runner is away")
        self.interfere(what, act)
        fate = "done"
        if writes:
            if actor.reads_only:
                self.broken.append(f"{actor.name}, a reader, wrote to the cluster: {what}")
            if self.rng.random() < weather.unknown:
                fate = self.rng.choice(["unknown, done", "unknown, not done", "unknown, done later"])
        if fate == "unknown, done later":
            asyncio.get_running_loop().call_later(self.rng.choice([0.05, 0.5, 5]), self._late, who, what, act)
        if fate in ("done", "unknown, done"):
            try:
                result = act()
            except Conflict as conflict:
                self.note(who, f"{what}: conflict ({conflict})")
                await self.pause(process)
                raise
            if not what.startswith(("lease", "delete", "sweep")):
                actor.decided_at = self.time
            self.note(who, f"{what}: {fate} -> {_short(result)}")
            if fate == "done":
                await self.pause(process)
                return result
        else:
            self.note(who, f"{what}: {fate}")
        await asyncio.sleep(self.rng.choice([0, 0.3, 3, 12]))  # whoever runs into a time-out has waited for it
        await self.pause(process)
        raise OutcomeUnknown("runner", "the model runner did not answer")

    def _late(self, who: str, what: str, act: Callable[[], object]) -> None:
        try:
            self.note(who, f"{what}: done late -> {_short(act())}")
        except Conflict:
            self.note(who, f"{what}: late, and refused")

    async def redis_step(self, process: Process, what: str, act: Callable[[], _T]) -> _T:
        """One command, script or pipeline."""
        actor, who = self._enter(process)
        await self.pause(process)
        if self.redis_is_away or self.rng.random() < self.weather.redis_away:
            done = not self.redis_is_away and self.rng.random() < 0.5
            if done:
                act()
            self.note(who, f"{what}: no answer{' but done' if done else ''}")
            raise self.rng.choice([RedisConnectionError, RedisTimeoutError])("the model Redis is away")
        self._expire()
        if what == "ask":
            actor.decided_at = self.time
        result = act()
        self.note(who, f"{what} -> {_short(result)}")
        await self.pause(process)
        return result

    def _enter(self, process: Process) -> tuple[Actor, str]:
        actor = _actor.get()
        actor.calls += 1
        return actor, f"{process.name} {actor.name}"

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
                    kept = {key: self.store.dump(key) for key in self.store.scan_iter()}  # type: ignore[misc] # sync client
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


class _Runner:
    """common.runner.Runner on the model cluster."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process, self._cluster = world, process, world.cluster

    async def _step(self, what: str, act: Callable[[], _T], *, writes: bool = False) -> _T:
        return await self._world.runner_step(self._process, what, act, writes=writes)

    async def check(self) -> None:
        await self._step("check", lambda: None)

    async def close(self) -> None:
        pass

    async def lease(self) -> Lease:
        return await self._step("lease", self._cluster.lease)

    async def write_lease(self, read: Lease, holder: Holder | None) -> Lease:
        what = f"lease write {holder.run_id + ' ' + holder.uid if holder else 'empty'} at v{read.version}"
        return await self._step(what, lambda: self._cluster.write_lease(read, holder), writes=True)

    async def accept(self, request: RunRequest) -> None:
        pass

    async def create(self, record: RunRecord) -> Job:
        return await self._step(f"create {record.run_id}", lambda: self._cluster.create(record), writes=True)

    async def job(self, run_id: str) -> Job | None:
        return await self._step(f"job {run_id}", lambda: self._cluster.job(run_id))

    async def jobs(self) -> Sequence[Job]:
        return await self._step("jobs", self._cluster.jobs)

    async def launch(self, read: Job) -> Job:
        return await self._step(f"launch {_short(read)}", lambda: self._cluster.launch(read), writes=True)

    async def seal(self, read: Job, mark: CancelMark | None, reason: str | None = None) -> Job:
        return await self._step(f"seal {_short(read)}", lambda: self._cluster.seal(read, mark, reason), writes=True)

    async def stop(self, read: Job, mark: CancelMark) -> Job:
        return await self._step(f"stop {_short(read)}", lambda: self._cluster.stop(read, mark), writes=True)

    async def delete(self, read: Job) -> None:
        return await self._step(f"delete {_short(read)}", lambda: self._cluster.delete(read), writes=True)

    async def sweep(self, run_id: str) -> int:
        return await self._step(f"sweep {run_id}", lambda: self._cluster.sweep(run_id), writes=True)

    async def lines(self, run_id: str, attempt: int) -> Any:
        batch: list[Line] = []
        yield batch

    async def progress(self, run_id: str) -> Progress | None:
        return None


class _Pool:
    """Connections, of which the model has none."""

    async def disconnect(self, *, inuse_connections: bool) -> None:
        pass


class _Client:
    """What common.connection needs of redis.asyncio.Redis, on a synchronous client: each call is one step."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self.connection_pool = _Pool()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def command(*args: Any, **options: Any) -> Any:
            method = getattr(self._world.store, name)
            return await self._world.redis_step(self._process, f"{name} {args}", lambda: method(*args, **options))

        return command

    async def time(self) -> tuple[int, int]:
        return await self._world.redis_step(self._process, "time", _time)

    async def set(self, key: str, value: Any, *, ex: float, nx: bool = False) -> Any:
        def act() -> Any:
            done = self._world.store.set(key, value, nx=nx)
            if done:
                self._world.expire_in(key, ex)
            return done

        return await self._world.redis_step(self._process, f"set {key} nx={nx}", act)

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        return _Pipeline(self._world, self._process, self._world.store.pipeline(transaction=transaction))

    def register_script(self, source: str) -> Callable[..., Awaitable[Any]]:
        name = next(path.stem for path in _LUA.iterdir() if path.read_text("utf-8") == source)
        script = self._world.store.register_script(self._world.scripts(name, in_virtual_time(source)))

        async def run(keys: list[str], args: list[Any]) -> Any:
            return await self._world.redis_step(self._process, name, lambda: script(keys=keys, args=[*args, *_time()]))

        return run


def in_virtual_time(source: str) -> str:
    """A script that takes the time from its last two arguments instead of from Redis."""
    return source.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")


class _Pipeline:
    def __init__(self, world: World, process: Process, pipe: Any) -> None:
        self._world, self._process, self._pipe = world, process, pipe

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._pipe, name)
        return method

    async def execute(self) -> Any:
        return await self._world.redis_step(self._process, "pipeline", self._pipe.execute)


def _time() -> tuple[int, int]:
    moment = now()
    return int(moment.timestamp()), moment.microsecond


def _short(value: Any) -> str:
    match value:
        case Job():
            marks = [name for name in ("launched", "sealed") if getattr(value, name)]
            more = ["marked"] * (value.mark is not None) + [str(value.condition)] * (value.condition is not None)
            return f"{value.run_id}/{value.uid} v{value.version} {' '.join(marks + more)} remains={value.remains}"
        case Lease():
            return f"v{value.version} {value.holder.run_id + ' ' + value.holder.uid if value.holder else 'empty'}"
        case bytes():
            return value.decode()[:40]
        case list() | tuple():
            return "[" + ", ".join(_short(item) for item in value) + "]"
    return str(value)


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_Datetime":
        moment = now().astimezone(tz)
        return cls.combine(moment.date(), moment.timetz())


@contextmanager
def _virtual_names(world: World) -> Iterator[None]:
    with ExitStack() as stack:
        for module in ("claim", "cancel", "settle", "store"):
            stack.enter_context(patch(f"common.{module}.datetime", _Datetime))
        stack.enter_context(patch("common.claim.new_run_id", world.run_id))
        yield


class Trouble(AssertionError):
    """A promise was broken; the text is the trace of how."""


@dataclass
class History:
    """One history from beginning to end, and what it was seen to promise."""

    world: World
    horizon: float = field(init=False)
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    keyed: dict[str, set[str]] = field(default_factory=dict)

    async def play(self) -> None:
        """Disturbed callers, then calm: one fresh caller, and the comparison with the truth."""
        world, rng = self.world, self.world.rng
        self.horizon = rng.choice([0.05, 1.0, 8.0])
        processes = [world.process() for _ in range(rng.randint(1, 3))]
        disturber = asyncio.create_task(world.redis_weather(self.horizon + 5))
        for number in range(rng.randint(2, 6)):
            self._spawn(processes, f"start{number}", self._start, rng.random() < 0.3)
        for number in range(rng.choice([0, 1, 3])):
            self._spawn(processes, f"cancel{number}", self._cancel, rng.random() < 0.2)
        for number in range(rng.choice([0, 2, 5])):
            self._spawn(processes, f"read{number}", self._read, rng.choice(["active", "run", "history"]))
        living = [task for task in self.tasks if not task.done()]
        while living and world.time < _HANG_SECONDS:
            await asyncio.wait(living, timeout=5)
            living = [task for task in living if not task.done() and not self._is_dead(task)]
        for task in living:
            world.broken.append(f"{task.get_name()} neither died nor got an answer")
        for process in processes:
            process.dead = True
        disturber.cancel()
        world.weather = CALM
        world.note("world", "--- all is calm, every caller is dead")
        await self._afterwards()

    def _spawn(self, processes: list[Process], name: str, what: Callable[..., Awaitable[None]], choice: Any) -> None:
        rng = self.world.rng
        process = rng.choice(processes)
        actor = Actor(name, reads_only=name.startswith("read"))
        begin = rng.random() * self.horizon

        async def later() -> None:
            _actor.set(actor)
            await asyncio.sleep(begin)
            if process.dead:
                return
            await what(actor, process, choice)

        task = asyncio.create_task(later(), name=f"{process.name} {name}")
        task.process = process  # type: ignore[attr-defined] # read by _is_dead only
        self.tasks.append(task)
        if rng.random() < self.world.weather.hang_up:
            asyncio.get_running_loop().call_later(begin + rng.random() * 3, task.cancel)

    @staticmethod
    def _is_dead(task: "asyncio.Task[None]") -> bool:
        process: Process = task.process  # type: ignore[attr-defined] # set by _spawn
        return process.dead

    # Callers.

    async def _start(self, actor: Actor, process: Process, with_key: bool) -> None:
        world, rng = self.world, self.world.rng
        body = rng.choice(["main", "main", "main", "other"]) if with_key else "main"
        request = RunRequest(
            pipeline=body, on_busy=rng.choice(["attach", "attach", "reject"]) if not with_key else "attach"
        )
        key = rng.choice(["k1", "k1", "k2"]) if with_key else None
        begin = world.time
        before = list(world.answers.get(key, ())) if key else []
        if key:
            self.keyed.setdefault(key, set()).add(body)
        try:
            claimed = await claim.start(process.platform, request, caller="me", key=key)
        except OutcomeUnknown as unknown:
            world.note(actor.name, f"=== {unknown!r}")
            return
        except (Busy, Unavailable) as refusal:
            world.note(actor.name, f"=== refused: {refusal!r}")
            if key is None:
                world.refused.add(world.made[actor.name])
            return
        except KeyReused:
            world.note(actor.name, "=== key reused")
            if len(self.keyed[str(key)]) < 2:
                world.broken.append(f"{actor.name}: its key was never used with another body")
            return
        run = claimed.run
        world.note(actor.name, f"=== {run.run_id} {run.status} attached={claimed.attached}")
        if not claimed.attached:
            self._accept(actor, run, body)
        elif key is None:
            world.refused.add(world.made[actor.name])
            if not world.cluster.was_active(run.run_id, actor.decided_at - _FRESH_SECONDS, actor.decided_at):
                world.broken.append(f"{actor.name} was attached to {run.run_id}, which was not active")
            if not world.cluster.launched(run.run_id):
                world.broken.append(f"{actor.name} was attached to {run.run_id}, which nobody has launched")
        if key is not None:
            answer = (run.run_id, claimed.attached)
            calm = not world.weather.redis_away and not world.weather.redis_events
            if calm and before and answer not in before and begin < world.time:
                world.broken.append(f"{actor.name} got {answer} for a key that was answered with {before}")
            world.answers.setdefault(key, []).append(answer)

    def _accept(self, actor: Actor, run: RunInfo, body: str) -> None:
        world = self.world
        world.accepted.setdefault(run.run_id, world.time)
        job = world.cluster.last(run.run_id)
        if job is None or not (job.launched or job.sealed):
            world.broken.append(f"{actor.name} got {run.run_id}, which was not started")
        elif job.record.request.pipeline != body:
            world.broken.append(f"{actor.name} got {run.run_id}, which is of another request")

    async def _cancel(self, actor: Actor, process: Process, by_id: bool) -> None:
        world = self.world
        run_id = world.rng.choice(sorted(world.accepted)) if by_id and world.accepted else None
        begin = world.time
        try:
            cancelled = await cancelling.cancel(process.platform, by=actor.name, run_id=run_id)
        except NothingActive as nothing:
            world.note(actor.name, f"=== {nothing!r}")
            if run_id is None and not world.cluster.was_active(None, begin, world.time):
                world.broken.append(f"{actor.name} was told that nothing is active")
            return
        except OutcomeUnknown as unknown:
            world.note(actor.name, f"=== {unknown!r}")
            return
        except ControllerError as refusal:
            world.note(actor.name, f"=== {refusal!r}")
            if any(job.mark is not None and job.mark.requested_by == actor.name for job in world.cluster.ever):
                world.broken.append(f"{actor.name} was refused, and its cancel was done")
            return
        run = cancelled.run
        world.note(actor.name, f"=== {run.run_id} {run.status}: {cancelled.detail}")
        job = world.cluster.last(run.run_id)
        if run.status is State.CANCELLING:
            if job is None or job.mark is None:
                world.broken.append(f"{actor.name}: {run.run_id} is told to be cancelling, and is not")
        else:
            self._compare(actor.name, run)

    async def _read(self, actor: Actor, process: Process, what: str) -> None:
        world = self.world
        begin = world.time
        known = dict(world.accepted)
        try:
            match what:
                case "active":
                    run = await look.active(process.platform)
                    run_id = run.run_id if run is not None else None
                    world.note(actor.name, f"=== active: {run_id}")
                    if not world.cluster.was_active(run_id, begin - _FRESH_SECONDS, world.time):
                        world.broken.append(f"{actor.name} was told that {run_id} is active")
                case "run" if known:
                    run_id = world.rng.choice(sorted(known))
                    self._compare(actor.name, await look.run(process.platform, run_id))
                case _:
                    for run in (await look.history(process.platform, 100)).runs:
                        self._compare(actor.name, run)
        except Unavailable as away:
            world.note(actor.name, f"=== {away!r}")
        except RunNotFound as missing:
            world.broken.append(f"{actor.name} was told that {missing.run_id} does not exist")

    def _compare(self, who: str, run: RunInfo) -> None:
        """What is told of an end is the truth, and for ever."""
        job = self.world.cluster.last(run.run_id)
        if job is None:
            self.world.broken.append(f"{who} was told of {run.run_id}, which never was")
        elif run.status.terminal and run.status is not (job.truth or _condition(job.condition, job.mark)):
            self.world.broken.append(f"{who} was told that {run.run_id} {run.status}; in truth {job.truth}")
        elif run.status is State.UNKNOWN:
            self.world.broken.append(f"{who} was told that the end of {run.run_id} is unknown")

    # Afterwards.

    async def _afterwards(self) -> None:
        world = self.world
        await self._fresh_caller("last")
        for job in world.cluster.ever:
            if job.run_id in world.refused and job.launched:
                world.broken.append(f"{job.run_id} was launched, and its caller was refused or attached elsewhere")
        await self._histories("with Redis away" if world.redis_is_away else "at once")
        world.redis_is_away = False
        await asyncio.sleep(60)  # beyond every bound on freshness
        await self._histories("with Redis")
        await asyncio.sleep(600)
        await self._fresh_caller("sweeper")
        left = [job.run_id for job in world.cluster.jobs() if job.inert]
        if left:
            world.broken.append(f"inert Jobs stay behind: {left}")
        world.end()

    async def _fresh_caller(self, name: str) -> None:
        """Never stuck: it gets the slot, in the end, within few steps."""
        world = self.world
        process = world.process()
        for attempt in range(5):
            actor = Actor(f"{name}{attempt}")
            _actor.set(actor)
            try:
                claimed = await claim.start(process.platform, RunRequest(pipeline="main"), caller="me")
            except Busy as busy:
                world.note(actor.name, f"=== {busy!r}")
                continue
            world.note(actor.name, f"=== {claimed.run.run_id} attached={claimed.attached}")
            if actor.calls > 1_500:  # of which most are questions to Redis while somebody else's turn runs out
                world.broken.append(f"{actor.name} took {actor.calls} steps")
            if not claimed.attached:
                self._accept(actor, claimed.run, "main")
            while world.cluster.last(claimed.run.run_id).live:  # type: ignore[union-attr] # it has just been told of
                await asyncio.sleep(1)
            await asyncio.sleep(_FRESH_SECONDS)  # so long a record may go on to say that it is active
            if not claimed.attached:
                return
        world.broken.append("stuck: a fresh caller does not get the slot")

    async def _histories(self, when: str) -> None:
        """Never lost: every run that was accepted, or launched, is there with its end, once, newest first."""
        world = self.world
        _actor.set(Actor(f"history {when}", reads_only=True))
        platform = world.process().platform
        runs = list((await look.history(platform, 100)).runs)
        told = {run.run_id: run.status for run in runs}
        wanted = {job.run_id for job in world.cluster.ever if job.launched} | set(world.accepted)
        for run_id in sorted(wanted):
            job = world.cluster.last(run_id)
            truth = None if job is None else job.truth or _condition(job.condition, job.mark)
            # What Redis has just missed is missing in it until the next comparison with the Jobs is due.
            if told.get(run_id) is not truth and (run_id in told or when != "at once"):
                world.broken.append(f"{when}: the history says {run_id} {told.get(run_id)}; in truth {truth}")
            found = await look.run(platform, run_id)
            if found.status is not truth:
                world.broken.append(f"{when}: status says {run_id} {found.status}; in truth {truth}")
        queued = [run_id for run_id, state in told.items() if state is State.QUEUED]
        if queued:
            world.broken.append(f"{when}: the history has runs that were never accepted: {queued}")
        if len(told) != len(runs) or runs != sorted(runs, key=lambda run: run.created_at, reverse=True):
            world.broken.append(f"{when}: the history has a run twice, or in another order")
        if when == "with Redis":
            pages = [await platform.store.page(100, None, {state}) for state in State]
            if sorted(run.run_id for page in pages for run in page.runs) != sorted(told):
                world.broken.append("the history by state is not the history")
        if (found_active := await look.active(platform)) is not None:
            world.broken.append(f"{when}: {found_active.run_id} is told to be active")


def _condition(condition: str | None, mark: CancelMark | None) -> State | None:
    """How an ended head's run is told while pods remain: as it is to stay, but for a cancel, which is not done yet."""
    if condition is None:
        return None
    return State.CANCELLING if mark is not None else State.SUCCEEDED if condition == "Complete" else State.FAILED


def scripted(store: "redis.Redis", story: Callable[[World], Awaitable[None]]) -> None:
    """Run one story in calm weather; it may disturb single calls through `World.interfere`."""
    store.flushall()

    async def main() -> None:
        world = World("scripted", store, CALM)
        _actor.set(Actor("somebody"))
        with _virtual_names(world):
            await story(world)
        assert world.broken == []
        world.end()

    virtual.run(main())


def play(
    seed: int | str | random.Random, store: "redis.Redis", scripts: Callable[[str, str], str] | None = None
) -> list[str]:
    """Play one history, with the choices that follow from a seed, or those of a given chance; its trace.

    Raises:
        Trouble: a promise was broken.
    """
    store.flushall()

    async def main() -> World:
        world = World(seed, store)
        if scripts is not None:
            world.scripts = scripts
        world.note("world", f"seed {seed}: {world.weather}")
        with _virtual_names(world):
            failures: list[BaseException] = []
            history = History(world)
            try:
                await history.play()
            except Exception as error:
                failures.append(error)
            ended = [task for task in history.tasks if task.done() and not task.cancelled()]
            failures += [failure for task in ended if (failure := task.exception()) is not None]
            world.broken += [f"not handled: {failure!r}" for failure in failures]
            world.end()
            if failures:
                world.trace += traceback.format_exception(failures[0])
            return world

    world = virtual.run(main())
    if world.broken:
        raise Trouble("\n".join([*world.trace, "", *world.broken]))
    return world.trace
