"""Runs whose logs a test writes, and followers whose frames it reads; Redis and all in between are real."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

from common.connection import Connection
from common.cri import RawLine
from common.errors import Unavailable
from common.events import GAP, ZERO, Cursor, Line, LineId, number
from common.follow import Followers, Query
from common.frames import Farewell, Frame, Lines, Notice
from common.jobs import Holder, Job, Lease
from common.models import Progress
from common.platform import Platform
from common.runner import Runner
from common.settings import Settings
from common.tasks import end
from tests.unit import samples

PATIENCE_SECONDS = 10.0
ALL = frozenset({"log", "status", "progress"})
_TICK_SECONDS = 0.03


@dataclass
class Log:
    """What an attempt has written so far; `kept` is whether it is still to be had where it ran."""

    raw: list[RawLine] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    kept: bool = True


@dataclass
class Run:
    """A run, and the log of each of its attempts so far."""

    job: Job | None
    logs: list[Log] = field(default_factory=lambda: [Log()])
    progress: Progress | None = None

    @property
    def raw(self) -> list[RawLine]:
        """What the attempt that it is in has written."""
        return self.logs[-1].raw

    @property
    def lines(self) -> list[Line]:
        """The same, numbered."""
        return self.logs[-1].lines

    @property
    def texts(self) -> list[bytes]:
        """All attempts' lines."""
        return [raw.text for log in self.logs for raw in log.raw]


class LogRunner:
    """What a stream needs of a runner, in memory.

    Attributes:
        away: every call fails.
        reading: how many logs are being read; all are let go of in the end.
        batch: how many lines are given at a time.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.away = False
        self.reading = 0
        self.batch = 7
        self._holder: Holder | None = None
        self._news = asyncio.Event()

    # What a test does.

    def start(self, number: int = 0) -> str:
        """Start a run; its id."""
        run_id = samples.run_id(number)
        created = samples.CREATED + timedelta(minutes=number)
        record = samples.record(run_id=run_id, created_at=created)
        job = samples.job(record=record, uid=f"uid-{number}", launched=True, started_at=created)
        self.runs[run_id] = Run(job)
        self._holder = job.holder
        return run_id

    def add(self, job: Job) -> None:
        """Have a Job that is as it is."""
        self.runs[job.run_id] = Run(job)

    def write(self, run_id: str, *texts: bytes, at_ns: int | None = None) -> None:
        """Have a run write lines, a microsecond apart, or all at `at_ns`."""
        for text in texts:
            self._write(run_id, "stderr" if b"!" in text else "stdout", text, at_ns)
        self._number(run_id)

    def skip(self, run_id: str, reason: bytes) -> None:
        """Have the log say that lines are missing here."""
        self._write(run_id, GAP, reason, None)
        self._number(run_id)

    def _write(self, run_id: str, stream: str, text: bytes, at_ns: int | None) -> None:
        run = self.runs[run_id]
        # Each attempt's clock is behind that of the one before.
        begin = 1_900_000_000_000_000_000 - 1_000_000_000 * (len(run.logs) - 1)
        run.raw.append(RawLine(begin + 1_000 * len(run.raw) if at_ns is None else at_ns, stream, text))

    def _number(self, run_id: str) -> None:
        log = self.runs[run_id].logs[-1]
        log.lines = list(number(log.raw))
        self._tell()

    def restart(self, run_id: str) -> None:
        """Have the next attempt begin, on another node."""
        run = self.runs[run_id]
        assert run.job is not None
        run.logs.append(Log())
        run.job = replace(run.job, attempt=len(run.logs), message=None)
        self._tell()

    def say(self, run_id: str, message: str) -> None:
        """Have the run's status say this."""
        run = self.runs[run_id]
        assert run.job is not None
        run.job = replace(run.job, message=message)

    def forget(self, run_id: str, attempt: int) -> None:
        """Have an attempt's log vanish where it ran."""
        self.runs[run_id].logs[attempt - 1].kept = False

    def end(self, run_id: str) -> None:
        """Have a run succeed."""
        run = self.runs[run_id]
        assert run.job is not None
        run.job = replace(run.job, condition="Complete", finished_at=samples.FINISHED, exit_code=0)
        self._tell()

    def lose(self, run_id: str) -> None:
        """Have the run's Job and log vanish, as at the end of their retention."""
        self.runs[run_id].job = None
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # What a runner does.

    def _check(self) -> None:
        if self.away:
            raise Unavailable("runner", "The runner is away.")

    async def check(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    async def lease(self) -> Lease:
        self._check()
        return Lease("1", self._holder)

    async def job(self, run_id: str) -> Job | None:
        self._check()
        return self.runs[run_id].job if run_id in self.runs else None

    async def jobs(self) -> Sequence[Job]:
        self._check()
        return [run.job for run in self.runs.values() if run.job is not None]

    async def final(self, run_id: str, attempt: int) -> bool | None:
        job = await self.job(run_id)
        return None if job is None else job.ended or attempt < job.attempt

    async def progress(self, run_id: str) -> Progress | None:
        return self.runs[run_id].progress if run_id in self.runs else None

    async def lines(self, run_id: str, attempt: int, after: LineId = ZERO) -> AsyncGenerator[Sequence[Line], None]:
        at = 0
        self.reading += 1
        try:
            while True:
                self._check()
                news, run = self._news, self.runs.get(run_id)
                if run is None or run.job is None or attempt > len(run.logs) or not run.logs[attempt - 1].kept:
                    return
                while at < len(run.logs[attempt - 1].lines):
                    batch = run.logs[attempt - 1].lines[at : at + self.batch]
                    at += len(batch)
                    if fresh := tuple(line for line in batch if line.id > after):
                        yield fresh
                    await asyncio.sleep(0)
                    self._check()
                if await self.final(run_id, attempt) and at == len(run.logs[attempt - 1].lines):
                    if not at:
                        yield ()  # it is there, and empty
                    return
                yield ()
                if news is self._news:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_TICK_SECONDS):
                            await news.wait()
        finally:
            self.reading -= 1


