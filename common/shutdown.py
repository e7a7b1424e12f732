"""Graceful stop: a server that is told to end tells its followers where to go on.

uvicorn waits for open answers before it runs any shut-down hook, and a stream is an open answer.
So the first stream puts itself in front of the handler that is installed for SIGTERM and SIGINT;
it works the same under uvicorn, gunicorn and functions-framework.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any


class Shutdown:
    """Whether this process has been told to stop."""

    def __init__(self) -> None:
        self.begun = False
        self._listening = False
        self._event = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, in the event loop, when it begins."""
        self._callbacks.append(callback)

    def begin(self) -> None:
        """Tell everybody; to be called in the event loop."""
        if not self.begun:
            self.begun = True
            self._event.set()
            for callback in self._callbacks:
                callback()

    async def wait(self, seconds: float) -> None:
        """Wait for it to begin, `seconds` at most."""
        # Not `wait_for`: up to Python 3.11 it may lose a cancel that comes together with what it waits for.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def listen(self) -> None:
        """Begin when this process gets SIGTERM or SIGINT, before the handler that is there now does its part."""
        if self._listening or threading.current_thread() is not threading.main_thread():
            return  # a server in a thread is stopped by whoever runs it
        self._listening = True
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            _chain(number, lambda: loop.call_soon_threadsafe(self.begin))


def _chain(number: signal.Signals, first: Callable[[], Any]) -> None:
    then = signal.getsignal(number)
    if not callable(then):
        return  # nobody would end the process: a signal that kills it now has to do so still

    def handle(got: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            first()
        then(got, frame)

    signal.signal(number, handle)
