"""What is behind the window of a feed, page by page: from Redis, else from where the run happened.

All who are at the same place share a page. What is away is waited for; only where everybody who may hold
a line has answered, and none has it, is it lost.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from common.errors import Unavailable
from common.events import GAP, ZERO, Cursor, Line, LineId, Place
from common.frames import Lines, Notice, gap
from common.metrics import LINES_LOST
from common.platform import Platform
from common.pump import reading
from common.runner import Runner

PAGE_LINES = 500
_PAGES = 8
_RUNNER_PAGE_LINES = 5_000  # each page from there may cost reading the log from its beginning
_RUNNER_PAGE_BYTES = 2 * 1024 * 1024
_QUIET_SECONDS = 1.0
_LOST = b"Neither Redis nor the run's log holds them."
_LOST_REST = "Neither Redis nor the place where it ran holds what attempt {} said from here on."


@dataclass(frozen=True, slots=True)
class End:
    """The log of a past attempt has no more lines; `lost` is the gap, if there may have been some."""

    lost: Notice | None = None


class Pages:
    """The pages of one run's log, the newest of them kept."""

    def __init__(self, platform: Platform, run_id: str) -> None:
        self._platform = platform
        self._run_id = run_id
        self._pages: dict[Place, asyncio.Task[Lines | End]] = {}

    async def after(self, place: Place, until: LineId | None) -> Lines | End:
        """What goes on behind `place`; lines from `until` on are known, None in a past attempt.

        Raises:
            Unavailable: it cannot be told now, as somebody who may hold it is away.
        """
        page = self._pages.get(place)
        if page is None or (page.done() and (page.cancelled() or page.exception())):
            page = self._pages[place] = asyncio.create_task(self._page(place, until))
            if len(self._pages) > _PAGES:
                del self._pages[next(iter(self._pages))]
        return await asyncio.shield(page)  # others may wait for it

    def reading(self) -> "list[asyncio.Task[Lines | End]]":
        """The pages that are being read."""
        return [page for page in self._pages.values() if not page.done()]

    async def tail(self, attempt: int, count: int, newest: LineId | None) -> tuple[LineId, int]:
        """The place from which `count` lines are left in an attempt, and how many it has too few.

        Counted back from `newest` in the attempt that the run is in, from the end (None) in a past one.

        Raises:
            Unavailable: as `after`.
        """
        streams = self._platform.streams
        with suppress(Unavailable):
            if newest is not None or (await streams.top(self._run_id, attempt))[1]:
                return await streams.tail(self._run_id, attempt, count)
        lines: deque[LineId] = deque([ZERO], maxlen=count + 1)
        found = 0
        async with aclosing(self._batches(attempt, ZERO)) as batches:
            async for batch in batches:
                found += len(batch)
                lines.extend(line.id for line in batch)
                if newest is not None and (not batch or lines[-1] >= newest):
                    break
        if newest is None and not found:
            return await streams.tail(self._run_id, attempt, count)
        return lines[0], max(0, count - found)

    async def _page(self, place: Place, until: LineId | None) -> Lines | End:
        attempt, behind = place
        away: Unavailable | None = None
        try:
            chunk = await self._platform.streams.read(self._run_id, attempt, behind, PAGE_LINES)
            if chunk.lines:
                return Lines(self._run_id, attempt, behind, tuple(chunk.lines))
            if chunk.ended and until is None:
                return End()
        except Unavailable as error:
            away = error
        if page := await self._from_runner(attempt, behind):
            return Lines(self._run_id, attempt, behind, page)
        if until is None and await is_readable(self._platform.runner, self._run_id, attempt):
            return End()
        if away is not None:
            raise away
        LINES_LOST.inc()
        if until is None:
            return End(gap(Cursor(self._run_id, *place), _LOST_REST.format(attempt)))
        return Lines(self._run_id, attempt, behind, (Line(until, time.time_ns(), GAP, _LOST),))

    async def _from_runner(self, attempt: int, behind: LineId) -> Sequence[Line]:
        """Lines behind `behind`; none where its log has no more."""
        page: list[Line] = []
        size = 0
        async with aclosing(self._batches(attempt, behind)) as batches:
            async for batch in batches:
                page += batch
                size += sum(len(line.text) for line in batch)
                if page and (not batch or len(page) >= _RUNNER_PAGE_LINES or size >= _RUNNER_PAGE_BYTES):
                    break
        return page

    async def _batches(self, attempt: int, behind: LineId) -> AsyncGenerator[Sequence[Line], None]:
        """The log from where the run happens, which ends sooner or later: not for ever is there nothing but ticks."""
        heard = time.monotonic()
        async with reading(self._platform.runner, self._run_id, attempt, behind) as batches:
            async for batch in batches:
                if batch:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _QUIET_SECONDS:
                    raise Unavailable("runner", "The run's log is not to be had at this moment.")
                yield batch


async def is_readable(runner: Runner, run_id: str, attempt: int) -> bool:
    """Whether there is anything of an attempt's log where the run happened, be it that it is empty.

    Raises:
        Unavailable: the runner does not answer.
    """
    async with reading(runner, run_id, attempt) as batches:
        return await anext(batches, None) is not None
