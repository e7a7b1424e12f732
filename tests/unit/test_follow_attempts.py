"""A run whose head was taken from its node: its log goes on in the next attempt, and the boundary is told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from common import feed, look
from common.events import ZERO, Cursor, Line
from common.frames import Frame, Lines, Notice
from common.pump import Pump
from tests.unit import samples
from tests.unit.logs import Follower, World, eventually, world
from tests.unit.test_follow import flush, hurry, texts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process()
        yield made


def restarts(*followers: Follower) -> list[int]:
    """The attempts that followers have been told of."""
    told = (event for follower in followers for event in follower.events)
    return [event["data"]["attempt"] for event in told if event["type"] == "restarted"]


def three_attempts(given: World) -> str:
    """A run of three attempts that has ended; the second has written nothing, the third one ends in a gap."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(12))
    given.runner.restart(run_id)
    given.runner.restart(run_id)
    given.runner.write(run_id, *texts(5, 12))
    given.runner.skip(run_id, b"It is gone.")
    given.runner.write(run_id, *texts(3, 17))
    given.runner.end(run_id)
    return run_id


async def keep(given: World, run_id: str, attempt: int, *, most: int | None = None, end: bool = True) -> None:
    """Have Redis hold an attempt's log, or its first lines, as a recorder would leave it."""
    lines: Sequence[Line] = given.runner.runs[run_id].logs[attempt - 1].lines[:most]
    done, _ = await given.processes[0].streams.append(run_id, attempt, ZERO, lines, end=end)
    assert done


def spelled(frames: Sequence[Frame]) -> list[tuple[str, str]]:
    """The ids and types of what is replayed, and of the end."""
    events = [event for frame in frames for event in frame.events()]
    return [(event["id"], event["type"]) for event in events if event["type"] not in ("status", "progress")]


async def test_an_attempt_follows_the_other_while_they_run(given: World) -> None:
    """All lines in order though the second node's clock is behind, the boundary between them, and one end."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    follower = given.follow()
    await follower.has(texts(3))
    given.runner.write(run_id, *texts(2, 3))  # which nobody may have read when the next attempt begins
    given.runner.restart(run_id)
    await follower.until(lambda self: "restarted" in self.kinds)  # before it has said anything
    assert follower.texts == texts(5)
    given.runner.write(run_id, *texts(4, 5))
    await follower.has(texts(9))
    given.runner.end(run_id)
    await follower.end()
    assert follower.texts == texts(9)
    assert [kind for kind in follower.kinds if kind != "status"] == ["log", "restarted", "log", "complete"]
    [boundary] = [event for event in follower.events if event["type"] == "restarted"]
    assert (boundary["id"], boundary["data"]) == (f"{run_id}.2.0-0", {"attempt": 2, "reason": feed._RESTARTED})
    assert (follower.place, follower.events[-1]["data"]["attempt"]) == (Cursor(run_id, 2, None), 2)
    again = given.follow(after=follower.place)
    await again.end()
    assert again.frames == []


async def test_the_reason_is_what_the_status_said_while_a_head_was_awaited(given: World) -> None:
    """The last that was known of the attempt before."""
    run_id = given.runner.start()
    follower = given.follow()
    await follower.until(lambda self: bool(self.events))
    given.runner.say(run_id, "Its node was drained. It is started again.")
    await follower.until(lambda self: self.events[-1]["data"]["message"] is not None)
    given.runner.restart(run_id)
    await follower.until(lambda self: "restarted" in self.kinds)
    [boundary] = [event for event in follower.events if event["type"] == "restarted"]
    assert boundary["data"]["reason"] == "Its node was drained. It is started again."


@pytest.mark.parametrize("held", ["nowhere", "whole", "without an end", "in part"])
async def test_past_attempts_are_told_from_wherever_they_are(given: World, held: str) -> None:
    """Redis has nothing of them, all, all but the end, or the beginning; and with Redis gone it is the same."""
    run_id = three_attempts(given)
    if held != "nowhere":
        await keep(given, run_id, 1, most=4 if held == "in part" else None, end=held == "whole")
    follower = given.follow()
    await follower.end()
    assert follower.texts == texts(20)
    assert restarts(follower) == [2, 3]
    assert [kind for kind in follower.kinds if kind != "status"] == [
        *("log", "restarted", "restarted"),
        *("log", "gap", "log", "complete"),
    ]


async def test_whoever_comes_back_anywhere_gets_exactly_the_rest(given: World) -> None:
    """From each event's id: lines, boundaries and gaps that were seen are not told again, all others are."""
    three_attempts(given)
    whole = given.follow()
    await whole.end()
    everything = spelled(whole.frames)
    assert len(everything) == 20 + 2 + 1 + 1
    for at, (cursor, _) in enumerate(everything[:-1]):
        again = given.follow(after=Cursor.parse(cursor, "test"))
        await again.end()
        assert spelled(again.frames) == everything[at + 1 :], cursor


