"""One attempt's log, read as it grows, once a process, into a window of shared batches.

It comes from Redis, filled by whoever relays it: where nobody does, that is done here. With Redis away
the same lines, under the same ids, come from where the run happens.
"""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from common.errors import Unavailable
from common.events import ZERO, Line, LineId
from common.frames import FRAME_BYTES, Lines
from common.jobs import Job
from common.metrics import LINES_LOST
from common.pages import PAGE_LINES
from common.platform import Platform
from common.pump import Pump, is_readable, reading
from common.tasks import end

log = logging.getLogger(__name__)

_WINDOW_LINES = 20_000
_WINDOW_BYTES = 8 * 1024 * 1024
_BLOCK_SECONDS = 1.0
_GLANCE_SECONDS = 0.05  # instead, as long as somebody waits to know how far the log is
_RETRY_SECONDS = 0.5
_GONE = "The run's Job is gone, and with it what Redis does not hold of its log."
_LESS = "Redis was emptied, and has been filled again from less than was told here: lines may be missing."
_UNREADABLE = "The run has ended, and of its log there is nothing where it ran, nor its end in Redis."


class Window:
    """The newest lines, as shared batches without a hole.

    Attributes:
        base: the id behind which it begins.
        gaps: what of it is no line but a gap, each alone.
    """

    def __init__(self, base: LineId = ZERO) -> None:
        self.base = base
        self.batches: list[Lines] = []
        self.gaps: list[Lines] = []
        self.lines = 0
        self.size = 0

    def add(self, batch: Lines) -> None:
        """Put a batch behind the others; the oldest may fall out for it."""
        self.batches.append(batch)
        self.gaps += batch.gaps()
        self.lines += len(batch.lines)
        self.size += batch.size
        while len(self.batches) > 1 and (self.lines > _WINDOW_LINES or self.size > _WINDOW_BYTES):
            oldest = self.batches.pop(0)
            self.lines -= len(oldest.lines)
            self.size -= oldest.size
            self.base = oldest.last
            self.gaps = [gap for gap in self.gaps if gap.last > self.base]

    def after(self, cursor: LineId) -> Lines:
        """What goes on behind `cursor`, which is neither before the window nor at its end."""
        newest = self.batches[-1]
        if newest.behind == cursor:  # as it is for whoever keeps up
            return newest
        return self.batches[bisect_right(self.batches, cursor, key=lambda batch: batch.last)].after(cursor)

    def tail(self, count: int) -> LineId | None:
        """The place from which `count` lines are left to the newest; None if the window begins behind it."""
        if count > self.lines:
            return None
        for batch in reversed(self.batches):
            if count < len(batch.lines):
                return batch.lines[-1 - count].id
            count -= len(batch.lines)
        return self.base


