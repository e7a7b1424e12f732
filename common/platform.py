"""What a process works with, built once and only when a request needs it: settings, Redis, the runner."""

import os
from dataclasses import dataclass, field
from functools import cache

from common.connection import Connection
from common.flights import Flights
from common.lock import Lock
from common.runner import Runner
from common.settings import Settings
from common.shutdown import Shutdown
from common.store import Store
from common.streams import Streams


@dataclass(frozen=True, eq=False)
class Platform:
    """The parts that functions are made of."""

    settings: Settings
    runner: Runner
    connection: Connection
    lock: Lock
    store: Store
    streams: Streams
    flights: Flights = field(default_factory=Flights)
    shutdown: Shutdown = field(default_factory=Shutdown)

    @classmethod
    def assemble(cls, settings: Settings, runner: Runner, connection: Connection) -> "Platform":
        """The parts around a runner and a connection to Redis."""
        prefix = settings.redis_prefix
        return cls(
            settings=settings,
            runner=runner,
            connection=connection,
            lock=Lock(connection, prefix),
            store=Store(connection, settings),
            streams=Streams(connection, prefix, settings.history_ttl_seconds),
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self.runner.close()
        await self.connection.close()


@cache
def platform() -> Platform:
    """This process' platform, as the environment says.

    Raises:
        SettingsError: the environment is not valid.
    """
    settings = Settings.read(os.environ)
    from common.local.runner import LocalRunner

    return Platform.assemble(settings, LocalRunner.open(settings, os.environ), Connection.open(settings))
