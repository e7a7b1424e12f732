"""What is behind the window of a feed, page by page: from Redis, else from where the run happened.

All who are at the same place share a page, of which they are given a frame at a time: who reads slowly holds no more
than that. Redis holds the newest lines: what was trimmed there is read where it is kept, up to where Redis begins.
What is away is waited for; only where everybody who may hold a line has answered, and none has it, is it lost.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from common.errors import Unavailable
from common.events import GAP, ZERO, Cursor, Line, LineId, Place
from common.frames import FRAME_BYTES, Lines, Notice, gap
from common.metrics import LINES_LOST
from common.platform import Platform
from common.pump import is_readable, reading
from common.streams import Chunk
from common.tasks import end

PAGE_LINES = 500
_PAGE_BYTES = 2 * 1024 * 1024
_PAGES = 16
_AHEAD = 4
_FEW_LINES, _FEW_BYTES = 20, 8 * 1024  # of events
_RUNNER_PAGE_LINES = 20_000  # each page from there has to be looked for first
_QUIET_SECONDS = 1.0
_LOSS_SECONDS = 1.0
_SOME = LineId(0, 1)  # before every line, and not the beginning: whoever has none of the first ones says so
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
        self._counts: dict[Place, int] = {}  # where lines are long: how many to ask for
        self._pages: dict[Place, asyncio.Task[Sequence[Lines] | End]] = {}
        self._ahead: dict[Place, asyncio.Task[Chunk | None]] = {}  # what Redis is asked for before anybody asks for it
        self._trimmed: dict[int, LineId] = {}  # by attempt: up to where Redis need not be asked for the next page

    async def after(self, place: Place, until: LineId | None, *, few: bool = False) -> Lines | End:
        """What goes on behind `place`; lines from `until` on are known, None in a past attempt.

        Only a `few` lines for who wants no more, where they are easily had again.

        Raises:
            Unavailable: it cannot be told now, as somebody who may hold it is away.
        """
        start = self._start(place)
        page = self._pages.pop(start, None)
        if page is None or (page.done() and (page.cancelled() or page.exception())):
            page = asyncio.create_task(self._page(place, until, few=few))
            page.add_done_callback(lambda done: self._keep(place, done))
        self._pages[start] = page
        if len(self._pages) > _PAGES:
            del self._pages[next(iter(self._pages))]  # the one that nobody has asked for the longest
        frames = await asyncio.shield(page)  # others may wait for it
        if isinstance(frames, End):
            return frames
        frame = next(frame for frame in frames if frame.last > place.line)
        return frame.cut(_FEW_BYTES)[0] if few and len(frames) == 1 else frame

    def _start(self, place: Place) -> Place:
        """Where the page begins that has a frame behind `place`; there, if none has."""
        if place in self._pages:
            return place
        for start, page in reversed(self._pages.items()):
            if start.attempt != place.attempt or not page.done() or page.cancelled() or page.exception():
                continue
            frames = page.result()
            if not isinstance(frames, End) and any(frame.behind == place.line for frame in frames):
                return start
        return place

    def _keep(self, place: Place, page: "asyncio.Task[Sequence[Lines] | End]") -> None:
        """What is lost is not for long: it may come after all."""
        if not page.cancelled() and not page.exception() and _is_loss(page.result()):

            def forget() -> None:
                if self._pages.get(place) is page:
                    del self._pages[place]

            asyncio.get_running_loop().call_later(_LOSS_SECONDS, forget)

    async def close(self) -> None:
        """Stop reading."""
        while left := [task for task in (*self._pages.values(), *self._ahead.values()) if not task.done()]:
            await end(left)  # whoever has missed a cancellation may have begun to read ahead

    async def tail(self, attempt: int, count: int, newest: LineId | None) -> tuple[LineId, int]:
        """The place from which `count` lines are left in an attempt, and how many it has too few.

        Counted back from `newest` in the attempt that the run is in, from the end (None) in a past one.

        Raises:
            Unavailable: as `after`.
        """
        streams = self._platform.streams
        with suppress(Unavailable):
            if newest is not None or (await streams.top(self._run_id, attempt))[1]:
                line, few = await streams.tail(self._run_id, attempt, count)
                if not few or line == ZERO:
                    return line, few
                count, newest = few, line
        line, found = await self._back(attempt, count, newest)
        if newest is None and not found:
            line, few = await streams.tail(self._run_id, attempt, count)
            return (ZERO if few else line), few
        return line, count - found

    async def _back(self, attempt: int, count: int, newest: LineId | None) -> tuple[LineId, int]:
        """Where the last `count` lines up to `newest` begin in the log where the run happened, and how many it has."""
        behind: deque[LineId] = deque([ZERO], maxlen=count + 1)
        found = 0
        async with aclosing(self._batches(attempt, ZERO)) as batches:
            async for batch in batches:
                lines = [line.id for line in batch if newest is None or line.id <= newest]
                found += len(lines)
                behind.extend(lines)
                if newest is not None and (not batch or batch[-1].id >= newest):
                    break
        return behind[0], min(found, count)

    async def _page(
        self, place: Place, until: LineId | None, *, few: bool = False, again: bool = False
    ) -> Sequence[Lines] | End:
        attempt, behind = place

        def cut(*lines: Line) -> Sequence[Lines]:
            return Lines(self._run_id, attempt, behind, lines).cut(FRAME_BYTES)

        away: Unavailable | None = None
        trimmed = self._trimmed.pop(attempt, ZERO)
        asked = behind >= trimmed
        if asked:
            try:
                chunk = await self._read(place, until, few=few)
                if chunk.lines:
                    return cut(*chunk.lines)
                if chunk.ended and until is None:
                    return End()
                trimmed = chunk.trimmed
            except Unavailable as error:
                away = error
        since = behind if trimmed == ZERO else max(behind, _SOME)
        if page := await self._from_runner(attempt, since, trimmed):
            self._trimmed[attempt] = trimmed
            return cut(*page)
        if not asked:  # Redis may have been filled again meanwhile
            return await self._page(place, until, few=few, again=again)
        if behind >= trimmed:
            if until is None and await is_readable(self._platform.runner, self._run_id, attempt):
                return End()
            if away is not None:
                raise away
        if not again:  # between both questions it may have come from there to Redis
            return await self._page(place, until, few=few, again=True)
        if behind < trimmed:
            return cut(_lost(trimmed))
        if until is None:
            LINES_LOST.inc()
            return End(gap(Cursor(self._run_id, *place), _LOST_REST.format(attempt)))
        return cut(_lost(until))

    async def _read(self, place: Place, until: LineId | None, *, few: bool) -> Chunk:
        """The next lines that Redis holds. Who gets some will want the next, which are asked for meanwhile.

        Of what was read ahead lines alone are taken: they alone stay true.
        """
        ahead = self._ahead.pop(place, None)
        chunk = await ahead if ahead else None
        if chunk is None or not chunk.lines:
            count = self._counts.get(place, PAGE_LINES)
            chunk = await self._platform.streams.read(self._run_id, *place, min(count, _FEW_LINES) if few else count)
        if chunk.lines and not few:
            following = Place(place.attempt, chunk.last)
            self._count(following, chunk.lines)
            if not chunk.ended and (until is None or chunk.last < until):
                self._read_ahead(following)
        return chunk

    def _count(self, place: Place, before: Sequence[Line]) -> None:
        """Note how many lines fit into a page behind `place`, if that is less than usual: as of those before it."""
        size = sum(len(line.text) for line in before)
        if len(before) * _PAGE_BYTES < PAGE_LINES * size:
            self._counts[place] = max(1, len(before) * _PAGE_BYTES // size)
            if len(self._counts) > _PAGES:
                del self._counts[next(iter(self._counts))]

    def _read_ahead(self, place: Place) -> None:
        oldest = next(iter(self._ahead), None)
        if len(self._ahead) == _AHEAD and oldest is not None and self._ahead[oldest].done():
            del self._ahead[oldest]  # of who has left, or is slow
        if len(self._ahead) < _AHEAD and place not in self._ahead:
            self._ahead[place] = asyncio.create_task(self._looked_up(place))

    async def _looked_up(self, place: Place) -> Chunk | None:
        with suppress(Unavailable):
            return await self._platform.streams.read(self._run_id, *place, self._counts.get(place, PAGE_LINES))
        return None

    async def _from_runner(self, attempt: int, behind: LineId, trimmed: LineId) -> Sequence[Line]:
        """Lines behind `behind`, not beyond `trimmed` if that is ahead; none where its log has no more."""
        page: list[Line] = []
        size = 0
        async with aclosing(self._batches(attempt, behind)) as batches:
            async for batch in batches:
                page += batch
                size += sum(len(line.text) for line in batch)
                over = len(page) >= _RUNNER_PAGE_LINES or size >= _PAGE_BYTES
                if page and (not batch or over or behind < trimmed <= page[-1].id):
                    break
        if page and behind < trimmed < page[-1].id:
            held = [line for line in page if line.id <= trimmed]
            # That one was there: where it is passed over, others are missing too, and Redis may hold what is behind it.
            return held if held and held[-1].id == trimmed else [*held, _lost(trimmed)]
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


def _is_loss(page: Sequence[Lines] | End) -> bool:
    """Whether it ends with what was not to be had here, which is none of the gaps that are stored."""
    return page.lost is not None if isinstance(page, End) else page[-1].lines[-1].text is _LOST


def _lost(until: LineId) -> Line:
    """What is told in place of lines that nobody holds."""
    LINES_LOST.inc()
    return Line(until, time.time_ns(), GAP, _LOST)
