"""A bell that wakes all who wait, again and again."""

import asyncio


class Bell:
    """What a thousand followers wait for: nothing of it is done for each but the future that a task needs.

    An `asyncio.Event` that is replaced each time does the same for twice the work.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []

    def wait(self) -> "asyncio.Future[None]":
        """What is done when the bell rings next; of use to one task, once."""
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        return waiting

    def ring(self) -> None:
        """Wake everybody."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():  # cancelled: that one has gone
                one.set_result(None)