class Reader:
    """Reads one attempt's log; `changed` is called at each change, `who` names it to others who relay.

    Attributes:
        top: the newest line that is known.
        window: the newest lines.
        ready: `top` is the newest line that Redis holds.
        current: and Redis holds all that the log had to say so far.
        ended: the log is final and `top` is its last line.
        lost: why the rest of the log is gone for good, if it is.
        failure: what this reader has died of, if it has.
    """

    def __init__(self, platform: Platform, run_id: str, attempt: int, who: str, changed: Callable[[], None]) -> None:
        self._platform = platform
        self._run_id = run_id
        self.attempt = attempt
        self._who = who
        self._changed = changed
        self.top = ZERO
        self.window = Window()
        self.ready = asyncio.Event()
        self.current = asyncio.Event()
        self.ended = asyncio.Event()
        self.lost: str | None = None
        self.failure: BaseException | None = None
        self._pump: Pump | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._start(self._read())

    async def close(self) -> None:
        """Stop reading, and let nobody wait for it."""
        while left := tuple(self._tasks):
            await end(left)  # whoever has missed a cancellation may have started one more
        self._wake()

    def _wake(self) -> None:
        self.ready.set()
        self.current.set()
        self._changed()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a reader has failed", extra={"run_id": self._run_id}, exc_info=error)
            self.failure = error
            self._wake()

    async def _read(self) -> None:
        while not self.ended.is_set():
            try:
                await self._read_redis()
            except Unavailable:
                await self._read_runner()

    async def _read_redis(self) -> None:
        streams = self._platform.streams
        if not self.ready.is_set():
            top, ended = await streams.top(self._run_id, self.attempt)
            self._begin(top)
            self.ready.set()
            self._add((), self.top, ended=ended)
        longest = min(_BLOCK_SECONDS, self._platform.settings.redis_timeout_seconds / 2)
        block_ms = 0
        while not self.ended.is_set():
            chunk = await streams.read(self._run_id, self.attempt, self.top, PAGE_LINES, block_ms=block_ms)
            if chunk.trimmed > self.top:  # those who are behind it are fed page by page
                self._begin(chunk.trimmed)
                self._changed()
            elif chunk.lines or chunk.ended:
                self._add(chunk.lines, chunk.last, ended=chunk.ended)
            elif await self._is_kept():
                self.current.set()
            block_ms = int(1000 * (longest if self.current.is_set() else min(longest, _GLANCE_SECONDS))) or 1

    async def _is_kept(self) -> bool:
        """Whether somebody sees to it that Redis has the log, and has brought it up to date; else it is done here."""
        if self._pump is not None:
            return self._pump.caught_up
        runner, streams = self._platform.runner, self._platform.streams
        if (found := await streams.pumping(self._run_id, self.attempt, self._who, insist=False)) is None:
            return True
        top, ended = found
        if top > self.top:  # it came after the reading
            return False
        if ended:  # it is behind what is known here, where no reading comes to it
            self._conclude(_LESS if top < self.top else None)
            return True
        job = await runner.job(self._run_id)
        if (job is None or job.ended) and not await is_readable(runner, self._run_id, self.attempt):
            if await streams.top(self._run_id, self.attempt) != found:  # it went to Redis while both were asked
                return False
            # To relay nothing would put the log's end into Redis, as if it had been read to there.
            self._conclude(_loss(job))
            return True
        self._pump = Pump(runner, streams, self._run_id, self.attempt, who=self._who, lasting=False)
        self._start(self._relay(self._pump))
        return False

    async def _relay(self, pump: Pump) -> None:
        try:
            await pump.run()
        except Unavailable as away:
            log.warning("cannot take over the log", extra={"run_id": self._run_id, "cause": str(away)})
        finally:
            self._pump = None

    async def _read_runner(self) -> None:
        """Read where the run happens, until that ends or Redis is back."""
        self.ready.set()
        runner = self._platform.runner
        try:
            async with reading(runner, self._run_id, self.attempt, self.top) as batches:
                async for batch in batches:
                    if batch:
                        self._add(batch, batch[-1].id)
                    else:
                        self.current.set()
                        with suppress(Unavailable):  # a full Redis answers, and takes nothing
                            await self._platform.streams.pumping(self._run_id, self.attempt, self._who, insist=False)
                            return
            job = await runner.job(self._run_id)
            # What is not to be had here may be in Redis: that is waited for.
            if (job is None or job.ended) and (
                _loss(job) is None or await is_readable(runner, self._run_id, self.attempt)
            ):
                self._conclude(None)
        except Unavailable as away:
            log.warning("the log cannot be read", extra={"run_id": self._run_id, "cause": str(away)})
        if not self.ended.is_set():
            await asyncio.sleep(_RETRY_SECONDS)

    def _conclude(self, lost: str | None) -> None:
        """Nothing more of the log will come."""
        if lost is not None:
            LINES_LOST.inc()
            self.lost = lost
        self._add((), self.top, ended=True)

    def _begin(self, place: LineId) -> None:
        """Go on behind this line, with a window that begins there."""
        self.top, self.window = place, Window(place)

    def _add(self, lines: Sequence[Line], top: LineId, *, ended: bool = False) -> None:
        if lines:
            for batch in Lines(self._run_id, self.attempt, self.top, tuple(lines)).cut(FRAME_BYTES):
                self.window.add(batch)
        self.top = top
        if ended:
            self.current.set()
            self.ended.set()
        self._changed()


def _loss(job: Job | None) -> str | None:
    """Why it is a loss that nothing of an ended log is where the run happened; None where there never was one."""
    if job is None:
        return _GONE
    return _UNREADABLE if job.started_at is not None else None
