"""What somebody has put into Redis: it makes nobody fail, wait for ever, or start a second run."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from hypothesis import strategies as st
from redis.asyncio import Redis

from common import cancel, claim, look
from common.errors import ControllerError, Unavailable
from common.events import ZERO, Line
from common.models import FollowerCounts, Progress, Relay, RunInfo, RunOverview, RunRequest
from common.names import keyed_run_id
from common.phases import State
from common.store import HISTORY_CURSOR
from common.tickets import Tickets
from tests.fuzz import fuzz
from tests.fuzz.place import Notebook, ended, process
from tests.fuzz.values import changed
from tests.unit import samples
from tests.unit.logs import PATIENCE_SECONDS

ACTIVE, PAST = samples.run_id(1), samples.run_id(2)
KEY, TICKET = "key", "ticket"
KEYED = keyed_run_id("ada", KEY)

# Times in the seconds to come are left out: they are waited for, as they should be.
NUMBERS = st.one_of(
    st.sampled_from(
        [b"", b"-1", b"0", b"1.5", b"1e3", b"1e400", b"nan", b"inf", b"0x10", b" 7", b"9" * 16, b"9" * 400]
    ),
    st.integers(0, 10**17).map(lambda number: b"%d" % number),
    st.binary(max_size=10),
)
INFOS = changed(samples.run(1)).map(lambda text: text.encode("utf-8", "surrogatepass"))
NAMES = st.one_of(st.sampled_from([ACTIVE, PAST, "run-", "../..", ""]).map(str.encode), st.binary(max_size=20))
STATES = st.one_of(st.sampled_from([state.value.encode() for state in State]), st.binary(max_size=8))
MEMBERS = st.one_of(NAMES, NAMES.map(lambda name: b"1893499201000000:" + name), st.binary(max_size=30))
IDS = st.one_of(
    st.just(b"*"),
    st.sampled_from([b"1-0", b"1900000000000-5", b"1900000000000-999999999999", b"18446744073709551615-1"]),
)
ENTRIES = st.dictionaries(
    st.sampled_from([b"t", b"s", b"n", b"p", b"b", b"end", b"r", b"who"]),
    st.one_of(NUMBERS, IDS, changed(Relay()).map(str.encode), st.binary(max_size=20)),
    min_size=1,
    max_size=4,
)


def at(key: str, **fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Some fields of a hash, written over."""
    return st.tuples(
        st.just("HSET"), st.just(f"nfc:{key}"), st.sampled_from(sorted(fields)), st.one_of(*fields.values())
    )


