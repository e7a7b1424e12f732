"""Log streams in Redis: the lines of each attempt of a run, under their own ids; and what is told beside them.

Explicit ids make a second writer harmless; the expected top makes a lost or stale stream visible
instead of leaving a hole. Who appends must hold every line below: see common.pump.

A stream holds the newest lines, so many and so many bytes; older ones are read where they are kept. Each
entry names the one before it: that is how it is seen that lines which were asked for are not held any more.

Recorders stand beside pipelines and may write here what they like: nothing that is read is trusted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from common.connection import Connection
from common.errors import Unavailable
from common.events import BEYOND, LETTERS, NANOSECONDS, ZERO, Line, LineId, stream_of
from common.models import FollowerCounts, Progress, Relay, Streaming
from common.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio.client import Pipeline

_PUMP_SECONDS = 5
_FOLLOWERS_SECONDS = 15  # several times what passes between two of a process' words
_RELAY_BYTES = 1024  # a report that is longer is none
_TAIL_LINES = 1_000  # a look: Redis serves nobody else meanwhile

_Entry = tuple[bytes, Sequence[bytes]]  # its id, then its fields' names and values in turn
_LINE = [b"p", b"b", b"t", b"s"]  # the fields of almost every line
_Model = TypeVar("_Model", FollowerCounts, Progress, Relay)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines of a log in order, and whether the log ends with them.

    Attributes:
        last: the id of the last line that is known: of these, else of what was read before.
        trimmed: the newest line that was asked for and is not held any more; nothing is told then. 0-0: all are held.
    """

    lines: Sequence[Line]
    last: LineId
    ended: bool
    trimmed: LineId = ZERO


@dataclass(frozen=True, slots=True)
class Told:
    """What Redis has of a run beside its log; no progress also where what is there is none."""

    progress: Progress | None
    streaming: Streaming


