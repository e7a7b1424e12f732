"""What a process works with, built once and only when a request needs it: settings, Redis, the runner.

The runner, and all it imports, waits for the first who asks for more than what is fresh in Redis:
most callers of most functions never do, and a cold start is a user waiting.
"""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

from common.connection import Connection
from common.flights import Flights
from common.lock import Lock
from common.settings import Settings
from common.shutdown import Shutdown
from common.store import Store

if TYPE_CHECKING:
    from common.runner import Runner
    from common.streams import Streams


@dataclass(frozen=True, eq=False)
class Platform:
    """The parts that functions are made of; `open_runner` is called once, by the first look at `runner`."""

    settings: Settings
    open_runner: "Callable[[], Runner]"
    connection: Connection
    lock: Lock
    store: Store
    flights: Flights = field(default_factory=Flights)
    shutdown: Shutdown = field(default_factory=Shutdown)
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    def assemble(cls, settings: Settings, open_runner: "Callable[[], Runner]", connection: Connection) -> "Platform":
        """The parts around a runner and a connection to Redis."""
        return cls(
            settings=settings,
            open_runner=open_runner,
            connection=connection,
            lock=Lock(connection, settings.redis_prefix),
            store=Store(connection, settings),
        )

    @cached_property
    def runner(self) -> "Runner":
        """Where runs happen."""
        runner = self.open_runner()
        self._opened.push_async_callback(runner.close)
        return runner

    @cached_property
    def streams(self) -> "Streams":
        """The runs' logs in Redis."""
        from common.streams import Streams

        return Streams(self.connection, self.settings)

    async def close(self) -> None:
        """Let go of connections."""
        await self._opened.aclose()
        await self.connection.close()


@cache
def platform() -> Platform:
    """This process' platform, as the environment says.

    Raises:
        SettingsError: the environment is not valid.
    """
    settings = Settings.read(os.environ)

    def open_runner() -> "Runner":
        if settings.runner == "kubernetes":
            from common.kube.runner import KubernetesRunner

            return KubernetesRunner.open(settings)
        from common.local.runner import LocalRunner

        return LocalRunner.open(settings, os.environ)

    return Platform.assemble(settings, open_runner, Connection.open(settings))
