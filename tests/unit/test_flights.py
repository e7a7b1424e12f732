"""Callers of one process share a look, and none is given one that began before it asked."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.flights import Flights
from tests.simulation import virtual


class _Work:
    """Numbered rounds of work, each of which lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        mine = self.begun
        await self.go.wait()
        return mine


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_those_who_ask_together_share() -> None:
    """A hundred callers are one round."""
    flights, work = Flights(), _Work()
    callers = [asyncio.create_task(flights.share("x", work)) for _ in range(100)]
    work.go.set()
    assert await asyncio.gather(*callers) == [1] * 100
    assert work.begun == 1


async def test_a_later_caller_gets_the_next_round() -> None:
    """All who ask while a round is under way share the one after it."""
    flights, work = Flights(), _Work()
    first = asyncio.create_task(flights.share("x", work))
    await _settled()
    later = [asyncio.create_task(flights.share("x", work)) for _ in range(3)]
    await _settled()
    assert work.begun == 1
    work.go.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 2, 2]


async def test_names_are_apart() -> None:
    """Work of another name is not waited for."""
    flights, work, other = Flights(), _Work(), _Work()
    waiting = asyncio.create_task(flights.share("x", work))
    other.go.set()
    assert await flights.share("y", other) == 1
    work.go.set()
    await waiting


async def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    """The others still get the result; a failure that nobody is left for is nobody's error."""
    flights, work = Flights(), _Work()
    gone, stays = (asyncio.create_task(flights.share("x", work)) for _ in range(2))
    await _settled()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    work.go.set()
    assert await stays == 1


async def test_a_failure_reaches_all_and_ends_with_its_round() -> None:
    """Everyone of the round is told; the next round begins anew."""
    flights = Flights()

    async def fails() -> int:
        raise LookupError("no")

    callers = [asyncio.create_task(flights.share("x", fails)) for _ in range(2)]
    assert [type(error) for error in await asyncio.gather(*callers, return_exceptions=True)] == [LookupError] * 2
    work = _Work()
    work.go.set()
    assert await flights.share("x", work) == 1


@pytest.mark.parametrize("rounds", [1, 3])
async def test_nothing_is_kept(rounds: int) -> None:
    """A flight that has ended leaves nothing behind."""
    flights, work = Flights(), _Work()
    work.go.set()
    for _ in range(rounds):
        await flights.share("x", work)
    assert (flights._running, flights._next) == ({}, {})


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=100)
def test_no_result_is_older_than_its_question(plan: list[tuple[float, float, bool]]) -> None:
    """Whenever callers come, however long rounds last or fail: a result's work began after its caller asked."""

    async def main() -> None:
        flights, loop = Flights(), asyncio.get_running_loop()
        together = most = 0

        def work(lasts: float, fails: bool) -> Callable[[], Awaitable[float]]:
            async def one() -> float:
                nonlocal together, most
                began = loop.time()
                together += 1
                most = max(most, together)
                await asyncio.sleep(lasts)
                together -= 1
                if fails:
                    raise LookupError(began)
                return began

            return one

        async def caller(at: float, lasts: float, fails: bool) -> None:
            await asyncio.sleep(at)
            asked = loop.time()
            try:
                began = await flights.share("x", work(lasts, fails))
            except LookupError as error:
                (began,) = error.args
            assert began >= asked

        await asyncio.gather(*(caller(*one) for one in plan))
        assert most == 1

    virtual.run(main())
