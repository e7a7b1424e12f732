"""The pump: read a run's log where it happens, append it to the run's stream in Redis.

It runs in the recorder beside the run, and in any stream function that finds no recorder at work.
Ids are the same for all who read the same log, and every append names the top it expects, so two
pumps at once cannot duplicate, reorder or lose a line, and a Redis that lost something is noticed
and filled again from the log's beginning.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from common.errors import Unavailable
from common.events import Line, LineId
from common.observe import LINES_DUPLICATE, LINES_RELAYED
from common.runner import Runner
from common.streams import Streams

log = logging.getLogger(__name__)

_PIECE_BYTES = 1024 * 1024  # of one append: Redis serves nobody else meanwhile
_RETRY_SECONDS = 0.5
_CLAIM_SECONDS = 1.0

Gate = Callable[[LineId], Awaitable[None]]


async def _open_gate(_: LineId) -> None:
    """Nothing has to happen before a line may go to Redis."""


class Pump:
    """One attempt's log on its way to Redis.

    `who` names this pump to the others; one that is not `lasting` gives way to whoever else pumps.
    """

    def __init__(
        self,
        runner: Runner,
        streams: Streams,
        run_id: str,
        attempt: int,
        *,
        who: str,
        lasting: bool,
        gate: Gate = _open_gate,
    ) -> None:
        self._runner = runner
        self._streams = streams
        self._run_id = run_id
        self._attempt = attempt
        self._who = who
        self._lasting = lasting
        self._gate = gate  # awaited with the last id of what is about to be appended
        self._claimed = 0.0

    async def run(self) -> None:
        """Relay until the log is final and all of it is in Redis; Redis away is waited for.

        Raises:
            Unavailable: the runner does not answer.
        """
        while not await self._pass():
            await asyncio.sleep(_RETRY_SECONDS)

    async def _pass(self) -> bool:
        """Go through the log from its beginning, skipping what Redis has; whether nothing is left to do."""
        try:
            top, ended = await self._streams.top(self._run_id, self._attempt)
            if ended:
                return True
            async for batch in self._runner.lines(self._run_id, self._attempt):
                if not await self._claim():
                    return True
                for piece in _pieces(batch):
                    reached = await self._append(top, piece)
                    if reached is None:
                        return False
                    top = reached
            return await self._end(top)
        except Unavailable as away:
            if away.dependency != "redis":
                raise
            log.warning("the log waits for Redis", extra={"run_id": self._run_id})
            return False

    async def _append(self, top: LineId, lines: Sequence[Line]) -> LineId | None:
        """Append what is above `top`; the new top, or None where Redis has lost what was below it."""
        while True:
            fresh = [line for line in lines if line.id > top]
            LINES_DUPLICATE.inc(len(lines) - len(fresh))
            if not fresh:
                return top
            await self._gate(fresh[-1].id)
            done, real = await self._streams.append(self._run_id, self._attempt, top, fresh)
            if done:
                LINES_RELAYED.inc(len(fresh))
                return real
            if real < top:
                return None
            top, lines = real, fresh  # another pump is ahead

    async def _end(self, top: LineId) -> bool:
        """Put the log's end behind its last line, unless the log was not there to be read."""
        job = await self._runner.job(self._run_id)
        if job is None or not job.ended:
            return job is None
        done, _ = await self._streams.append(self._run_id, self._attempt, top, (), end=True)
        return done

    async def _claim(self) -> bool:
        """Say that this pump is at work; whether it is still wanted."""
        now = time.monotonic()
        if now - self._claimed < _CLAIM_SECONDS:
            return True
        self._claimed = now
        return await self._streams.pumping(self._run_id, self._who, insist=self._lasting)


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
