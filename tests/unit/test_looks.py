"""Looks at what a log's file begins with, beside a reading: no line waits for one, and none is lost for that."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest

from common.errors import Unavailable
from common.kube import log as logs
from common.kube.archive import Kept
from common.kube.transport import Object
from common.runner import Batches
from tests.unit.kubelets import HAS_RUN, RUNS, Rotating, raw, texts, told
from tests.unit.test_kube_objects import RUN_ID


class Played(Rotating):
    """One that plays a reading, and answers looks as that says.

    Attributes:
        looks: how many there were.
        seconds: how long each takes.
        fails: how many of the next ones fail.
        let: none is answered before.
    """

    def __init__(self, play: "Callable[[Played], AsyncIterator[bytes]]") -> None:
        super().__init__()
        self._play = play
        self.looks, self.seconds, self.fails = 0, 0.0, 0
        self.let = asyncio.Event()
        self.let.set()

    async def stream(self, path: str, **query: str) -> AsyncIterator[bytes]:  # type: ignore[override] # nobody sends
        """The reading, or the beginning of the current file."""
        if "limitBytes" not in query:
            async for piece in self._play(self):
                for _ in range(5):  # a look comes to its answer
                    await asyncio.sleep(0)
                yield piece
            return
        self.looks += 1
        await self.let.wait()
        self.now += self.seconds
        if self.fails:
            self.fails -= 1
            raise Unavailable("runner", "It is away.")
        yield raw(*filter(None, self.begins))


class Read(Protocol):
    """Reads what a kubelet plays, by its clock; nothing is kept elsewhere."""

    def __call__(self, kubelet: Played, log: logs.Log, pod: Object = RUNS) -> Batches:
        """A reading."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read."""

    def reading(kubelet: Played, log: logs.Log, pod: Object = RUNS) -> Batches:
        for module in ("log", "looks"):
            monkeypatch.setattr(f"common.kube.{module}.time", kubelet)
        return logs.read(kubelet, "/pods", pod, log, Kept(None, RUN_ID, 1))

    return reading


async def all_of(batches: Batches) -> list[str]:
    """What comes, in time."""
    async with asyncio.timeout(10):
        return told([line async for batch in batches for line in batch])


async def test_no_line_waits_for_a_look(read: Read) -> None:
    """But those that come when so long has passed without an answer that a file may soon have come and gone."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        yield raw(1)
        kubelet.let.clear()
        for number, now in ((2, 4.0), (5, 5.0), (6, 6.0)):
            kubelet.now = now
            yield raw(number)
            kubelet.begins = (3,)

    kubelet = Played(play)
    batches = read(kubelet, logs.Log())
    async with asyncio.timeout(10):
        assert told(await anext(batches)) == texts(1)
        assert told(await anext(batches)) == texts(2)
        waiting = asyncio.ensure_future(anext(batches))
        assert not (await asyncio.wait([waiting], timeout=0.01))[0]
        kubelet.let.set()
        assert told(await waiting) == ["-"]
        kubelet.let.clear()
        assert told(await anext(batches)) == texts(5)
        assert told(await anext(batches)) == texts(6)
        await batches.aclose()
        while len(asyncio.all_tasks()) > 1:  # the look that is under way is ended
            await asyncio.sleep(0)


async def test_slow_looks_do_not_hold_up_a_reading_for_ever(read: Read) -> None:
    """Each line waits for one that was asked for since, and no more; what is answered too late counts as a failure."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        for number in range(1, 6):
            kubelet.now += 1.1
            yield raw(number)

    kubelet = Played(play)
    kubelet.seconds = 6.0
    assert await all_of(read(kubelet, logs.Log())) == texts(*range(1, 6))
    assert kubelet.looks <= 5


