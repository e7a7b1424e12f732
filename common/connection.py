"""The one way to Redis: a client made from settings, and what counts as Redis being away.

Redis is a cache in front of the cluster, so its absence is an ordinary state: `use()` turns every
way of not answering into `Unavailable`, and for a moment after a failure says so at once instead
of having every caller wait for the same time-out. After a failure no idle connection is used again:
it may lead to a server that is gone, or was the master before a fail-over.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from common.errors import Unavailable
from common.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis, Sentinel
    from redis.commands.core import AsyncScript

_HOLD_OFF_SECONDS = 0.5


class Connection:
    """Redis, or the knowledge that it is away."""

    def __init__(self, client: "Redis", sentinel: "Sentinel | None" = None) -> None:
        self._client = client
        take_entries_as_sent(client)
        self._sentinel = sentinel
        self._away_until = 0.0
        self._scripts: dict[str, AsyncScript] = {}
        self.losses = 0  # grows each time Redis is lost: writes may be missing in it since

    @classmethod
    def open(cls, settings: Settings) -> "Connection":
        """A connection as the settings say; nothing is sent yet."""
        from common.redis_client import open_client

        return cls(*open_client(settings))

    @asynccontextmanager
    async def use(self) -> AsyncIterator["Redis"]:
        """The client, for commands that may fail as `Unavailable`."""
        from redis.exceptions import RedisError

        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise Unavailable("redis", "Redis is away.")
        try:
            yield self._client
        except (RedisError, OSError) as error:
            self._away_until = loop.time() + _HOLD_OFF_SECONDS
            self.losses += 1
            from common.metrics import REDIS_AWAY

            REDIS_AWAY.inc()
            with suppress(RedisError, OSError):
                await self._client.connection_pool.disconnect(inuse_connections=False)
            if re.search("unknown command .HELLO", str(error)):  # and all that was sent with it, the password too
                raise Unavailable("redis", "Redis cannot be used: it is older than 6.0; 6.2 is needed.") from None
            raise Unavailable("redis", f"Redis cannot be used: {_reason(error)}") from error

    async def script(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run `common/lua/<name>.lua`, one transition as one step; a Redis that lacks it is given it.

        Raises:
            Unavailable: Redis is away.
        """
        async with self.use() as client:
            if name not in self._scripts:
                source = (files("common") / "lua" / f"{name}.lua").read_text("utf-8")
                self._scripts[name] = client.register_script(source)
            return await self._scripts[name](keys=keys, args=args)

    async def check(self) -> None:
        """Return if Redis answers.

        Raises:
            Unavailable: it does not.
        """
        async with self.use() as client:
            await client.ping()

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


def take_entries_as_sent(client: Any) -> None:
    """Have a client give the entries of streams as Redis sends them: an id, and names and values in turn.

    A log is thousands of them: to make a mapping of each is more work than all that is done with them.
    """
    for command in ("XRANGE", "XREVRANGE", "XREAD"):
        client.set_response_callback(command, lambda answer, **_: answer)


def _reason(error: Exception) -> str:
    # What redis-py says of a Sentinel that did not help is the whole configuration of its client.
    return re.sub(r"<redis\..*?> - ", "", str(error)) or type(error).__name__
