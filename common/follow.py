"""Follow a run: from a place in its log, in order, to the run's end (and on to the next run, if asked).

What comes out are shared frames (common.frames); turning them into a transport's bytes is the web
layer's part. The first frame is always a snapshot of the status, and an end is always said.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import cache

from common import look
from common.errors import ControllerError, RunNotFound, Unavailable
from common.events import ZERO, Cursor, Place, event
from common.feed import Feed, Feeds
from common.frames import IDLE, Farewell, Frame, Notice, gap, status_notice
from common.metrics import LINES_LOST
from common.platform import Platform
from common.presence import Transport

NEXT_RUN = "*"  # as `run_id`: the active or latest run, and after it each next one
_NEXT_SECONDS = 1.0
_UNREADABLE_SECONDS = 0.5
_AHEAD = "What is known of the log any more ends before this place: what was said from here on is lost."
_SLOW_SECONDS = 1.0  # for a frame: who takes longer is given less at a time, which it holds all that time
_HISTORY_RUNS = 100  # as many may come and go while a follower is still at an earlier one


@dataclass(frozen=True, slots=True)
class Query:
    """What a follower wants.

    Attributes:
        run_id: a run; None for the active or latest; `*` for that and each one after it.
        after: the place behind which to begin; None for the beginning, or `tail` lines before the end.
        types: the kinds of events wanted (gap, restarted, complete and error come always).
        transport: how they are sent, which others are told.
        follow: stay until the run ends; otherwise end with what there is now.
    """

    run_id: str | None
    after: Cursor | None
    tail: int | None
    types: frozenset[str]
    transport: Transport
    follow: bool


class Followers:
    """The followers of one process."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._shutdown = platform.shutdown
        self._feeds = Feeds(platform)
        self._shutdown.subscribe(self._feeds.announce)

    async def resolve(self, query: Query) -> str | None:
        """The run to begin with; None if the cursor says that the follower has seen it all.

        A cursor's run is finished first; a cursor is never applied to another run.

        Raises:
            RunNotFound: there is no such run.
            Unavailable: it cannot be told.
        """
        cursor = query.after
        if cursor is not None and query.run_id in (None, NEXT_RUN, cursor.run_id):
            if cursor.line is None:
                return cursor.run_id if query.run_id == NEXT_RUN else None
            with suppress(RunNotFound):
                return (await look.run(self._platform, cursor.run_id)).run_id
        wanted = None if query.run_id == NEXT_RUN else query.run_id
        return (await look.run(self._platform, wanted)).run_id

    def follow(self, query: Query, run_id: str) -> AsyncGenerator[Frame, None]:
        """The frames for one follower, beginning with `run_id` (see `resolve`)."""
        return self._runs(query, run_id) if query.run_id == NEXT_RUN and query.follow else self._run(query, run_id)

    async def _runs(self, query: Query, run_id: str) -> AsyncGenerator[Frame, None]:
        """One run after the other."""
        end = query.after or Cursor(run_id, 1, ZERO)
        while True:
            if (end.run_id, end.line) != (run_id, None):  # else all of it was seen
                async with aclosing(self._run(query, run_id)) as frames:
                    async for frame in frames:
                        yield frame
                        if isinstance(frame, Farewell):
                            return
                        if isinstance(frame, Notice):
                            end = frame.cursor
                if end.line is not None:
                    return  # it could not be told to its end: who comes back is not to miss it for the next one
            told = time.monotonic()
            while (following := await self._next(run_id)) is None:
                if self._shutdown.begun:
                    yield Farewell(end)
                    return
                if time.monotonic() - told >= self._platform.settings.heartbeat_seconds:
                    yield IDLE
                    told = time.monotonic()
            run_id, query, end = following, replace(query, after=None, tail=None), Cursor(following, 1, ZERO)

    async def _next(self, before: str) -> str | None:
        """The run that came after `before`, if one comes within a moment."""
        with suppress(Unavailable):
            page = await self._platform.flights.share("next", lambda: look.history(self._platform, _HISTORY_RUNS))
            run_ids = [run.run_id for run in page.runs]  # newest first
            newer = run_ids[: run_ids.index(before)] if before in run_ids else run_ids
            if newer:
                return newer[-1]
        await self._shutdown.wait(_NEXT_SECONDS)
        return None

    async def _run(self, query: Query, run_id: str) -> AsyncGenerator[Frame, None]:  # noqa: PLR0912 # each layer costs
        """One run, from a place in it to its end; what goes wrong before its first line is told as an event.

        A thousand followers go through the loop for each batch: what is written here once is done a thousand times.
        """
        try:
            feed = await self._feeds.join(run_id, query.transport)
            try:
                await feed.ready()
                follower = _Follower(feed, query.types)
                for notice in await follower.opening(query):
                    yield notice
                    del notice  # it is this follower's own: not to be kept until the end
                told, hurrying = feed.beats, False
                while True:
                    seen = feed.changes  # before anything is looked at: a change from here on is not waited for
                    if self._shutdown.begun:
                        yield Farewell(follower.cursor)
                        return
                    frames = follower.near()
                    if frames is None:
                        frames = await self._far(follower)
                    if frames:
                        if hurrying:
                            await asyncio.sleep(0)  # a fast client never makes us wait: others have their turn
                        for frame in frames:
                            yield frame
                        told, hurrying = feed.beats, True
                        if not follower.level or seen != feed.changes:
                            continue
                    if feed.finished:
                        for notice in follower.last():
                            yield notice
                        return
                    if not query.follow and not feed.over:  # of what is over there is an end to be told
                        return
                    if told != feed.beats:
                        told = feed.beats
                        yield IDLE
                    if seen == feed.changes:
                        await feed.bell.wait()
                        hurrying = False
            finally:
                await self._feeds.leave(feed, query.transport)
        except ControllerError as error:
            yield Notice(event("error", query.after or Cursor(run_id, 1, ZERO), {"detail": str(error)}))

    async def _far(self, follower: "_Follower") -> Sequence[Frame]:
        try:
            return await follower.far()
        except Unavailable:
            await self._shutdown.wait(_UNREADABLE_SECONDS)
            return (IDLE,)


