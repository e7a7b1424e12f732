"""What ends first is what comes of it, and nothing of the other is left."""

import asyncio
from typing import Any

import pytest

from common import tasks
from common.tasks import end, first_of

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost cancellation is repeated soon."""
    monkeypatch.setattr(tasks, "_LOST_SECONDS", 0.01)


class Waiting:
    """Work that waits, and says how it was ended; it misses so many cancellations."""

    def __init__(self, misses: int = 0) -> None:
        self.cancelled = 0
        self._misses = misses

    async def work(self) -> str:
        """Wait for ever."""
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > self._misses:
                    raise


async def at_once(result: Any) -> Any:
    """Give a result in a moment, or fail with it."""
    await asyncio.sleep(0)
    if isinstance(result, Exception):
        raise result
    return result


def left() -> int:
    """How many tasks there are but the test's."""
    return len(asyncio.all_tasks()) - 1


@pytest.mark.parametrize("misses", [0, 2])
async def test_the_first_counts_whichever_it_is(misses: int) -> None:
    """The other is cancelled, again where it has missed that, and has ended; this task is as if nothing had been."""
    for here in (True, False):
        other = Waiting(misses)
        works = (at_once("first"), other.work()) if here else (other.work(), at_once("first"))
        assert await first_of(*works) == "first"
        assert (other.cancelled, left()) == (misses + 1, 0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.03)  # a cancellation that was asked for and came too late would be here


@pytest.mark.parametrize("here", [True, False])
async def test_a_failure_is_an_end_too(here: bool) -> None:
    """It is raised, whoever had it."""
    other = Waiting()
    failing = at_once(ValueError("x"))
    works = (failing, other.work()) if here else (other.work(), failing)
    with pytest.raises(ValueError, match="x"):
        await first_of(*works)
    assert (other.cancelled, left()) == (1, 0)


async def test_who_is_ended_from_outside_ends_both() -> None:
    """A cancellation of somebody else's is not taken for one's own."""
    one, other = Waiting(), Waiting()
    task = asyncio.create_task(first_of(one.work(), other.work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await end([task])
    assert task.cancelled()
    assert (one.cancelled, other.cancelled, left()) == (1, 1, 0)


async def test_both_at_once() -> None:
    """What ended beside while this task is cancelled from outside does not save it."""
    one = Waiting()
    beside = asyncio.Event()

    async def ends() -> str:
        await beside.wait()
        return "beside"

    task = asyncio.create_task(first_of(one.work(), ends()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    beside.set()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left() == 0
