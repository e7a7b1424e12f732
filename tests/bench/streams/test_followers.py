"""How lines are counted, and how what was counted is judged; nothing here measures anything."""

import math
from dataclasses import replace

from tests.bench.streams.connections import question
from tests.bench.streams.fanout import generator_busy, held_percent, saturated_void, void
from tests.bench.streams.followers import Turn, ages_ms, arrived, behind, sampled
from tests.bench.streams.ingest import waited

TURN = Turn(
    seconds=4.0,
    lines=80_000.0,
    behind=0,
    ages_ms=(5.0, 20.0),
    cores={"load": 0.3, "redis": 0.1, "writer": 0.1, "server": 0.4},
    memory_mb=(50.0, 60.0, 61.0),
    sockets_mb=3.0,
    filling=0.0,
    connected_cpu=0.5,
    cut=0,
)


def with_cores(**shares: float) -> Turn:
    """The turn, but for how busy its processes were."""
    return replace(TURN, cores={**TURN.cores, **shares})


def test_lines_are_counted_by_bytes() -> None:
    """A thousand bytes were ten lines at the two that were looked at: so are all others."""
    assert arrived((500, 100, [1, 0]), (100_500, 1_100, [6, 5])) == 1_000


def test_nothing_arrived() -> None:
    """No bytes are no lines, and have no age."""
    assert arrived((500, 100, [1, 0]), (500, 100, [1, 0])) == 0
    assert ages_ms([]) == (math.inf, math.inf)


def test_ages() -> None:
    """The median, and what all but one of a hundred are below."""
    assert ages_ms([milliseconds * 1_000_000 for milliseconds in range(200)]) == (99.5, 198.0)


def test_samples_are_spread() -> None:
    """Who came last is among them; of few followers all are."""
    assert list(sampled(3)) == [0, 1, 2]
    assert list(sampled(1_000))[::19] == [0, 950]


def test_deliveries_of_a_cpu_second() -> None:
    """20,000 lines a second for 0.4 of a core."""
    assert TURN.rate == 20_000
    assert TURN.per_cpu_second == 50_000


def test_what_is_held() -> None:
    """Who was cut is behind the others as well, and is counted once."""
    assert held_percent(TURN, 100) == 100
    assert held_percent(replace(TURN, cut=1, behind=3), 100) == 97


def test_who_is_behind() -> None:
    """A greeting more or less is nothing, a batch is."""
    assert behind([100_000, 99_900, 92_000]) == 1


def test_a_busy_generator_voids() -> None:
    """It may take 80% of the core that it shares with Redis and the writer."""
    assert generator_busy({"ours": [TURN], "bare": [TURN]}) == ""
    reason = "followers, writer and Redis took 90% of their core"
    for judge in (generator_busy, void, saturated_void):
        assert judge({"ours": [TURN], "bare": [with_cores(load=0.7)]}) == reason


def test_followers_that_were_cut_void() -> None:
    """What they would have had was given to nobody."""
    assert void({"ours": [TURN], "bare": [replace(TURN, cut=2)]}) == "2 followers were cut"


def test_a_server_that_is_late_voids() -> None:
    """It sends several batches as one; where that is wanted, one that is not late does."""
    late = with_cores(server=0.95)
    assert void({"ours": [late], "bare": [TURN]}) == "ours took 95% of its core, and sends batches as one"
    assert saturated_void({"ours": [late], "bare": [TURN]}) == "bare took 40% of its core only"
    assert saturated_void({"ours": [late], "bare": [late]}) == ""


def test_appending_that_waited_voids_the_clock() -> None:
    """Whoever appends, or Redis, always has work: a core that they did not take was somebody else's."""
    assert waited([0.5, 0.9, 0.8]) == ""
    assert waited([0.5, 0.4, 0.8]) == "they took 50% of a core: others had it"


def test_the_request_of_a_follower() -> None:
    """Its transport decides what it accepts, or that it upgrades."""
    assert question("/stream", {"authorization": "Bearer x"}, "sse") == (
        b"GET /stream HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer x\r\naccept: text/event-stream\r\n\r\n"
    )
    assert b"upgrade: websocket\r\n" in question("/stream", {}, "websocket")