def stream(part: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """An entry more."""
    key = st.just(f"nfc:log:{ACTIVE}:{part}")
    return st.tuples(st.just("XADD"), key, IDS, ENTRIES).map(
        lambda call: (*call[:3], *(part for pair in call[3].items() for part in pair))
    )


HARMS = st.lists(
    st.one_of(
        at("slot", version=NUMBERS, run=NAMES, seen=NUMBERS, look=NUMBERS),
        at(f"run:{ACTIVE}", info=INFOS, state=STATES, stamp=NUMBERS, member=MEMBERS),
        at(f"run:{PAST}", info=INFOS, state=STATES, stamp=NUMBERS, member=MEMBERS),
        at(f"followers:{ACTIVE}", x=NUMBERS, y=INFOS),
        st.tuples(
            st.just("ZADD"), st.sampled_from(["nfc:history", "nfc:history:running"]), st.sampled_from([0, 1]), MEMBERS
        ),
        st.tuples(st.just("SET"), st.just(f"nfc:answer:{KEYED}"), INFOS),
        st.tuples(
            st.just("SET"), st.just(f"nfc:ticket:{hashlib.sha256(TICKET.encode()).hexdigest()}"), st.binary(max_size=20)
        ),
        st.tuples(
            st.just("SET"),
            st.sampled_from(["nfc:slot", "nfc:history", f"nfc:run:{ACTIVE}", "nfc:history:listed"]),
            NAMES,
        ),
        *map(stream, ["1", "progress", "relay", "pump"]),
    ),
    min_size=1,
    max_size=4,
)


def notebook() -> Notebook:
    """One run that goes on, and one that was."""
    made = Notebook()
    made.start(1)
    made.write(ACTIVE, b"one", b"two")
    made.runs[PAST] = ended(2)
    return made


async def harm(client: "Redis", harms: list[tuple[Any, ...]]) -> None:
    """Write what somebody writes, as far as Redis takes it; a key of another kind is replaced."""
    for call in harms:
        with suppress(Exception):
            if call[0] == "SET":
                await client.delete(call[1])
            await client.execute_command(*call)  # type: ignore[no-untyped-call] # redis-py's types are partial


@asynccontextmanager
async def written_to(url: str, harms: list[tuple[Any, ...]]) -> AsyncIterator[Notebook]:
    """A place whose Redis, once all had been well, somebody has written to; for as long as anything may take."""
    async with asyncio.timeout(PATIENCE_SECONDS), Redis.from_url(url) as client:
        await client.flushall()
        runner = notebook()
        await _readers(url, runner)
        await harm(client, harms)
        yield runner


async def _readers(url: str, runner: Notebook) -> None:
    async with process(url, runner) as parts:
        found = await look.active(parts)
        assert found is None or RunInfo.model_validate_json(found.model_dump_json()) == found
        for run_id in (None, ACTIVE, PAST):
            told = await look.overview(parts, run_id)
            assert run_id in (None, told.run_id)
            RunOverview.model_validate_json(told.model_dump_json())
        page = await look.history(parts, 1)
        assert len(page.runs) <= 1
        assert page.next_cursor is None or HISTORY_CURSOR.fullmatch(page.next_cursor)
        await look.history(parts, 5, page.next_cursor, [State.RUNNING])
        caller = await Tickets(parts.connection, "nfc").redeem(TICKET)
        assert caller is None or caller.role == "read"


@fuzz(HARMS, share=4)
def test_readers_of_what_somebody_has_written(
    loop: asyncio.Runner,
    redis_url: str,
    harms: list[tuple[Any, ...]],  # what Hypothesis gives
) -> None:
    """Everybody who only reads has an answer, or says that it is not to be had."""

    async def play() -> None:
        async with written_to(redis_url, harms) as runner:
            before = runner.written()
            with suppress(ControllerError):
                await _readers(redis_url, runner)
            assert runner.written() == before

    loop.run(play())


@fuzz(HARMS, share=8)
def test_callers_before_what_somebody_has_written(
    loop: asyncio.Runner,
    redis_url: str,
    harms: list[tuple[Any, ...]],  # what Hypothesis gives
) -> None:
    """Whoever starts and cancels runs gets past it, and no second run has a head."""

    async def play() -> None:
        async with written_to(redis_url, harms) as runner:
            request = RunRequest(pipeline="owner/name", on_busy="attach")
            for key in (KEY, KEY, None):
                async with process(redis_url, runner) as parts:
                    with suppress(ControllerError):
                        claimed = await claim.start(parts, request, caller="ada", key=key)
                        RunInfo.model_validate_json(claimed.run.model_dump_json())
                    assert runner.live() == [ACTIVE]
            async with process(redis_url, runner) as parts:
                with suppress(ControllerError):
                    await cancel.cancel(parts, by="ada", run_id=None)

    loop.run(play())


@fuzz(st.lists(st.one_of(*map(stream, ["1", "progress", "relay", "pump"])), min_size=1, max_size=5), share=4)
def test_streams_that_a_recorder_has_written(
    loop: asyncio.Runner,
    redis_url: str,
    harms: list[tuple[Any, ...]],  # what Hypothesis gives
) -> None:
    """Its user may append to each of a log's streams; lines are appended behind that, or it is said why not."""

    async def play() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), Redis.from_url(redis_url) as client:
            await client.flushall()
            await harm(client, harms)
            for step in range(6):
                async with process(redis_url, notebook(), redis_log_lines=10) as parts:
                    with suppress(Unavailable):
                        await _streams(parts.streams, step)

    loop.run(play())


async def _streams(streams: Any, step: int) -> None:
    match step:
        case 0:
            top, _ = await streams.top(ACTIVE, 1)
            lines = [Line(top.next(), 0, "stdout", b"x" * 2000)]
            done, after = await streams.append(ACTIVE, 1, top, lines)
            assert not done or after == lines[-1].id
        case 1:
            chunk = await streams.read(ACTIVE, 1, ZERO, 10)
            assert [line.id for line in chunk.lines] == sorted({line.id for line in chunk.lines})
        case 2:
            await streams.tail(ACTIVE, 1, 3)
        case 3:
            assert await streams.pumping(ACTIVE, 1, "me", insist=False) in (None, await streams.top(ACTIVE, 1))
        case 4:
            await streams.say_followers(ACTIVE, "me", FollowerCounts(sse=1))
            await streams.write_progress(ACTIVE, Progress())
            relay = await streams.relay(ACTIVE)
            assert relay is None or Relay.model_validate_json(relay.model_dump_json()) == relay
        case _:
            told = await streams.told(ACTIVE)
            told.streaming.model_dump_json()
