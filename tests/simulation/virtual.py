"""An event loop whose time is virtual: it jumps to the next timer instead of sleeping.

A test that runs for minutes of its own time takes milliseconds, and the same seed gives the same run.
There is no input or output under this loop; a wait that nothing will ever end is an error, not a hang.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypeVar

_T = TypeVar("_T")
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class _Jump(selectors.SelectSelector):
    """Says that nothing is ready, and moves the time on by as long as it was asked to wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is going to happen")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time, which begins at 0."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> datetime:
    """The running loop's time as a date."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


class Datetime(datetime):
    """In place of `datetime`: its `now` is the loop's."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Datetime":
        moment = now().astimezone(tz)
        return cls.combine(moment.date(), moment.timetz())
