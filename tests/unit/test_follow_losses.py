"""What is lost is said, once, and only where everybody who may hold it has answered; what is away is waited for."""

import asyncio
from functools import partial
from typing import Any

import pytest

from common.errors import Unavailable
from common.events import GAP, ZERO, Cursor, Place
from common.frames import Lines
from common.pages import End, Pages
from common.pump import is_readable
from tests.unit.logs import World
from tests.unit.test_follow import flush, hurry, texts
from tests.unit.test_follow_attempts import given, keep, three_attempts

__all__ = ["given", "hurry"]  # fixtures

pytestmark = pytest.mark.slow


async def test_a_past_attempt_that_nobody_holds_is_a_gap(given: World) -> None:
    """What is left of it is told, then the gap, then the boundary."""
    run_id = three_attempts(given)
    given.runner.forget(run_id, 1)
    await keep(given, run_id, 1, most=4, end=False)
    follower = given.follow()
    await follower.end()
    assert follower.texts == texts(4) + texts(8, 12)
    assert [kind for kind in follower.kinds if kind != "status"] == [
        *("log", "gap", "restarted", "restarted"),
        *("log", "gap", "log", "complete"),
    ]
    lost = next(event for event in follower.events if event["type"] == "gap")
    assert lost["id"] == str(Cursor(run_id, 1, given.runner.runs[run_id].logs[0].lines[3].id))
    assert "attempt 1" in lost["data"]["reason"]


async def test_a_loss_is_told_of_what_is_lost_now(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody was told to be lost may have come to Redis since: who comes later is given it."""
    monkeypatch.setattr("common.pages._LOSS_SECONDS", 0)
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(4))
    given.runner.restart(run_id)
    given.runner.forget(run_id, 1)
    early = given.follow()  # and stays, and with it the pages of this process
    await early.until(lambda self: "restarted" in self.kinds)
    await keep(given, run_id, 1)
    late = given.follow()
    await late.until(lambda self: "restarted" in self.kinds)
    given.runner.end(run_id)
    await asyncio.gather(early.end(), late.end())
    assert (early.texts, early.kinds.count("gap")) == ([], 1)
    assert (late.texts, late.kinds.count("gap")) == (texts(4), 0)


@pytest.mark.parametrize("past", [False, True])
async def test_a_page_that_is_lost_is_not_kept_for_long(
    given: World, monkeypatch: pytest.MonkeyPatch, *, past: bool
) -> None:
    """Neither that of a past attempt, which is its end, nor one before a window, which is a gap; a stored gap is."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(4))
    given.runner.restart(run_id)
    given.runner.forget(run_id, 1)
    monkeypatch.setattr("common.pages._LOSS_SECONDS", 60)
    pages, until = Pages(given.processes[0], run_id), None if past else given.runner.runs[run_id].logs[0].lines[-1].id
    lost = await pages.after(Place(1, ZERO), until)
    assert lost.lost is not None if isinstance(lost, End) else [line.stream for line in lost.lines] == [GAP]
    await keep(given, run_id, 1)
    assert await pages.after(Place(1, ZERO), until) is lost  # others who have come just then share it
    monkeypatch.setattr("common.pages._LOSS_SECONDS", 0)
    await pages.close()
    pages = Pages(given.processes[0], run_id)
    await flush(given)
    await pages.after(Place(1, ZERO), until)
    await keep(given, run_id, 1)
    found = await pages.after(Place(1, ZERO), until)
    assert isinstance(found, Lines)
    assert [line.text for line in found.lines] == texts(4)
    await pages.close()


async def test_a_page_with_a_stored_gap_is_kept(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as true for who comes later."""
    monkeypatch.setattr("common.pages._LOSS_SECONDS", 0)
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(2))
    given.runner.skip(run_id, b"It is gone.")
    pages = Pages(given.processes[0], run_id)
    page = await pages.after(Place(1, ZERO), None)
    assert isinstance(page, Lines)
    assert page.lines[-1].stream == GAP
    for _ in range(3):
        await asyncio.sleep(0)
    assert await pages.after(Place(1, ZERO), None) is page
    await pages.close()


async def test_what_comes_to_redis_meanwhile_is_no_loss(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis does not have it yet when it is asked, and where it ran it is gone by the time that is."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(4))
    given.runner.restart(run_id)
    given.runner.forget(run_id, 1)
    moves = iter([keep(given, run_id, 1)])

    async def asked(source: Any, run_id: str, attempt: int) -> bool:
        for move in moves:
            await move
        return await is_readable(source, run_id, attempt)

    monkeypatch.setattr("common.pages.is_readable", asked)
    follower = given.follow()
    await follower.until(lambda self: "restarted" in self.kinds)
    given.runner.end(run_id)
    await follower.end()
    assert (follower.texts, follower.kinds.count("gap")) == (texts(4), 0)


@pytest.mark.parametrize("asked", ["Redis", "the runner"])
async def test_a_log_that_went_to_redis_is_not_lost(given: World, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Whoever follows the last attempt found Redis empty; by the next answer it has all, and nobody else."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(4))
    given.runner.end(run_id)
    given.runner.forget(run_id, 1)
    moves = iter([keep(given, run_id, 1)])
    streams = given.processes[0].streams
    pumping, readable = streams.pumping, is_readable

    async def moved(ask: Any, *args: Any, **options: Any) -> Any:
        for move in moves:
            await move
        return await ask(*args, **options)

    if asked == "Redis":
        monkeypatch.setattr(streams, "pumping", partial(moved, pumping))
    else:
        monkeypatch.setattr("common.reader.is_readable", partial(moved, readable))
    follower = given.follow()
    await follower.end()
    assert (follower.texts, follower.kinds.count("gap"), follower.kinds[-1]) == (texts(4), 0, "complete")
    assert not list(moves)


async def test_what_is_only_away_is_waited_for(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that only Redis can hold is no gap while Redis is away."""
    run_id = three_attempts(given)
    await keep(given, run_id, 1)
    given.runner.forget(run_id, 1)
    streams = given.processes[0].streams
    original = streams.read
    asked = 0

    async def read(run_id: str, attempt: int, *args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if attempt == 1 and asked < 5:
            raise Unavailable("redis", "It is away.")
        return await original(run_id, attempt, *args, **options)

    monkeypatch.setattr(streams, "read", read)
    follower = given.follow()
    await follower.end()
    assert follower.texts == texts(20)
    assert follower.kinds.count("gap") == 1  # its log's own


async def test_a_log_that_only_redis_holds_is_told_when_it_is_back(
    given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run happened there is nothing left of it: while Redis is away that is no end, and no gap afterwards."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(12))
    given.runner.end(run_id)
    await keep(given, run_id, 1)
    given.runner.forget(run_id, 1)
    streams = given.processes[0].streams

    async def away(*_: Any) -> Any:
        raise Unavailable("redis", "It is away.")

    monkeypatch.setattr(streams, "top", away)  # which is asked once, at the beginning
    follower = given.follow(follow=False)
    await follower.end()
    assert (follower.texts, follower.kinds) == (texts(12), ["status", "log", "complete"])
