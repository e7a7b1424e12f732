"""Pumps bring a log to Redis once, whole and with one end, and leave it to each other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from common.events import ZERO, LineId
from common.pump import Pump
from tests.unit.logs import World, eventually, world
from tests.unit.test_follow import entries, flush, hurry, texts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world."""
    async with world(redis_url) as made:
        yield made


async def test_a_flushed_redis_is_filled_again_while_the_log_is_silent(given: World) -> None:
    """The pump asks now and then; who comes after the flush sees all, who was there sees nothing twice."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(50))
    before = given.follow()
    await before.has(texts(50))
    recorder = given.process()
    task = asyncio.create_task(Pump(recorder.runner, recorder.streams, run_id, 1, who="recorder", lasting=True).run())
    await flush(given)
    deadline = asyncio.get_running_loop().time() + 10
    while len(await entries(given, run_id)) < 50:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    after = given.follow(given.process())
    given.runner.write(run_id, *texts(5, 50))
    given.runner.end(run_id)
    for follower in (before, after):
        await follower.end()
        assert follower.texts == texts(55)
    await asyncio.wait_for(task, 10)


async def test_a_pump_notices_a_flush_though_it_has_nothing_to_append(given: World) -> None:
    """Nobody follows, nobody writes: Redis has the log again all the same."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(20))
    process = given.process()
    task = asyncio.create_task(Pump(process.runner, process.streams, run_id, 1, who="recorder", lasting=True).run())
    for _ in range(2):
        async with asyncio.timeout(10):
            while len(await entries(given, run_id)) < 20:
                await asyncio.sleep(0.01)
        await flush(given)
    given.runner.end(run_id)
    await asyncio.wait_for(task, 10)
    assert len(await entries(given, run_id)) == 21


async def test_two_pumps_write_one_stream_with_one_end(given: World) -> None:
    """Any number of pumps, in step or not, give each line and the end once, under the ids the log gives."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(200))
    processes = [given.process() for _ in range(4)]
    pumps = [Pump(p.runner, p.streams, run_id, 1, who=f"pump-{n}", lasting=True) for n, p in enumerate(processes)]
    tasks = [asyncio.create_task(pump.run()) for pump in pumps]
    given.runner.write(run_id, *texts(100, 200))
    given.runner.end(run_id)
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    lines = given.runner.runs[run_id].lines
    ids = [str(line_id).encode() for line_id in (ZERO, *(line.id for line in lines), lines[-1].id.next())]
    said: list[dict[bytes, bytes]] = [*({b"t": line.text, b"s": b"o"} for line in lines), {b"end": b"1"}]
    begins = [sum(64 + len(line.text) for line in lines[:count]) for count in range(len(said))]
    assert await entries(given, run_id) == [
        (own, {b"p": before, b"b": b"%d" % begin, **fields})
        for before, own, begin, fields in zip(ids, ids[1:], begins, said, strict=False)
    ]


async def test_a_pump_that_comes_late_to_the_end_adds_none(given: World) -> None:
    """Another's end is no line to put an end behind."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    given.runner.end(run_id)
    process = given.process()
    late = Pump(process.runner, process.streams, run_id, 1, who="late", lasting=True)
    await Pump(process.runner, process.streams, run_id, 1, who="first", lasting=True).run()
    found = await entries(given, run_id)
    assert await late._end(LineId.parse(found[-1][0].decode()))  # as if it had taken the end for another pump's line
    assert await entries(given, run_id) == found


async def test_no_end_is_written_for_a_log_that_is_not_there(given: World) -> None:
    """A Job that is gone, or has not ended, gives no end."""
    process = given.process()
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(2))
    pump_ = Pump(process.runner, process.streams, run_id, 1, who="p", lasting=True)
    assert not await pump_._end(ZERO)
    given.runner.lose(run_id)
    assert await pump_._pass()
    assert await entries(given, run_id) == []


async def test_no_end_is_written_for_an_attempt_whose_log_went_with_its_pod(given: World) -> None:
    """With Redis flushed nobody has anything of it: who reads it is told of a loss, not of an empty log."""
    process = given.process()
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(2))
    given.runner.restart(run_id)
    given.runner.forget(run_id, 1)
    await Pump(process.runner, process.streams, run_id, 1, who="p", lasting=True).run()
    assert await entries(given, run_id, 1) == []


async def test_no_end_is_written_for_a_log_that_was_empty_when_it_was_last_seen(given: World) -> None:
    """What it wrote before it went nobody has read."""
    process = given.process()
    run_id = given.runner.start()
    pump_ = Pump(process.runner, process.streams, run_id, 1, who="p", lasting=True)
    task = asyncio.create_task(pump_.run())
    await eventually(lambda: pump_.caught_up)
    given.runner.forget(run_id, 1)
    given.runner.restart(run_id)
    await asyncio.wait_for(task, 10)
    assert await entries(given, run_id, 1) == []


async def test_a_dead_recorder_is_replaced_and_given_way_to(given: World) -> None:
    """A feed takes over the log when nobody relays it, and stops when the recorder is back."""
    run_id = given.runner.start()
    process = given.process()

    def recorder() -> asyncio.Task[None]:
        return asyncio.create_task(Pump(process.runner, process.streams, run_id, 1, who="recorder", lasting=True).run())

    async def relayed_by() -> bytes | None:
        async with process.connection.use() as client:
            said: Any = await client.xrevrange(f"nfc:log:{run_id}:pump", count=1)
            return cast("bytes", said[0][1][1]) if said else None

    task = recorder()
    given.runner.write(run_id, b"by the recorder")
    follower = given.follow()
    await follower.has([b"by the recorder"])
    assert await relayed_by() == b"recorder"
    assert given.runner.reading == 1
    task.cancel()
    given.runner.write(run_id, b"by the feed")
    await follower.has([b"by the recorder", b"by the feed"])
    assert str(await relayed_by()).startswith("b'stream-")
    task = recorder()
    await eventually(lambda: given.runner.reading == 2)
    await eventually(lambda: given.runner.reading == 1)
    assert await relayed_by() == b"recorder"
    given.runner.write(run_id, b"by the recorder again")
    await follower.has([b"by the recorder", b"by the feed", b"by the recorder again"])
    given.runner.end(run_id)
    await asyncio.wait_for(task, 10)
