"""Slow followers: what one in ten that reads a kilobyte a second does to the server and to the others.

Ours alone, on servers of their own, with and without them: the promise is of a difference. Those that read as fast as
they can are as many both times; the pace is the same, and is kept until the slow ones' buffers have long been full, the
kernel's as well. Those are counted to the server's memory, as a container is charged for them.
"""

from collections.abc import Iterator, Sequence
from statistics import median

from tests.bench.report import Row
from tests.bench.scene import Server
from tests.bench.streams.fanout import LIGHT, OVERLOADED, Load, Say, pace
from tests.bench.streams.followers import Turn
from tests.bench.streams.stage import Stage

_SLOW = 0.1  # of all
_LESS, _MORE = 0.9, 1.1
_KINDS = ("with", "without")
_SECONDS, _FILLING_SECONDS = 12.0, 6.0  # long, as a machine's pace varies from second to second
_FULL = 0.1


def rows(stage: Stage, loads: Sequence[Load], rounds: int, say: Say) -> Iterator[Row]:
    """The others' deliveries and the server's memory, with slow ones beside without."""
    for load in loads:
        slow = max(1, round(load.followers * _SLOW))
        rest = Load(load.transport, load.followers - slow)
        at = pace(stage, rest, LIGHT)
        found: dict[str, list[Turn]] = {kind: [] for kind in _KINDS}
        for number in range(rounds):
            for kind in _KINDS:
                with stage.fresh("ours") as server:
                    turn = _turn(stage, server, rest, at, slow if kind == "with" else 0)
                say(f"slow followers, {load}, {number + 1} of {rounds}, {kind}: {_memory_mb(turn):.0f} MB")
                found[kind].append(turn)
        some, none = (found[kind] for kind in _KINDS)
        what = f"{rest} and {slow} slow ones, beside without those"
        yield Row(
            f"{what}: deliveries to the others",
            "k/CPU s",
            [turn.per_cpu_second / 1000 for turn in some],
            [turn.per_cpu_second / 1000 for turn in none],
            _LESS,
            at_most=False,
            void=_void(some, none),
        )
        late = [turn.ages_ms[1] for turn in some]
        yield Row(f"{what}: p99 age of a line", "ms", late, [turn.ages_ms[1] for turn in none])
        memory = [_memory_mb(turn) for turn in some]
        without = [_memory_mb(turn) for turn in none]
        yield Row(f"{what}: memory, the sockets' too", "MB", memory, without, _MORE, void=_void(some, none))


def _turn(stage: Stage, server: Server, rest: Load, at: tuple[int, float], slow: int) -> Turn:
    return stage.turn(
        server, rest.transport, rest.followers, at, seconds=_SECONDS, slow=slow, warm_seconds=_FILLING_SECONDS
    )


def _memory_mb(turn: Turn) -> float:
    return turn.memory_mb[2] + turn.sockets_mb


def _void(some: Sequence[Turn], none: Sequence[Turn]) -> str:
    if any(turn.filling > _FULL for turn in some):
        return "the slow ones' sockets were not full yet"
    if cut := sum(turn.cut for turn in some):
        return f"{cut} followers were cut"
    share = median(turn.cores["server"] for turn in none)
    return f"without them it took {share:.0%} of its core" if share > OVERLOADED else ""
