"""How many are worked on at once: a line that comes and goes is served, one that stands is kept short."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.responses import Response

from common.web import room as module
from common.web.call import Call, Endpoint, Nothing
from common.web.problem import TooMany
from common.web.room import Place, Room
from tests.unit.asking import application, asking, endpoints, kind, settings

PLACES = 16


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.worked = 0.0

    def monotonic(self) -> float:
        """Seconds since whenever."""
        return self.now

    def process_time(self) -> float:
        """Seconds that the processor was had."""
        return self.worked


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that lines are told by; nobody's turn ends by itself, and nobody is told late."""
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(module, "_TURN_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_LATE_SECONDS", 0.0)
    return made


async def settled() -> None:
    """Return when everybody who can do anything has."""
    for _ in range(5):
        await asyncio.sleep(0)


async def full(room: Room) -> None:
    """Take all places."""
    for _ in range(PLACES):
        await room.enter()


def waiting(room: Room, count: int) -> list["asyncio.Task[None]"]:
    """So many more who want to enter."""
    return [asyncio.create_task(room.enter()) for _ in range(count)]


def fates(tasks: list["asyncio.Task[None]"]) -> list[str]:
    """What has become of them."""
    return ["waits" if not task.done() else "refused" if task.exception() else "in" for task in tasks]


async def test_whoever_finds_no_place_waits_for_his_turn() -> None:
    """In the order in which they came."""
    room = Room(1.0)
    await full(room)
    tasks = waiting(room, 3)
    await settled()
    assert fates(tasks) == ["waits", "waits", "waits"]
    room.leave()
    await settled()
    assert fates(tasks) == ["in", "waits", "waits"]
    for _ in range(2 + PLACES):
        room.leave()
    await settled()
    assert fates(tasks) == ["in", "in", "in"]
    await asyncio.wait_for(full(room), 10)  # and no place was lost


async def test_a_crowd_that_comes_at_once_is_served(clock: Clock) -> None:
    """However long the line is, while it has not stood for long."""
    room = Room(1.0)
    await full(room)
    tasks = waiting(room, 1000)
    await settled()
    clock.now += 0.9
    for _ in tasks:
        room.leave()
    await settled()
    assert set(fates(tasks)) == {"in"}


async def test_in_a_line_that_stands_who_has_waited_is_refused(clock: Clock) -> None:
    """And who has just come gets the turn."""
    room = Room(1.0)
    await full(room)
    early = waiting(room, 2)
    await settled()
    clock.now += 1.1
    late = waiting(room, 2)
    await settled()
    room.leave()
    await settled()
    assert fates(early + late) == ["refused", "refused", "in", "waits"]
    refusal = early[0].exception()
    assert isinstance(refusal, TooMany)
    assert (refusal.problem.status_code, refusal.problem.headers["retry-after"]) == (503, "1")
    assert refusal.problem.title == "Too many at once"
    late[1].cancel()


@pytest.mark.parametrize(("calm", "fate"), [(4.9, "refused"), (5.1, "in")])
async def test_a_line_is_gone_when_there_was_none_for_a_while(clock: Clock, calm: float, fate: str) -> None:
    """Not as soon as nobody stands in it: who was refused comes back."""
    room = Room(1.0)
    await full(room)
    waiting(room, 1)
    await settled()
    clock.now += 1.1
    room.leave()  # refuses the one
    await room.enter()
    clock.now += calm
    tasks = waiting(room, 1)
    await settled()
    clock.now += 0.5
    room.leave()
    await settled()
    assert fates(tasks) == [fate]


