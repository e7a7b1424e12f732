"""As much of Redis as the library uses, in this process: the library's own Lua scripts run on it as they are.

fakeredis would do, at half the speed. That a real server gives the same histories, step by step, is tested.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import lupa.lua51 as lupa  # type: ignore[import-untyped] # has no annotations
from redis.exceptions import ResponseError

from tests.simulation.redis_streams import Stream, Streams
from tests.simulation.redis_streams import as_bytes as _bytes

_Value = dict[bytes, bytes] | list[bytes] | bytes | Stream  # a hash, a sorted set of equal scores, a string


class RedisModel(Streams):
    """One server: a synchronous client's methods, as far as they are needed."""

    def __init__(self) -> None:
        self._data: dict[bytes, _Value] = {}
        self._lua = lupa.LuaRuntime(encoding=None)
        self._lua.globals()[b"redis"] = self._lua.table_from({b"call": self._call, b"pcall": self._pcall})
        self._scripts: dict[str, Callable[[Any, Any], Any]] = {}

    # A client's methods.

    def flushall(self) -> None:
        """Empty it."""
        self._data.clear()

    def scan_iter(self) -> Iterator[bytes]:
        """All keys."""
        return iter(list(self._data))

    def dump(self, key: bytes) -> _Value:
        """A key's value as it is now."""
        return deepcopy(self._data[key])

    def restore(self, key: bytes, ttl: int, value: _Value) -> None:
        """Set a key to a value that was dumped."""
        self._data[key] = deepcopy(value)

    def delete(self, *keys: str | bytes) -> int:
        """Delete keys; how many there were."""
        return sum(self._data.pop(_bytes(key), None) is not None for key in keys)

    def exists(self, key: str | bytes) -> int:
        """1 if there is such a key."""
        return int(_bytes(key) in self._data)

    def get(self, key: str) -> _Value | None:
        """A string."""
        return self._data.get(_bytes(key))

    def set(self, key: str, value: str | bytes | int, *, nx: bool = False) -> bool | None:
        """Set a string, with `nx` only where there is none."""
        if nx and _bytes(key) in self._data:
            return None
        self._data[_bytes(key)] = _bytes(value)
        return True

    def hget(self, key: str, field: str) -> bytes | None:
        """A field of a hash."""
        return self._hash(_bytes(key)).get(_bytes(field))

    def zrevrangebylex(self, key: str, highest: str, lowest: str, *, start: int, num: int) -> list[bytes]:
        """Members, the last first."""
        found = self._between(_bytes(key), _bytes(lowest), _bytes(highest))
        return found[::-1][start : start + num]

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        """Commands that are sent together."""
        return _Pipeline(self)

    def register_script(self, source: str) -> Callable[..., Any]:
        """What runs a script with `keys` and `args`."""
        if source not in self._scripts:
            self._scripts[source] = self._lua.execute(f"return function(KEYS, ARGV) {source}\nend".encode())
        script = self._scripts[source]

        def run(keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
            return _reply(script(self._table(keys), self._table(args)))

        return run

    # What scripts call.

    def _table(self, values: Sequence[str | bytes | int]) -> Any:
        return self._lua.table_from([_bytes(value) for value in values])

    def _call(self, command: bytes, *raw: bytes | float) -> Any:
        key, *args = [_bytes(value) for value in raw]
        return getattr(self, f"_{command.decode().lower()}")(key, *args)

    def _pcall(self, command: bytes, *raw: bytes | float) -> Any:
        try:
            return self._call(command, *raw)
        except ResponseError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _hmget(self, key: bytes, *fields: bytes) -> Any:
        found = self._hash(key)
        return self._lua.table_from([found.get(field, False) for field in fields])

    def _hget(self, key: bytes, field: bytes) -> bytes | bool:
        return self._hash(key).get(field, False)

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        self._data[key] = {**self._hash(key), **dict(zip(pairs[::2], pairs[1::2], strict=True))}
        return 1

    def _hdel(self, key: bytes, *fields: bytes) -> int:
        kept = {name: value for name, value in self._hash(key).items() if name not in fields}
        gone = len(self._hash(key)) - len(kept)
        self._data[key] = kept
        if not kept:
            del self._data[key]  # a server has no empty ones
        return gone

    def _hgetall(self, key: bytes) -> Any:
        return self._lua.table_from([part for pair in self._hash(key).items() for part in pair])

    def _zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        self._zrem(key, member)
        members = self._members(key)
        insort(members, member)
        self._data[key] = members
        return 1

    def _zrem(self, key: bytes, member: bytes) -> int:
        members = self._members(key)
        if member in members:
            members.remove(member)
        if not members:
            self._data.pop(key, None)
        return 1

    def _zcard(self, key: bytes) -> int:
        return len(self._members(key))

    def _zrange(self, key: bytes, first: bytes, last: bytes) -> Any:
        return self._lua.table_from(self._members(key)[int(first) : int(last) + 1])

    def _zrangebylex(self, key: bytes, lowest: bytes, highest: bytes, limit: bytes, start: bytes, count: bytes) -> Any:
        return self._lua.table_from(self._between(key, lowest, highest)[int(start) : int(start) + int(count)])

    def _exists(self, key: bytes) -> int:
        return self.exists(key)

    def _del(self, key: bytes) -> int:
        return self.delete(key)

    def _expire(self, key: bytes, seconds: bytes) -> int:
        return self.exists(key)  # the world sees to it, in virtual time

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        found = self._data.get(key, {})
        assert isinstance(found, dict)
        return found

    def _members(self, key: bytes) -> list[bytes]:
        found = self._data.get(key, [])
        assert isinstance(found, list)
        return found

    def _between(self, key: bytes, lowest: bytes, highest: bytes) -> list[bytes]:
        """Members from the lowest on (`-`: the first) to just before the highest (`+`: all)."""
        members = self._members(key)
        assert lowest == b"-"
        assert highest == b"+" or highest.startswith(b"(")
        return members if highest == b"+" else members[: bisect_left(members, highest[1:])]


class _Pipeline:
    def __init__(self, model: RedisModel) -> None:
        self._model = model
        self._calls: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        method = getattr(self._model, name)

        def add(*args: Any, **options: Any) -> None:
            self._calls.append(lambda: method(*args, **options))

        return add

    def execute(self) -> list[Any]:
        """Do all that was asked for."""
        calls, self._calls = self._calls, []
        return [call() for call in calls]


def _reply(value: Any) -> Any:
    if lupa.lua_type(value) == "table":
        return [_reply(item) for item in value.values()]
    return int(value) if isinstance(value, float) else value
