"""Fan-out: what it costs to bring a line to everybody, and how late it comes.

Both sides send what one Redis stream says to equally many followers, in the same batches. Generator and server share
a machine of two cores, so what is compared is not how many lines arrive in a second, which is how many were
written, but how many arrive for a second of the server's core: deliveries per CPU second. That holds as long as nobody
is late: a server that is sends several batches as one, and looks better than it is. So the pace is one at
which the yardstick takes a quarter of its core, found by a first turn; ours may take three times as much.

Latency is measured where the yardstick takes half of its core: at half of its greatest rate. Saturated is
more than the yardstick can do without falling behind; then it is lines a second that count.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.report import Row
from tests.bench.streams.followers import Turn
from tests.bench.streams.stage import SIDES, Side, Stage

Pace = tuple[int, float]
Say = Callable[[str], None]
Turns = dict[Side, list[Turn]]

SIZES = (1, 100, 1_000, 5_000)
_BOUNDS = {"sse": 0.85, "text": 0.85, "websocket": 0.75}
_BOUNDED = 1_000  # so many followers
_LATER = 3.0
_HELD_PERCENT = 100
LIGHT, _HALF, _TOO_MUCH = 0.25, 0.5, 1.5  # of a core, for the yardstick to take
_LEAST_SECONDS = 0.01  # between two batches: nobody appends more often
_LINES = {"sse": 20, "text": 20, "ndjson": 20, "websocket": 10}
_SENDS = {"sse": 10_000, "text": 10_000, "ndjson": 10_000, "websocket": 2_000}  # batches a second, a first guess
_SECONDS, _FIRST_SECONDS, _BATCHES = 4.0, 2.0, 8
BUSY, OVERLOADED = 0.8, 0.9


@dataclass(frozen=True, slots=True)
class Load:
    """So many followers by one transport."""

    transport: str
    followers: int

    def __str__(self) -> str:
        return f"{self.followers:,} followers by {self.transport}" if self.followers > 1 else f"1 by {self.transport}"


def pace(stage: Stage, load: Load, share: float) -> Pace:
    """The pace at which the yardstick takes so much of its core."""
    lines = _LINES[load.transport]
    guess = max(_LEAST_SECONDS, load.followers / _SENDS[load.transport])
    turn = stage.turn(stage.servers["bare"], load.transport, load.followers, (lines, guess), seconds=_FIRST_SECONDS)
    return lines, max(_LEAST_SECONDS, guess * turn.cores["server"] / share)


def turns(stage: Stage, load: Load, at: Pace, rounds: int, say: Say) -> Turns:
    """Both sides in turn, so often."""
    found: Turns = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES:
            turn = stage.turn(
                stage.servers[side], load.transport, load.followers, at, seconds=max(_SECONDS, _BATCHES * at[1])
            )
            shares = ", ".join(f"{name} {share:.0%}" for name, share in turn.cores.items())
            say(f"{load}, {number + 1} of {rounds}, {side}: {turn.rate:,.0f} lines/s; {shares}")
            found[side].append(turn)
    return found


def rows(stage: Stage, loads: Sequence[Load], rounds: int, say: Say) -> Iterator[Row]:
    """Deliveries per CPU second, and whether everybody got all."""
    for load in loads:
        at = pace(stage, load, LIGHT)
        found = turns(stage, load, at, rounds, say)
        bound = _BOUNDS.get(load.transport) if load.followers == _BOUNDED else None
        ours, bare = both(found, lambda turn: turn.per_cpu_second / 1000)
        yield Row(f"{load}: deliveries", "k/CPU s", ours, bare, bound, at_most=False, void=void(found))
        if load.followers == SIZES[-1]:
            ours, bare = both(found, lambda turn, load=load: held_percent(turn, load.followers))  # type: ignore[misc]
            yield Row(f"{load}: that have all lines", "%", ours, bare, _HELD_PERCENT, "figure", at_most=False)


def latency_rows(stage: Stage, loads: Sequence[Load], rounds: int, say: Say) -> Iterator[Row]:
    """How old lines are when they arrive, at half of what the yardstick can do."""
    for load in loads:
        found = turns(stage, load, pace(stage, load, _HALF), rounds, say)
        for at, what, bound in ((0, "median", None), (1, "p99", _LATER)):
            ours, bare = both(found, lambda turn, at=at: turn.ages_ms[at])  # type: ignore[misc]
            yield Row(f"{load}: {what} age of a line", "ms", ours, bare, bound, void=generator_busy(found))


def saturated_rows(stage: Stage, loads: Sequence[Load], rounds: int, say: Say) -> Iterator[Row]:
    """Lines a second where more is written than can be sent batch by batch."""
    for load in loads:
        found = turns(stage, load, pace(stage, load, _TOO_MUCH), rounds, say)
        ours, bare = both(found, lambda turn: turn.rate / 1000)
        yield Row(f"{load}: deliveries, saturated", "k/s", ours, bare, at_most=False, void=saturated_void(found))


def both(found: Turns, figure: Callable[[Turn], float]) -> tuple[list[float], list[float]]:
    """A figure of each turn, of both sides."""
    ours, bare = ([figure(turn) for turn in found[side]] for side in SIDES)
    return ours, bare


def held_percent(turn: Turn, followers: int) -> float:
    """How many of the followers have all lines."""
    return 100 * (1 - max(turn.cut, turn.behind) / followers)


def generator_busy(found: Turns) -> str:
    """Why the followers are what was measured, if they are."""
    busy = max(median(_asking(turn) for turn in found[side]) for side in SIDES)
    return f"followers, writer and Redis took {busy:.0%} of their core" if busy > BUSY else ""


def void(found: Turns) -> str:
    """Why deliveries per CPU second say nothing, if they do not."""
    if reason := generator_busy(found):
        return reason
    if cut := sum(turn.cut for side in SIDES for turn in found[side]):
        return f"{cut} followers were cut"
    for side in SIDES:
        share = median(turn.cores["server"] for turn in found[side])
        if share > OVERLOADED:
            return f"{side} took {share:.0%} of its core, and sends batches as one"
    return ""


def saturated_void(found: Turns) -> str:
    """Why lines a second say nothing, if they do not."""
    if reason := generator_busy(found):
        return reason
    for side in SIDES:
        share = median(turn.cores["server"] for turn in found[side])
        if share < OVERLOADED:
            return f"{side} took {share:.0%} of its core only"
    return ""


def _asking(turn: Turn) -> float:
    return sum(share for name, share in turn.cores.items() if name != "server")
