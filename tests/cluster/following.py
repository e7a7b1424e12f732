"""Somebody who follows a run as a person's program would: back behind the last event whenever a connection ends."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

import httpx

from tests.cluster.release import PATIENCE_SECONDS, Caller, Object, log

_PAUSE_SECONDS = 0.2  # as much as a program would wait before it connects again


class Follower:
    """One follower, and the events it has been sent so far."""

    def __init__(self, caller: Caller, run_id: str) -> None:
        self._caller = caller
        self._query = {"run_id": run_id}
        self.events: list[Object] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while not any(event["type"] == "complete" for event in self.events):
            with suppress(httpx.TransportError):  # whoever serves it may be killed
                await self._connection()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _connection(self) -> None:
        headers = {"accept": "application/x-ndjson"}
        async with self._caller.http.stream("GET", "/stream", params=self._query, headers=headers) as response:
            if response.status_code != 200:
                return
            async for line in response.aiter_lines():
                if line:
                    self.events.append(json.loads(line))
                    self._query["after"] = self.events[-1]["id"]
                    self._more.set()

    @property
    def lines(self) -> list[str]:
        """The log so far; no line of it is lost."""
        return [line for _, line in log(self.events)]

    async def until(self, true: Callable[[list[Object]], bool], what: str) -> None:
        """Wait until something is true of its events."""
        try:
            async with asyncio.timeout(2 * PATIENCE_SECONDS):
                while not true(self.events):
                    assert not self._task.done(), f"the run has ended without {what}: {self.events[-3:]}"
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}: {self.events[-3:]}") from None

    async def hears_more(self, when: str = "") -> None:
        """Wait for lines that are not there yet."""
        known = len(self.lines)
        await self.until(lambda events: len(log(events)) > known + 2, f"more lines {when}")

    async def end(self) -> None:
        """Wait for the run's end."""
        await asyncio.wait_for(self._task, 2 * PATIENCE_SECONDS)