async def test_a_live_follower_comes_back_between_two_attempts(given: World) -> None:
    """With the last line of an attempt that is over, and with the boundary, of which there is one in all."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    first = given.follow()
    await first.has(texts(3))
    await first.leave()
    given.runner.restart(run_id)
    second = given.follow(given.process(), after=first.place)
    await second.until(lambda self: "restarted" in self.kinds)
    await second.leave()
    third = given.follow(given.process(), after=Cursor(run_id, 2, ZERO))
    given.runner.write(run_id, *texts(3, 3))
    given.runner.end(run_id)
    await third.end()
    assert [first.texts, second.texts, third.texts] == [texts(3), [], texts(3, 3)]
    assert restarts(first, second, third) == [2]


async def test_attempts_without_redis(given: World) -> None:
    """With Redis away from the first attempt to the end all comes from where the run happens, live and afterwards."""
    process = given.process(redis_url="redis://127.0.0.1:1/0")
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    follower = given.follow(process)
    await follower.has(texts(3))
    given.runner.restart(run_id)
    await follower.until(lambda self: "restarted" in self.kinds)
    given.runner.write(run_id, *texts(3, 3))
    await follower.has(texts(6))
    given.runner.end(run_id)
    late = given.follow(process)
    tail = given.follow(process, tail=4)
    for one in (follower, late, tail):
        await one.end()
    assert [follower.texts, late.texts, tail.texts] == [texts(6), texts(6), texts(4, 2)]
    assert [restarts(one) for one in (follower, late, tail)] == [[2], [2], [2]]


async def test_a_tail_counts_back_over_attempts(given: World) -> None:
    """As many lines as were asked for, wherever they are held, with the boundaries between them."""
    run_id = three_attempts(given)
    everything = [*texts(17), b"gap", *texts(3, 17)]  # a gap counts as a line
    await keep(given, run_id, 1, most=4, end=False)
    for tail in (0, 1, 9, 10, 17, 20, 21, 22, 100):
        follower = given.follow(tail=tail)
        await follower.end()
        expected = everything[max(0, 21 - tail) :]
        assert follower.texts == [text for text in expected if text != b"gap"], tail
        assert restarts(follower) == ([2, 3] if tail > 9 else []), tail


async def test_a_tail_reaches_over_an_attempt_that_is_gone(given: World) -> None:
    """What is left of it is counted."""
    run_id = three_attempts(given)
    given.runner.forget(run_id, 1)
    await keep(given, run_id, 1, most=4, end=False)
    follower = given.follow(tail=11)
    await follower.end()
    assert follower.texts == texts(2, 2) + texts(8, 12)


async def test_a_cursor_of_an_attempt_that_there_was_not(given: World) -> None:
    """It is said that it does not fit, and the run is told from its beginning."""
    run_id = three_attempts(given)
    follower = given.follow(after=Cursor(run_id, 4, ZERO))
    await follower.end()
    assert follower.kinds[:3] == ["status", "gap", "log"]
    assert (follower.texts, restarts(follower)) == (texts(20), [2, 3])
    assert follower.place == Cursor(run_id, 3, None)


async def test_a_cursor_of_an_attempt_that_a_record_does_not_know_yet(
    given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has told of it: what is fresh enough for a status is not taken for the truth here."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    stale = await look.status(given.processes[0], run_id)
    given.runner.restart(run_id)
    given.runner.write(run_id, *texts(2, 3))
    real = look.status
    shown = asyncio.Event()

    async def status(*args: Any) -> Any:
        return await real(*args) if shown.is_set() else stale

    monkeypatch.setattr(look, "status", status)
    follower = given.follow(run_id=run_id, after=Cursor(run_id, 2, ZERO))
    await follower.has(texts(2, 3))
    shown.set()
    given.runner.end(run_id)
    await follower.end()
    assert (follower.texts, restarts(follower), follower.kinds.count("gap")) == (texts(2, 3), [], 0)


async def test_boundaries_come_to_those_who_read_no_log(given: World) -> None:
    """Those that were and those that come, each once."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    given.runner.restart(run_id)
    follower = given.follow(types=frozenset({"status"}))
    await follower.until(lambda self: restarts(self) == [2])
    given.runner.write(run_id, *texts(3, 3))
    given.runner.restart(run_id)
    await follower.until(lambda self: restarts(self) == [2, 3])
    await follower.leave()
    again = given.follow(types=frozenset({"status"}), after=follower.place)
    given.runner.end(run_id)
    await again.end()
    assert (follower.texts, again.texts, restarts(again)) == ([], [], [])


