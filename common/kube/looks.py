"""What a log's current file begins with, asked for every second beside a reading that goes on.

A line does not wait for the answer, but where the last one is so old that a file may soon have come and gone unseen.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from common.errors import Unavailable
from common.events import ZERO, LineId
from common.kube.sent import Sent
from common.kube.transport import Api
from common.tasks import end

ROTATION_SECONDS = 10.0  # after which a kubelet looks, by default, whether a file is to be begun anew
_LOOK_SECONDS = 1.0
_BEGINNING_BYTES = 4096  # a file's first line and the time of its second, of all but the longest lines


class Beginning(NamedTuple):
    """What the current file begins with.

    Attributes:
        first: where its first line stands; ZERO, where it has none.
        second: where the second does, once that is known.
        late: since the look before this one, files may have come and gone.
    """

    first: LineId
    second: LineId | None
    late: bool


class Looks:
    """The looks at one log; `close` it afterwards.

    Attributes:
        at: when what is known was asked for, by the monotonic clock.
    """

    def __init__(self, api: Api, path: str, query: Mapping[str, str]) -> None:
        self._api, self._path = api, path
        self._query = {**query, "limitBytes": str(_BEGINNING_BYTES)}
        self._asked = self.at = time.monotonic()
        self._first = ZERO
        self._look: asyncio.Task[tuple[Sequence[LineId], float] | None] | None = None

    async def news(self, came: float) -> Beginning | None:
        """The answer of a look, before what `came` then is told; to be called until it is None.

        A file that the reading leaves out is current for ROTATION_SECONDS. If what has come since is behind it, and
        less than half of that after what is known was asked for, then it was current there, too, and is known.
        """
        known = came - self.at < ROTATION_SECONDS / 2
        if self._look is None:
            if known and came - self._asked < _LOOK_SECONDS:
                return None
            self._asked, self._look = time.monotonic(), asyncio.create_task(self._begins())
        return None if known and not self._look.done() else await self.last()

    async def last(self) -> Beginning | None:
        """The answer of the look that is under way, if one is and it is answered."""
        found, self._look = await self._look if self._look else None, None
        if found is None:
            return None
        lines, answered = found
        beginning: list[LineId | None] = [*lines, None, None]
        first, second = beginning[:2]
        # What begins as it did is the same file, and none came between; an empty one may be any.
        late = answered - self.at > ROTATION_SECONDS and first != self._first
        self.at, self._first = self._asked, first or ZERO
        return Beginning(self._first, second, late)

    async def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            await end([self._look])

    async def _begins(self) -> tuple[Sequence[LineId], float] | None:
        """Where the file's first lines stand, and when that was answered; None where it is not to be had in time."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(ROTATION_SECONDS):
                sent = Sent()
                chunks = [chunk async for chunk in self._api.stream(self._path, **self._query)]
            lines = [*sent.feed(b"".join(chunks)), *sent.rest()]
            return [LineId.of_time(line.at_ns) for line in lines], time.monotonic()
        return None
