"""Run records and the history in Redis: what was last seen of each run, never the truth itself.

A missing record says nothing. The history's index is only as complete as its last comparison with
the runner's Jobs; `listed()` says whether that is recent.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from common.connection import Connection
from common.errors import Unavailable
from common.models import RunInfo
from common.names import RUN_ID
from common.phases import TERMINAL, State, may_follow
from common.records import told
from common.settings import Settings

_LISTED_SECONDS = 30  # bounds how long a run that was accepted while Redis was away is missing in the history
_ANSWER_SECONDS = 24 * 3600  # how long a client may go on retrying a POST with its key


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest first, and the cursor of the next page (None on the last)."""

    runs: Sequence[RunInfo]
    next_cursor: str | None


class Store:
    """The records of one deployment's runs."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._history = f"{settings.redis_prefix}:history"
        self._losses = 0

    def _key(self, kind: str, run_id: str) -> str:
        return f"{self._settings.redis_prefix}:{kind}:{run_id}"

    async def now_ms(self) -> int:
        """Redis' time: the stamp of a look that begins now.

        Raises:
            Unavailable: Redis is away (as every method here).
        """
        async with self._connection.use() as client:
            seconds, microseconds = await client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def record(self, run: RunInfo, stamp_ms: int) -> bool:
        """Write down a run as it was seen by a look that began at `stamp_ms`.

        Refused (False) where the run is recorded in a state that this one cannot follow, or by a later look.
        """
        settings = self._settings
        oldest = datetime.now(UTC) - timedelta(seconds=settings.history_ttl_seconds)
        before = [state for state in State if may_follow(state, run.status)]
        return bool(
            await self._connection.script(
                "record",
                [self._key("run", run.run_id), self._history],
                [
                    run.model_dump_json(),
                    run.status.value,
                    stamp_ms,
                    _member(run),
                    settings.history_ttl_seconds,
                    settings.history_max_runs,
                    _moment(oldest),
                    _piped(before),
                    _piped(State),
                    self._key("run", ""),
                    int(run.status.terminal),
                ],
            )
        )

    async def run(self, run_id: str) -> RunInfo | None:
        """The record of a run, if there is one."""
        async with self._connection.use() as client:
            raw = await client.hget(self._key("run", run_id), "info")
        return told(raw, run_id) if raw else None

    async def page(self, limit: int, cursor: str | None = None, states: Iterable[State] = ()) -> Page:
        """The newest `limit` records before `cursor`, of any state or of these."""
        names = [f"{self._history}:{state}" for state in states] or [self._history]
        upto = f"({cursor}" if cursor else "+"
        async with self._connection.use() as client:
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.zrevrangebylex(name, upto, "-", start=0, num=limit + 1)
            found = sorted({_listed(member) for members in await pipe.execute() for member in members}, reverse=True)
            chosen = found[:limit]
            pipe = client.pipeline(transaction=False)
            for member in chosen:
                pipe.hget(self._key("run", member.partition(":")[2]), "info")
            raw = await pipe.execute()
        runs = [told(info, member.partition(":")[2]) for member, info in zip(chosen, raw, strict=True) if info]
        return Page(runs, chosen[-1] if len(found) > limit else None)

    async def without_end(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Those of the runs whose record is missing or does not tell an end."""
        async with self._connection.use() as client:
            pipe = client.pipeline(transaction=False)
            for run_id in run_ids:
                pipe.hget(self._key("run", run_id), "state")
            states = await pipe.execute()
        known = zip(run_ids, states, strict=True)
        return [run_id for run_id, state in known if state not in _ENDS]

    async def listed(self) -> bool:
        """Whether the index was compared with the Jobs lately, and Redis has not been lost since."""
        if self._connection.losses != self._losses:
            return False
        async with self._connection.use() as client:
            return bool(await client.exists(f"{self._history}:listed"))

    async def mark_listed(self, losses: int) -> None:
        """Say that every Job was recorded; `losses` is the connection's count from before they were listed."""
        async with self._connection.use() as client:
            await client.set(f"{self._history}:listed", 1, ex=_LISTED_SECONDS)
        self._losses = losses

    @property
    def losses(self) -> int:
        """How often Redis was lost: records may be missing since."""
        return self._connection.losses

    async def answer(self, run_id: str) -> bytes | None:
        """The first answer that was given for the Idempotency-Key behind `run_id`."""
        async with self._connection.use() as client:
            raw = await client.get(self._key("answer", run_id))
        return raw if isinstance(raw, bytes) else None

    async def keep_answer(self, run_id: str, answer: bytes) -> bool:
        """Keep the first answer for a key; False if there is one, which stays."""
        async with self._connection.use() as client:
            return bool(await client.set(self._key("answer", run_id), answer, nx=True, ex=_ANSWER_SECONDS))


def in_page(runs: Iterable[RunInfo], limit: int, cursor: str | None, states: Collection[State]) -> Page:
    """The page that `Store.page` would give if it held exactly these runs."""
    found = {_member(run): run for run in runs if not states or run.status in states}
    members = sorted((member for member in found if cursor is None or member < cursor), reverse=True)
    return Page([found[member] for member in members[:limit]], members[limit - 1] if len(members) > limit else None)


_ENDS = frozenset(state.encode() for state in TERMINAL)
_DIGITS = 16
HISTORY_CURSOR = re.compile(rf"[0-9]{{{_DIGITS}}}:{RUN_ID.pattern}")  # of a page


def _listed(member: bytes) -> str:
    text = member.decode("ascii", "replace")
    if not HISTORY_CURSOR.fullmatch(text):
        raise Unavailable("redis", "The history's index in Redis is damaged.")
    return text


def _moment(moment: datetime) -> str:
    return f"{int(moment.timestamp() * 1_000_000):0{_DIGITS}d}"


def _member(run: RunInfo) -> str:
    return f"{_moment(run.created_at)}:{run.run_id}"


def _piped(states: Iterable[State]) -> str:
    return "|" + "|".join(states) + "|"
