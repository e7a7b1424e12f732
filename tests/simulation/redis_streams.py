"""Streams of the Redis model: entries under ids that grow, as far as the library and its scripts use them."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis.exceptions import ResponseError

from tests.simulation.virtual import now

_Id = tuple[int, int]
_Raw = tuple[bytes, tuple[bytes, ...]]
Entry = list[Any]  # an id and a list of names and values, as a server sends them
_SMALL = "The ID specified in XADD is equal or smaller than the target stream top item"
_ZERO = "The ID specified in XADD must be greater than 0-0"


class Stream:
    """One stream.

    Attributes:
        last: the id given last, be its entry there or not.
    """

    def __init__(self) -> None:
        self._ids: list[_Id] = []
        self._fields: list[tuple[bytes, ...]] = []
        self.last: _Id = (0, 0)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, entry_id: _Id, fields: tuple[bytes, ...]) -> None:
        """Put an entry behind all others."""
        if entry_id <= self.last:
            raise ResponseError(_ZERO if entry_id == (0, 0) else _SMALL)
        self._ids.append(entry_id)
        self._fields.append(fields)
        self.last = entry_id

    def trim(self, most: int) -> int:
        """Let go of the oldest beyond so many; how many there were."""
        over = max(0, len(self._ids) - most)
        del self._ids[:over], self._fields[:over]
        return over

    def between(self, first: bytes, last: bytes) -> list[_Raw]:
        """Entries from one id to another: `-` and `+` are the ends, `(` means without that one."""
        start = 0 if first == b"-" else _cut(bisect_left, bisect_right, self._ids, first)
        end = len(self._ids) if last == b"+" else _cut(bisect_right, bisect_left, self._ids, last)
        return [self.at(place) for place in range(start, end)]

    def at(self, place: int) -> _Raw:
        """The entry at a place."""
        return b"%d-%d" % self._ids[place], self._fields[place]


class Streams:
    """The commands, for a client and for scripts, of a model that keeps its values in `_data`."""

    _data: dict[bytes, Any]
    _lua: Any

    def _stream(self, key: bytes) -> Stream | None:
        found = self._data.get(key)
        if found is not None and not isinstance(found, Stream):
            raise ResponseError("Operation against a key holding the wrong kind of value")
        return found

    # A client's methods.

    def xadd(
        self,
        name: str,
        fields: Mapping[str | bytes, str | bytes | int],
        id: str = "*",  # as the client calls it
        *,
        maxlen: int | None = None,
        approximate: bool = True,
    ) -> bytes:
        """Add an entry, and let go of the oldest beyond `maxlen`."""
        made = self._added(as_bytes(name), as_bytes(id), [as_bytes(part) for field in fields.items() for part in field])
        if maxlen is not None:
            assert not approximate
            self.xtrim(name, maxlen=maxlen, approximate=False)
        return made

    def xtrim(self, name: str | bytes, *, maxlen: int, approximate: bool) -> int:
        """Let go of the oldest beyond `maxlen`."""
        assert not approximate
        stream = self._stream(as_bytes(name))
        return 0 if stream is None else stream.trim(maxlen)

    def xlen(self, name: str) -> int:
        """How many entries there are."""
        return len(self._stream(as_bytes(name)) or ())

    def xrange(self, name: str, min: str = "-", max: str = "+", count: int | None = None) -> list[Entry]:
        """Entries from one id to another, the first ones."""
        return [_entry(*found) for found in self._span(name, min, max)[:count]]

    def xrevrange(self, name: str, max: str = "+", min: str = "-", count: int | None = None) -> list[Entry]:
        """The same from the newest on."""
        return [_entry(*found) for found in self._span(name, min, max)[::-1][:count]]

    def xread(self, streams: Mapping[str, str], count: int | None = None) -> list[list[Any]]:
        """What is behind an id in each stream, where there is anything; who waits for it is the caller's affair."""
        found = [(as_bytes(name), self.xrange(name, min=f"({after}", count=count)) for name, after in streams.items()]
        return [[name, entries] for name, entries in found if entries]

    def time(self) -> tuple[int, int]:
        """Seconds and microseconds since 1970, in virtual time."""
        moment = now()
        return int(moment.timestamp()), moment.microsecond

    def expire(self, name: str, seconds: float) -> bool:
        """Whether there is such a key: the world sees to expiry, in virtual time."""
        return as_bytes(name) in self._data

    def hgetall(self, name: str) -> dict[bytes, bytes]:
        """All fields of a hash."""
        return dict(cast("dict[bytes, bytes]", self._data.get(as_bytes(name), {})))

    # What scripts call.

    def _xadd(self, key: bytes, entry_id: bytes, *fields: bytes) -> bytes:
        return self._added(key, entry_id, fields)

    def _xtrim(self, key: bytes, strategy: bytes, exact: bytes, most: bytes) -> int:
        assert (strategy, exact) == (b"MAXLEN", b"=")
        return self.xtrim(key, maxlen=int(most), approximate=False)

    def _xinfo(self, subcommand: bytes, key: bytes) -> Any:
        # The key is not the first argument of this one command.
        assert subcommand == b"STREAM"
        stream = self._stream(key)
        if stream is None:
            raise ResponseError("no such key")
        told = [b"length", len(stream), b"last-generated-id", b"%d-%d" % stream.last]
        for name, at in ((b"first-entry", 0), (b"last-entry", -1)):
            told += [name, self._shown(stream.at(at)) if len(stream) else False]
        return self._lua.table_from(told)

    def _xrevrange(self, key: bytes, last: bytes, first: bytes, *count: bytes) -> Any:
        found = self._span(key, first, last)[::-1]
        return self._lua.table_from([self._shown(entry) for entry in found[: int(count[1])]])

    def _shown(self, entry: _Raw) -> Any:
        return self._lua.table_from([entry[0], self._lua.table_from(entry[1])])

    def _span(self, name: str | bytes, first: str | bytes, last: str | bytes) -> list[_Raw]:
        if as_bytes(last) == b"(0-0":
            raise ResponseError("invalid end ID for the interval")
        stream = self._stream(as_bytes(name))
        return [] if stream is None else stream.between(as_bytes(first), as_bytes(last))

    def _added(self, key: bytes, entry_id: bytes, fields: Sequence[bytes]) -> bytes:
        stream = self._stream(key)
        if stream is None:  # not the one that is empty: that knows its last id
            stream = Stream()
        if entry_id == b"*":
            ms = int(now().timestamp() * 1000)
            made = (ms, 0) if ms > stream.last[0] else (stream.last[0], stream.last[1] + 1)
        else:
            made = _parsed(entry_id)
        stream.add(made, tuple(fields))
        self._data[key] = stream
        return b"%d-%d" % made


def _parsed(entry_id: bytes) -> _Id:
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)


def _cut(with_it: Any, without: Any, ids: list[_Id], bound: bytes) -> int:
    cut = without if bound.startswith(b"(") else with_it
    found: int = cut(ids, _parsed(bound.removeprefix(b"(")))
    return found


def _entry(entry_id: bytes, fields: Sequence[bytes]) -> Entry:
    return [entry_id, list(fields)]


def as_bytes(value: str | bytes | float) -> bytes:
    """A value as it is sent to a server."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        value = f"{value:.17g}"  # as a server hands on Lua's numbers
    return str(value).encode()
