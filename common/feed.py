"""One run, followed once a process however many followers there are: its log, attempt by attempt, and its status.

The log of the attempt that the run is in is read in batches that all followers share (and that are
encoded once a transport); a window of the newest is kept. A follower holds nothing but its place: one
that falls out of the window, or comes from before it, or from an attempt before, is fed page by page
until it is back in. Nothing is stored for the boundary between two attempts: who crosses it is told.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from common import look
from common.bell import Bell
from common.errors import ControllerError, RunNotFound
from common.events import ZERO, Cursor, Place, event
from common.frames import Frame, Lines, Notice, progress_notice, status_notice
from common.metrics import TAILERS
from common.models import RunStatus
from common.pages import End, Pages
from common.phases import State
from common.platform import Platform
from common.presence import Presence, Transport
from common.reader import Reader
from common.tasks import end

log = logging.getLogger(__name__)

_CURRENT_SECONDS = 5.0
_WATCH_SECONDS = 0.5
_WATCH_END_SECONDS = 0.05
_RESTARTED = "The head was taken from its node; the run goes on where it was."
_UNDER_WAY = (State.QUEUED, State.STARTING, State.RUNNING)  # else the run's message is about its end


class Feed:
    """The shared reader of one run. Use `Feeds.join`.

    Attributes:
        status: the run as it was seen last.
        finished: there is nothing more to come, neither lines nor states.
        failure: what this feed has died of, if it has.
        top: the newest line that is known; the beginning of the attempt that the run is in if that has none yet.
        before: the one from which `newest` leads there; whoever keeps up has this very object for his place.
        newest: the newest batch, or nothing where it does not lead from one top to the next.
        bell: rings at each change.
        changes: how many there were.
        beats: goes up, as a change, as often as a silent follower has to be told something.
        presence: who follows.
    """

    def __init__(self, platform: Platform, status: RunStatus) -> None:
        self._platform = platform
        self.run_id = status.run_id
        self.status = status
        self.finished = False
        self.bell = Bell()
        self.changes = 0
        self.beats = 0
        self.presence = Presence(platform.streams, self.run_id)
        self._failure: BaseException | None = None
        self._pages = Pages(platform, self.run_id)
        self._notices: dict[tuple[str, Cursor], Notice] = {}
        self._restarts: dict[int, Notice] = {}
        self._reasons: dict[int, str] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._reader = self._read(status.attempt)
        self.top = Place(status.attempt, ZERO)
        self.before: Place | None = None
        self.newest: Sequence[Lines] = ()
        self._tasks = [asyncio.create_task(work) for work in (self._watch(), self._beat(), self.presence.tell())]
        for task in self._tasks:
            task.add_done_callback(self._stopped)

    @property
    def lost(self) -> str | None:
        """Why the rest of the log is gone for good, if it is."""
        return self._reader.lost

    @property
    def failure(self) -> BaseException | None:
        return self._failure or self._reader.failure

    @property
    def over(self) -> bool:
        """The run is, as far as can be told; some of its log may still be on its way."""
        return self.status.status.terminal or self.status.status is State.UNKNOWN

    async def ready(self) -> None:
        """Wait until it is known where the log's newest line is."""
        await self._reader.ready.wait()

    async def current(self) -> None:
        """Wait until `top` is no older than this call, for a bounded time: a run may never pause for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CURRENT_SECONDS):
                while not self._reader.current.is_set():  # the run may have gone on to its next attempt meanwhile
                    await self._reader.current.wait()

    async def has(self, attempt: int) -> bool:
        """Whether the run has had this attempt; the cluster is asked where its status does not say so yet.

        Raises:
            Unavailable: it cannot be told.
        """
        if attempt > self._reader.attempt:
            job = await self._platform.runner.job(self.run_id)
            if job is not None:
                self._enter(job.attempt)
        return attempt <= self._reader.attempt

    def next(self, place: Place) -> Lines | None:
        """What goes on behind `place`, which is before `top`; None if it is behind the window and has to be read."""
        window, (attempt, line) = self._reader.window, place
        return None if attempt < self._reader.attempt or line < window.base else window.after(line)

    async def after(self, place: Place, *, few: bool) -> tuple[Sequence[Frame], Place]:
        """What goes on behind `place`, which `next` does not have, and where that leads; a `few` lines if need be.

        Raises:
            Unavailable: neither Redis nor the runner can be read.
        """
        attempt = place.attempt
        until = None if attempt < self._reader.attempt else self._reader.window.base
        found = await self._pages.after(place, until, few=few)
        if isinstance(found, End):
            lost = [] if found.lost is None else [found.lost]
            return [*lost, self._restart(attempt + 1)], Place(attempt + 1, ZERO)
        return [found], Place(attempt, found.last)

    def remarks(self, place: Place) -> list[Frame]:
        """What is to be told to who goes from `place` to `top` without reading the log."""
        restarts = [self._restart(attempt) for attempt in range(place.attempt + 1, self._reader.attempt + 1)]
        gaps = [gap for gap in self._reader.window.gaps if Place(gap.attempt, gap.last) > place]
        return [*restarts, *gaps]

    async def tail(self, count: int) -> Place:
        """The place from which `count` lines are left to the newest, in this attempt or those before.

        Raises:
            Unavailable: it cannot be told.
        """
        await self.current()
        attempt, newest = self.top
        if (near := self._reader.window.tail(count)) is not None:
            return Place(attempt, near)
        line, few = await self._pages.tail(attempt, count, newest)
        while few and attempt > 1:
            attempt -= 1
            line, few = await self._pages.tail(attempt, few, None)
        return Place(attempt, line)

    def notice(self, kind: Literal["status", "progress", "complete"], cursor: Cursor) -> Notice:
        """What is to be said of the run as it is now, shared by all who are at the same place."""
        found = self._notices.get((kind, cursor))
        if found is None:
            found = self._notices[kind, cursor] = _NOTICES[kind](self.status, cursor)
        return found

    async def close(self) -> None:
        """Stop reading."""
        await end(self._tasks)
        await asyncio.gather(self._pages.close(), self._reader.close(), self.presence.withdraw(), *self._closing)

    def announce(self) -> None:
        """Wake every follower, as something has changed."""
        top = Place(self._reader.attempt, self._reader.top)
        if top != self.top:
            newest = self._reader.window.batches[-1:]
            leads = bool(newest) and (top.attempt, newest[0].behind, newest[0].last) == (*self.top, top.line)
            self.before, self.newest, self.top = (self.top, newest, top) if leads else (None, (), top)
        self.changes += 1
        self.bell.ring()

    # Attempts.

    def _read(self, attempt: int) -> Reader:
        return Reader(self._platform, self.run_id, attempt, f"stream-{id(self)}", self.announce)

    def _enter(self, attempt: int) -> None:
        """Go on with this attempt, if it is a further one; what is not read yet of the one before is in its pages."""
        if attempt <= self._reader.attempt:
            return
        closing = asyncio.create_task(self._reader.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._reader = self._read(attempt)
        self.announce()

    def _restart(self, attempt: int) -> Notice:
        found = self._restarts.get(attempt)
        if found is None:
            data = {"attempt": attempt, "reason": self._reasons.get(attempt, _RESTARTED)}
            found = self._restarts[attempt] = Notice(event("restarted", Cursor(self.run_id, attempt, ZERO), data))
        return found

    # Status.

    async def _beat(self) -> None:
        """Once for all followers: a timer of each one's own would be the most of what it costs."""
        while not self.finished:
            await asyncio.sleep(self._platform.settings.heartbeat_seconds)
            self.beats += 1
            self.announce()

    async def _watch(self) -> None:
        pause = _WATCH_END_SECONDS
        while not self.finished:
            ended = self._reader.ended.is_set()  # only a look that began after the last line sees the last state
            await self._look()
            if ended and self.over and self._reader.ended.is_set():  # it may have found a further attempt
                self.finished = True
                self.announce()
            elif ended:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _WATCH_SECONDS)
            else:
                pause = _WATCH_END_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_SECONDS):
                        await self._reader.ended.wait()

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
            before, self.status = self.status, status
            if status.attempt == before.attempt + 1 and before.message and before.status in _UNDER_WAY:
                self._reasons[status.attempt] = before.message  # why it was waiting for its next head
            self._notices.clear()
            self._enter(status.attempt)
            self.announce()

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a feed has failed", extra={"run_id": self.run_id}, exc_info=error)
            self._failure = error
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

    async def join(self, run_id: str | None, transport: Transport) -> Feed:
        """The feed of a run (None: the active or latest), shared with its other followers; `leave` it afterwards.

        Raises:
            RunNotFound: there is no such run.
            Unavailable: it cannot be told.
        """
        status = await look.status(self._platform, run_id)
        feed = self._feeds.get(status.run_id)
        if feed is None:
            feed = self._feeds[status.run_id] = Feed(self._platform, status)
            TAILERS.inc()
        feed.presence.count(transport, 1)
        return feed

    async def leave(self, feed: Feed, transport: Transport) -> None:
        """Let go of a feed that was joined by this transport; nobody reads a run that nobody follows."""
        feed.presence.count(transport, -1)
        if not feed.presence.anybody:
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
