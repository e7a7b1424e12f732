"""Streams keep to their bounds and say what they have let go of; what recorders may write to them is not trusted."""

import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from common.connection import Connection
from common.errors import Unavailable
from common.events import ZERO, Line, LineId, line_event
from common.models import FollowerCounts, ProcessProgress, Progress, Relay
from common.settings import Settings
from common.streams import Streams
from tests.unit.samples import RUN_ID

if TYPE_CHECKING:
    from redis.asyncio import Redis

LOG, PROGRESS, PUMP = (f"nfc:log:{RUN_ID}:{part}" for part in ("1", "progress", "pump"))


@pytest.fixture
def streams(connection: Connection) -> Streams:
    """The streams of a deployment whose Redis is empty."""
    return Streams(connection, Settings())


async def now_ms(client: "Redis") -> int:
    """Redis' own time."""
    seconds, microseconds = await client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@pytest.mark.parametrize("own", ["", "-1", "1.5", "²", "soon", "253402300800000000000", "9" * 21, "9" * 5000])
async def test_a_time_that_is_none_gives_way_to_the_ids(client: "Redis", streams: Streams, own: str) -> None:
    """The line is told all the same, to whoever follows."""
    await client.xadd(LOG, {"p": "0-0", "t": "x", "s": "?", "n": own}, id="1893553445678-901234000")
    [line] = (await streams.read(RUN_ID, 1, ZERO, 5)).lines
    assert (line.at_ns, line.stream) == (1_893_553_445_678_901_234, "stdout")
    assert line_event(RUN_ID, 1, line, ZERO)["timestamp"] == "2030-01-02T03:04:05.678901234Z"


async def test_a_line_keeps_a_time_of_its_own(client: "Redis", streams: Streams) -> None:
    """Its id was forced above that of the line before."""
    await client.xadd(LOG, {"p": "0-0", "t": "x", "s": "o", "n": "1893553445678901234"}, id="1893553449999-0")
    [line] = (await streams.read(RUN_ID, 1, ZERO, 5)).lines
    assert line.at_ns == 1_893_553_445_678_901_234


async def test_a_newline_in_a_line_makes_no_other(client: "Redis", streams: Streams) -> None:
    """Over text it could pass for a line of any id."""
    await client.xadd(LOG, {"p": "0-0", "t": "one\ntwo", "s": "o"}, id="1-0")
    assert [line.text for line in (await streams.read(RUN_ID, 1, ZERO, 5)).lines] == [b"one two"]


@pytest.mark.parametrize("own_id", ["200000000000000-1", "18446744073709551615-1"])
async def test_a_line_beyond_all_time_is_not_served(client: "Redis", streams: Streams, own_id: str) -> None:
    """The log is read where the run happens, as if Redis were away."""
    await client.xadd(LOG, {"p": "0-0", "t": "x", "s": "o"}, id=own_id)
    with pytest.raises(Unavailable, match="damaged"):
        await streams.read(RUN_ID, 1, ZERO, 5)
    with pytest.raises(Unavailable, match="damaged"):
        await streams.top(RUN_ID, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "y"},
        {"p": ""},
        {"p": b"\xff"},
        {"p": "[]"},
        {"p": json.dumps({"total": {"running": -1}})},
        {"p": json.dumps({"more": 1})},
    ],
)
async def test_a_progress_that_is_none_is_not_known(client: "Redis", streams: Streams, fields: Any) -> None:
    """It is asked for where the run happens, then."""
    assert (await streams.told(RUN_ID)).progress is None
    known = Progress(total=ProcessProgress(running=1))
    await streams.write_progress(RUN_ID, known)
    assert (await streams.told(RUN_ID)).progress == known
    await client.xadd(PROGRESS, fields)
    assert (await streams.told(RUN_ID)).progress is None


async def test_a_log_is_left_to_who_relays_it(client: "Redis", streams: Streams) -> None:
    """Until that is some seconds ago; who insists does not ask."""
    assert await streams.pumping(RUN_ID, 1, "one", insist=False)
    assert await streams.pumping(RUN_ID, 1, "one", insist=False)
    assert not await streams.pumping(RUN_ID, 1, "other", insist=False)
    assert await streams.pumping(RUN_ID, 1, "recorder", insist=True)
    assert not await streams.pumping(RUN_ID, 1, "one", insist=False)
    assert 0 < await client.ttl(PUMP) <= 5
    assert await client.xlen(PUMP) == 1


