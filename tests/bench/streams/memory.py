"""Memory: what a follower adds to a server's resident memory, while nothing is written and after lines have come.

Each figure is of a server of its own, as memory that was used once is seldom given back. A few followers come and go
first, so that what is loaded for the first of them is not counted; what is shared by all is divided among them.
"""

from collections.abc import Iterator, Sequence

from tests.bench.report import Row
from tests.bench.scene import Server
from tests.bench.streams.fanout import Load, Say, Turns, both, generator_busy
from tests.bench.streams.followers import Turn
from tests.bench.streams.stage import SIDES, Stage

_BOUND = 1.25
_WARM = 20
_PACES = {"websocket": (10, 0.5)}
_PACE = (20, 0.25)
_SECONDS, _WARM_SECONDS, _IDLE_SECONDS = 3.0, 0.5, 2.0


def rows(stage: Stage, loads: Sequence[Load], rounds: int, say: Say) -> Iterator[Row]:
    """Kilobytes a follower."""
    for load in loads:
        found: Turns = {side: [] for side in SIDES}
        for number in range(rounds):
            for side in SIDES:
                with stage.fresh(side) as server:
                    turn = _turn(stage, server, load)
                say(f"memory, {load}, {number + 1} of {rounds}, {side}: {turn.memory_mb}")
                found[side].append(turn)
        for at, what in ((1, "idle"), (2, "active")):
            added = both(found, lambda turn, at=at: turn.memory_mb[at] - turn.memory_mb[0])  # type: ignore[misc]
            ours, bare = ([megabytes * 1000 / load.followers for megabytes in side] for side in added)
            yield Row(f"{load}: memory of each, {what}", "kB", ours, bare, _BOUND, void=generator_busy(found))


def _turn(stage: Stage, server: Server, load: Load) -> Turn:
    pace = _PACES.get(load.transport, _PACE)
    stage.turn(server, load.transport, _WARM, pace, seconds=_WARM_SECONDS)
    return stage.turn(server, load.transport, load.followers, pace, seconds=_SECONDS, idle_seconds=_IDLE_SECONDS)
