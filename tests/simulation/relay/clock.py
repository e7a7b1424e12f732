"""The library in virtual time, and with little of everything: what takes thousands of lines takes tens here."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, cast
from unittest.mock import patch

from common.archive import Archive
from tests.simulation import virtual
from tests.simulation.relay.weather import Weather

_TIMED = ("follow", "pages", "pump", "kube.log", "kube.looks", "recorder.recorder")
_DATED = ("events", "store", "kube.runner")
_SEGMENT_BYTES = 600
_RUNNER_PAGE_LINES = 25
_EVENT_BYTES = 220  # of most lines here: not every page is a frame


class Clock:
    """In place of the module `time`: the loop's."""

    @staticmethod
    def monotonic() -> float:
        """Seconds since the history's beginning."""
        return asyncio.get_running_loop().time()

    @staticmethod
    def time_ns() -> int:
        """Nanoseconds since 1970, by the clock that all but heads have."""
        return int(virtual.EPOCH.timestamp()) * 1_000_000_000 + int(Clock.monotonic() * 1e9)

    @staticmethod
    def time() -> float:
        """The same in seconds."""
        return Clock.time_ns() / 1e9


class _Task(asyncio.Task[Any]):
    """A task whose place in a set follows from the order in which tasks were made, not from its address."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


def repeatable(made: Callable[[asyncio.Task[Any]], None]) -> None:
    """Have the running loop do the same each time a history is played; `made` is told of each task."""
    numbers = count()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = _Task(coroutine, next(numbers), loop=loop, **options)
        made(task)
        return task

    asyncio.get_running_loop().set_task_factory(cast("Any", factory))


@contextmanager
def in_virtual_time(weather: Weather) -> Iterator[None]:
    """While this holds, the library's clocks are the loop's, and its pages, windows and segments are small."""
    sizes = {
        "reader._WINDOW_LINES": weather.window,
        "reader.PAGE_LINES": weather.page,
        "pages.PAGE_LINES": weather.page,
        "reader.FRAME_BYTES": _EVENT_BYTES * weather.page,
        "pages.FRAME_BYTES": _EVENT_BYTES * weather.page,
        "pages._FEW_LINES": 2,
        "pages._FEW_BYTES": 2 * _EVENT_BYTES,
        "pages._PAGES": 3,
        "pages._RUNNER_PAGE_LINES": _RUNNER_PAGE_LINES,
        "archive._BATCH_LINES": weather.page,
        "archive._PAGE_LINES": 3 * weather.page,
        "kube.log._BATCH_LINES": weather.page,
        "streams._TAIL_LINES": weather.page,
    }
    with ExitStack() as stack:
        for module in _TIMED:
            stack.enter_context(patch(f"common.{module}.time", Clock))
        for module in _DATED:
            stack.enter_context(patch(f"common.{module}.datetime", virtual.Datetime))
        for name, size in sizes.items():
            stack.enter_context(patch(f"common.{name}", size))
        stack.enter_context(patch.dict(cast("Any", Archive.__init__).__kwdefaults__, segment_bytes=_SEGMENT_BYTES))
        # What a crash of the machine would need it for is not played, and waiting for a disk is not virtual.
        stack.enter_context(patch("os.fsync", lambda descriptor: None))
        yield
