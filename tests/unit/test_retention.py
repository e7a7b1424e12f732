"""Redis holds the newest lines of a log; followers are given all, under the same ids, and are told what is gone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from common import pages
from common.events import ZERO, Cursor, LineId, Place
from common.frames import Frame, Lines
from common.platform import Platform
from common.pump import Pump
from common.reader import Reader
from common.streams import Chunk
from tests.unit.logs import Follower, World, asks, eventually, world
from tests.unit.test_follow import entries, flush, hurry, texts
from tests.unit.test_follow_attempts import restarts, spelled, three_attempts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow

HELD = 10


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world, in whose Redis little of a log has room."""
    async with world(redis_url) as made:
        made.process(redis_log_lines=HELD)
        yield made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of a few lines has many pages."""
    monkeypatch.setattr(pages, "PAGE_LINES", 3)
    monkeypatch.setattr(pages, "_RUNNER_PAGE_LINES", 20)


async def relay(given: World, run_id: str, attempt: int = 1, **bounds: int) -> None:
    """Have Redis hold what it has room for of an attempt that has ended."""
    process = given.process(**bounds) if bounds else given.processes[0]
    await Pump(process.runner, process.streams, run_id, attempt, who="recorder", lasting=True).run()


def gaps(follower: Follower) -> list[dict[str, Any]]:
    """What it was told to be gone."""
    events = [event for frame in follower.frames for event in frame.events()]
    return [event["data"] for event in events if event["type"] == "gap"]


async def ended(given: World, count: int) -> str:
    """A run that has written so many lines; Redis holds the last of them."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(count))
    given.runner.end(run_id)
    await relay(given, run_id)
    assert len(await entries(given, run_id)) == HELD
    return run_id


async def test_a_log_is_told_whole_from_anywhere(given: World) -> None:
    """From its beginning, from behind each line, and so many lines before its end."""
    run_id = await ended(given, 60)
    lines = given.runner.runs[run_id].lines
    whole = given.follow()
    await whole.end()
    assert whole.lines == lines
    for at, line in enumerate(lines):
        follower = given.follow(after=Cursor(run_id, 1, line.id))
        await follower.end()
        assert follower.lines == lines[at + 1 :]
        assert gaps(follower) == []
    for tail in (0, 1, HELD - 2, HELD - 1, HELD, 30, 59, 60, 61):
        follower = given.follow(tail=tail)
        await follower.end()
        assert follower.lines == lines[60 - min(tail, 60) :], tail


async def test_all_attempts_are_told(given: World) -> None:
    """Each has a stream that was trimmed; a tail goes back over as many as it takes."""
    run_id = given.runner.start()
    for start in (0, 40, 80):
        given.runner.write(run_id, *texts(40, start))
        if start < 80:
            given.runner.restart(run_id)
    given.runner.end(run_id)
    for attempt in (1, 2, 3):
        await relay(given, run_id, attempt)
        assert len(await entries(given, run_id, attempt)) == HELD
    whole = given.follow()
    await whole.end()
    assert (whole.texts, restarts(whole), gaps(whole)) == (texts(120), [2, 3], [])
    for tail in (5, 39, 41, 90, 119, 200):
        follower = given.follow(tail=tail)
        await follower.end()
        assert follower.texts == texts(120)[120 - min(tail, 120) :], tail


async def test_ids_are_those_of_an_untrimmed_log(given: World) -> None:
    """With attempts, an empty one, and a gap that the log itself has."""
    three_attempts(given)
    told: list[list[tuple[str, str]]] = []
    for process in (given.process(), given.processes[0]):  # the first has room for all
        await flush(given)
        follower = given.follow(process)
        await follower.end()
        told.append(spelled(follower.frames))
    assert told[0] == told[1]


