"""The in-memory Redis of the model tests runs each Lua script as a real server does.

Both are sent the same calls, with the same time in place of their own; answers and what is left in
them must be the same.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.phases import State, may_follow
from tests.unit.samples import run_id

pytestmark = pytest.mark.slow

_T0 = 1_893_499_200_000
_TIME = "redis.call('TIME')"
_RUNS = st.sampled_from([run_id(n) for n in range(3)])
_Args = Sequence[str | int]

_ask = st.tuples(
    st.just("ask"),
    st.just(("slot",)),
    st.tuples(st.just("") | _RUNS, st.sampled_from([0, 1000]), st.just(2000), st.just("run:")),
)
_settle = st.tuples(
    st.just("settle"),
    st.just(("slot",)),
    st.tuples(st.integers(-2, 2), st.integers(0, 3000).map(lambda ms: _T0 + ms), st.just("") | _RUNS),
)


def _piped(states: Sequence[State]) -> str:
    return "|" + "|".join(states) + "|"


@st.composite
def _record(draw: st.DrawFn) -> tuple[str, Sequence[str], _Args]:
    name, state = draw(_RUNS), draw(st.sampled_from(State))
    before = [some for some in State if may_follow(some, state)]
    member = f"{draw(st.integers(1, 4)):016d}:{name}"
    bounds = [60, draw(st.integers(1, 3)), f"{draw(st.integers(0, 3)):016d}"]
    stamp = _T0 + draw(st.integers(0, 3))
    info = draw(st.sampled_from(["{}", '{"a": "ü"}']))
    tail = [_piped(before), _piped(list(State)), "run:", int(state.terminal)]
    return "record", (f"run:{name}", "history"), [info, state.value, stamp, member, *bounds, *tail]


@st.composite
def _append(draw: st.DrawFn) -> tuple[str, Sequence[str], _Args]:
    top = draw(st.integers(0, 4))
    bounds: list[str | int] = [draw(st.integers(1, 4)), draw(st.integers(1, 400))]
    lines: list[str | int] = []
    for number in range(top + 1, top + 1 + draw(st.integers(0, 3))):
        own = draw(st.sampled_from(["", "5"]))
        lines += [f"{number}-{draw(st.sampled_from([0, 999_999_999]))}", f"line {number}", "o", own]
    end = draw(st.sampled_from(["", "9-0"]))
    return "append", ("stream",), ["0-0" if top == 0 else f"{top}-0", 60, *bounds, end, *lines]


_CALLS = st.lists(st.tuples(_ask | _settle | _record() | _append(), st.integers(0, 1500)), max_size=15)


class _Side:
    """One of the two, with the scripts as they are but for the time."""

    def __init__(self, client: Any) -> None:
        self.client = client
        client.flushall()
        self._scripts = {
            name: client.register_script(
                (files("common") / "lua" / f"{name}.lua")
                .read_text("utf-8")
                .replace(_TIME, "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
            )
            for name in ("ask", "settle", "record", "append")
        }

    def call(self, name: str, keys: Sequence[str], args: _Args, now_ms: int) -> Any:
        if name == "settle":  # a version close to the one that is there
            there = int(self.client.hget("slot", "version") or 0)
            args = [there + max(-there, int(args[0])), *args[1:]]
        time: list[str | int] = [now_ms // 1000, now_ms % 1000 * 1000] if name in ("ask", "settle") else []
        return self._scripts[name](keys=keys, args=[*args, *time])

    def content(self) -> dict[bytes, Any]:
        read = {
            b"hash": self.client.hgetall,
            b"zset": lambda key: self.client.zrange(key, 0, -1),
            b"stream": self.client.xrange,
        }
        kinds = {key: self.client.type(key) for key in sorted(self.client.scan_iter())}
        return {key: (self.client.ttl(key) > 0, read[kind](key)) for key, kind in kinds.items()}


@given(calls=_CALLS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_answer_alike(redis_url: str, calls: list[tuple[tuple[str, Sequence[str], _Args], int]]) -> None:
    """Any sequence of scripts has the same answers and leaves the same behind."""
    with fakeredis.FakeRedis() as fake, redis.Redis.from_url(redis_url) as real:
        one, other, now_ms = _Side(fake), _Side(real), _T0
        for (name, keys, args), passes in calls:
            now_ms += passes
            assert one.call(name, keys, args, now_ms) == other.call(name, keys, args, now_ms)
        assert one.content() == other.content()