class Streams:
    """The log streams of one deployment."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._prefix = settings.redis_prefix
        self._ttl_seconds = settings.history_ttl_seconds
        self._bounds = settings.redis_log_lines, settings.redis_log_bytes

    def _key(self, run_id: str, part: int | str) -> str:
        return f"{self._prefix}:log:{run_id}:{part}"

    async def append(
        self, run_id: str, attempt: int, expected: LineId, lines: Sequence[Line], *, end: bool = False
    ) -> tuple[bool, LineId]:
        """Append lines (and the log's end) if the stream's top is `expected`; whether it was, and the top now.

        Raises:
            Unavailable: Redis is away: the lines may have been appended (as every method here).
        """
        last = lines[-1].id if lines else expected
        args: list[str | bytes | int] = [
            str(expected),
            self._ttl_seconds,
            *self._bounds,
            str(last.next()) if end else "",
        ]
        for (ms, seq), at_ns, stream, text in lines:
            own = "" if 1_000 * at_ns == 1_000_000_000 * ms + seq else at_ns
            args += (f"{ms}-{seq}", text, LETTERS[stream], own)
        done, top = await self._connection.script("append", [self._key(run_id, attempt)], args)
        return bool(done), _id(top)

    async def top(self, run_id: str, attempt: int) -> tuple[LineId, bool]:
        """The id of the newest line (0-0 if none), and whether the log ends with it."""
        return _top(await self._newest(self._key(run_id, attempt), 2))

    async def read(self, run_id: str, attempt: int, after: LineId, count: int, *, block_ms: int = 0) -> Chunk:
        """Up to `count` lines behind `after`; waits up to `block_ms` for the first if there is none."""
        key = self._key(run_id, attempt)
        async with self._connection.use() as client:
            if block_ms:
                entries = _entries(await client.xread({key: str(after)}, count=count, block=block_ms), key)
            else:
                entries = cast("list[_Entry]", await client.xrange(key, min=f"({after}", count=count))
        return _chunk(entries, after)

    async def tail(self, run_id: str, attempt: int, count: int) -> tuple[LineId, int]:
        """The id behind which the last `count` lines stand, and how many there are too few.

        Where lines are missing it is the newest of them: as many as are too few stand before it or nowhere.
        """
        key, left, below, before = self._key(run_id, attempt), count, "+", ZERO
        while newest := await self._newest(key, min(left + 2, _TAIL_LINES), below):  # the one before them, and an end
            for entry in newest:
                if not _is_end(entry):
                    if not left:
                        return _id(entry[0]), 0
                    left -= 1
            before = _before(newest[-1])
            below = f"({newest[-1][0].decode()}"
        return before, left

    async def write_progress(self, run_id: str, progress: Progress) -> None:
        """Replace what is known of the run's tasks."""
        await self._replace(run_id, "progress", "p", progress.model_dump_json())

    async def write_relay(self, run_id: str, relay: Relay) -> None:
        """Replace what is known of the log's way to Redis."""
        await self._replace(run_id, "relay", "r", relay.model_dump_json())

    async def relay(self, run_id: str) -> Relay | None:
        """What was last written of it; None also where that is no such thing."""
        for entry in await self._newest(self._key(run_id, "relay"), 1):
            said = _fields(entry).get(b"r", b"")
            return _valid(Relay, said) if len(said) <= _RELAY_BYTES else None
        return None

    async def say_followers(self, run_id: str, who: str, followers: FollowerCounts | None) -> None:
        """Say how many follow a run by the process `who` (None: nobody any more), for the next seconds.

        By Redis' clock, and not in a stream: functions alone may write it.
        """
        said = followers.model_dump_json() if followers else ""
        await self._connection.script("say", [self._followers(run_id)], [who, said, _FOLLOWERS_SECONDS])

    async def told(self, run_id: str) -> Told:
        """What is told of a run beside its log, in one round trip."""
        keys = [self._key(run_id, "progress"), self._key(run_id, "relay"), self._followers(run_id)]
        progress, relay, said = await self._connection.script("told", keys, [_FOLLOWERS_SECONDS, _RELAY_BYTES])
        each = [counts for one in said if (counts := _valid(FollowerCounts, one)) is not None]
        total = FollowerCounts(
            **{name: sum(getattr(one, name) for one in each) for name in FollowerCounts.model_fields}
        )
        return Told(
            _valid(Progress, progress), Streaming(followers=total, tailers=len(each), relay=_valid(Relay, relay))
        )

    def _followers(self, run_id: str) -> str:
        return f"{self._prefix}:followers:{run_id}"

    async def _replace(self, run_id: str, part: str, field: str, value: str) -> None:
        async with self._connection.use() as client:
            pipe = client.pipeline(transaction=False)
            self._put(pipe, run_id, part, field, value, self._ttl_seconds)
            await pipe.execute()

    def _put(self, pipe: "Pipeline", run_id: str, part: str, field: str, value: str, ttl_seconds: int) -> None:
        """Have a stream hold one entry, for so long."""
        key = self._key(run_id, part)
        pipe.xadd(key, {field: value}, maxlen=1, approximate=False)
        pipe.expire(key, ttl_seconds)

    async def _newest(self, key: str, count: int, below: str = "+") -> list[_Entry]:
        async with self._connection.use() as client:
            return cast("list[_Entry]", await client.xrevrange(key, max=below, count=count))

    async def pumping(
        self, run_id: str, attempt: int, who: str, *, insist: bool, relay: Relay | None = None
    ) -> tuple[LineId, bool] | None:
        """Say that `who` relays the run's log, for the next seconds, and what has come of it, if that is news.

        The answer is that of `top`, or None where it is left to another. Advice only, to spare work: without `insist`
        it is left to whoever else said so lately. In streams of one entry: a recorder may append to those, and write
        nothing else. In one round trip, where somebody insists: lines wait meanwhile.
        """
        if not insist and await self._pumped(run_id, besides=who):
            return None
        async with self._connection.use() as client:
            pipe = client.pipeline(transaction=False)
            self._put(pipe, run_id, "pump", "who", who, _PUMP_SECONDS)
            if relay is not None:
                self._put(pipe, run_id, "relay", "r", relay.model_dump_json(), self._ttl_seconds)
            pipe.xrevrange(self._key(run_id, attempt), count=2)
            *_, newest = await pipe.execute()
        return _top(newest)

    async def _pumped(self, run_id: str, *, besides: str) -> bool:
        """Whether another has said lately that it relays the run's log.

        The entry's id tells when, by Redis' clock: its key may have been left without an expiry. One that lies ahead
        is of another server's clock (a fail-over), or made up.
        """
        async with self._connection.use() as client:
            pipe = client.pipeline(transaction=False)
            pipe.xrevrange(self._key(run_id, "pump"), count=1)
            pipe.time()
            said, (seconds, microseconds) = await pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        return any(
            abs(now_ms - int(entry[0].partition(b"-")[0])) < _PUMP_SECONDS * 1000
            for entry in said
            if _fields(entry).get(b"who") != besides.encode()
        )


def _valid(model: type[_Model], raw: bytes) -> _Model | None:
    try:
        return model.model_validate_json(raw)
    except ValueError:
        return None


def _entries(found: object, key: str) -> Sequence[_Entry]:
    # RESP2 answers with a list of pairs, RESP3 with a mapping.
    return dict(cast("Iterable[tuple[bytes, Sequence[_Entry]]]", found or ())).get(key.encode(), ())


def _fields(entry: _Entry) -> dict[bytes, bytes]:
    names_and_values = iter(entry[1])
    return dict(zip(names_and_values, names_and_values, strict=True))


def _top(newest: Sequence[_Entry]) -> tuple[LineId, bool]:
    """What the newest two entries of a log say: the id of the newest line, and whether the log ends with it."""
    ended = bool(newest) and _is_end(newest[0])
    lines = newest[1:] if ended else newest
    return _id(lines[0][0]) if lines else ZERO, ended


def _is_end(entry: _Entry) -> bool:
    return b"end" in entry[1][::2]


def _chunk(entries: Sequence[_Entry], after: LineId) -> Chunk:
    if entries and (before := _before(entries[0])) > after:
        return Chunk((), after, ended=False, trimmed=before)
    lines: list[Line] = []
    make = tuple.__new__  # what a NamedTuple's own constructor does in three times as long
    numbers = map(int, b"-".join([raw_id for raw_id, _ in entries]).split(b"-"))
    for entry, ms, seq in zip(entries, numbers, numbers, strict=False):  # each takes the next number
        said = entry[1]
        at_ns = ms * 1_000_000 + seq // 1_000
        if said[::2] == _LINE:
            text, letter = said[5], said[7]
        elif _is_end(entry):
            return Chunk(lines, after, ended=True)
        else:
            fields = _fields(entry)
            text, letter, own = (fields.get(name, b"") for name in (b"t", b"s", b"n"))
            at_ns = int(own) if NANOSECONDS.fullmatch(own) else at_ns
        if ms >= BEYOND.ms or seq >= BEYOND.seq:
            raise _damaged(f"not a line id: {entry[0]!r}")
        after = make(LineId, (ms, seq))
        # No log has a newline in a line, and text would tell two.
        lines.append(make(Line, (after, at_ns, stream_of(letter), text.replace(b"\n", b" "))))
    return Chunk(lines, after, ended=False)


def _before(entry: _Entry) -> LineId:
    # One that does not say what it stands behind may stand behind anything.
    before = _id(_fields(entry).get(b"p", b""))
    if before >= _id(entry[0]):
        raise _damaged("an entry stands behind a later one.")
    return before


def _id(entry_id: bytes) -> LineId:
    # One that no log could have made is not served.
    try:
        return LineId.parse(entry_id.decode())
    except ValueError as error:
        raise _damaged(str(error)) from error


def _damaged(how: str) -> Unavailable:
    return Unavailable("redis", f"A log stream is damaged: {how}")
