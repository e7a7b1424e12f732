"""The slot's verdicts: who is told what, who is sent to look, and who may write down what was seen."""

import pytest
from redis.asyncio import Redis

from common.connection import Connection
from common.lock import FRESH_MS, Lock, Verdict
from common.settings import Settings
from common.store import Store
from tests.unit.samples import run

ONE, TWO = run(1), run(2)


async def _known(connection: Connection) -> Lock:
    """A lock whose runs are recorded."""
    store = Store(connection, Settings())
    for some in (ONE, TWO):
        assert await store.record(some, await store.now_ms())
    return Lock(connection, "nfc")


async def _aged(client: "Redis", **fields: int) -> None:
    """Move times of the slot back, as if so many milliseconds had passed."""
    for field, by in fields.items():
        await client.hincrby("nfc:slot", field, -by)


def _told(verdict: Verdict) -> tuple[str, str | None, str | None]:
    return verdict.kind, verdict.believed, verdict.run.run_id if verdict.run else None


async def test_the_first_is_sent_to_look_and_the_rest_wait(connection: Connection) -> None:
    """Of many callers one claims the slot."""
    lock = await _known(connection)
    assert _told(await lock.ask(ONE.run_id)) == ("look", None, None)
    assert _told(await lock.ask(TWO.run_id)) == ("wait", ONE.run_id, None)
    assert _told(await lock.ask()) == ("wait", ONE.run_id, None)


async def test_what_was_seen_is_told_to_all(connection: Connection) -> None:
    """After the look everybody is attached, readers too."""
    lock = await _known(connection)
    verdict = await lock.ask(ONE.run_id)
    assert await lock.settle(verdict, ONE.run_id)
    for wants in (TWO.run_id, ONE.run_id, ""):
        fresh = await lock.ask(wants)
        assert (fresh.kind, fresh.run) == ("fresh", ONE)


async def test_the_slot_may_turn_out_to_be_another_run_s(connection: Connection) -> None:
    """A claim is only a claim: the fence may have known better."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), TWO.run_id)
    assert (await lock.ask()).run == TWO


async def test_nothing_active_is_fresh_for_readers_only(connection: Connection) -> None:
    """Who wants a run never waits for an empty slot to age."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(), None)
    assert _told(await lock.ask()) == ("fresh", None, None)
    assert _told(await lock.ask(ONE.run_id)) == ("look", None, None)


async def test_old_answers_are_looked_at_by_one(client: "Redis", connection: Connection) -> None:
    """After the freshness bound one caller compares with the cluster; the run stays believed meanwhile."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), ONE.run_id)
    await _aged(client, seen=FRESH_MS)
    assert _told(await lock.ask(TWO.run_id)) == ("look", ONE.run_id, None)
    assert _told(await lock.ask()) == ("wait", ONE.run_id, None)


async def test_no_freshness_wanted(connection: Connection) -> None:
    """A caller that needs to know more than the record says is sent to look at once."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), ONE.run_id)
    assert _told(await lock.ask(TWO.run_id, fresh_ms=0)) == ("look", ONE.run_id, None)


async def test_a_looker_that_died_is_replaced_in_time(client: "Redis", connection: Connection) -> None:
    """The turn to look ends by itself; what it claimed is believed, not trusted."""
    lock = await _known(connection)
    dead = await lock.ask(ONE.run_id)
    await _aged(client, look=2_001)
    heir = await lock.ask(TWO.run_id)
    assert _told(heir) == ("look", ONE.run_id, None)
    assert await lock.settle(heir, TWO.run_id)
    assert not await lock.settle(dead, ONE.run_id)
    assert (await lock.ask()).run == TWO


async def test_of_two_lookers_the_first_to_write_wins(client: "Redis", connection: Connection) -> None:
    """What was asked to be checked has changed meanwhile: the other's look is void."""
    lock = await _known(connection)
    slow = await lock.ask()
    await _aged(client, look=2_001)
    quick = await lock.ask()
    assert await lock.settle(quick, ONE.run_id)
    assert not await lock.settle(slow, None)
    assert not await lock.give_up(slow)
    assert (await lock.ask()).run == ONE


async def test_a_look_that_came_to_nothing_is_given_back(connection: Connection) -> None:
    """The next caller looks at once, and a claim that was given up is free."""
    lock = await _known(connection)
    assert await lock.give_up(await lock.ask(ONE.run_id))
    again = await lock.ask(TWO.run_id)
    assert _told(again) == ("look", None, None)
    assert await lock.give_up(again)
    assert _told(await lock.ask()) == ("look", None, None)


