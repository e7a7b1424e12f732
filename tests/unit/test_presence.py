"""Who follows a run, and what has become of its log, is told over all processes, by Redis' own clock."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from common import look, presence
from common.events import GAP, LineId
from common.lock import Lock
from common.metrics import LAG_SECONDS
from common.models import FollowerCounts, ProcessProgress, Progress, Relay, RunOverview, Streaming
from common.pump import Pump
from common.streams import Streams
from tests.unit.logs import World, eventually, platform
from tests.unit.serving import NDJSON, OPEN, SSE, given, serve
from tests.unit.test_follow import hurry, texts

__all__ = ["given", "hurry"]  # fixtures

pytestmark = pytest.mark.slow

NOBODY = Streaming(followers=FollowerCounts(), tailers=0, relay=None)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes say who follows as soon as it changes, and not before."""
    monkeypatch.setattr(presence, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(presence, "_REFRESH_SECONDS", 60)


async def streaming(given: World, run_id: str) -> Streaming:
    """What status tells."""
    found = (await look.overview(given.processes[0], run_id)).streaming
    assert found is not None
    return found


async def until(given: World, run_id: str, expected: dict[str, int], tailers: int) -> None:
    """Wait until so many follow."""
    async with asyncio.timeout(10):
        while (told := await streaming(given, run_id)).followers != FollowerCounts(**expected):
            await asyncio.sleep(0)
    assert told.tailers == tailers


async def field(given: World, run_id: str, who: str, said: str) -> None:
    """Write into Redis what a process would have said."""
    async with given.processes[0].connection.use() as client:
        await client.hset(f"nfc:followers:{run_id}", who, said)


async def now_ms(given: World) -> int:
    """Redis' own time."""
    return await given.processes[0].store.now_ms()


async def test_followers_are_summed_over_processes_and_transports(given: World) -> None:
    """Each process reads the log once, however many it has; who goes is not counted any more."""
    run_id = given.runner.start()
    other = given.process()
    here = [given.follow(transport=transport) for transport in ("sse", "sse", "text")]
    there = [given.follow(other, transport=transport) for transport in ("websocket", "sse")]
    await until(given, run_id, {"sse": 3, "text": 1, "websocket": 1}, tailers=2)
    for follower in (*there, here[0]):
        await follower.leave()
    await until(given, run_id, {"sse": 1, "text": 1}, tailers=1)
    await given.leave()
    await until(given, run_id, {}, tailers=0)


async def test_every_transport_is_told_by_its_name(given: World) -> None:
    """As it was asked for by HTTP, or as a WebSocket."""
    run_id = given.runner.start()
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve(given.processes[0]))
        for headers in (SSE, NDJSON, {"accept": "text/plain"}):
            await stack.enter_async_context(served.http.stream("GET", "/stream", headers=headers))
        await stack.enter_async_context(served.socket())
        await until(given, run_id, {"sse": 1, "ndjson": 1, "text": 1, "websocket": 1}, tailers=1)


@pytest.mark.parametrize("seconds", [-16, 3600])
async def test_a_process_that_has_died_is_forgotten(given: World, seconds: int) -> None:
    """What it said holds for some seconds of Redis' clock; a time that lies ahead is of another server's."""
    run_id = given.runner.start()
    await field(given, run_id, "lives", f'{await now_ms(given)} {{"sse": 1}}')
    await field(given, run_id, "dead", f'{await now_ms(given) + 1000 * seconds} {{"sse": 5}}')
    assert (await streaming(given, run_id)).followers == FollowerCounts(sse=1)
    follower = given.follow()
    await until(given, run_id, {"sse": 2}, tailers=2)
    async with given.processes[0].connection.use() as client:
        assert b"dead" not in await client.hgetall(f"nfc:followers:{run_id}")
        assert 0 < await client.ttl(f"nfc:followers:{run_id}") <= 15
    await follower.leave()


