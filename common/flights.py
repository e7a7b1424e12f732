"""Single flight: many callers of one process, one look at the cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Flights:
    """Work that callers share by name.

    A caller never gets the result of work that began before it asked (it may have just been told of
    a change which that work had not seen): it joins the next round, together with all who wait by then.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._next: dict[str, asyncio.Task[Any]] = {}

    async def share(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """The result of a round of `work` that began after this call; a caller that goes away does not end it."""
        task = self._next.get(name)
        if task is None or task.done():  # done without having begun: cancelled
            task = asyncio.create_task(self._round(name, self._running.get(name), work))
            task.add_done_callback(_retrieve)
            self._next[name] = task
        result: _T = await asyncio.shield(task)
        return result

    async def _round(self, name: str, before: asyncio.Task[Any] | None, work: Callable[[], Awaitable[_T]]) -> _T:
        if before is not None:
            await asyncio.wait([before])
        me = self._next.pop(name)
        self._running[name] = me
        try:
            return await work()
        finally:
            if self._running.get(name) is me:
                del self._running[name]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of a failure that nobody waits for any more; without this asyncio would report it."""
    if not task.cancelled():
        task.exception()