async def test_a_star_comes_back_with_the_end_of_any_attempt(given: World) -> None:
    """All of that run was seen: what comes is the next one."""
    first = three_attempts(given)
    follower = given.follow(run_id="*")
    await follower.until(lambda self: "complete" in self.kinds)
    given.processes[0].shutdown.begin()
    await follower.end()
    assert follower.place == Cursor(first, 3, None)
    second = given.runner.start(1)
    given.runner.write(second, b"next")
    for attempt in (1, 3):
        again = given.follow(given.process(), run_id="*", after=Cursor(first, attempt, None))
        await again.has([b"next"])
        assert {event["run_id"] for event in again.events} == {second}


async def test_attempts_are_read_once_for_all(given: World) -> None:
    """Of fifty followers, some there from the beginning, each line and boundary is one frame; nobody reads on."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(20))
    early = [given.follow() for _ in range(25)]
    for follower in early:
        await follower.has(texts(20))
    given.runner.restart(run_id)
    for follower in early:
        await follower.until(lambda self: restarts(self) == [2])
    await eventually(lambda: given.runner.reading == 1)  # for what the second one says
    late = [given.follow() for _ in range(25)]
    given.runner.write(run_id, *texts(20, 20))
    for follower in (*early, *late):
        await follower.has(texts(40))
    given.runner.end(run_id)
    for follower in (*early, *late):
        await follower.end()
    boundaries = {
        frame
        for follower in given.all
        for frame in follower.frames
        if isinstance(frame, Notice) and frame.event["type"] == "restarted"
    }
    assert len(boundaries) == 1
    for half in (early, late):
        frames = {frame for follower in half for frame in follower.frames if isinstance(frame, Lines)}
        assert sum(len(frame.lines) for frame in frames) == 40


async def test_the_next_attempts_recorder_relays_the_next_attempt(given: World) -> None:
    """The feed relayed what the first one said, and gives way in the second; all of both is in Redis."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    follower = given.follow()
    await follower.has(texts(3))
    given.runner.restart(run_id)
    process = given.process()
    recorder = asyncio.create_task(Pump(process.runner, process.streams, run_id, 2, who="recorder", lasting=True).run())
    given.runner.write(run_id, *texts(3, 3))
    await follower.has(texts(6))
    await eventually(lambda: given.runner.reading == 1)  # the recorder
    given.runner.end(run_id)
    await follower.end()
    await asyncio.wait_for(recorder, 10)
    for attempt in (1, 2):
        chunk = await process.streams.read(run_id, attempt, ZERO, 100)
        assert [line.text for line in chunk.lines] == texts(3, 3 * (attempt - 1))
    assert restarts(follower) == [2]