def platform(url: str, runner: LogRunner, **changes: Any) -> Platform:
    """A process' parts over a runner and a Redis."""
    settings = Settings(**{"redis_url": url, **changes})
    return Platform.assemble(settings, lambda: cast("Runner", runner), Connection.open(settings))


def asks(**changes: Any) -> Query:
    """What a follower asks: all of the active or latest run, unless told otherwise."""
    everything = Query(run_id=None, after=None, tail=None, types=ALL, transport="sse", follow=True)
    return replace(everything, **changes)


class Follower:
    """One follower, and what it has been sent so far."""

    def __init__(self, followers: Followers, query: Query) -> None:
        self._followers = followers
        self._query = query
        self.frames: list[Frame] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._follow())
        self._task.add_done_callback(lambda _: self._more.set())

    async def _follow(self) -> None:
        run_id = await self._followers.resolve(self._query)
        if run_id is None:
            return
        async with aclosing(self._followers.follow(self._query, run_id)) as frames:
            async for frame in frames:
                self.frames.append(frame)
                self._more.set()

    @property
    def lines(self) -> list[Line]:
        """The lines it has."""
        return [line for frame in self.frames if isinstance(frame, Lines) for line in frame.lines if line.stream != GAP]

    @property
    def texts(self) -> list[bytes]:
        """Their texts."""
        return [line.text for line in self.lines]

    @property
    def kinds(self) -> list[str]:
        """The kinds of all that was sent; lines that follow each other are one `log`."""
        found: list[str] = []
        for frame in self.frames:
            match frame:
                case Lines():
                    kinds = ["gap" if line.stream == GAP else "log" for line in frame.lines]
                case Notice():
                    kinds = [str(frame.event["type"])]
                case _:
                    kinds = [type(frame).__name__.lower()]
            for kind in kinds:
                if kind != "log" or found[-1:] != ["log"]:
                    found.append(kind)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """All notices, as events."""
        return [frame.event for frame in self.frames if isinstance(frame, Notice)]

    @property
    def place(self) -> Cursor:
        """Where to go on after what it has."""
        for frame in reversed(self.frames):
            match frame:
                case Lines():
                    return Cursor(frame.run_id, frame.attempt, frame.last)
                case Notice():
                    return frame.cursor
                case Farewell():
                    return frame.cursor
        raise AssertionError("nothing was sent")

    async def until(self, true: "Callable[[Follower], bool]") -> None:
        """Wait until something is true of what it has."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not true(self):
                if self._task.done():
                    self._task.result()
                    assert true(self), (self.kinds, self.texts[-3:], self.events[-2:])
                    return
                self._more.clear()
                await self._more.wait()

    async def has(self, texts: Sequence[bytes]) -> None:
        """Wait until it has as many lines; they are these."""
        await self.until(lambda self: len(self.texts) >= len(texts))
        assert self.texts == list(texts)

    async def end(self) -> None:
        """Wait until its stream ends by itself."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._task

    async def leave(self) -> None:
        """Go away."""
        await end([self._task])


class World:
    """A runner, a Redis, and the processes between them and their followers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.runner = LogRunner()
        self.processes: list[Platform] = []
        self._followers: dict[Platform, Followers] = {}
        self.all: list[Follower] = []

    def process(self, **changes: Any) -> Platform:
        """One more process."""
        made = platform(self.url, self.runner, **changes)
        self.processes.append(made)
        self._followers[made] = Followers(made)
        return made

    def followers(self, process: Platform | None = None) -> Followers:
        """The followers of a process, by default of the first."""
        if not self.processes:
            self.process()
        return self._followers[process or self.processes[0]]

    def follow(self, process: Platform | None = None, **query: Any) -> Follower:
        """A new follower."""
        made = Follower(self.followers(process), asks(**query))
        self.all.append(made)
        return made

    def tasks(self) -> set[str]:
        """What is at work in this loop, but for the test."""
        return {
            task.get_coro().__qualname__  # type: ignore[union-attr] # coroutines have one
            for task in asyncio.all_tasks()
            if task is not asyncio.current_task()
        }

    async def leave(self) -> None:
        """Send all followers away."""
        for follower in self.all:
            await follower.leave()

    async def close(self) -> None:
        """Let go of Redis."""
        for process in self.processes:
            await process.close()


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    """A world on an empty Redis; when it ends nothing of it is at work, and every log is let go of."""
    made = World(url)
    before = made.tasks()
    async with Connection.open(Settings(redis_url=url)).use() as client:
        await client.flushall()
        await client.aclose()
    try:
        yield made
    finally:
        await made.leave()
    await eventually(lambda: made.tasks() <= before, made.tasks)
    await eventually(lambda: not made.runner.reading)
    await made.close()


async def eventually(true: Callable[[], Any], seen: Callable[[], Any] = str) -> None:
    """Wait until something is true; `seen` tells what is there instead if it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, seen()
        await asyncio.sleep(0.005)
