"""What recorders may write to the log streams is not trusted, and a claim that was left behind is nobody's."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from common.connection import Connection
from common.errors import Unavailable
from common.events import ZERO, line_event
from common.models import ProcessProgress, Progress
from common.streams import Streams
from tests.unit.samples import RUN_ID

if TYPE_CHECKING:
    from redis.asyncio import Redis

LOG, PROGRESS, PUMP = (f"nfc:log:{RUN_ID}:{part}" for part in ("1", "progress", "pump"))


@pytest.fixture
def streams(connection: Connection) -> Streams:
    """The streams of a deployment whose Redis is empty."""
    return Streams(connection, "nfc", 60)


async def now_ms(client: "Redis") -> int:
    """Redis' own time."""
    seconds, microseconds = await client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@pytest.mark.parametrize("own", ["", "-1", "1.5", "²", "soon", "253402300800000000000", "9" * 21, "9" * 5000])
async def test_a_time_that_is_none_gives_way_to_the_ids(client: "Redis", streams: Streams, own: str) -> None:
    """The line is told all the same, to whoever follows."""
    await client.xadd(LOG, {"t": "x", "s": "?", "n": own}, id="1893553445678-901234000")
    [line] = (await streams.read(RUN_ID, 1, ZERO, 5)).lines
    assert (line.at_ns, line.stream) == (1_893_553_445_678_901_234, "stdout")
    assert line_event(RUN_ID, 1, line, ZERO)["timestamp"] == "2030-01-02T03:04:05.678901234Z"


async def test_a_line_keeps_a_time_of_its_own(client: "Redis", streams: Streams) -> None:
    """Its id was forced above that of the line before."""
    await client.xadd(LOG, {"t": "x", "s": "o", "n": "1893553445678901234"}, id="1893553449999-0")
    [line] = (await streams.read(RUN_ID, 1, ZERO, 5)).lines
    assert line.at_ns == 1_893_553_445_678_901_234


async def test_a_newline_in_a_line_makes_no_other(client: "Redis", streams: Streams) -> None:
    """Over text it could pass for a line of any id."""
    await client.xadd(LOG, {"t": "one\ntwo", "s": "o"}, id="1-0")
    assert [line.text for line in (await streams.read(RUN_ID, 1, ZERO, 5)).lines] == [b"one two"]


@pytest.mark.parametrize("own_id", ["200000000000000-1", "18446744073709551615-1"])
async def test_a_line_beyond_all_time_is_not_served(client: "Redis", streams: Streams, own_id: str) -> None:
    """The log is read where the run happens, as if Redis were away."""
    await client.xadd(LOG, {"t": "x", "s": "o"}, id=own_id)
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
    assert await streams.pumping(RUN_ID, "one", insist=False)
    assert await streams.pumping(RUN_ID, "one", insist=False)
    assert not await streams.pumping(RUN_ID, "other", insist=False)
    assert await streams.pumping(RUN_ID, "recorder", insist=True)
    assert not await streams.pumping(RUN_ID, "one", insist=False)
    assert 0 < await client.ttl(PUMP) <= 5
    assert await client.xlen(PUMP) == 1


@pytest.mark.parametrize("seconds", [-6, 3600])
async def test_a_claim_that_does_not_end_is_no_claim(client: "Redis", streams: Streams, seconds: int) -> None:
    """Whoever made it went before it had an expiry, or it is of a clock that is not Redis' any more."""
    at = await now_ms(client) + 1000 * seconds
    await client.xadd(PUMP, {"who": "gone"}, id=f"{at}-0")
    assert await streams.pumping(RUN_ID, "one", insist=False)


async def test_a_claim_of_a_moment_ago_needs_no_expiry(client: "Redis", streams: Streams) -> None:
    """It is made in two steps, and the second may be still to come."""
    await client.xadd(PUMP, {"who": "recorder"})
    assert not await streams.pumping(RUN_ID, "one", insist=False)
