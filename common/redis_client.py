"""How Redis is reached: the client that the settings ask for, its login, its TLS and its Sentinels.

What redis-py would do by itself and is not to be done: try again after a time-out, ask each new
connection what needs rights of its own (CLIENT), pack commands argument by argument in Python, and
make a TLS context for each connection, which reads all of the system's authorities (tens of
milliseconds, with the event loop waiting) and trusts them beside the given one.
"""

import re
import time
from typing import TYPE_CHECKING, Any

from common.settings import Settings

if TYPE_CHECKING:
    from ssl import SSLContext

    from pydantic import SecretStr
    from redis.asyncio import Redis, Sentinel
    from redis.asyncio.connection import AbstractConnection

_FLOOR = (6, 2)  # reads of a stream behind an id, and GETDEL
_CONTEXT_SECONDS = 60


def open_client(settings: Settings) -> "tuple[Redis, Sentinel | None]":
    """The client, and the Sentinels that tell it where the master is; nothing is sent yet. Both are to be closed."""
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.connection import parse_url

    address = parse_url(settings.redis_url or f"unix://{settings.redis_socket}")
    options = {**address, **_options(settings), **_login(settings.redis_username, settings.redis_password)}
    options["max_connections"] = 10_000  # followers block on reads; to refuse the next caller would be an outage
    tls = _Tls(settings) if str(settings.redis_url).startswith("rediss:") else None
    if not settings.redis_sentinels:
        client, sentinel = Redis.from_pool(ConnectionPool(**options)), None
    else:
        options["ssl"] = options.pop("connection_class", None) is not None
        sentinel = _sentinel(settings, tls)
        client = sentinel.master_for(settings.redis_sentinel_master or "", **options)
    if tls is not None:
        tls.serve(client.connection_pool)
    return client, sentinel


def _options(settings: Settings) -> dict[str, Any]:
    """How every connection is made, be it to Redis or to a Sentinel."""
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.maint_notifications import MaintNotificationsConfig

    return {
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        # One new try at once: a pooled connection may be one that a restarted Redis has forgotten.
        "retry": Retry(NoBackoff(), 1, (RedisConnectionError,)),
        "redis_connect_func": _greet,
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _login(username: str | None, password: "SecretStr | None") -> dict[str, str]:
    given = {"username": username, "password": password.get_secret_value() if password else None}
    return {name: value for name, value in given.items() if value is not None}


def _sentinel(settings: Settings, tls: "_Tls | None") -> "Sentinel":
    from redis.asyncio import Sentinel

    # They are asked one after the other, and all of them are to take no longer than Redis may.
    patience = settings.redis_timeout_seconds / len(settings.redis_sentinels)
    options = _options(settings) | {"socket_timeout": patience, "socket_connect_timeout": patience}
    options |= {"ssl": tls is not None, **_login(settings.redis_sentinel_username, settings.redis_sentinel_password)}
    places = [place.rpartition(":") for place in settings.redis_sentinels]
    addresses = [(host.strip("[]"), int(port)) for host, _, port in places]
    sentinel = Sentinel(addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call] # redis-py left it so
    if tls is not None:
        for client in sentinel.sentinels:
            tls.serve(client.connection_pool)
    return sentinel


class _Tls:
    """One TLS context for all connections, made again now and then: certificates are renewed in their files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: tuple[SSLContext, float] | None = None

    def serve(self, pool: Any) -> None:
        """Have the connections that `pool` makes ask here for their context."""
        make = pool.make_connection

        def made() -> Any:
            connection = make()
            connection.ssl_context = self
            return connection

        pool.make_connection = made

    def get(self) -> "SSLContext":
        """The context of a connection that begins now.

        Raises:
            OSError: a file is not what it should be.
        """
        if self._made is None or self._made[1] < time.monotonic():
            self._made = self._context(), time.monotonic() + _CONTEXT_SECONDS
        return self._made[0]

    def _context(self) -> "SSLContext":
        import ssl

        settings, url = self._settings, str(self._settings.redis_url)
        context = ssl.create_default_context(cafile=settings.redis_ca_file)
        context.check_hostname = "?" not in url  # either option means this
        if url.endswith("?ssl_cert_reqs=none"):
            context.verify_mode = ssl.CERT_NONE
        if settings.redis_cert_file is not None:
            context.load_cert_chain(settings.redis_cert_file, settings.redis_key_file)
        return context


async def _greet(connection: "AbstractConnection") -> None:
    """Log in, and refuse a server that is too old or only a replica: HELLO tells, and needs no right.

    A replica would let a reader take what is stale for what is so.
    """
    from redis.connection import HiredisRespSerializer
    from redis.exceptions import RedisError

    connection.pack_command = HiredisRespSerializer().pack  # type: ignore[method-assign, assignment] # as where it is not async
    await connection.on_connect()
    await connection.send_command("HELLO", 3)
    hello = await connection.read_response()
    version = re.match(rb"(\d+)\.(\d+)", hello.get(b"version", b""))
    if version and (int(version[1]), int(version[2])) < _FLOOR:
        raise RedisError(f"it is version {version.string.decode()}; 6.2 is needed.")
    if hello.get(b"role") == b"replica":
        raise RedisError("it is a replica; its master is needed.")