async def test_a_feed_that_relays_goes_on_with_the_next_attempt(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a recorder: its own claim, made for the attempt before, does not keep it from it."""
    monkeypatch.setattr("common.streams._PUMP_SECONDS", 600)
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    follower = given.follow()
    await follower.has(texts(3))
    given.runner.restart(run_id)
    given.runner.write(run_id, *texts(3, 3))
    await follower.has(texts(6))
    given.runner.end(run_id)
    await follower.end()
    assert restarts(follower) == [2]


async def test_a_whole_attempt_between_two_looks(given: World) -> None:
    """The log of the one before has ended; the next is first seen when the run is over, and is told all the same."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    await keep(given, run_id, 1)
    follower = given.follow()
    await follower.has(texts(3))
    given.runner.restart(run_id)
    given.runner.write(run_id, *texts(3, 3))
    given.runner.end(run_id)
    await follower.end()
    assert (follower.texts, restarts(follower)) == (texts(6), [2])


async def test_nobody_waits_for_a_reader_that_is_closed(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came while it was asked how far the first attempt is gets what there is of both."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    streams = given.processes[0].streams
    original, asked = streams.top, asyncio.Event()

    async def top(run_id: str, attempt: int) -> Any:
        if attempt == 1:
            asked.set()
            await asyncio.Event().wait()
        return await original(run_id, attempt)

    monkeypatch.setattr(streams, "top", top)
    follower = given.follow(follow=False)
    await asked.wait()
    given.runner.restart(run_id)
    given.runner.write(run_id, *texts(3, 3))
    await follower.end()
    assert (follower.texts, restarts(follower)) == (texts(6), [2])


async def test_an_attempt_that_the_runner_has_not_seen_end(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is silence, in which the stream is kept open, and nothing is lost or left out."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))

    async def final(*_: Any) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(given.runner, "final", final)
        follower = given.follow()
        await follower.has(texts(3))
        given.runner.restart(run_id)
        await follower.until(lambda self: "idle" in self.kinds)
    await follower.until(lambda self: restarts(self) == [2])
    given.runner.end(run_id)
    await follower.end()
    assert (follower.texts, follower.kinds.count("gap")) == (texts(3), 0)


async def test_a_run_of_whose_log_nobody_has_anything(given: World) -> None:
    """It is said what is gone, and the stream ends; one that never started never had a log."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    given.runner.end(run_id)
    given.runner.forget(run_id, 1)
    for held in ([], texts(2)):
        if held:
            await keep(given, run_id, 1, most=2, end=False)
        follower = given.follow()
        await follower.end()
        assert follower.texts == held
        assert follower.kinds[-2:] == ["gap", "complete"]
        assert "has ended" in follower.events[-2]["data"]["reason"]
    await flush(given)
    sealed = samples.job(record=samples.record(run_id=samples.run_id(7)), sealed=True)
    given.runner.add(sealed)
    never = given.follow(run_id=sealed.run_id)
    await never.end()
    assert never.kinds == ["status", "complete"]


async def test_a_run_that_ended_without_a_word(given: World) -> None:
    """Its recorder, who was there, has put down that this is the whole log: nothing is missing."""
    run_id = given.runner.start()
    given.runner.end(run_id)
    await keep(given, run_id, 1)
    follower = given.follow()
    await follower.end()
    assert follower.kinds == ["status", "complete"]


async def test_a_runner_that_is_away_is_waited_for(given: World) -> None:
    """That it cannot be asked now is no reason to call a log lost."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    given.runner.end(run_id)
    await look.status(given.processes[0])
    given.runner.away = True
    follower = given.follow(given.process(heartbeat_seconds=0.05), run_id=run_id)
    await follower.until(lambda self: self.kinds[-3:] == ["idle"] * 3)
    assert follower.kinds[0] == "status"
    assert set(follower.kinds[1:]) == {"idle"}
    given.runner.away = False
    await follower.end()
    assert (follower.texts, follower.kinds.count("gap")) == (texts(3), 0)