@cache
def followers(platform: Platform) -> Followers:
    """The followers of this process' platform."""
    return Followers(platform)


class _Follower:
    """Where a follower is in a feed.

    Attributes:
        level: what `near` has found is all that there was to be told.
    """

    __slots__ = ("_fed", "_feed", "_logs", "_place", "_told", "_types", "level")

    def __init__(self, feed: Feed, types: frozenset[str]) -> None:
        self._feed = feed
        self._fed = math.inf  # when it was given something from behind the window
        self._types = types
        self._logs = "log" in types
        self._told = feed.status
        self._place = Place(1, ZERO)
        self.level = False

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._feed.run_id, *self._place)

    async def opening(self, query: Query) -> list[Notice]:
        """Go to where the query begins; what is to be told there: the run as it is now."""
        after, feed = query.after, self._feed
        elsewhere = after is not None and not (after.run_id == feed.run_id and await feed.has(after.attempt))
        if after is not None and after.line is not None and not elsewhere:
            self._place = Place(after.attempt, after.line)
        elif query.tail is not None:
            self._place = await feed.tail(query.tail)
        if not query.follow:
            await feed.current()
        self._told = feed.status
        opening = [status_notice(self._told, self.cursor)]
        if elsewhere:
            LINES_LOST.inc()
            opening.append(gap(self.cursor, f"The cursor {after} is of a run or an attempt that is not followed here."))
        return opening

    def near(self) -> Sequence[Frame] | None:
        """The next of the log if there is any, else what has changed of the run since it was told last.

        None: the log goes on with what has to be read for it, see `far`.
        """
        feed, place = self._feed, self._place
        top = feed.top
        if place is feed.before and self._logs:
            self._place, self.level = top, self._told is feed.status
            return feed.newest
        if feed.failure is not None:
            raise RuntimeError("the feed has failed") from feed.failure
        self.level = False
        if place is not top and place < top:
            if self._logs:
                batch = feed.next(place)
                if batch is None:
                    return None
                self._place = top if batch.last == top.line else Place(batch.attempt, batch.last)
                self.level = self._place is top and self._told is feed.status
                return (batch,)
            remarks, self._place = feed.remarks(place), top
            if remarks:
                return remarks
        self.level = True
        return self._news()

    def _news(self) -> Sequence[Frame]:
        feed, before, now = self._feed, self._told, self._feed.status
        if before is now:
            return ()
        self._told = now
        frames: list[Frame] = []
        if "status" in self._types and before.model_copy(update={"progress": now.progress}) != now:
            frames.append(feed.notice("status", self.cursor))
        if "progress" in self._types and before.progress != now.progress:
            frames.append(feed.notice("progress", self.cursor))
        return frames

    async def far(self) -> Sequence[Frame]:
        """The next of the log, from behind the window.

        Raises:
            Unavailable: neither Redis nor the runner can be read.
        """
        slow = time.monotonic() - self._fed > _SLOW_SECONDS
        try:
            found, self._place = await self._feed.after(self._place, few=slow)
            return found
        finally:
            self._fed = time.monotonic()

    def last(self) -> list[Notice]:
        """What ends a run's stream: what is lost of it, and the final record or why there is none."""
        feed, end = self._feed, self.cursor._replace(line=None)
        why = feed.lost
        if why is None and self._place > feed.top:  # others had told it more than anybody knows any more
            LINES_LOST.inc()
            why = _AHEAD
        lost = [] if why is None else [gap(self.cursor, why)]
        if feed.status.status.terminal:
            return [*lost, feed.notice("complete", end)]
        detail = feed.status.message or "How the run ended is not known."
        return [*lost, Notice(event("error", end, {"detail": detail}))]