async def test_a_missing_record_says_nothing(client: "Redis", connection: Connection) -> None:
    """A slot whose run has no record is looked at again."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), ONE.run_id)
    await client.delete(f"nfc:run:{ONE.run_id}")
    assert _told(await lock.ask(TWO.run_id)) == ("look", ONE.run_id, None)


async def test_an_old_look_is_not_fresh(client: "Redis", connection: Connection) -> None:
    """What was seen counts from before it was looked at, however late it is written."""
    lock = await _known(connection)
    verdict = await lock.ask(ONE.run_id)
    late = Verdict(verdict.kind, verdict.version, verdict.now_ms - FRESH_MS, verdict.believed, verdict.run)
    assert await lock.settle(late, ONE.run_id)
    assert _told(await lock.ask(TWO.run_id)) == ("look", ONE.run_id, None)


async def test_times_ahead_of_the_clock_mean_nothing(client: "Redis", connection: Connection) -> None:
    """After a fail-over to a server whose clock is behind, neither freshness nor a look lasts for ever."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), ONE.run_id)
    await _aged(client, seen=-3_600_000)
    await client.hset("nfc:slot", "look", (await lock.ask(fresh_ms=0)).now_ms + 3_600_000)
    assert _told(await lock.ask(TWO.run_id)) == ("look", ONE.run_id, None)


async def test_a_version_from_before_a_flush_is_void(client: "Redis", connection: Connection) -> None:
    """Whoever looked for a Redis that was lost since cannot write into the new one."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), ONE.run_id)
    before = await lock.ask(fresh_ms=0)
    await client.flushall()
    assert not await lock.settle(before, ONE.run_id)
    after = await lock.ask(TWO.run_id)
    assert after.kind == "look"
    assert not await lock.settle(before, ONE.run_id)
    assert await lock.settle(after, None)


async def test_the_slot_does_not_expire(client: "Redis", connection: Connection) -> None:
    """A lock that times out while its run goes on would admit a second one."""
    lock = await _known(connection)
    verdict = await lock.ask(ONE.run_id)
    assert await client.ttl("nfc:slot") == -1
    assert await lock.settle(verdict, ONE.run_id)
    assert await client.ttl("nfc:slot") == -1


async def test_deployments_are_apart(connection: Connection) -> None:
    """Another prefix is another slot."""
    one, other = Lock(connection, "nfc"), Lock(connection, "nfc2")
    assert (await one.ask(ONE.run_id)).kind == "look"
    assert (await other.ask(TWO.run_id)).kind == "look"


async def test_a_reader_s_look_from_before_a_flush_is_void(client: "Redis", connection: Connection) -> None:
    """The slot that a reader is sent to look for after a flush is another, though nobody has claimed it."""
    lock = await _known(connection)
    before = await lock.ask()
    await client.flushall()
    assert (await lock.ask()).kind == "look"
    assert not await lock.settle(before, ONE.run_id)


async def test_a_version_from_before_a_stale_replica_is_void(client: "Redis", connection: Connection) -> None:
    """After a fail-over to a replica that had missed a change, what that change had made is not made again."""
    lock = await _known(connection)
    assert await lock.settle(await lock.ask(ONE.run_id), None)
    replica = await client.dump("nfc:slot")
    assert replica is not None
    before = await lock.ask(ONE.run_id)
    await client.restore("nfc:slot", 0, replica, replace=True)
    assert (await lock.ask(TWO.run_id)).kind == "look"
    assert not await lock.settle(before, ONE.run_id)


@pytest.mark.parametrize("odd", ["", "x", "nan", "1e400", "1.5", "-1", "9" * 20])
async def test_numbers_that_nobody_of_ours_has_written_hold_nobody_up(
    connection: Connection, client: "Redis", odd: str
) -> None:
    """Whoever is sent to look can write down what it saw, and it is told from then on."""
    lock = await _known(connection)
    await client.hset("nfc:slot", mapping={"version": odd, "run": ONE.run_id, "seen": odd, "look": odd})
    verdict = await lock.ask()
    assert verdict.kind == "look"
    assert await lock.settle(verdict, ONE.run_id)
    assert (await lock.ask()).run == ONE
