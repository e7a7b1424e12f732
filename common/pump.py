"""The pump: read a run's log where it happens, append it to the run's stream in Redis.

It runs in the recorder beside the run, and in any stream function that finds no recorder at work.
Ids are the same for all who read the same log, and every append names the top it expects, so two
pumps at once cannot duplicate, reorder or lose a line, and a Redis that lost something is noticed
and filled again from what it has left.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from common.errors import Unavailable
from common.events import GAP, ZERO, Line, LineId
from common.metrics import LINES_DUPLICATE, LINES_RELAYED, LINES_SEEN
from common.models import Relay
from common.runner import Batches, LogSource
from common.streams import Streams

log = logging.getLogger(__name__)

_PIECE_BYTES = 1024 * 1024  # of one append: Redis serves nobody else meanwhile
_RETRY_SECONDS = 0.5
_CLAIM_SECONDS = 1.0
_COUNTED = {"seen": LINES_SEEN, "relayed": LINES_RELAYED, "duplicates": LINES_DUPLICATE}


def reading(source: LogSource, run_id: str, attempt: int, after: LineId = ZERO) -> "aclosing[Batches]":
    """`source.lines` for an `async with`: whoever stops half-way lets go of the file or connection behind it."""
    return aclosing(source.lines(run_id, attempt, after))


async def is_readable(source: LogSource, run_id: str, attempt: int) -> bool:
    """Whether there is anything of an attempt's log where the run happened, be it that it is empty.

    Raises:
        Unavailable: the source does not answer.
    """
    async with reading(source, run_id, attempt) as batches:
        return await anext(batches, None) is not None


class Pump:
    """One attempt's log on its way to Redis.

    `who` names this pump to the others; one that is not `lasting` gives way to whoever else pumps. One that is stands
    beside the run, where the clock is the one that the log's times are of.

    Attributes:
        caught_up: Redis has all that the log had to say until a moment ago.
    """

    def __init__(
        self,
        source: LogSource,
        streams: Streams,
        run_id: str,
        attempt: int,
        *,
        who: str,
        lasting: bool,
    ) -> None:
        self._source = source
        self._streams = streams
        self._run_id = run_id
        self._attempt = attempt
        self._who = who
        self._lasting = lasting
        self._claimed = 0.0
        self._counts: Counter[str] = Counter()
        self._lag_seconds: float | None = None
        self._told: Relay | None = None
        self.caught_up = False

    async def run(self) -> None:
        """Relay until the log is final and all of it is in Redis.

        Raises:
            Unavailable: Redis or the runner does not answer; one that is lasting waits for them.
        """
        while not await self._pass():
            self.caught_up = False
            await asyncio.sleep(_RETRY_SECONDS)

    async def _pass(self) -> bool:
        """Go through the log from where Redis ends; whether nothing is left to do.

        Of a log that is not there any more, and of which Redis has nothing, no end is told: it was lost.
        """
        try:
            top, ended = await self._streams.top(self._run_id, self._attempt)
            if ended:
                return True
            if self._told is None:
                await self._take_over()
            async with reading(self._source, self._run_id, self._attempt, top) as batches:
                async for batch in batches:
                    if (over := await self._over(top)) is not None:
                        return over
                    self._count("seen", len(batch))
                    for piece in _pieces(batch):
                        reached = await self._append(top, piece)
                        if reached is None:
                            return False
                        top = reached
                    self.caught_up |= not batch
            if top == ZERO and not await is_readable(self._source, self._run_id, self._attempt):
                return True
            return await self._end(top)
        except Unavailable as away:
            if not self._lasting:
                raise
            log.warning("the log waits", extra={"run_id": self._run_id, "cause": str(away)})
            return False

    async def _append(self, top: LineId, lines: Sequence[Line]) -> LineId | None:
        """Append what is above `top`; the new top, or None where Redis has lost what was below it."""
        while True:
            fresh = [line for line in lines if line.id > top]
            self._count("duplicates", len(lines) - len(fresh))
            if not fresh:
                return top
            done, real = await self._streams.append(self._run_id, self._attempt, top, fresh)
            if done:
                self._relayed(fresh)
                return real
            if real < top:
                return None
            top, lines = real, fresh  # another pump is ahead

    async def _end(self, top: LineId) -> bool:
        """Put the log's end behind its last line, unless the log was not there to be read; whether all is done."""
        if not (final := await self._source.final(self._run_id, self._attempt)):
            return final is None
        await self._tell()  # before the end: who finds that has nothing more to do
        real, ended = await self._streams.top(self._run_id, self._attempt)
        if ended or real != top:  # another pump's end must not be taken for a line to put one more behind
            return ended
        done, _ = await self._streams.append(self._run_id, self._attempt, top, (), end=True)
        return done

    async def _over(self, top: LineId) -> bool | None:
        """Say now and then that this pump is at work; what the pass comes to if it is to go no further.

        A silent log gives no append that would notice what Redis has lost, so that is asked for as well.
        """
        now = time.monotonic()
        if now - self._claimed < _CLAIM_SECONDS:
            return None
        self._claimed = now
        news = self._news()
        found = await self._streams.pumping(self._run_id, self._attempt, self._who, insist=self._lasting, relay=news)
        if found is None:
            return True
        self._told = news or self._told
        real, ended = found
        return ended if ended or real < top else None

    # What is told of it.

    async def _take_over(self) -> None:
        """Go on counting where whoever relayed the run's log before has come to."""
        self._told = await self._streams.relay(self._run_id) or Relay()
        self._counts.update(self._told.model_dump(exclude={"lag_seconds"}))

    def _count(self, what: str, lines: int) -> None:
        self._counts[what] += lines
        _COUNTED[what].inc(lines)

    def _relayed(self, lines: Sequence[Line]) -> None:
        gaps = sum(line.stream == GAP for line in lines)
        self._count("relayed", len(lines) - gaps)
        self._counts["gaps"] += gaps
        if self._lasting:
            self._lag_seconds = max(0.0, round(time.time() - lines[-1].at_ns / 1e9, 3))

    def _news(self) -> Relay | None:
        """What is to be told, if it was not yet."""
        # Not validated: it goes on from what was read, and a count that was near its bound must not end the relay.
        relay = Relay().model_copy(update={**self._counts, "lag_seconds": self._lag_seconds})
        return relay if relay != self._told else None

    async def _tell(self) -> None:
        if (news := self._news()) is not None:
            await self._streams.write_relay(self._run_id, news)
            self._told = news


def _pieces(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """The lines in portions that Redis takes in one go."""
    start = size = 0
    for at, line in enumerate(lines):
        size += len(line.text)
        if size >= _PIECE_BYTES:
            yield lines[start : at + 1]
            start, size = at + 1, 0
    if start < len(lines):
        yield lines[start:]