async def test_a_look_that_is_never_answered_is_given_up(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines go on without it."""
    monkeypatch.setattr("common.kube.looks.ROTATION_SECONDS", 0.02)

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        kubelet.let.clear()
        for number in range(1, 4):
            kubelet.now += 1.1
            yield raw(number)

    assert await all_of(read(Played(play), logs.Log())) == texts(1, 2, 3)


@pytest.mark.parametrize("fails", [0, 1, 2])
async def test_who_has_slept_looks_until_it_is_answered(read: Read, fails: int) -> None:
    """A look that fails after that is asked for again at once, before anything more is told."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        yield raw(1)
        yield raw(2)
        kubelet.now += 3600
        kubelet.fails, kubelet.begins = fails, (7,)
        for _ in range(3):
            yield b""
        yield raw(7)
        yield raw(8)

    assert await all_of(read(Played(play), logs.Log())) == [*texts(1, 2), "-", *texts(7, 8)]


async def test_a_file_may_come_and_go_while_a_look_takes_long(read: Read) -> None:
    """What counts is when it was answered, and that it is another file than at the look before."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        yield raw(1)
        kubelet.now = 1.1
        yield b""
        yield b""
        kubelet.now = 2.2
        kubelet.seconds, kubelet.begins = 9.5, (5,)
        yield b""
        yield b""
        kubelet.seconds = 0.0
        for piece in (raw(2), raw(5), raw(6)):
            kubelet.now += 0.1
            yield piece

    assert await all_of(read(Played(play), logs.Log())) == [*texts(1), "-", *texts(2, 5, 6)]


async def test_one_file_all_the_time_leaves_no_doubt(read: Read) -> None:
    """However long the looks take, and though the reading has not come to its first line."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        yield raw(1)
        kubelet.begins = (3,)
        for _ in range(2):
            kubelet.now += 1.1
            yield b""
        kubelet.now += 20
        yield raw(2)
        yield raw(3)

    assert await all_of(read(Played(play), logs.Log())) == texts(1, 2, 3)


@pytest.mark.parametrize("answered", [True, False])
async def test_a_look_is_not_forgotten_at_the_end(read: Read, *, answered: bool) -> None:
    """It has seen a file that the reading has not come to; whoever cannot read that any more says so."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        yield raw(1)
        kubelet.now, kubelet.begins = 1.4, (3,)
        if not answered:
            kubelet.let.clear()
            asyncio.get_running_loop().call_later(0.01, kubelet.let.set)
        yield raw(2)

    log = logs.Log()
    assert await all_of(read(Played(play), log)) == texts(1, 2)
    assert await all_of(logs.rest(log, Kept(None, RUN_ID, 1))) == ["-"]


async def test_what_a_late_look_has_seen_at_the_end_may_not_be_all(read: Read) -> None:
    """Another file may have come and gone before that one: it does not go on from what is known."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        if kubelet.looks:
            yield raw(5)
            return
        yield raw(1)
        kubelet.now, kubelet.seconds, kubelet.begins = 4.0, 7.5, (5,)
        yield raw(2)

    kubelet, log = Played(play), logs.Log()
    assert await all_of(read(kubelet, log)) == texts(1, 2)
    assert await all_of(read(kubelet, log, HAS_RUN)) == ["-", *texts(5)]


async def test_one_empty_file_may_be_another_than_the_one_before(read: Read) -> None:
    """The reading is left for it, and what came between both looks is missing."""

    async def play(kubelet: Played) -> AsyncIterator[bytes]:
        if kubelet.now:
            yield raw(5)
            return
        yield raw(1, 2)
        kubelet.now, kubelet.begins = 1.0, (0,)
        yield b""
        yield b""
        kubelet.fails = 2
        for _ in range(4):
            kubelet.now += 1.0
            yield b""
        kubelet.now += 20
        yield b""

    kubelet, log = Played(play), logs.Log()
    assert await all_of(read(kubelet, log)) == texts(1, 2)
    assert kubelet.now == 25.0
    assert await all_of(read(kubelet, log, HAS_RUN)) == ["-", *texts(5)]
