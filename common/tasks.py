"""Tasks that have to end, and a task that ends when another one does.

A cancellation that meets the very moment in which a reply arrives is lost in redis-py (seen with 8.1 on
Python 3.11, one in twenty), and the task goes on as if nothing had been. So nothing here cancels only once.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

_T = TypeVar("_T")
_S = TypeVar("_S")
_LOST_SECONDS = 0.2


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until they have ended."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_LOST_SECONDS)


async def first_of(work: Coroutine[Any, Any, _T], beside: Coroutine[Any, Any, _S]) -> _T | _S:
    """The result of what ends first; the other is cancelled, and has ended when this returns.

    `work` is done in the task that is here, which costs one task less than two of their own. What is woken often is to
    be `beside`: it has no callers in between that each wake-up goes through.
    """
    here = cast("asyncio.Task[Any]", asyncio.current_task())
    other = asyncio.create_task(beside)
    before = here.cancelling()
    stop = _Stop(here, other)
    other.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        if not stop.asked or here.cancelling() > before + stop.asked:  # somebody else wants us to end
            raise
        return other.result()
    finally:
        stop.working = False
        for _ in range(stop.asked):
            here.uncancel()
        await end((other,))


class _Stop:
    """Ends the work that is done `here` once the other has ended; each follower has one, so it is no closure.

    Attributes:
        asked: how many of the cancellations are ours.
        working: there is something to be ended.
    """

    __slots__ = ("_here", "_other", "asked", "working")

    def __init__(self, here: "asyncio.Task[Any]", other: "asyncio.Task[Any]") -> None:
        self._here, self._other = here, other
        self.asked = 0
        self.working = True

    def __call__(self, _: object = None) -> None:
        if self.working and not self._other.cancelled():
            self.asked += 1
            self._here.cancel()
            self._here.get_loop().call_later(_LOST_SECONDS, self)
