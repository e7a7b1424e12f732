"""Records and the history's index: what may be written over what, pages, and trimming."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from common.connection import Connection
from common.errors import Unavailable
from common.models import RunInfo
from common.phases import State, may_follow
from common.settings import Settings
from common.store import HISTORY_CURSOR, Page, Store, in_page
from tests.unit.samples import run, run_id

_STAMP = 1_000_000


def _store(connection: Connection, **changes: Any) -> Store:
    return Store(connection, Settings(**changes))


async def _fill(store: Store, runs: Sequence[RunInfo]) -> None:
    for some in runs:
        assert await store.record(some, _STAMP)


async def _names(client: Any, prefix: str) -> list[str]:
    """The keys that begin so, without that."""
    return [key.decode().removeprefix(prefix) for key in await client.keys(f"{prefix}*")]


async def _indexes(client: Any) -> dict[str, list[str]]:
    """Which runs each index of the history lists."""
    return {
        "history" + name: [
            member.decode().partition(":")[2] for member in await client.zrange(f"nfc:history{name}", 0, -1)
        ]
        for name in await _names(client, "nfc:history")
    }


async def test_a_record_is_read_as_it_was_written(connection: Connection) -> None:
    """All of it, and nothing of another run."""
    store, some = _store(connection), run(1, State.FAILED, message='"quoted" ☃', exit_code=1)
    assert await store.record(some, _STAMP)
    assert await store.run(some.run_id) == some
    assert await store.run(run_id(2)) is None


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
async def test_records_follow_the_table(connection: Connection, before: State, after: State) -> None:
    """What the table forbids is refused, by a later look too, and the indexes name the state that stands."""
    store = _store(connection)
    assert await store.record(run(1, before), _STAMP)
    assert await store.record(run(1, after), _STAMP + 1) == may_follow(before, after)
    stands = after if may_follow(before, after) else before
    assert await store.run(run_id(1)) == run(1, stands)
    for state in State:
        assert (await store.page(5, states=[state])).runs == ([run(1, stands)] if state is stands else [])


async def test_an_earlier_look_is_refused(connection: Connection) -> None:
    """A slow caller does not undo what a later look has shown, not even in the same state."""
    store = _store(connection)
    assert await store.record(run(1, State.UNKNOWN), _STAMP)
    assert not await store.record(run(1, State.RUNNING), _STAMP - 1)
    assert await store.record(run(1, State.RUNNING), _STAMP)
    assert not await store.record(run(1, State.RUNNING, message="old"), _STAMP - 1)
    assert await store.run(run_id(1)) == run(1, State.RUNNING)


async def test_an_end_is_recorded_whenever_it_was_seen(connection: Connection) -> None:
    """An end is for ever, so the time of the look does not matter (clocks step back in a fail-over)."""
    store = _store(connection)
    assert await store.record(run(1, State.RUNNING), _STAMP)
    assert await store.record(run(1, State.SUCCEEDED), _STAMP - 60_000)
    assert await store.run(run_id(1)) == run(1, State.SUCCEEDED)


async def test_pages_go_back_in_time(connection: Connection) -> None:
    """A cursor is exclusive; the last page has none; nothing comes twice or is left out."""
    store, runs = _store(connection), [run(n, State.SUCCEEDED) for n in range(5)]
    await _fill(store, runs)
    first = await store.page(2)
    assert first.runs == [runs[4], runs[3]]
    second = await store.page(2, first.next_cursor)
    assert second.runs == [runs[2], runs[1]]
    assert await store.page(2, second.next_cursor) == Page([runs[0]], None)
    assert await store.page(5) == Page(runs[::-1], None)
    assert await store.page(1, states=[State.FAILED]) == Page([], None)


async def test_a_page_that_is_just_full_is_the_last(connection: Connection) -> None:
    """No cursor leads to an empty page."""
    store, runs = _store(connection), [run(n) for n in range(2)]
    await _fill(store, runs)
    assert await store.page(2) == Page(runs[::-1], None)


async def test_new_runs_do_not_move_pages(connection: Connection) -> None:
    """What starts between two pages is not on the second."""
    store, runs = _store(connection), [run(n) for n in range(4)]
    await _fill(store, runs[:3])
    first = await store.page(2)
    await _fill(store, runs[3:])
    assert await store.page(2, first.next_cursor) == Page([runs[0]], None)


async def test_pages_of_some_states(connection: Connection) -> None:
    """Several states are one list in order of time."""
    store = _store(connection)
    states = [State.FAILED, State.SUCCEEDED, State.RUNNING, State.FAILED, State.CANCELLED]
    runs = [run(n, state) for n, state in enumerate(states)]
    await _fill(store, runs)
    page = await store.page(2, states=[State.FAILED, State.RUNNING])
    assert page.runs == [runs[3], runs[2]]
    assert await store.page(2, page.next_cursor, [State.FAILED, State.RUNNING]) == Page([runs[0]], None)


async def test_the_count_is_bounded(client: "Redis", connection: Connection) -> None:
    """The oldest goes, from every index, and its record with it."""
    store = _store(connection, history_max_runs=2)
    states = [State.FAILED, State.SUCCEEDED, State.RUNNING]
    await _fill(store, [run(n, state) for n, state in enumerate(states)])
    assert await _indexes(client) == {
        "history": [run_id(1), run_id(2)],
        "history:succeeded": [run_id(1)],
        "history:running": [run_id(2)],
    }
    assert await store.run(run_id(0)) is None


async def test_the_age_is_bounded(client: "Redis", connection: Connection) -> None:
    """What is old goes with its record, and a run that still goes on stays, however long it has."""
    store = _store(connection, history_ttl_seconds=60)
    today = datetime.now(UTC)
    old, long, new = (
        run(n, State.RUNNING, created_at=today - timedelta(seconds=age)) for n, age in enumerate([90, 80, 0])
    )
    await _fill(store, [old, long])
    assert 0 < await client.ttl(f"nfc:run:{old.run_id}") <= 60
    await client.delete(f"nfc:run:{old.run_id}")  # what its expiry does
    await _fill(store, [new])
    assert await _indexes(client) == {
        "history": [long.run_id, new.run_id],
        "history:running": [long.run_id, new.run_id],
    }


async def test_a_run_accepted_anew_under_its_id_is_listed_once(client: "Redis", connection: Connection) -> None:
    """A retried key whose Job was withdrawn makes another Job, with another time of creation."""
    store = _store(connection)
    again = run(1, State.STARTING, created_at=run(7).created_at)
    await _fill(store, [run(1, State.QUEUED), again])
    assert await store.page(5) == Page([again], None)
    assert await _indexes(client) == {"history": [run_id(1)], "history:starting": [run_id(1)]}


async def test_those_without_an_end(connection: Connection) -> None:
    """Missing records and open ones are to be looked at, in the order that was asked."""
    store = _store(connection)
    await _fill(store, [run(1, State.RUNNING), run(2, State.CANCELLED), run(3, State.UNKNOWN)])
    assert await store.without_end([run_id(n) for n in (4, 3, 2, 1)]) == [run_id(n) for n in (4, 3, 1)]
    assert await store.without_end([]) == []


async def test_a_record_that_has_expired_leaves_no_state_behind(client: "Redis", connection: Connection) -> None:
    """A run that is recorded anew, from its Job, is in the index of the state it is in now, and in no other."""
    store = _store(connection)
    await _fill(store, [run(1, State.RUNNING)])
    await client.delete(f"nfc:run:{run_id(1)}")
    await _fill(store, [run(1, State.FAILED)])
    assert await _indexes(client) == {"history": [run_id(1)], "history:failed": [run_id(1)]}


async def test_the_index_is_trusted_for_a_while(client: "Redis", connection: Connection) -> None:
    """It is after it was compared, until that is old, or Redis was lost."""
    store = _store(connection)
    assert not await store.listed()
    await store.mark_listed(store.losses)
    assert await store.listed()
    assert 0 < await client.ttl("nfc:history:listed") <= 30
    connection.losses += 1
    assert not await store.listed()
    await store.mark_listed(store.losses)
    await client.flushall()
    assert not await store.listed()


async def test_a_loss_during_the_comparison_counts(connection: Connection) -> None:
    """The count is taken before the Jobs are listed: a loss since then means to compare again."""
    store = _store(connection)
    before = store.losses
    connection.losses += 1
    await store.mark_listed(before)
    assert not await store.listed()


async def test_the_first_answer_stays(client: "Redis", connection: Connection) -> None:
    """Of two answers to a key the first is kept, for a day."""
    store = _store(connection)
    assert await store.answer(run_id(1)) is None
    assert await store.keep_answer(run_id(1), b"first")
    assert not await store.keep_answer(run_id(1), b"second")
    assert await store.answer(run_id(1)) == b"first"
    assert 0 < await client.ttl(f"nfc:answer:{run_id(1)}") <= 24 * 3600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"1893499200000000:{run_id(1)}", True),
        ("", False),
        (run_id(1), False),
        (f"189349920000000:{run_id(1)}", False),
        (f"18934992000000000:{run_id(1)}", False),
        ("1893499200000000:", False),
        ("1893499200000000:run-", False),
        (f"1893499200000000:{run_id(1)}\n", False),
        (f"\u0661893499200000000:{run_id(1)}", False),
        (f"-893499200000000:{run_id(1)}", False),
        (f"[893499200000000:{run_id(1)}", False),
    ],
)
def test_form_of_a_cursor(text: str, expected: bool) -> None:
    """A cursor is what a page gave out; anything else never reaches Redis."""
    assert bool(HISTORY_CURSOR.fullmatch(text)) == expected


async def test_every_page_s_cursor_has_the_form(connection: Connection) -> None:
    """What is given out is taken back."""
    store = _store(connection)
    await _fill(store, [run(n) for n in range(2)])
    cursor = (await store.page(1)).next_cursor
    assert cursor is not None
    assert HISTORY_CURSOR.fullmatch(cursor)


_RUNS = st.lists(
    st.builds(
        lambda number, second, state: run(number, state, created_at=run(second).created_at),
        st.integers(0, 40),
        st.integers(0, 5),
        st.sampled_from(State),
    ),
    max_size=12,
    unique_by=lambda some: some.run_id,
)
_STATES = st.lists(st.sampled_from(State), max_size=3, unique=True)


async def _all_pages(store: Store, runs: Sequence[RunInfo], limit: int, states: Collection[State]) -> None:
    cursor: str | None = None
    seen: list[RunInfo] = []
    while True:
        page = await store.page(limit, cursor, states)
        assert page == in_page(runs, limit, cursor, states)
        seen += page.runs
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(some.run_id for some in seen) == sorted(
        some.run_id for some in runs if not states or some.status in states
    )


@given(_RUNS, st.integers(1, 5), _STATES)
@settings(max_examples=60)
def test_pages_without_redis_are_the_same(runs: list[RunInfo], limit: int, states: list[State]) -> None:
    """Page by page, `in_page` over the Jobs is what the store gives, and each run comes once."""

    async def main() -> None:
        client = FakeAsyncRedis()
        store = _store(Connection(client))
        await _fill(store, runs)
        await _all_pages(store, runs, limit, states)
        await client.aclose()

    asyncio.run(main())


_WRITES = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(State), st.integers(0, 3)),
    max_size=25,
)


@given(_WRITES, st.integers(1, 4))
@settings(max_examples=60)
def test_indexes_stay_in_step(writes: list[tuple[int, State, int]], most: int) -> None:
    """Whatever is written in whatever order: each listed run has a record, and is in the index of its state alone."""

    async def main() -> None:
        client = FakeAsyncRedis()
        store = _store(Connection(client), history_max_runs=most)
        for number, state, stamp in writes:
            await store.record(run(number, state), _STAMP + stamp)
        indexes = await _indexes(client)
        listed = indexes.pop("history", [])
        records = {some: await store.run(some) for some in listed}
        assert len(listed) <= most
        assert {name.partition(":")[2]: runs for name, runs in indexes.items()} == {
            state.value: runs
            for state in State
            if (runs := [name for name in listed if (record := records[name]) and record.status is state])
        }
        assert sorted(await _names(client, "nfc:run:")) == sorted(listed)
        await client.aclose()

    asyncio.run(main())


async def test_a_record_that_somebody_has_written_is_not_told(connection: Connection, client: "Redis") -> None:
    """Nor one of another run, nor a page with either, nor an index of what is no run: the cluster knows."""
    store, some = _store(connection), run(1)
    assert await store.record(some, _STAMP)
    for info in (b"\xff", b"{}", run(2).model_dump_json().encode()):
        await client.hset(f"nfc:run:{some.run_id}", "info", info)
        for reading in (store.run(some.run_id), store.page(5)):
            with pytest.raises(Unavailable, match="damaged"):
                await reading
            store = _store(Connection(client))  # Redis counts as away for a moment
    await client.zadd("nfc:history", {b"\xff": 0})
    with pytest.raises(Unavailable, match="damaged"):
        await store.page(1)
    await client.hset(f"nfc:run:{some.run_id}", "state", b"\xff")
    assert await _store(Connection(client)).without_end([some.run_id]) == [some.run_id]
