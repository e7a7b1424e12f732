"""One run's log and status, read once a process however many follow it.

New lines are read from Redis in batches that all followers share (and that are encoded once a
transport); a window of the newest is kept. A follower holds nothing but its place: one that falls
out of the window, or comes from before it, is fed from Redis by id until it is back in. With
Redis away the same lines, under the same ids, come from where the run happens.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from common import look
from common.errors import ControllerError, RunNotFound, Unavailable
from common.events import ZERO, Line, LineId
from common.frames import Lines
from common.models import RunStatus
from common.observe import LINES_LOST, TAILERS
from common.phases import State
from common.platform import Platform
from common.pump import Pump

log = logging.getLogger(__name__)

_BATCH_LINES = 500
_WINDOW_LINES = 20_000
_WINDOW_BYTES = 8 * 1024 * 1024
_BLOCK_MS = 1_000
_WATCH_SECONDS = 0.5
_WATCH_END_SECONDS = 0.05


@dataclass
class _Window:
    """The newest lines, as shared batches. Batches are counted from the feed's beginning."""

    base: LineId  # the id behind which the window begins
    batches: deque[Lines] = field(default_factory=deque)
    first: int = 0  # number of the oldest batch
    lines: int = 0
    size: int = 0

    def add(self, batch: Lines) -> None:
        self.batches.append(batch)
        self.lines += len(batch.lines)
        self.size += batch.size
        while len(self.batches) > 1 and (self.lines > _WINDOW_LINES or self.size > _WINDOW_BYTES):
            oldest = self.batches.popleft()
            self.first += 1
            self.lines -= len(oldest.lines)
            self.size -= oldest.size
            self.base = oldest.last

    def after(self, cursor: LineId) -> Lines | None:
        """The batch that goes on behind `cursor`, which is not before the window; None at its end."""
        # Most followers are at the end or one batch behind it.
        found = None
        for batch in reversed(self.batches):
            if batch.last <= cursor:
                break
            found = batch
        return found.after(cursor) if found is not None else None