async def test_who_waits_for_longer_than_a_turn_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for something does not work; and the place is not given up a second time at the end."""
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.001)
    monkeypatch.setattr(module, "_WORKS_SECONDS", 60.0)  # a busy machine is not this process' work
    room, over = Room(1.0), asyncio.Event()

    async def wait() -> None:
        async with Place(room):
            await over.wait()

    tasks = [asyncio.create_task(wait()) for _ in range(3 * PLACES)]
    await asyncio.wait_for(room.enter(), 10)
    over.set()
    await asyncio.gather(*tasks)
    for _ in range(PLACES - 1):
        await room.enter()
    last = waiting(room, 1)
    await settled()
    assert fates(last) == ["waits"]
    room.leave()
    await last[0]


async def test_who_works_for_longer_than_a_turn_keeps_his_place(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """To let others in as well would make all of them late; once he waits, his place is given up."""
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.001)
    monkeypatch.setattr(module, "_WORKS_SECONDS", 60.0)
    looked = asyncio.Event()
    look = Place._look

    def works(place: Place) -> None:
        clock.worked += 1000.0
        look(place)
        looked.set()

    monkeypatch.setattr(Place, "_look", works)
    room = Room(1.0)
    async with Place(room):
        for _ in range(PLACES - 1):
            await room.enter()
        last = waiting(room, 1)
        await looked.wait()
        await settled()
        assert fates(last) == ["waits"]
        monkeypatch.setattr(Place, "_look", look)
        await asyncio.wait_for(last[0], 10)


@pytest.mark.parametrize("turn_has_come", [False, True])
async def test_who_goes_away_takes_no_place_along(turn_has_come: bool) -> None:
    """Neither while waiting nor in the moment in which it is his turn."""
    room = Room(1.0)
    await full(room)
    first, second = waiting(room, 2)
    await settled()
    if turn_has_come:
        room.leave()
    first.cancel()
    await settled()
    if not turn_has_come:
        room.leave()
        await settled()
    assert first.cancelled()
    assert second.done()
    for _ in range(PLACES):
        room.leave()
    await asyncio.wait_for(full(room), 10)


async def test_only_so_many_are_told_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """To have somebody wait takes memory; past a bound nobody does."""
    monkeypatch.setattr(module, "_LATE_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_LATE_AT_MOST", 2)
    room = Room(1.0)
    tasks = [asyncio.create_task(room.late()) for _ in range(3)]
    await settled()
    assert [task.done() for task in tasks] == [False, False, True]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    last = asyncio.create_task(room.late())
    await settled()
    assert not last.done()
    last.cancel()


# On answers.


class Held:
    """An endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.came = 0

    async def __call__(self, call: Call[Nothing, Nothing]) -> Response:
        """Wait."""
        self.came += 1
        await self.go.wait()
        return Response("here")


async def _until(ask: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not ask():
            await asyncio.sleep(0)


async def test_a_probe_is_answered_whoever_stands_in_line(clock: Clock) -> None:
    """And so is, late, who is refused; who is let in has his answer."""
    held = Held()
    app = application(settings(), *endpoints(), Endpoint("held", "GET", "/held", held))
    async with asking(app) as client:
        inside = [asyncio.create_task(client.get("/held")) for _ in range(PLACES)]
        await _until(lambda: held.came == PLACES)
        outside = [asyncio.create_task(client.get("/give")) for _ in range(2)]
        await settled()
        assert (await client.get("/healthz")).status_code == 200
        clock.now += 1.1
        held.go.set()
        assert [(await one).status_code for one in inside] == [200] * PLACES
        assert [kind(await one) for one in outside] == [(503, "overloaded")] * 2
        assert (await client.get("/give")).status_code == 200


async def test_followers_have_a_line_of_their_own(clock: Clock) -> None:
    """Where a server is gone all of its come to another at once: they are let in, and keep nobody else waiting.

    So are those who ask for a ticket first.
    """
    held = Held()
    following = Endpoint("held", "GET", "/held", held, socket=held), Endpoint("held", "GET", "/ticket", held)
    app = application(settings(), *endpoints(), *following)
    async with asking(app) as client:
        herd = [asyncio.create_task(client.get(path)) for path in ("/held", "/ticket") * 5 * PLACES]
        await _until(lambda: held.came == PLACES)
        assert (await client.get("/give")).status_code == 200
        clock.now += 9.9
        held.go.set()
        assert {(await one).status_code for one in herd} == {200}