@pytest.mark.parametrize("seconds", [-6, 3600])
async def test_a_claim_that_does_not_end_is_no_claim(client: "Redis", streams: Streams, seconds: int) -> None:
    """Whoever made it went before it had an expiry, or it is of a clock that is not Redis' any more."""
    at = await now_ms(client) + 1000 * seconds
    await client.xadd(PUMP, {"who": "gone"}, id=f"{at}-0")
    assert await streams.pumping(RUN_ID, 1, "one", insist=False)


async def test_a_claim_of_a_moment_ago_needs_no_expiry(client: "Redis", streams: Streams) -> None:
    """It is made in two steps, and the second may be still to come."""
    await client.xadd(PUMP, {"who": "recorder"})
    assert not await streams.pumping(RUN_ID, 1, "one", insist=False)


async def test_who_relays_a_log_hears_how_far_it_is(streams: Streams) -> None:
    """As `top` tells it, with or without the log's end; what has come of it is told along with that."""
    assert await streams.pumping(RUN_ID, 1, "one", insist=False) == (ZERO, False)
    for end in (False, True):
        fresh = lines(b"x", start=1 + end)
        await streams.append(RUN_ID, 1, (await streams.top(RUN_ID, 1))[0], fresh, end=end)
        relay = Relay(seen=1 + end)
        assert await streams.pumping(RUN_ID, 1, "one", insist=True, relay=relay) == (fresh[-1].id, end)
        assert await streams.top(RUN_ID, 1) == (fresh[-1].id, end)
        assert await streams.relay(RUN_ID) == relay
    await streams.pumping(RUN_ID, 1, "one", insist=True)
    assert await streams.relay(RUN_ID) == Relay(seen=2)


def lines(*texts: bytes, start: int = 1) -> list[Line]:
    """Lines a millisecond apart."""
    return [Line(LineId(number, 0), number * 1_000_000, "stdout", text) for number, text in enumerate(texts, start)]


def size(of: Sequence[Line]) -> int:
    """What lines count."""
    return sum(64 + len(line.text) for line in of)


async def held(client: "Redis") -> list[LineId]:
    """The lines that Redis has."""
    stream: Any = await client.xrange(LOG)
    return [LineId.parse(entry_id.decode()) for entry_id, _ in stream]


@pytest.mark.parametrize("seed", range(5))
async def test_a_stream_holds_the_newest_lines_within_its_bounds(
    client: "Redis", connection: Connection, seed: int
) -> None:
    """Of lines of any length, however many come at once; whoever reads is told which are missing, and of no others."""
    dice = random.Random(seed)
    streams = Streams(connection, Settings(redis_log_lines=20, redis_log_bytes=5_000))
    said: list[Line] = []
    top = ZERO
    while len(said) < 150:
        texts = [b"x" * dice.choice((0, 10, 100, 2_000)) for _ in range(dice.choice((1, 1, 3, 30)))]
        fresh = lines(*texts, start=len(said) + 1)
        done, top = await streams.append(RUN_ID, 1, top, fresh)
        said += fresh
        assert done
        ids = await held(client)
        count = len(ids)
        assert ids == [line.id for line in said[-count:]]
        assert 2 <= count <= 20 or len(said) < 2
        assert size(said[-count:]) <= 5_000 or count == 2
        missing = said[-count - 1].id if count < len(said) else ZERO
        for at in {0, dice.randrange(len(said)), len(said) - count, len(said)}:
            after = said[at - 1].id if at else ZERO
            chunk = await streams.read(RUN_ID, 1, after, 1_000)
            if after < missing:
                assert (chunk.lines, chunk.trimmed) == ((), missing)
            else:
                assert (chunk.lines, chunk.trimmed) == (said[at:], ZERO)
        assert await streams.tail(RUN_ID, 1, count) == (missing, 0)
        assert await streams.tail(RUN_ID, 1, count + 7) == (missing, 7)


