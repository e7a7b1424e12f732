"""Followers see every line once and in order, whatever happens to Redis, pumps, processes and themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from common import feed, follow, look, pages, pump, reader
from common.errors import Unavailable
from common.events import ZERO, Cursor, LineId, Place
from common.frames import Farewell, Lines
from common.lock import Lock
from common.models import ProcessProgress, Progress
from tests.unit import samples
from tests.unit.logs import World, asks, eventually, world

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is only patience is short."""
    for module, names in (
        (feed, ("_WATCH_SECONDS",)),
        (pages, ("_QUIET_SECONDS",)),
        (reader, ("_RETRY_SECONDS", "_BLOCK_SECONDS")),
        (pump, ("_RETRY_SECONDS", "_CLAIM_SECONDS")),
        (follow, ("_UNREADABLE_SECONDS", "_NEXT_SECONDS")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, 0.03)
    monkeypatch.setattr("common.connection._HOLD_OFF_SECONDS", 0.02)
    monkeypatch.setattr("common.streams._PUMP_SECONDS", 1)
    monkeypatch.setitem(Lock.ask.__kwdefaults__, "fresh_ms", 20)  # type: ignore[arg-type] # it has some


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world."""
    async with world(redis_url) as made:
        yield made


def texts(count: int, start: int = 0) -> list[bytes]:
    """Lines that differ."""
    return [b"line %d" % number for number in range(start, start + count)]


async def flush(given: World) -> None:
    async with given.processes[0].connection.use() as client:
        await client.flushall()


async def entries(given: World, run_id: str, attempt: int = 1) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The run's stream as Redis has it."""
    while True:
        with suppress(Unavailable):  # it may just have come back
            async with given.processes[0].connection.use() as client:
                raw: Any = await client.xrange(f"nfc:log:{run_id}:{attempt}")
                return [(own, dict(zip(said[::2], said[1::2], strict=True))) for own, said in raw]
        await asyncio.sleep(0.01)


async def test_a_run_is_followed_from_its_first_line_to_its_end(given: World) -> None:
    """Snapshot, lines as they come, status, and `complete` behind the last of them."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    follower = given.follow()
    await follower.has(texts(3))
    given.runner.write(run_id, b"last!")
    given.runner.end(run_id)
    await follower.end()
    assert follower.texts == [*texts(3), b"last!"]
    assert [line.stream for line in follower.lines] == ["stdout"] * 3 + ["stderr"]
    assert [event["type"] for event in follower.events] == ["status", "status", "complete"]
    assert follower.kinds[-1] == "complete"
    assert follower.events[0]["id"] == f"{run_id}.1.0-0"
    last = follower.events[-1]
    assert (last["id"], last["data"]["status"], last["data"]["exit_code"]) == (f"{run_id}.1.end", "succeeded", 0)


async def test_history_goes_over_into_what_is_new_without_hole_or_duplicate(
    given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers that begin at the beginning, in the middle and anywhere else, while lines come and the window moves."""
    monkeypatch.setattr(reader, "_WINDOW_LINES", 40)
    monkeypatch.setattr(reader, "PAGE_LINES", 9)
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(300))
    first = given.follow()
    await first.has(texts(300))
    followers = [first]
    for step in range(300, 600, 20):
        given.runner.write(run_id, *texts(20, step))
        cursor = Cursor(run_id, 1, given.runner.runs[run_id].lines[step // 2].id)
        followers += [given.follow(), given.follow(after=cursor)]
        await asyncio.sleep(0)
    given.runner.end(run_id)
    everything = texts(600)
    for follower in followers:
        await follower.end()
        assert follower.texts == everything[-len(follower.texts) :]
        assert follower.kinds[-1] == "complete"
    assert [len(follower.texts) for follower in followers[1::2]] == [600] * 15
    assert [len(follower.texts) for follower in followers[2::2]] == [599 - step // 2 for step in range(300, 600, 20)]


async def test_a_finished_run_that_redis_has_lost_is_told_whole(given: World) -> None:
    """Its log is where it ran; `follow=false` and `tail` wait until Redis has it again."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(30))
    given.runner.end(run_id)
    for query, expected in (({}, texts(30)), ({"follow": False}, texts(30)), ({"tail": 4}, texts(4, 26))):
        follower = given.follow(**query)
        await follower.end()
        assert follower.texts == expected, query
        assert follower.kinds[-1] == "complete"
        await flush(given)


async def test_what_nobody_holds_is_told_and_ends_the_stream(given: World) -> None:
    """With Redis and the Job gone, followers are told of the loss; those who had it all so far go on from there."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(20))
    follower = given.follow()
    await follower.has(texts(20))
    await flush(given)
    given.runner.lose(run_id)
    await follower.end()
    assert follower.texts == texts(20)
    assert follower.kinds == ["status", "log", "status", "gap", "error"]
    assert "Job is gone" in follower.events[-2]["data"]["reason"]
    assert follower.events[-1]["id"] == f"{run_id}.1.end"


async def test_who_knows_more_than_anybody_else_is_told_so(given: World) -> None:
    """Redis and the recorder are gone, and what is left ends before its place: what came behind that is lost."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    given.runner.end(run_id)
    beyond = Cursor(run_id, 1, LineId(given.runner.runs[run_id].lines[-1].id.ms + 1, 0))
    for logs in (frozenset({"log"}), frozenset({"status"})):
        follower = given.follow(after=beyond, types=logs)
        await follower.end()
        assert follower.kinds == ["status", "gap", "complete"]
        assert follower.events[1]["id"] == str(beyond)
    last = given.follow(after=beyond._replace(line=given.runner.runs[run_id].lines[-1].id))
    await last.end()
    assert last.kinds == ["status", "complete"]


async def test_a_hole_that_nobody_can_fill_is_a_gap(given: World) -> None:
    """Lines before the window that neither Redis nor the run holds are named by the ids around them."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(20))
    first = given.follow()
    await first.has(texts(20))
    window = given.follow(given.process())  # its window begins behind the twentieth
    await window.has(texts(20))
    given.runner.write(run_id, *texts(5, 20))
    await window.has(texts(25))
    await flush(given)
    lines = given.runner.runs[run_id].lines
    given.runner.lose(run_id)
    late = given.followers(given.processes[1])
    opened = late._feeds._feeds[run_id]
    opened._pages._pages.clear()
    [page], place = await opened.after(Place(1, lines[4].id), few=False)
    [gap] = page.events()
    assert (gap["type"], gap["id"]) == ("gap", str(Cursor(run_id, 1, lines[19].id)))
    assert gap["data"]["after"] == str(lines[4].id)
    rest = opened.next(place)
    assert rest is not None
    assert [event["data"]["line"].encode() for event in rest.events()] == texts(5, 20)


async def test_a_cursor_is_not_applied_to_another_run(given: World) -> None:
    """It is said that it does not fit, and the run is told from its beginning."""
    old, new = given.runner.start(1), given.runner.start(2)
    given.runner.write(old, *texts(10))
    given.runner.write(new, *texts(10))
    given.runner.end(new)
    follower = given.follow(run_id=new, after=Cursor(old, 1, given.runner.runs[old].lines[4].id))
    await follower.end()
    assert follower.texts == texts(10)
    assert follower.kinds[:3] == ["status", "gap", "log"]
    other = given.follow(after=Cursor(new, 2, given.runner.runs[new].lines[4].id))
    await other.end()
    assert other.texts == texts(10)
    assert other.kinds[:3] == ["status", "gap", "log"]
    gone = given.follow(after=Cursor(samples.run_id(9), 1, ZERO))
    await gone.end()
    assert (gone.texts, gone.kinds[:2], gone.place) == (texts(10), ["status", "gap"], Cursor(new, 1, None))


async def test_a_cursors_run_is_finished_first(given: World) -> None:
    """Who asked for the latest run and comes back when there is a newer one first gets the rest of theirs."""
    old = given.runner.start(1)
    given.runner.write(old, *texts(10))
    given.runner.end(old)
    given.runner.start(2)
    follower = given.follow(after=Cursor(old, 1, given.runner.runs[old].lines[4].id))
    await follower.end()
    assert (follower.texts, follower.place) == (texts(5, 5), Cursor(old, 1, None))


async def test_an_end_cursor_has_nothing_more(given: World) -> None:
    """Nothing is sent, so that HTTP can say 204."""
    run_id = given.runner.start()
    given.runner.end(run_id)
    follower = given.follow(after=Cursor(run_id, 1, None))
    await follower.end()
    assert follower.frames == []


async def test_a_star_goes_on_with_each_next_run(given: World) -> None:
    """None is left out, however short, and nothing of the query but the types is applied to those that follow."""
    first = given.runner.start(1)
    given.runner.write(first, *texts(9))
    cursor = Cursor(first, 1, given.runner.runs[first].lines[2].id)
    follower = given.follow(run_id="*", after=cursor, tail=1)
    await follower.has(texts(6, 3))
    given.runner.end(first)
    for number in (2, 3, 4):  # over before anybody looks
        run_id = given.runner.start(number)
        given.runner.write(run_id, *(b"%d %d" % (number, line) for line in range(3)))
        given.runner.end(run_id)
    await follower.until(lambda self: self.kinds.count("complete") == 4)
    expected = texts(6, 3) + [b"%d %d" % (number, line) for number in (2, 3, 4) for line in range(3)]
    assert follower.texts == expected
    assert "gap" not in follower.kinds
    given.processes[0].shutdown.begin()
    await follower.end()
    assert follower.place == Cursor(samples.run_id(4), 1, None)
    again = given.follow(given.process(), run_id="*", after=follower.place)
    fifth = given.runner.start(5)
    given.runner.write(fifth, b"5")
    await again.has([b"5"])


async def test_a_star_that_cannot_be_told_a_run_is_let_go(given: World) -> None:
    """It comes back for the run, which it would miss if it were to wait for the next one."""
    run_id = given.runner.start()
    given.runner.away = True
    async with asyncio.timeout(10):
        frames = [frame async for frame in given.followers().follow(asks(run_id="*"), run_id)]
    assert [event["type"] for frame in frames for event in frame.events()] == ["error"]


async def test_tail_begins_before_the_newest(given: World) -> None:
    """So many lines, or all where there are fewer; none with 0; the end is no line."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(1500))
    given.runner.batch = 100
    for tail in (0, 10, 1200, 2000):
        follower = given.follow(tail=tail, follow=False)
        await follower.end()
        assert follower.texts == texts(1500)[1500 - min(tail, 1500) :], tail
    given.runner.end(run_id)
    for tail in (0, 1100):
        follower = given.follow(tail=tail)
        await follower.end()
        assert follower.texts == texts(1500)[1500 - tail :], tail


async def test_only_the_types_that_are_wanted(given: World) -> None:
    """Whoever wants states alone gets no line, and a place that moves on with the log all the same."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    states = given.follow(types=frozenset({"status"}))
    lines = given.follow(types=frozenset({"log"}))
    await lines.has(texts(5))
    given.runner.runs[run_id].progress = Progress(total=ProcessProgress(submitted=1))
    given.runner.end(run_id)
    for follower in (states, lines):
        await follower.end()
    assert states.kinds == ["status", "status", "complete"]
    assert lines.kinds == ["status", "log", "complete"]
    assert states.events[1]["id"] == str(Cursor(run_id, 1, given.runner.runs[run_id].lines[-1].id))


async def test_progress_is_told_as_it_changes(given: World) -> None:
    """Only its latest value, with the final one in `complete`."""
    run_id = given.runner.start()
    follower = given.follow()
    await follower.until(lambda self: self.kinds == ["status"])
    for submitted in (1, 2):
        given.runner.runs[run_id].progress = Progress(total=ProcessProgress(submitted=submitted))
        await follower.until(lambda self: "progress" in self.kinds)
        await follower.until(lambda self, n=submitted: self.events[-1]["data"]["total"]["submitted"] == n)  # type: ignore[misc]
    given.runner.end(run_id)
    await follower.end()
    assert follower.kinds == ["status", "progress", "progress", "status", "complete"]
    assert follower.events[-1]["data"]["progress"]["total"]["submitted"] == 2


async def test_shutdown_tells_everybody_where_to_go_on(given: World) -> None:
    """Silent followers and those who wait for a next run are woken; nothing of theirs is left at work."""
    run_id = given.runner.start(1)
    given.runner.write(run_id, *texts(3))
    followers = [given.follow(), given.follow(run_id="*"), given.follow(types=frozenset({"status"}))]
    await followers[0].has(texts(3))
    await followers[1].has(texts(3))
    await followers[2].until(lambda self: bool(self.frames))
    given.processes[0].shutdown.begin()
    last = Cursor(run_id, 1, given.runner.runs[run_id].lines[-1].id)
    for follower in followers:
        await follower.end()
        assert isinstance(follower.frames[-1], Farewell)
        assert follower.place == last
    given.runner.write(run_id, *texts(2, 3))
    again = given.follow(given.process(), after=last)
    await again.has(texts(2, 3))


async def test_silence_is_broken(given: World) -> None:
    """A heartbeat comes after so long without a frame, however much goes on that this follower does not want."""
    run_id = given.runner.start()
    follower = given.follow(given.process(heartbeat_seconds=0.2), types=frozenset({"status"}))
    count = 0
    while follower.kinds.count("idle") < 2:
        given.runner.write(run_id, b"%d" % count)
        count += 1
        assert count < 2000
        await asyncio.sleep(0.01)
    assert follower.kinds == ["status", "idle", "idle"]


async def test_a_slow_follower_falls_out_of_the_window_and_misses_nothing(
    given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs no memory, holds nobody up, and is fed by id."""
    monkeypatch.setattr(reader, "_WINDOW_LINES", 50)
    run_id = given.runner.start()
    fast = given.follow()
    slow = given.followers().follow(asks(), run_id)
    await anext(slow)
    given.runner.write(run_id, *texts(20))
    found = [await anext(slow)]
    given.runner.write(run_id, *texts(480, 20))
    await fast.has(texts(500))
    opened = given.followers()._feeds._feeds[run_id]
    assert sum(len(batch.lines) for batch in opened._reader.window.batches) <= 50
    given.runner.end(run_id)
    found += [frame async for frame in slow]
    assert [line.text for frame in found if isinstance(frame, Lines) for line in frame.lines] == texts(500)


async def test_a_feed_lives_as_long_as_its_followers(given: World) -> None:
    """One reader for all; with the last of them it is gone, with all it had at work."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    followers = [given.follow() for _ in range(20)]
    for follower in followers:
        await follower.has(texts(5))
    feeds = given.followers()._feeds._feeds
    assert len(feeds) == 1
    assert given.runner.reading == 1
    for follower in followers:
        await follower.leave()
    assert feeds == {}
    await eventually(lambda: given.tasks() == set(), given.tasks)
    assert given.runner.reading == 0


async def test_every_event_is_encoded_once_for_all(given: World) -> None:
    """A hundred followers, from the beginning and at the end, cost one encoding of each line and each notice."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(1200))
    given.runner.batch = 100
    await given.follow(given.process()).has(texts(1200))  # so that for the others this is the past
    others = given.process()
    followers = [given.follow(others) for _ in range(100)]
    for follower in followers:
        await follower.has(texts(1200))
    given.runner.write(run_id, *texts(50, 1200))
    for follower in followers:
        await follower.has(texts(1250))
    given.runner.end(run_id)
    for follower in followers:
        await follower.end()
    frames = {frame for follower in followers for frame in follower.frames}
    assert sum(len(frame.lines) for frame in frames if isinstance(frame, Lines)) == 1250
    shared = [frame for frame in frames if sum(frame in follower.frames for follower in followers) == 100]
    assert len(frames) == len(shared) + 100  # all but each one's snapshot
    encoded: list[object] = []

    def encode(frame: object) -> bytes:
        encoded.append(frame)
        return b""

    for follower in followers:
        for frame in follower.frames:
            frame.encoded(encode)
    assert len(encoded) == len(frames)


async def test_watching_does_not_spin(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status that differs at every look is looked at no more often."""
    monkeypatch.setattr(feed, "_WATCH_SECONDS", 5.0)
    run_id = given.runner.start()
    looks = 0
    real = look.status

    async def status(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        found = await real(*args)
        return found.model_copy(update={"message": str(looks)})

    monkeypatch.setattr(look, "status", status)
    follower = given.follow()
    given.runner.write(run_id, *texts(100))
    await follower.has(texts(100))
    assert looks == 2  # one to open the feed, one to begin the watch


async def test_long_lines_pass(given: World) -> None:
    """Lines of more than a mebibyte, and of nothing, arrive as they were written."""
    run_id = given.runner.start()
    long = [b"x" * (3 << 20), b"", b"\x00\xff\r", b"y" * (1 << 20), *texts(3)]
    given.runner.write(run_id, *long)
    given.runner.end(run_id)
    follower = given.follow()
    await follower.end()
    assert follower.texts == long


async def test_a_clock_that_steps_back_keeps_order_and_times(given: World) -> None:
    """Forced ids go on above; each line keeps its own time; ties do not collide."""
    run_id = given.runner.start()
    for at_ns in (2_000_000_000_000, 1_000_000_000_000, 1_000_000_000_000, 3_000_000_000_000):
        given.runner.write(run_id, b"a", b"b", at_ns=at_ns)
    given.runner.end(run_id)
    first = given.follow()
    await first.end()
    assert first.lines == given.runner.runs[run_id].lines
    again = given.follow(given.process(), after=Cursor(run_id, 1, first.lines[3].id))
    await again.end()
    assert again.lines == first.lines[4:]


async def test_damage_in_a_stream_does_not_reach_a_follower(given: World) -> None:
    """An entry that no log could have made is not served: the same lines come from where the run happens."""
    run_id = given.runner.start()
    given.process()
    async with given.processes[0].connection.use() as client:
        await client.xadd(f"nfc:log:{run_id}:1", {"p": "0-0", "t": "forged"}, id="99999999999999999-1")
    given.runner.write(run_id, *texts(5))
    follower = given.follow()
    await follower.has(texts(5))
    given.runner.end(run_id)
    await follower.end()
    assert follower.texts == texts(5)


async def test_an_end_behind_which_a_follower_is_already_is_told(given: World) -> None:
    """Redis was emptied, and filled again from a file that was begun anew: all there is of it is the end."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    follower = given.follow()
    await follower.has(texts(3))
    log = given.runner.runs[run_id].logs[-1]
    log.raw.clear()
    log.lines.clear()
    await flush(given)
    given.runner.end(run_id)
    await follower.end()
    assert (follower.texts, follower.kinds[-2:]) == (texts(3), ["gap", "complete"])


async def test_what_is_over_is_told_to_its_end(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without following, and where somebody has said that he relays the log, and has died before he did."""
    monkeypatch.setattr("common.streams._PUMP_SECONDS", 1)
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    given.runner.end(run_id)
    await given.process().streams.pumping(run_id, 1, "another", insist=True)
    follower = given.follow(run_id=run_id, follow=False)
    await follower.end()
    assert (follower.texts, follower.kinds) == (texts(3), ["status", "log", "complete"])
