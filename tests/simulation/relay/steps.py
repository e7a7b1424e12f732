"""Processes, and the steps they take: each may be held up, and a process may be killed before or after any of them."""

import asyncio
import random
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

_HOLD_UPS = (0.3, 1.1, 3.0, 8.0)


@dataclass(eq=False)
class Process:
    """A stream server or a recorder: dies as a whole, in the middle of whatever it does."""

    name: str
    dead: bool = False
    tasks: list["asyncio.Task[Any]"] = field(default_factory=list)


running: ContextVar["Process | None"] = ContextVar("running", default=None)


class Steps:
    """Whoever decides how long a step takes; and the trace of all of them.

    Attributes:
        over: the history has ended: nobody goes on.
    """

    def __init__(self, rng: random.Random, seconds: float, hold_up: float) -> None:
        self._rng = rng
        self._seconds, self._hold_up = seconds, hold_up
        self._trace: list[tuple[float, str, str]] = []
        self._limbo: list[asyncio.Future[None]] = []  # where the dead wait: forgotten, but not to be collected
        self.over = False

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Remember whose task it is."""
        if (process := running.get()) is not None:
            process.tasks.append(task)

    def calm(self) -> None:
        """From now on nothing is held up."""
        self._hold_up, self._seconds = 0.0, min(self._seconds, 0.02)

    async def pause(self, process: Process) -> None:
        """Time passes; the dead never come back from it."""
        await self.alive(process)
        seconds = self._rng.random() * self._seconds
        if self._hold_up and self._rng.random() < self._hold_up:
            seconds = self._rng.choice(_HOLD_UPS)
        await asyncio.sleep(seconds)
        await self.alive(process)

    async def alive(self, process: Process) -> None:
        """Go on if the process lives."""
        if self.over:
            raise asyncio.CancelledError
        if process.dead:
            self._limbo.append(asyncio.get_running_loop().create_future())
            await self._limbo[-1]

    def kill(self, process: Process) -> None:
        """Nothing of it goes on: what would clean up comes to no step any more."""
        self.note(process.name, "*** killed")
        process.dead = True
        for task in process.tasks:
            task.cancel()

    # The trace.

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time()

    def note(self, who: str, text: str) -> None:
        """Add to the trace."""
        self._trace.append((self.time, who, text))

    def trace(self) -> list[str]:
        """What has happened, a line a step."""
        return [f"{time:9.3f}  {who:14}  {text}" for time, who, text in self._trace]
