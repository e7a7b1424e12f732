"""What a log's current file begins with, asked for every second beside a reading that goes on.

A line does not wait for the answer, but where the last one is so old that a file may soon have come and gone unseen.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from common.errors import Unavailable
from common.events import ZERO, Line, LineId
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
        late: other files may have come and gone since the look before this one.
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
        self._look: asyncio.Task[Sequence[Line] | None] | None = None

    async def news(self) -> Beginning | None:
        """What there is to be known, until there is nothing, before anything else of the reading is told."""
        now = time.monotonic()
        if self._look is None:
            if now - self._asked < _LOOK_SECONDS:
                return None
            self._asked, self._look = now, asyncio.create_task(self._begins())
        # A file that is seen now and then left out is current for longer than that: the look before has seen it, too.
        if not self._look.done() and now - self.at < ROTATION_SECONDS / 2:
            return None
        lines, self._look = await self._look, None
        if lines is None:
            return None
        late, self.at = self._asked - self.at > ROTATION_SECONDS, self._asked
        first, second = ([LineId.of_time(line.at_ns) for line in lines[:2]] + [None, None])[:2]
        return Beginning(first or ZERO, second, late)

    async def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            await end([self._look])

    async def _begins(self) -> Sequence[Line] | None:
        """The file's first lines; None where they are not to be had."""
        with suppress(Unavailable):
            sent = Sent()
            chunks = [chunk async for chunk in self._api.stream(self._path, **self._query)]
            return [*sent.feed(b"".join(chunks)), *sent.rest()]
        return None