async def test_what_is_said_is_said_again(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, though nothing changes: a Redis that was emptied knows it again."""
    monkeypatch.setattr(presence, "_REFRESH_SECONDS", 0.03)
    run_id = given.runner.start()
    given.follow()
    await until(given, run_id, {"sse": 1}, tailers=1)
    async with given.processes[0].connection.use() as client:
        await client.flushall()
    await until(given, run_id, {"sse": 1}, tailers=1)


async def test_a_crowd_is_one_word(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes within a moment is told with all others; not a write for each."""
    monkeypatch.setattr(presence, "_PAUSE_SECONDS", 0.3)
    said: list[int] = []
    original = Streams.say_followers

    async def say(self: Streams, run_id: str, who: str, followers: FollowerCounts | None) -> None:
        said.append(followers.sse if followers else 0)
        await original(self, run_id, who, followers)

    monkeypatch.setattr(Streams, "say_followers", say)
    run_id = given.runner.start()
    crowd = [given.follow() for _ in range(200)]
    await until(given, run_id, {"sse": 200}, tailers=1)
    assert len(said) <= 3
    for follower in crowd:
        await follower.leave()
    assert said[-1] == 0
    assert len(said) <= 6


async def test_redis_away_is_not_nobody(given: World) -> None:
    """Nothing is known of followers then."""
    run_id = given.runner.start()
    away = platform("unix:///nonexistent/redis", given.runner, **OPEN)
    found = await look.overview(away, run_id)
    assert found.streaming is None
    assert await streaming(given, run_id) == NOBODY
    await away.close()


async def test_to_tell_it_asks_nobody_but_redis(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record is fresh, and progress is there."""
    monkeypatch.setitem(Lock.ask.__kwdefaults__, "fresh_ms", 10_000)  # type: ignore[arg-type] # it has some
    run_id = given.runner.start()
    parts = given.processes[0]
    progress = Progress(total=ProcessProgress(running=1))
    await parts.streams.write_progress(run_id, progress)
    run = await look.run(parts)
    calls: list[str] = []
    for name in ("job", "jobs", "lease", "progress"):
        monkeypatch.setattr(given.runner, name, lambda *args, name=name: calls.append(name))
    assert await look.overview(parts) == RunOverview(**dict(run), progress=progress, streaming=NOBODY)
    assert calls == []


RELAYS: list[Any] = [
    b"",
    b"[]",
    b"\xff",
    json.dumps({"seen": -1}),
    json.dumps({"seen": 2**60}),
    json.dumps({"seen": "many"}),
    json.dumps({"lag_seconds": -1}),
    b'{"lag_seconds": Infinity}',
    b'{"lag_seconds": NaN}',
    json.dumps({"more": 1}),
    json.dumps({"seen": 1}) + " " * 2000,
]


@pytest.mark.parametrize("said", RELAYS)
async def test_a_report_that_is_none_is_not_told(given: World, said: Any) -> None:
    """Recorders stand beside pipelines: what they say is bounded, and taken for no more than numbers."""
    run_id = given.runner.start()
    streams = given.processes[0].streams
    await streams.write_relay(run_id, Relay(seen=3, lag_seconds=0.5))
    assert (await streaming(given, run_id)).relay == await streams.relay(run_id) == Relay(seen=3, lag_seconds=0.5)
    async with given.processes[0].connection.use() as client:
        await client.xadd(f"nfc:log:{run_id}:relay", {"r": said})
    assert (await streaming(given, run_id)).relay is None
    assert await streams.relay(run_id) is None


async def test_a_key_of_another_kind_hides_nothing_else(given: World) -> None:
    """As a recorder could not even make one: the followers are told all the same."""
    run_id = given.runner.start()
    await field(given, run_id, "a", f'{await now_ms(given)} {{"text": 2}}')
    async with given.processes[0].connection.use() as client:
        for part in ("relay", "progress"):
            await client.set(f"nfc:log:{run_id}:{part}", "x")
    assert await streaming(given, run_id) == Streaming(followers=FollowerCounts(text=2), tailers=1, relay=None)


def relays(given: World, run_id: str, who: str, *, lasting: bool = True) -> Pump:
    """One who relays the log."""
    parts = given.processes[0]
    return Pump(given.runner, parts.streams, run_id, len(given.runner.runs[run_id].logs), who=who, lasting=lasting)


async def test_what_becomes_of_lines_is_counted(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen, relayed, known already, and where some are gone; and how old the newest was when Redis had it."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(20))
    given.runner.skip(run_id, b"It is gone.")
    given.runner.write(run_id, b"last")
    given.runner.end(run_id)
    newest = given.runner.runs[run_id].lines[-1].at_ns / 1e9
    monkeypatch.setattr("common.pump.time.time", lambda: newest + 1.25)
    await relays(given, run_id, "recorder").run()
    assert (await streaming(given, run_id)).relay == Relay(seen=22, relayed=21, gaps=1, lag_seconds=1.25)
    assert [line.stream for line in given.runner.runs[run_id].lines].count(GAP) == 1


async def test_counts_are_told_while_the_run_goes_on(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second, and only where they are news."""
    monkeypatch.setattr("common.pump._CLAIM_SECONDS", 0.0)
    told: list[Relay | None] = []
    pumping = Streams.pumping

    async def listening(self: Streams, *args: Any, relay: Relay | None, **options: Any) -> tuple[LineId, bool] | None:
        told.append(relay)
        return await pumping(self, *args, relay=relay, **options)

    monkeypatch.setattr(Streams, "pumping", listening)
    run_id = given.runner.start()
    relaying = asyncio.create_task(relays(given, run_id, "recorder").run())
    async with asyncio.timeout(10):
        for count in (3, 8):
            given.runner.write(run_id, *texts(count - len(given.runner.runs[run_id].lines)))
            while (relay := (await streaming(given, run_id)).relay) is None or relay.relayed < count:
                await asyncio.sleep(0)
            while told[-1] is not None:
                await asyncio.sleep(0)
        news = [relay.model_dump_json() for relay in told if relay is not None]
        assert len(set(news)) == len(news)
        given.runner.end(run_id)
        await relaying


async def test_who_relays_beside_others_counts_what_they_had(given: World) -> None:
    """Each line is relayed once, and refused wherever else it was seen."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(200))
    given.runner.end(run_id)
    pumps = [relays(given, run_id, f"pump-{number}") for number in range(4)]
    for one in pumps:
        await one._take_over()  # before any has told what the others would go on from
    await asyncio.gather(*(one.run() for one in pumps))
    assert sum(one._counts["relayed"] for one in pumps) == 200
    assert sum(one._counts["duplicates"] for one in pumps) > 0
    assert all(one._counts["seen"] == one._counts["relayed"] + one._counts["duplicates"] for one in pumps)


async def test_counts_go_on_with_whoever_relays_next(given: World) -> None:
    """Another attempt's recorder, or a stream function that takes over: which knows nothing of the node's clock."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    given.runner.restart(run_id)
    first = Pump(given.runner, given.processes[0].streams, run_id, 1, who="recorder", lasting=True)
    await first.run()
    told = (await streaming(given, run_id)).relay
    assert told is not None
    assert (told.seen, told.relayed, told.lag_seconds) == (5, 5, 0.0)  # its lines are of the future here
    given.runner.write(run_id, *texts(3, 5))
    given.runner.end(run_id)
    async with given.processes[0].connection.use() as client:
        await client.delete(f"nfc:log:{run_id}:pump")  # as if some seconds had passed
    await relays(given, run_id, "stream", lasting=False).run()
    assert (await streaming(given, run_id)).relay == Relay(seen=8, relayed=8)


async def test_a_made_up_count_ends_no_relay(given: World) -> None:
    """As much as can be said, and one more: the log goes on, and what is said then is none."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(1))
    given.runner.end(run_id)
    await given.processes[0].streams.write_relay(run_id, Relay(seen=2**53))
    await relays(given, run_id, "recorder").run()
    assert (await given.processes[0].streams.top(run_id, 1))[1]
    assert (await streaming(given, run_id)).relay is None


async def test_the_lag_of_a_followed_run_is_a_metric(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its recorder reports it, whenever that is new: what was there before may be of long ago."""
    monkeypatch.setattr(presence, "_REFRESH_SECONDS", 0.01)

    def observed() -> tuple[float, float]:
        samples = {sample.name: sample.value for metric in LAG_SECONDS.collect() for sample in metric.samples}
        return samples["nfc_log_lag_seconds_count"], samples["nfc_log_lag_seconds_sum"]

    count, total = observed()
    run_id = given.runner.start()
    streams = given.processes[0].streams
    monkeypatch.setattr("common.streams._PUMP_SECONDS", 60)
    await streams.pumping(run_id, 1, "recorder", insist=True)
    await streams.write_relay(run_id, Relay(seen=1, lag_seconds=100))
    follower = given.follow()
    await until(given, run_id, {"sse": 1}, tailers=1)
    feed = given.followers()._feeds._feeds[run_id]
    await eventually(lambda: feed.presence._relay)
    await streams.write_relay(run_id, Relay(seen=2, lag_seconds=0.5))
    await eventually(lambda: observed()[0] > count)
    await follower.leave()
    assert observed() == (count + 1, total + 0.5)
