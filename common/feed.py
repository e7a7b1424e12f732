"""One run's log and status, read once a process however many follow it.

New lines are read from Redis in batches that all followers share (and that are encoded once a
transport); a window of the newest is kept. A follower holds nothing but its place: one that falls
out of the window, or comes from before it, is fed from Redis by id until it is back in. With
Redis away the same lines, under the same ids, come from where the run happens.
"""

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from common import look
from common.errors import ControllerError, RunNotFound, Unavailable
from common.events import ZERO, Cursor, Line, LineId, event
from common.frames import Lines, Notice, progress_notice, status_notice
from common.metrics import LINES_LOST, TAILERS
from common.models import RunStatus
from common.phases import State
from common.platform import Platform
from common.pump import Pump, reading
from common.shutdown import end

log = logging.getLogger(__name__)

_BATCH_LINES = 500
_WINDOW_LINES = 20_000
_WINDOW_BYTES = 8 * 1024 * 1024
_PAGES = 8
_RUNNER_PAGE_LINES = 5_000  # each page from there costs reading the log from its beginning
_RUNNER_PAGE_BYTES = 2 * 1024 * 1024
_BLOCK_SECONDS = 1.0
_GLANCE_SECONDS = 0.05  # instead, as long as somebody waits to know how far the log is
_CURRENT_SECONDS = 5.0
_WATCH_SECONDS = 0.5
_WATCH_END_SECONDS = 0.05
_RETRY_SECONDS = 0.5


@dataclass
class _Window:
    """The newest lines, as shared batches without a hole."""

    base: LineId  # the id behind which the window begins
    batches: list[Lines] = field(default_factory=list)
    lines: int = 0
    size: int = 0

    def add(self, batch: Lines) -> None:
        self.batches.append(batch)
        self.lines += len(batch.lines)
        self.size += batch.size
        while len(self.batches) > 1 and (self.lines > _WINDOW_LINES or self.size > _WINDOW_BYTES):
            oldest = self.batches.pop(0)
            self.lines -= len(oldest.lines)
            self.size -= oldest.size
            self.base = oldest.last

    def after(self, cursor: LineId) -> Lines:
        """What goes on behind `cursor`, which is neither before the window nor at its end."""
        return self.batches[bisect_right(self.batches, cursor, key=lambda batch: batch.last)].after(cursor)


