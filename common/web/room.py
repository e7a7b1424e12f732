"""How many requests a process works on at once: as many as keep it busy; whoever comes besides stands in line.

A line that comes and goes is what lines are for: a hundred who ask at once are all answered. A line that stands makes
everybody late and nobody the sooner: more is asked for than can be done. So where one has stood a while, who has not
had a turn within a moment is refused (after "Fail at Scale", ACM Queue 13(8), which has it from CoDel, RFC 8289).
"""

import asyncio
import random
import time
from collections import deque

from common.web.problem import Problem, TooMany, problem

_PLACES = 16
# Whoever waits (for Redis, the cluster, the slot) rather than works does not keep others from working. That a process
# works shows by the processor that it takes, or, where others have that, by how late a timer is.
_TURN_SECONDS = 0.02
_WORKS_SHARE, _WORKS_SECONDS = 0.7, 0.002
_CALM_SECONDS = 5.0
_PATIENCE_SECONDS, _SHORT_PATIENCE_SECONDS = 10.0, 0.1
_RETRY_SECONDS = 1
_LATE_SECONDS, _LATE_AT_MOST = 1.0, 1000


class Room:
    """The room of one process, and the line before it, which stands once there was one for so many seconds."""

    def __init__(self, stands_seconds: float) -> None:
        self._stands_seconds = stands_seconds
        self._free = _PLACES
        self._line: deque[tuple[float, asyncio.Future[bool]]] = deque()
        # Since when there is a line, and when it last was none: it has not gone by being empty for a moment.
        self._since = self._empty = -_CALM_SECONDS
        self._late = 0

    async def enter(self) -> None:
        """Wait for a place.

        Raises:
            TooMany: there will be none soon.
        """
        if self._free:
            self._free -= 1
            return
        came, turn = time.monotonic(), asyncio.get_running_loop().create_future()
        if not self._line and came - self._empty > _CALM_SECONDS:
            self._since = came
        self._line.append((came, turn))
        try:
            let_in = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        if not let_in:
            raise TooMany(_busy())

    def leave(self) -> None:
        """Give the place to the first in line whose patience has lasted."""
        if not self._line:
            self._free += 1
            return
        now = time.monotonic()
        patience = _SHORT_PATIENCE_SECONDS if now - self._since > self._stands_seconds else _PATIENCE_SECONDS
        let_in = False
        while self._line and not let_in:
            came, turn = self._line.popleft()
            if not turn.done():
                let_in = now - came <= patience
                turn.set_result(let_in)
        if not self._line:
            self._empty = now
        self._free += not let_in

    async def late(self) -> None:
        """Let time go by before somebody is told that he asks too much: who does not heed it asks no faster than this.

        Not by leaving his connection alone afterwards: it may be a proxy's, and its next request somebody else's.
        """
        if self._late >= _LATE_AT_MOST:
            return
        self._late += 1
        try:
            await asyncio.sleep(_LATE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  # or all come again at once
        finally:
            self._late -= 1


class Place:
    """A request's place in the room: a context, which has it for as long as it works."""

    __slots__ = ("_began", "_over", "_room", "_worked")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._over: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._room.enter()
        self._turn()

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._began, self._worked = loop.time(), time.process_time()
        self._over = loop.call_later(_TURN_SECONDS, self._look)

    def _look(self) -> None:
        took = asyncio.get_running_loop().time() - self._began
        worked = time.process_time() - self._worked
        if worked > _WORKS_SHARE * took or took - _TURN_SECONDS > _WORKS_SECONDS:
            self._turn()
        else:
            self._leave()

    def _leave(self) -> None:
        if self._over is not None:
            self._over.cancel()
            self._over = None
            self._room.leave()


def _busy() -> Problem:
    detail = "More is asked for than this replica can do. Come back in a second; to follow a run, keep one stream open."
    return problem(503, "overloaded", "Too many at once", detail, headers={"retry-after": str(_RETRY_SECONDS)})
