"""The Redis model beside a real server: the same commands and scripts, in any order, are answered alike."""

import random
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from tests.simulation import virtual
from tests.simulation.redis_client import in_virtual_time
from tests.simulation.redis_model import RedisModel

_STEPS = 300
_KINDS = ("append",) * 3 + ("add", "trim", "range", "back", "read", "len", "say", "told", "hash", "flush", "wrong")
_KEYS = ("log:1", "log:2", "said")


class Commands:
    """Commands drawn by chance, as the library gives them: ids ahead of the top, behind it, and of nothing."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._sources = {
            name: in_virtual_time((files("common") / "lua" / f"{name}.lua").read_text("utf-8"))
            for name in ("append", "say", "told")
        }
        self._dumped = False

    def _id(self) -> str:
        return f"{self._rng.randint(0, 40)}-{self._rng.choice([0, 0, 1, 5])}"

    def _bound(self, end: str) -> str:
        return self._rng.choice([end, self._id(), f"({self._id()}"])

    def draw(self) -> Callable[[Any], Any]:
        """The next one, to be done by any client."""
        rng, key = self._rng, self._rng.choice(_KEYS[:2])
        count = rng.choice([1, 3, 100])
        first, last, some = self._bound("-"), self._bound("+"), self._id()
        fields: dict[str | bytes, str | bytes | int] = {"t": rng.choice([b"", b"text\x00\xff", b"x"]), "s": 1}
        match rng.choice(_KINDS):
            case "append":
                return self._append(key)
            case "add":
                maxlen = rng.choice([None, 1, 3])
                return lambda r: r.xadd(key, fields, id=some, maxlen=maxlen, approximate=maxlen is None)
            case "trim":
                most = rng.choice([0, 1, 2, 5])
                return lambda r: r.xtrim(key, maxlen=most, approximate=False)
            case "range":
                return lambda r: r.xrange(key, min=first, max=last, count=count)
            case "back":
                return lambda r: r.xrevrange(key, max=last, min=first, count=count)
            case "read":
                return lambda r: _by_name(r.xread({_KEYS[0]: some, _KEYS[1]: some}, count=count))
            case "len":
                return lambda r: (r.xlen(key), r.exists(key), r.expire(key, 1000))
            case "say":
                return self._script("say", ["said"], [rng.choice("abc"), rng.choice(["", "{}", "x y"]), 15])
            case "told":
                return self._script("told", [*_KEYS[:2], "said"], [15, rng.choice([2, 1024])])
            case "hash":
                return lambda r: r.hgetall("said")
            case "wrong":
                return lambda r: r.xrange("said", min="-", max="+", count=count)
        return self._again

    def _append(self, key: str) -> Callable[[Any], Any]:
        """Lines behind the top, or behind what is not."""
        rng = self._rng
        knows, most = rng.random() < 0.7, [rng.choice([2, 5, 1000]), rng.choice([200, 100_000])]
        other, steps = self._id(), [rng.choice([1, 1, 2]) for _ in range(rng.choice([0, 1, 3, 12]))]
        text, own, end = rng.choice([b"", b"line", b"x" * 150]), rng.choice(["", 7]), rng.choice([0, 0, 100])

        def act(r: Any) -> Any:
            newest = r.xrevrange(key, max="+", min="-", count=1)
            top = newest[0][0].decode() if knows and newest else other if not knows else "0-0"
            ms = int(top.partition("-")[0])
            args = [top, 1000, *most, f"{ms + end}-0" if end else ""]
            for step in steps:
                ms += step
                args += [f"{ms}-0", text, "o", own]
            return r.register_script(self._sources["append"])(keys=[key], args=args)

        return act

    def _script(self, name: str, keys: list[str], args: list[Any]) -> Callable[[Any], Any]:
        moment = [1_900_000_000 + self._rng.randint(0, 30), self._rng.randint(0, 999_999)]
        return lambda r: r.register_script(self._sources[name])(keys=keys, args=[*args, *moment])

    def _again(self, r: Any) -> None:
        """Empty it, or all but some of it, as it is set back."""
        kept = {key: r.dump(key) for key in sorted(r.scan_iter())[:2]}
        r.flushall()
        for key, value in kept.items():
            r.restore(key, 0, value)


def _by_name(found: Any) -> dict[bytes, Any]:
    return dict(found or ())


def answer(command: Callable[[Any], Any], client: Any) -> Any:
    """What comes of a command; an error by its beginning, which is all that servers of all versions agree on."""
    try:
        return command(client)
    except ResponseError as error:
        return str(error).removeprefix("WRONGTYPE ")[:40]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_the_model_answers_as_a_server_does(real: "redis.Redis", seed: int) -> None:
    """Streams, hashes and the library's scripts on them, to the last byte; and what is there in the end."""
    model, commands = RedisModel(), Commands(seed)
    real.flushall()
    for step in range(_STEPS):
        command = commands.draw()
        assert answer(command, model) == answer(command, real), step
    assert sorted(model.scan_iter()) == sorted(real.scan_iter())


def test_an_id_that_a_server_makes_grows() -> None:
    """It is the time's, or one more than the last."""

    async def story() -> list[bytes]:
        model = RedisModel()
        return [model.xadd("said", {"who": "a"}), model.xadd("said", {"who": "b"}, maxlen=1, approximate=False)]

    assert virtual.run(story()) == [b"1893456000000-0", b"1893456000000-1"]
