"""Who reads a page of a log from Redis will want the next: that is asked for meanwhile, and believed for its lines."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from common import pages
from common.errors import Unavailable
from common.events import ZERO, LineId, Place
from common.frames import Lines
from common.pages import End, Pages
from common.pump import Pump
from common.streams import Chunk
from tests.unit.logs import World, eventually, world
from tests.unit.test_follow import texts

pytestmark = pytest.mark.slow

PAGE = 3


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process()
        yield made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of a few lines has many pages."""
    monkeypatch.setattr(pages, "PAGE_LINES", PAGE)


class Asked:
    """What Redis was asked for, in order; an `answer` of a test's own, once, in place of the next."""

    def __init__(self, given: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = given.processes[0].streams.read
        self.places: list[LineId] = []
        self.answer: Exception | asyncio.Event | None = None
        monkeypatch.setattr(given.processes[0].streams, "read", self)

    async def __call__(self, run_id: str, attempt: int, after: LineId, *rest: int, **options: int) -> Chunk:
        self.places.append(after)
        answer, self.answer = self.answer, None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await answer.wait()
        return await self._read(run_id, attempt, after, *rest, **options)


@pytest.fixture
def asked(given: World, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What Redis is asked for."""
    return Asked(given, monkeypatch)


async def ended(given: World, count: int) -> str:
    """A run that has written so many lines, all of which Redis holds."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(count))
    given.runner.end(run_id)
    await Pump(given.runner, given.processes[0].streams, run_id, 1, who="recorder", lasting=True).run()
    return run_id


async def page(of: Pages, after: LineId, until: LineId | None = None) -> Lines:
    """The page behind a line."""
    found = await of.after(Place(1, after), until)
    assert isinstance(found, Lines)
    return found


async def first_page(of: Pages, asked: Asked, then: Exception | asyncio.Event) -> Lines:
    """The first page, where Redis gives `then` to who asks it next."""
    asked.answer = waiting = asyncio.Event()
    first = asyncio.create_task(page(of, ZERO))
    await eventually(lambda: asked.places)
    asked.answer = then
    waiting.set()
    return await first


async def test_the_next_page_is_there_when_it_is_wanted(given: World, asked: Asked) -> None:
    """Redis is asked for each but the last, which is not full, once, and before anybody wants it."""
    run_id = await ended(given, 3 * PAGE + 1)
    ids = [ZERO, *(line.id for line in given.runner.runs[run_id].lines)]
    reading, after = Pages(given.processes[0], run_id), ZERO
    for number in range(1, 4):
        found = await page(reading, after)
        assert len(found.lines) == PAGE
        await eventually(lambda number=number: len(asked.places) > number)  # type: ignore[misc]
        after = found.last
    assert asked.places == ids[0 : 3 * PAGE + 1 : PAGE]
    assert len((await page(reading, after)).lines) == 1
    assert asked.places == ids[0 : 3 * PAGE + 1 : PAGE], "there is nothing behind it to ask for"
    assert isinstance(await reading.after(Place(1, ids[-1]), None), End)


async def test_nothing_is_asked_for_that_is_known(given: World, asked: Asked) -> None:
    """The window of those who keep up begins there."""
    run_id = await ended(given, 2 * PAGE)
    lines = given.runner.runs[run_id].lines
    reading = Pages(given.processes[0], run_id)
    await page(reading, ZERO, lines[PAGE - 1].id)
    await page(reading, lines[PAGE - 1].id, lines[-1].id)
    assert (len(asked.places), reading._ahead) == (2, {})
    reading = Pages(given.processes[0], run_id)
    await page(reading, lines[1].id, lines[-1].id)
    assert list(reading._ahead) == [Place(1, lines[PAGE + 1].id)]
    await reading.close()


async def test_a_page_is_given_frame_by_frame(given: World, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes to the end of a frame goes on with the next, for which nobody is asked."""
    monkeypatch.setattr(pages, "FRAME_BYTES", 1)
    run_id = await ended(given, 2 * PAGE)
    lines = given.runner.runs[run_id].lines
    reading = Pages(given.processes[0], run_id)
    frames = [await page(reading, place) for place in (ZERO, *(line.id for line in lines[: PAGE - 1]))]
    assert [list(frame.lines) for frame in frames] == [[line] for line in lines[:PAGE]]
    assert [frame.behind for frame in frames] == [ZERO, *(line.id for line in lines[: PAGE - 1])]
    assert await page(reading, lines[0].id) is frames[1], "all who are there share it"
    await asyncio.gather(*reading._ahead.values())
    assert len(asked.places) == 2
    elsewhere = await reading.after(Place(2, lines[0].id), lines[-1].id)
    assert isinstance(elsewhere, Lines)
    assert elsewhere.attempt == 2, "nothing of another attempt"
    await reading.close()


async def test_the_page_that_was_wanted_last_is_kept(
    given: World, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it in its middle: whoever comes back from one of its frames wants the next."""
    monkeypatch.setattr(pages, "FRAME_BYTES", 1)
    monkeypatch.setattr(pages, "_PAGES", 2)
    run_id = await ended(given, 30)
    lines = given.runner.runs[run_id].lines
    reading = Pages(given.processes[0], run_id)
    first = await page(reading, ZERO)
    await page(reading, lines[10].id)
    await page(reading, first.last)  # of the first
    await page(reading, lines[20].id)
    assert list(reading._pages) == [Place(1, ZERO), Place(1, lines[20].id)]
    await page(reading, ZERO)
    assert list(reading._pages) == [Place(1, lines[20].id), Place(1, ZERO)]
    await reading.close()


async def test_only_lines_are_believed(given: World, asked: Asked) -> None:
    """That there were none, or few, is true no longer."""
    run_id = given.runner.start()
    streams = given.processes[0].streams
    given.runner.write(run_id, *texts(3 * PAGE))
    lines = given.runner.runs[run_id].lines
    assert (await streams.append(run_id, 1, ZERO, lines[:PAGE]))[0]
    reading = Pages(given.processes[0], run_id)
    first = await page(reading, ZERO)
    (ahead,) = reading._ahead.values()
    assert await ahead == Chunk([], first.last, ended=False)
    assert (await streams.append(run_id, 1, first.last, lines[PAGE : 2 * PAGE]))[0]
    second = await page(reading, first.last)
    assert list(second.lines) == lines[PAGE : 2 * PAGE]
    assert (await streams.append(run_id, 1, second.last, lines[2 * PAGE :]))[0]
    (ahead,) = reading._ahead.values()
    await ahead
    assert list((await page(reading, second.last)).lines) == lines[2 * PAGE :]
    await reading.close()


async def test_a_redis_that_is_away_is_asked_again(given: World, asked: Asked) -> None:
    """Nobody has wanted what it did not answer then."""
    run_id = await ended(given, 2 * PAGE)
    reading = Pages(given.processes[0], run_id)
    first = await first_page(reading, asked, Unavailable("redis", "It is away."))
    (ahead,) = reading._ahead.values()
    assert await ahead is None
    assert len((await page(reading, first.last)).lines) == PAGE
    await reading.close()


async def test_those_who_do_not_come_back_leave_little(given: World, asked: Asked) -> None:
    """So many pages are held at most; the oldest gives way to one that somebody may want sooner."""
    run_id = await ended(given, 30)
    lines = given.runner.runs[run_id].lines
    reading = Pages(given.processes[0], run_id)
    for number, at in enumerate((20, 17, 14, 11, 8, 5, 2), 1):  # nobody goes on where another has come to
        await page(reading, lines[at].id)
        assert len(reading._ahead) == min(number, pages._AHEAD)
        assert list(reading._ahead)[-1] == Place(1, lines[at + PAGE].id)
        await asyncio.gather(*reading._ahead.values())
    await reading.close()


async def test_no_more_is_asked_for_than_is_held(given: World, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis has not answered yet does not give way: it is still to come."""
    run_id = await ended(given, 30)
    monkeypatch.setattr(Pages, "_looked_up", lambda *_: asyncio.Event().wait())
    reading = Pages(given.processes[0], run_id)
    first = given.runner.runs[run_id].lines[: pages._AHEAD + 1]
    for line in first:
        reading._read_ahead(Place(1, line.id))
    assert list(reading._ahead) == [Place(1, line.id) for line in first[:-1]]
    await reading.close()


async def test_nothing_is_read_on_for_nobody(given: World, asked: Asked) -> None:
    """What is being read ahead ends with its feed."""
    run_id = await ended(given, 2 * PAGE)
    reading = Pages(given.processes[0], run_id)
    await first_page(reading, asked, asyncio.Event())  # never set: Redis hangs from here on
    (ahead,) = reading._ahead.values()
    assert not ahead.done()
    await reading.close()
    assert ahead.cancelled()
