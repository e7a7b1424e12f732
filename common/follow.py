"""Follow a run: from a place in its log, in order, to the run's end (and on to the next run, if asked).

What comes out are shared frames (common.frames); turning them into a transport's bytes is the web
layer's part. The first frame is always a snapshot of the status, and an end is always said.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from common import look
from common.errors import ControllerError, RunNotFound, Unavailable
from common.events import ZERO, Cursor, LineId, event
from common.feed import Feed, Feeds
from common.frames import Farewell, Frame, Idle, Lines, Notice, progress_notice, status_notice
from common.models import RunStatus
from common.observe import LINES_LOST
from common.platform import Platform

NEXT_RUN = "*"  # as `run_id`: the active or latest run, and after it each next one
_NEXT_SECONDS = 1.0
_UNREADABLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Query:
    """What a follower wants.

    Attributes:
        run_id: a run; None for the active or latest; `*` for that and each one after it.
        after: the place behind which to begin; None for the beginning, or `tail` lines before the end.
        types: the kinds of events wanted (gap, complete and error come always).
        follow: stay until the run ends; otherwise end with what there is now.
    """

    run_id: str | None
    after: Cursor | None
    tail: int | None
    types: frozenset[str]
    follow: bool
    heartbeat_seconds: float


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

    async def follow(self, query: Query, run_id: str) -> AsyncIterator[Frame]:
        """The frames for one follower, beginning with `run_id` (see `resolve`)."""
        current: str | None = run_id
        while current is not None:
            cursor = query.after if query.after is not None and query.after.run_id == current else None
            if cursor is None or cursor.line is not None:
                async with self._feeds.open(current) as feed:
                    async for frame in self._run(feed, query, cursor):
                        yield frame
                        if isinstance(frame, Farewell):
                            return
            if query.run_id != NEXT_RUN or not query.follow:
                return
            before = current
            while (current := await self._next(before)) is None:
                if self._shutdown.begun:
                    yield Farewell(Cursor(before, 1, None))
                    return
                yield Idle()

    async def _next(self, before: str) -> str | None:
        """The run after `before`, if it comes within a moment."""
        with suppress(Unavailable):
            run = await self._platform.flights.share("next", lambda: look.active(self._platform))
            if run is not None and run.run_id != before:
                return run.run_id
        await self._shutdown.wait(_NEXT_SECONDS)
        return None

    async def _run(self, feed: Feed, query: Query, after: Cursor | None) -> AsyncIterator[Frame]:
        """One run, from a place in it to its end."""
        place = _Place(feed, query.types)
        if after is not None and after.line is not None:
            place.line = after.line
        elif query.tail is not None:
            place.line = await feed.tail(query.tail)
        if query.after is not None and after is None:
            LINES_LOST.inc()
            yield Notice(
                event(
                    "gap", place.cursor, {"reason": f"The cursor {query.after} is of a run that is not followed here."}
                )
            )
        yield status_notice(feed.status, place.cursor)
        while True:
            changed = feed.changed  # before anything is looked at: a change from here on wakes us
            if self._shutdown.begun:
                yield Farewell(place.cursor)
                return
            try:
                lines = await place.lines()
            except Unavailable:
                await self._shutdown.wait(_UNREADABLE_SECONDS)
                yield Idle()
                continue
            if lines is not None:
                yield lines
                continue
            for notice in place.notices():
                yield notice
            if feed.finished:
                yield _last(feed, place)
                return
            if not query.follow:
                return
            try:
                await asyncio.wait_for(changed.wait(), query.heartbeat_seconds)
            except TimeoutError:
                yield Idle()


@cache
def followers(platform: Platform) -> Followers:
    """The followers of this process' platform."""
    return Followers(platform)


class _Place:
    """Where a follower is in a feed."""

    def __init__(self, feed: Feed, types: frozenset[str]) -> None:
        self._feed = feed
        self._types = types
        self._status: RunStatus = feed.status
        self.line: LineId = ZERO

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._feed.run_id, self._feed.attempt, self.line)

    async def lines(self) -> Lines | None:
        """The next lines, if lines are wanted and there are any."""
        if "log" not in self._types:
            self.line = max(self.line, self._feed.top)
            return None
        if self.line >= self._feed.top:
            return None
        found = await self._feed.after(self.line)
        if found is not None:
            self.line = found.last
        return found

    def notices(self) -> list[Notice]:
        """What has changed of the run since the last call."""
        before, now = self._status, self._feed.status
        if before is now:
            return []
        self._status = now
        found = []
        if "status" in self._types and before.model_copy(update={"progress": now.progress}) != now:
            found.append(status_notice(now, self.cursor))
        if "progress" in self._types and before.progress != now.progress:
            found.append(progress_notice(now, self.cursor))
        return found


def _last(feed: Feed, place: _Place) -> Notice:
    """What ends a run's stream: the final record, or why there is none."""
    if feed.status.status.terminal:
        data = feed.status.model_dump(mode="json")
        if feed.lost:
            data["gap"] = feed.lost
        return Notice(event("complete", Cursor(feed.run_id, feed.attempt, None), data))
    lost = ControllerError(feed.lost or "How the run ended is not known.")
    return Notice(event("error", Cursor(feed.run_id, feed.attempt, None), {"detail": str(lost)}))