async def test_redis_is_asked_for_what_it_may_have(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it was found to begin further on, the runner is asked until there."""
    run_id = await ended(given, 100)
    asked: list[LineId] = []
    streams = given.processes[0].streams
    real = streams.read

    async def read(run_id: str, attempt: int, after: LineId, *rest: int, **options: int) -> Chunk:
        asked.append(after)
        return await real(run_id, attempt, after, *rest, **options)

    monkeypatch.setattr(streams, "read", read)
    follower = given.follow()
    await follower.end()
    assert follower.texts == texts(100)
    ids = [line.id for line in given.runner.runs[run_id].lines]
    assert asked == [ZERO, *ids[90:99:3]]  # nine lines and the end have room


async def test_a_stream_is_trimmed_between_two_pages(given: World) -> None:
    """The next page has what was behind the first all the same."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(HELD))
    await given.follow().has(texts(HELD))
    later = given.process(redis_log_lines=HELD)
    follower = given.followers(later).follow(asks(), run_id)
    found: list[Frame] = [await anext(follower), await anext(follower)]
    given.runner.write(run_id, *texts(40, HELD))
    await given.follow().has(texts(HELD + 40))
    given.runner.end(run_id)
    found += [frame async for frame in follower]
    assert [line.text for frame in found if isinstance(frame, Lines) for line in frame.lines] == texts(HELD + 40)


async def test_a_reader_that_has_slept_goes_on_where_redis_begins(
    given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its followers are fed what it has not seen, and then by it again."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    awake, asleep = given.processes[0], given.process(redis_log_lines=HELD)
    recorder = asyncio.create_task(Pump(awake.runner, awake.streams, run_id, 1, who="recorder", lasting=True).run())
    follower = given.follow(asleep)
    await follower.has(texts(3))
    wake, real = asyncio.Event(), asleep.streams.read

    async def read(*args: Any, **options: Any) -> Chunk:
        await wake.wait()
        return await real(*args, **options)

    monkeypatch.setattr(asleep.streams, "read", read)
    await eventually(given.followers(asleep)._feeds._feeds[run_id]._reader.current.is_set)
    given.runner.write(run_id, *texts(50, 3))
    await given.follow(awake).has(texts(53))
    wake.set()
    await follower.has(texts(53))
    window = given.followers(asleep)._feeds._feeds[run_id]._reader.window
    assert window.base == given.runner.runs[run_id].lines[53 - HELD - 1].id
    given.runner.end(run_id)
    await follower.end()
    assert follower.texts == texts(53)
    await asyncio.wait_for(recorder, 10)


@pytest.mark.parametrize("query", [{}, {"tail": 40}])
async def test_what_was_trimmed_and_is_gone_is_a_gap(given: World, query: dict[str, Any]) -> None:
    """Up to where Redis begins; the rest comes from there."""
    run_id = await ended(given, 60)
    given.runner.forget(run_id, 1)
    follower = given.follow(**query)
    await follower.end()
    assert follower.texts == texts(9, 51)
    [gap] = gaps(follower)
    assert gap["until"] == str(given.runner.runs[run_id].lines[50].id)
    assert follower.kinds[-1] == "complete"


@pytest.mark.parametrize("begins", [30, 55])
async def test_a_runner_that_has_only_a_part(given: World, begins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before what it has there is a gap, and what Redis holds is not in it, though the runner begins further on."""
    run_id = await ended(given, 60)
    real = given.runner.lines

    async def lines(run_id: str, attempt: int, after: LineId = ZERO) -> AsyncIterator[Any]:
        first = given.runner.runs[run_id].lines[begins]
        async for batch in real(run_id, attempt, max(after, given.runner.runs[run_id].lines[begins - 1].id)):
            if batch and batch[0] == first and after != ZERO:
                yield [type(first)(after.next(), first.at_ns, "gap", b"The file was begun anew.")]
            yield batch

    monkeypatch.setattr(given.runner, "lines", lines)
    follower = given.follow()
    await follower.end()
    assert follower.texts == texts(60 - min(begins, 51), min(begins, 51))
    assert follower.kinds[:3] == ["status", "gap", *(["log"] if begins == 30 else ["gap"])]
    lost = Place(1, given.runner.runs[run_id].lines[5].id)  # and from within it
    later = given.follow(after=Cursor(run_id, *lost))
    await later.end()
    assert later.texts == follower.texts
    assert gaps(later)[0]["after"] == str(lost.line)


async def test_pumps_with_other_bounds(given: World) -> None:
    """Whoever writes last has its way, and nobody is given less for it."""
    run_id = given.runner.start()
    processes = [given.processes[0], given.process(redis_log_lines=40), given.process(redis_log_bytes=2000)]
    pumps = [
        asyncio.create_task(Pump(p.runner, p.streams, run_id, 1, who=f"pump-{n}", lasting=True).run())
        for n, p in enumerate(processes)
    ]
    followers = [given.follow(process) for process in processes]
    for start in range(0, 400, 50):
        given.runner.write(run_id, *texts(50, start))
        followers.append(given.follow(processes[start // 50 % 3]))
        await asyncio.sleep(0)
    given.runner.end(run_id)
    for follower in followers:
        await follower.end()
        assert follower.texts == texts(400)
        assert gaps(follower) == []
    await asyncio.wait_for(asyncio.gather(*pumps), 20)


def _unmarked(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in fields.items() if name != b"p"}


def _misled(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {**fields, b"p": b"1999999999999-0"}


@pytest.mark.parametrize("damage", [_unmarked, _misled])
async def test_a_stream_that_does_not_say_where_it_begins_is_not_served(
    given: World, damage: Callable[[dict[bytes, bytes]], dict[bytes, bytes]]
) -> None:
    """The log comes from where it ran, whole."""
    run_id = await ended(given, 60)
    stream = await entries(given, run_id)
    async with given.processes[0].connection.use() as client:
        await client.delete(f"nfc:log:{run_id}:1")
        for entry_id, fields in stream:
            await client.xadd(f"nfc:log:{run_id}:1", damage(fields), id=entry_id)  # type: ignore[arg-type] # bytes will do
    for query, expected in (({}, texts(60)), ({"tail": 30}, texts(30, 30))):
        follower = given.follow(given.process(), **query)
        await follower.end()
        assert follower.texts == expected


async def test_somebody_else_has_trimmed_a_stream(given: World) -> None:
    """To nothing, even: what was in it is read where it ran."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(20))
    follower = given.follow()
    await follower.has(texts(20))
    async with given.processes[0].connection.use() as client:
        await client.xtrim(f"nfc:log:{run_id}:1", maxlen=0, approximate=False)
    given.runner.write(run_id, *texts(20, 20))
    await follower.has(texts(40))
    later = given.follow(given.process())
    given.runner.end(run_id)
    for one in (follower, later):
        await one.end()
        assert one.texts == texts(40)


async def test_a_full_redis_is_not_asked_again_and_again(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a feed relays the log itself it goes over to where the run happens, and stays there until there is room."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    follower = given.follow()
    await follower.has(texts(5))
    readings = 0
    real = Reader._read_runner

    async def read_runner(self: Reader) -> None:
        nonlocal readings
        readings += 1
        await real(self)

    monkeypatch.setattr(Reader, "_read_runner", read_runner)
    admin: Any
    async with given.process().connection.use() as admin:
        try:
            await admin.config_set("maxmemory", 1)
            for count in range(5, 25):
                given.runner.write(run_id, *texts(1, count))
                await follower.has(texts(count + 1))
            assert readings == 1
        finally:
            await admin.config_set("maxmemory", 0)
    given.runner.end(run_id)
    await follower.end()
    assert follower.texts == texts(25)


async def test_a_full_redis_stops_nobody(given: World) -> None:
    """It answers and takes nothing: lines come from where the run happens, and it is filled once it has room."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(5))
    recorder: Platform = given.processes[0]
    relaying = asyncio.create_task(
        Pump(recorder.runner, recorder.streams, run_id, 1, who="recorder", lasting=True).run()
    )
    follower = given.follow(given.process())
    await follower.has(texts(5))
    admin: Any
    async with given.process().connection.use() as admin:
        try:
            await admin.config_set("maxmemory", 1)
            given.runner.write(run_id, *texts(30, 5))
            await follower.has(texts(35))
            late = given.follow(given.process())
            await late.has(texts(35))
            assert await admin.xlen(f"nfc:log:{run_id}:1") == 5
        finally:
            await admin.config_set("maxmemory", 0)
    given.runner.end(run_id)
    await asyncio.wait_for(relaying, 10)
    for one in (follower, late):
        await one.end()
        assert one.texts == texts(35)
    newest: Sequence[Any] = await entries(given, run_id)
    assert (len(newest), newest[-2][1][b"t"]) == (HELD, b"line 34")