async def test_a_stream_gives_up_no_more_than_it_has_to(client: "Redis", connection: Connection) -> None:
    """A long line makes room for many short ones, and short ones go before a long line does."""
    streams = Streams(connection, Settings(redis_log_lines=100, redis_log_bytes=5_000))
    said = lines(*[b"x" * 1_936] * 2, *[b""] * 25)  # 2000 bytes each of the two, 64 of the others
    _, top = await streams.append(RUN_ID, 1, ZERO, said[:17])
    assert len(await held(client)) == 17
    _, top = await streams.append(RUN_ID, 1, top, said[17:])
    assert await held(client) == [line.id for line in said[1:]]
    more = lines(*[b""] * 20, b"x" * 1_936, *[b""] * 31, start=100)
    await streams.append(RUN_ID, 1, top, more)
    assert await held(client) == [line.id for line in more[5:]]


async def test_the_newest_line_and_the_end_stay(client: "Redis", connection: Connection) -> None:
    """However long they are: the next to append has to know them."""
    streams = Streams(connection, Settings(redis_log_lines=10, redis_log_bytes=1_024))
    said = lines(b"a", b"b" * 10_000)
    _, top = await streams.append(RUN_ID, 1, ZERO, said, end=True)
    assert await held(client) == [said[-1].id, top]
    assert await streams.top(RUN_ID, 1) == (said[-1].id, True)
    assert (await streams.read(RUN_ID, 1, said[0].id, 5)).lines == said[1:]


async def test_an_end_alone_tells_what_is_missing(client: "Redis", streams: Streams) -> None:
    """A log's end that stands behind a line which is not held any more ends nothing."""
    said = lines(b"a", b"b")
    await streams.append(RUN_ID, 1, ZERO, said, end=True)
    await client.xtrim(LOG, maxlen=1, approximate=False)
    chunk = await streams.read(RUN_ID, 1, ZERO, 5)
    assert (chunk.ended, chunk.trimmed) == (False, said[-1].id)
    assert (await streams.read(RUN_ID, 1, said[-1].id, 5)).ended


@pytest.mark.parametrize("said", [None, "", "1-", "2-0", "9-0"])
async def test_a_line_that_does_not_say_what_it_stands_behind_is_not_served(
    client: "Redis", streams: Streams, said: str | None
) -> None:
    """There may be any number of lines before it."""
    await client.xadd(LOG, {"t": "x", "s": "o"} if said is None else {"p": said, "t": "x", "s": "o"}, id="2-0")
    for after in (ZERO, LineId(1, 0)):
        with pytest.raises(Unavailable, match="damaged"):
            await streams.read(RUN_ID, 1, after, 5)
    with pytest.raises(Unavailable, match="damaged"):
        await streams.tail(RUN_ID, 1, 5)


@pytest.mark.parametrize("said", ["", "-5", "nan", "1e9", "9" * 400, "999999999999999"])
async def test_sums_that_are_none_do_not_stop_a_writer(client: "Redis", streams: Streams, said: str) -> None:
    """What was forged may cost lines in Redis, and no more."""
    await client.xadd(LOG, {"p": "0-0", "b": said, "t": "x", "s": "o"}, id="1-0")
    top = LineId(1, 0)
    for start in (2, 50):
        done, top = await streams.append(RUN_ID, 1, top, lines(*[b"y"] * 40, start=start))
        assert done
    assert (await streams.read(RUN_ID, 1, LineId(88, 0), 5)).lines == lines(b"y", start=89)


@pytest.mark.parametrize("odd", ["", "x", "-1 {}", " {}", "9" * 400 + " {}"])
async def test_a_word_that_no_process_has_said_hides_no_other(client: "Redis", streams: Streams, odd: str) -> None:
    """Who follows is told without it, and it is forgotten with the next that is said."""
    key = f"nfc:followers:{RUN_ID}"
    await client.hset(key, "odd", odd)
    assert (await streams.told(RUN_ID)).streaming.tailers == 0
    await streams.say_followers(RUN_ID, "me", FollowerCounts(sse=2))
    assert await client.hkeys(key) == [b"me"]
    assert (await streams.told(RUN_ID)).streaming.followers == FollowerCounts(sse=2)
