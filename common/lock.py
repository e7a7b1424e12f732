"""The optimistic lock: a versioned slot record in Redis, changed only by compare-and-set.

It decides quickly among thousands of callers who is to look at the cluster; it never admits a run,
the runner's fence does. So it may be lost, stale or wrong, and has no expiry: a lock that times
out while its run goes on would admit a second run. What does end by itself is the turn of the one
who looks: after it the next caller looks too, and the fence sorts out the two.
"""

from dataclasses import dataclass
from typing import Literal

from common.connection import Connection
from common.models import RunInfo
from common.records import told

FRESH_MS = 1_000  # an answer that attaches is given only from a record verified within a second
_LOOK_MS = 2_000  # a look usually takes tens of milliseconds, a launch some hundred


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the slot says, and what is to be done about it.

    Attributes:
        kind: `fresh`: `run` is right (None: nothing is active). `look`: the caller is to look at
            the cluster and to `settle` what it saw. `wait`: somebody else does; ask again soon.
        version, now_ms: to settle with.
        believed: the run that the slot named when the look was asked for, if any.
    """

    kind: Literal["fresh", "look", "wait"]
    version: int
    now_ms: int
    believed: str | None
    run: RunInfo | None


class Lock:
    """The slot record of one deployment."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._slot = f"{prefix}:slot"
        self._runs = f"{prefix}:run:"

    async def ask(self, wants: str = "", *, fresh_ms: int = FRESH_MS) -> Verdict:
        """What is known of the slot; with `wants`, a run id, claim it if it is free.

        Raises:
            Unavailable: Redis is away, or its record of the run is none.
        """
        kind, version, now_ms, run_id, info = await self._connection.script(
            "ask", [self._slot], [wants, fresh_ms, _LOOK_MS, self._runs]
        )
        believed = run_id.decode("ascii", "replace")
        run = told(info, believed) if info else None
        return Verdict(kind.decode(), version, now_ms, believed or None, run)

    async def settle(self, verdict: Verdict, run_id: str | None) -> bool:
        """Write down what a look has shown: this run is active, or none; whether the slot was still the same.

        Raises:
            Unavailable: Redis is away.
        """
        return await self._write(verdict, verdict.now_ms, run_id)

    async def give_up(self, verdict: Verdict) -> bool:
        """Take back a claim, or a turn to look, that came to nothing: the next caller looks at once.

        Raises:
            Unavailable: Redis is away.
        """
        return await self._write(verdict, 0, verdict.believed)

    async def _write(self, verdict: Verdict, seen_ms: int, run_id: str | None) -> bool:
        return bool(await self._connection.script("settle", [self._slot], [verdict.version, seen_ms, run_id or ""]))