class Feed:
    """The shared reader of one run. Use `Feeds.open`.

    Attributes:
        status: the run as it was seen last.
        top: the newest line that is known.
        ended: the log is final and `top` is its last line.
        finished: there is nothing more to come, neither lines nor states.
        lost: why the rest of the log is gone for good, if it is.
        failure: what this reader has died of, if it has.
        changed: set, and replaced by a new one, at each change.
    """

    def __init__(self, platform: Platform, status: RunStatus) -> None:
        self._platform = platform
        self.run_id = status.run_id
        self.attempt = status.attempt
        self.status = status
        self.top = ZERO
        self.finished = False
        self.lost: str | None = None
        self.failure: BaseException | None = None
        self.changed = asyncio.Event()
        self.followers = 0
        self._window = _Window(ZERO)
        self._pages: dict[LineId, asyncio.Task[Lines]] = {}
        self._notices: dict[tuple[str, Cursor], Notice] = {}
        self._ready = asyncio.Event()  # `top` is the newest line that Redis holds
        self._current = asyncio.Event()  # and it holds all that the log had to say so far
        self._ended = asyncio.Event()
        self._pump: Pump | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._start(self._read())
        self._start(self._watch())

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def finishing(self) -> bool:
        """Both the log and the run are over; at most the last look is missing."""
        return self.ended and (self.status.status.terminal or self.status.status is State.UNKNOWN)

    async def ready(self) -> None:
        """Wait until it is known where the log's newest line is."""
        await self._ready.wait()

    async def current(self) -> None:
        """Wait until `top` is no older than this call, for a bounded time: a run may never pause for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CURRENT_SECONDS):
                await self._current.wait()

    async def after(self, cursor: LineId) -> Lines:
        """The lines that go on behind `cursor`, which is before `top`.

        Raises:
            Unavailable: neither Redis nor the runner can be read.
        """
        if cursor >= self._window.base:
            return self._window.after(cursor)
        page = self._pages.get(cursor)
        if page is None or (page.done() and (page.cancelled() or page.exception())):
            page = self._pages[cursor] = asyncio.create_task(self._page(cursor))
            if len(self._pages) > _PAGES:
                del self._pages[next(iter(self._pages))]
        return await asyncio.shield(page)  # others may wait for it

    async def tail(self, count: int) -> LineId:
        """The place from which `count` lines are left to the newest."""
        await self.current()
        with suppress(Unavailable):
            return await self._platform.streams.tail(self.run_id, self.attempt, count)
        newest: deque[LineId] = deque([ZERO], maxlen=count + 1)
        async with reading(self._platform.runner, self.run_id, self.attempt) as batches:
            async for batch in batches:
                newest.extend(line.id for line in batch)
                if newest[-1] >= self.top or not batch:
                    break
        return newest[0]

    def notice(self, kind: Literal["status", "progress", "complete"], cursor: Cursor) -> Notice:
        """What is to be said of the run as it is now, shared by all who are at the same place."""
        found = self._notices.get((kind, cursor))
        if found is None:
            found = self._notices[kind, cursor] = _NOTICES[kind](self.status, cursor)
        return found

    async def close(self) -> None:
        """Stop reading."""
        while left := [*self._tasks, *(page for page in self._pages.values() if not page.done())]:
            await end(left)  # whoever has missed a cancellation may have started one more

    def announce(self) -> None:
        """Wake every follower."""
        self.changed.set()
        self.changed = asyncio.Event()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a feed has failed", extra={"run_id": self.run_id}, exc_info=error)
            self.failure = error
            self._ready.set()
            self._current.set()
            self.announce()

    # Lines.

    async def _read(self) -> None:
        while not self.ended:
            try:
                await self._read_redis()
            except Unavailable:
                await self._read_runner()

    async def _read_redis(self) -> None:
        streams = self._platform.streams
        if not self._ready.is_set():
            self.top, ended = await streams.top(self.run_id, self.attempt)
            self._window.base = self.top
            self._ready.set()
            self._add((), self.top, ended=ended)
        longest = min(_BLOCK_SECONDS, self._platform.settings.redis_timeout_seconds / 2)
        idle = True
        while not self.ended:
            if idle and await self._is_kept():
                self._current.set()
            block_ms = int(1000 * (longest if self._current.is_set() else min(longest, _GLANCE_SECONDS))) or 1
            chunk = await streams.read(self.run_id, self.attempt, self.top, _BATCH_LINES, block_ms=block_ms)
            idle = not chunk.lines
            if chunk.lines or chunk.ended:
                self._add(chunk.lines, chunk.last, ended=chunk.ended)

    async def _is_kept(self) -> bool:
        """Whether somebody sees to it that Redis has the log, and has brought it up to date; else it is done here."""
        if self._pump is not None:
            return self._pump.caught_up
        who = f"stream-{id(self)}"
        if not await self._platform.streams.pumping(self.run_id, who, insist=False):
            return True
        if await self._platform.runner.job(self.run_id) is None:
            await self._conclude()
            return True
        runner, streams = self._platform.runner, self._platform.streams
        self._pump = Pump(runner, streams, self.run_id, self.attempt, who=who, lasting=False)
        self._start(self._relay(self._pump))
        return False

    async def _relay(self, pump: Pump) -> None:
        try:
            await pump.run()
        except Unavailable as away:
            log.warning("cannot take over the log", extra={"run_id": self.run_id, "cause": str(away)})
        finally:
            self._pump = None

    async def _read_runner(self) -> None:
        """Read where the run happens, until that ends or Redis is back."""
        self._ready.set()
        try:
            async with reading(self._platform.runner, self.run_id, self.attempt) as batches:
                async for batch in batches:
                    fresh = [line for line in batch if line.id > self.top]
                    if fresh:
                        self._add(fresh, fresh[-1].id)
                    elif not batch:
                        self._current.set()
                        with suppress(Unavailable):
                            return await self._platform.connection.check()
            await self._conclude()
        except Unavailable as away:
            log.warning("the log cannot be read", extra={"run_id": self.run_id, "cause": str(away)})
        if not self.ended:
            await asyncio.sleep(_RETRY_SECONDS)

    async def _conclude(self) -> None:
        """The runner has no more lines: that is the end if the run has one, and a loss if its Job is gone."""
        job = await self._platform.runner.job(self.run_id)
        if job is None:
            LINES_LOST.inc()
            self.lost = "The run's Job is gone, and with it what Redis does not hold of its log."
        if job is None or job.ended:
            self._add((), self.top, ended=True)

    def _add(self, lines: Sequence[Line], top: LineId, *, ended: bool = False) -> None:
        if lines:
            self._window.add(Lines(self.run_id, self.attempt, tuple(lines)))
        self.top = top
        if ended:
            self._current.set()
            self._ended.set()
        self.announce()

    async def _page(self, cursor: LineId) -> Lines:
        """Lines behind `cursor`, which is before the window: from Redis, else from where the run happens."""
        with suppress(Unavailable):
            chunk = await self._platform.streams.read(self.run_id, self.attempt, cursor, _BATCH_LINES)
            if chunk.lines:
                return Lines(self.run_id, self.attempt, tuple(chunk.lines))
        page: list[Line] = []
        size = 0
        async with reading(self._platform.runner, self.run_id, self.attempt) as batches:
            async for batch in batches:
                fresh = [line for line in batch if line.id > cursor]
                page += fresh
                size += sum(len(line.text) for line in fresh)
                if len(page) >= _RUNNER_PAGE_LINES or size >= _RUNNER_PAGE_BYTES or not batch:
                    break
            else:
                if not page:  # nobody holds what is between `cursor` and the window
                    LINES_LOST.inc()
                    return Lines(self.run_id, self.attempt, (), gap=(cursor, self._window.base))
        if not page:
            raise Unavailable("runner", "The run's log is not to be had at this moment.")
        return Lines(self.run_id, self.attempt, tuple(page))

    # Status.

    async def _watch(self) -> None:
        pause = _WATCH_END_SECONDS
        while not self.finished:
            ended = self.ended  # only a look that began after the last line sees the last state and progress
            await self._look()
            if ended and self.finishing:
                self.finished = True
                self.announce()
            elif ended:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _WATCH_SECONDS)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_SECONDS):
                        await self._ended.wait()

    async def _look(self) -> None:
        status = self.status
        try:
            status = await look.status(self._platform, self.run_id)
        except RunNotFound:
            if not status.status.terminal:
                message = "The run is not retained any more; how it ended is not known."
                status = status.model_copy(update={"status": State.UNKNOWN, "message": message})
        except ControllerError as error:
            log.warning("status is stale", extra={"run_id": self.run_id, "cause": str(error)})
        if status != self.status:
            self.status = status
            self._notices.clear()
            self.announce()


def _complete(status: RunStatus, cursor: Cursor) -> Notice:
    return Notice(event("complete", cursor, status.model_dump(mode="json")))


_NOTICES = {"status": status_notice, "progress": progress_notice, "complete": _complete}


class Feeds:
    """The feeds of one process, one for each run that is followed."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._feeds: dict[str, Feed] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, run_id: str | None) -> AsyncIterator[Feed]:
        """The feed of a run (None: the active or latest), shared with its other followers.

        Raises:
            RunNotFound: there is no such run.
            Unavailable: it cannot be told.
        """
        status = await look.status(self._platform, run_id)
        feed = self._feeds.get(status.run_id)
        if feed is None:
            feed = self._feeds[status.run_id] = Feed(self._platform, status)
            TAILERS.inc()
        feed.followers += 1
        try:
            await feed.ready()
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                del self._feeds[feed.run_id]
                TAILERS.dec()
                # A task of its own: the follower may be here because it is cancelled, again and again.
                closing = asyncio.create_task(feed.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
                await asyncio.shield(closing)

    def announce(self) -> None:
        """Wake the followers of every run."""
        for feed in self._feeds.values():
            feed.announce()