class Feed:
    """The shared reader of one run. Use `Feeds.open`."""

    def __init__(self, platform: Platform, status: RunStatus) -> None:
        self._platform = platform
        self.run_id = status.run_id
        self.attempt = status.attempt
        self.status = status
        self.version = 0  # of `status`
        self.top = ZERO
        self.ended = False  # the log is final and `top` is its end
        self.lost: str | None = None  # why the rest of the log is gone for good, if it is
        self.changed = asyncio.Event()  # set, and replaced by a new one, at each change
        self.followers = 0
        self._window = _Window(ZERO)
        self._ready = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to come, neither lines nor states."""
        return self.ended and (self.status.status.terminal or self.status.status is State.UNKNOWN)

    async def ready(self) -> None:
        """Wait until it is known where the log's newest line is."""
        await self._ready.wait()

    async def after(self, cursor: LineId) -> Lines | None:
        """The lines that go on behind `cursor`; None if there are none yet.

        Raises:
            Unavailable: neither Redis nor the runner can be read.
        """
        if cursor >= self._window.base:
            return self._window.after(cursor)
        return await self._page(cursor) or self._gap(cursor)

    async def tail(self, count: int) -> LineId:
        """The place from which `count` lines are left to the newest."""
        with suppress(Unavailable):
            return await self._platform.streams.tail(self.run_id, self.attempt, count)
        newest: deque[LineId] = deque([ZERO], maxlen=count + 1)
        async for batch in self._platform.runner.lines(self.run_id, self.attempt):
            newest.extend(line.id for line in batch)
            if newest[-1] >= self.top:
                break
        return newest[0]

    async def close(self) -> None:
        """Stop reading."""
        tasks = [*self._tasks, *([self._pumping] if self._pumping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def announce(self) -> None:
        """Wake every follower."""
        self.changed.set()
        self.changed = asyncio.Event()

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
            self.top, self.ended = await streams.top(self.run_id, self.attempt)
            self._window.base = self.top
            self._ready.set()
            self.announce()
        while not self.ended:
            chunk = await streams.read(self.run_id, self.attempt, self.top, _BATCH_LINES, block_ms=_BLOCK_MS)
            if chunk.last == self.top:
                await self._take_over()
            else:
                self._add(chunk.lines, chunk.last, ended=chunk.ended)

    async def _read_runner(self) -> None:
        """Read where the run happens, until that ends or Redis is back."""
        self._ready.set()
        try:
            async for batch in self._platform.runner.lines(self.run_id, self.attempt):
                fresh = [line for line in batch if line.id > self.top]
                if fresh:
                    self._add(fresh, fresh[-1].id)
                else:
                    with suppress(Unavailable):
                        return await self._platform.connection.check()
            await self._conclude()
        except Unavailable:
            await asyncio.sleep(_WATCH_SECONDS)

    async def _conclude(self) -> None:
        """The runner has no more lines: that is the end if the run has one, and a loss if its Job is gone."""
        job = await self._platform.runner.job(self.run_id)
        if job is None:
            self.lost = "The run's Job is gone, and with it what Redis does not hold of its log."
        if job is None or job.ended:
            self._add((), self.top, ended=True)

    async def _take_over(self) -> None:
        """Nothing new for a while: where no recorder is at work, fill Redis from here."""
        if self._pumping is not None and not self._pumping.done():
            return
        who = f"stream-{id(self)}"
        if not await self._platform.streams.pumping(self.run_id, who, insist=False):
            return
        if await self._platform.runner.job(self.run_id) is None:
            return await self._conclude()
        pump = Pump(self._platform.runner, self._platform.streams, self.run_id, self.attempt, who=who, lasting=False)
        self._pumping = asyncio.create_task(_quietly(pump))

    def _add(self, lines: Sequence[Line], top: LineId, *, ended: bool = False) -> None:
        if lines:
            self._window.add(Lines(self.run_id, self.attempt, tuple(lines)))
        self.top, self.ended = top, ended
        self.announce()

    async def _page(self, cursor: LineId) -> Lines | None:
        """Lines behind `cursor` from Redis, else from where the run happens."""
        with suppress(Unavailable):
            chunk = await self._platform.streams.read(self.run_id, self.attempt, cursor, _BATCH_LINES)
            if chunk.lines or chunk.ended:
                return Lines(self.run_id, self.attempt, tuple(chunk.lines)) if chunk.lines else None
        page: list[Line] = []
        async for batch in self._platform.runner.lines(self.run_id, self.attempt):
            page += [line for line in batch if line.id > cursor]
            if len(page) >= _BATCH_LINES or not batch:
                break
        return Lines(self.run_id, self.attempt, tuple(page)) if page else None

    def _gap(self, cursor: LineId) -> Lines | None:
        """Nobody holds what is between `cursor` and the window."""
        if self._window.base == self.top and self.ended:
            return None
        LINES_LOST.inc()
        return Lines(self.run_id, self.attempt, (), gap=(cursor, self._window.base))

    # Status.

    async def _watch(self) -> None:
        while not self.finished:
            changed = self.changed
            try:
                status = await look.status(self._platform, self.run_id)
                if status != self.status:
                    self.status = status
                    self.version += 1
                    self.announce()
                    continue
            except RunNotFound:
                self.lost = "The run is not retained any more."
                self.status = self.status.model_copy(update={"status": State.UNKNOWN, "message": self.lost})
                self.version += 1
                self.announce()
            except ControllerError as error:
                log.warning("status is stale", extra={"run_id": self.run_id, "cause": str(error)})
            with suppress(TimeoutError):
                if self.ended:
                    await asyncio.sleep(_WATCH_END_SECONDS)
                else:
                    await asyncio.wait_for(_end_of(self, changed), _WATCH_SECONDS)


async def _end_of(feed: Feed, changed: asyncio.Event) -> None:
    while not feed.ended:
        await changed.wait()
        changed = feed.changed


async def _quietly(pump: Pump) -> None:
    try:
        await pump.run()
    except Unavailable as away:
        log.warning("cannot take over the log", extra={"cause": str(away)})


class Feeds:
    """The feeds of one process, one for each run that is followed."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._feeds: dict[str, Feed] = {}

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
                await feed.close()

    def announce(self) -> None:
        """Wake the followers of every run."""
        for feed in self._feeds.values():
            feed.announce()
