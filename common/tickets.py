"""Tickets: what a browser shows instead of a token where it cannot send a header.

EventSource and WebSocket send no Authorization, so a page asks for a ticket with its token and puts
it into the URL, where proxies log it. It is of use once, within half a minute, to read; Redis holds
its hash only.
"""

import hashlib
import secrets

from common.callers import Caller
from common.connection import Connection

TTL_SECONDS = 30


class Tickets:
    """The tickets of one deployment."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def issue(self, caller: Caller) -> str:
        """A ticket for one stream.

        Raises:
            Unavailable: Redis is away (as every method here).
        """
        ticket = secrets.token_urlsafe(24)
        async with self._connection.use() as client:
            await client.set(self._key(ticket), caller.name, ex=TTL_SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> Caller | None:
        """Whom a ticket was issued to, the first time it is shown; else None."""
        async with self._connection.use() as client:
            name = await client.getdel(self._key(ticket))
        return Caller(name.decode("ascii", "replace"), "read") if isinstance(name, bytes) else None

    def _key(self, ticket: str) -> str:
        return f"{self._prefix}:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"
