"""The followers of a run in one process, told to all processes through Redis.

Said under a name of this process' own, when their number changes and now and then; never for each of them.
Nothing depends on its being taken back: whoever dies is forgotten after some seconds, by Redis' own clock.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from secrets import token_hex
from typing import Literal

from common.errors import Unavailable
from common.metrics import LAG_SECONDS
from common.models import FollowerCounts, Relay
from common.streams import Streams

Transport = Literal["sse", "websocket", "ndjson", "text"]

_REFRESH_SECONDS = 5.0
_PAUSE_SECONDS = 0.5  # however many come and go


class Presence:
    """Who follows a run in this process."""

    def __init__(self, streams: Streams, run_id: str) -> None:
        self._streams = streams
        self._run_id = run_id
        self._who = token_hex(8)
        self._followers: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._relay: Relay | None = None

    @property
    def anybody(self) -> bool:
        """Whether anybody does."""
        return self._followers.total() > 0

    def count(self, transport: Transport, change: int) -> None:
        """So many come by this transport; or go, if it is less than none."""
        self._followers[transport] += change
        self._changed.set()

    async def tell(self) -> None:
        """Go on saying how many there are."""
        while True:
            self._changed.clear()
            with suppress(Unavailable):
                await self._streams.say_followers(self._run_id, self._who, FollowerCounts(**self._followers))
                self._observe(await self._streams.relay(self._run_id))
            await asyncio.sleep(_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_SECONDS):
                    await self._changed.wait()

    async def withdraw(self) -> None:
        """Say that nobody is left, if it can be said."""
        with suppress(Unavailable):
            await self._streams.say_followers(self._run_id, self._who, None)

    def _observe(self, relay: Relay | None) -> None:
        """Measure the recorder's lag by what has changed of its report: the first may be of long ago."""
        if self._relay is not None and relay is not None and relay != self._relay and relay.lag_seconds is not None:
            LAG_SECONDS.observe(relay.lag_seconds)
        self._relay = relay
