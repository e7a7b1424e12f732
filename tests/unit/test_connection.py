"""Redis being away is one error, told at once for a moment, and forgotten as soon as Redis is back."""

import asyncio
import traceback
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common.connection import Connection
from common.errors import Unavailable
from common.settings import Settings
from tests.simulation import virtual


class _Stub:
    """A client, and its pool, whose every ping fails with what is set, and is counted."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0
        self.connection_pool = self

    async def disconnect(self, *, inuse_connections: bool) -> None:
        """Idle connections are closed, which fails when the server is gone."""
        assert not inuse_connections, "others are still waiting on theirs"
        raise RedisTimeoutError("closing")

    def set_response_callback(self, command: str, callback: Any) -> None:
        """No answer of this one is worked on."""

    async def ping(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


def _over(stub: Any) -> Connection:
    return Connection(stub)


async def _away(call: Awaitable[Any]) -> str:
    with pytest.raises(Unavailable) as caught:
        await call
    assert caught.value.dependency == "redis"
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RedisConnectionError("refused"),
        RedisTimeoutError(),
        ResponseError("OOM command not allowed"),
        ReadOnlyError("You can't write against a read only replica."),
        ConnectionResetError(),
        TimeoutError(),
        OSError("no such socket"),
    ],
)
def test_every_way_of_not_answering_is_unavailable(error: Exception) -> None:
    """A caller has one thing to expect, and a reason to read."""

    async def main() -> str:
        stub = _Stub()
        stub.error = error
        return await _away(_over(stub).check())

    assert virtual.run(main()) == f"Redis cannot be used: {str(error) or type(error).__name__}"


def test_hold_off() -> None:
    """After a failure Redis is not asked for half a second, then again; each loss is counted once."""

    async def main() -> list[tuple[int, int]]:
        stub, seen = _Stub(), []
        connection = _over(stub)
        stub.error = RedisConnectionError("refused")
        for _ in range(3):
            await _away(connection.check())
            seen.append((stub.asked, connection.losses))
        await asyncio.sleep(0.49)
        await _away(connection.check())
        seen.append((stub.asked, connection.losses))
        await asyncio.sleep(0.02)
        stub.error = None
        await connection.check()
        await connection.check()
        seen.append((stub.asked, connection.losses))
        return seen

    assert virtual.run(main()) == [(1, 1), (1, 1), (1, 1), (1, 1), (3, 1)]


def test_a_mistake_of_the_caller_is_not_a_loss() -> None:
    """What goes wrong inside `use` for another reason passes as it is."""

    async def main() -> int:
        connection = _over(_Stub())
        with pytest.raises(LookupError):
            async with connection.use():
                raise LookupError("ours")
        await connection.check()
        return connection.losses

    assert virtual.run(main()) == 0


async def test_scripts_survive_a_restart(client: "Redis", connection: Connection) -> None:
    """A Redis that has forgotten its scripts is given them again."""
    first = await connection.script("ask", ["slot"], ["", 1000, 2000, "run:"])
    await client.script_flush()
    second = await connection.script("ask", ["slot"], ["", 1000, 2000, "run:"])
    assert (first[0], second[0]) == (b"look", b"wait")
    assert connection.losses == 0


async def test_no_server(tmp_path: Any) -> None:
    """A socket where nobody listens is Redis being away."""
    connection = Connection.open(Settings(redis_url=f"unix://{tmp_path}/none"))
    assert (await _away(connection.check())).startswith("Redis cannot be used: ")
    await connection.close()


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (
            "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `hush`, \r\n",
            "it is older than 6.0; 6.2 is needed.",
        ),
        (
            "%2\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n$5\r\nproto\r\n:3\r\n",
            "it is version 6.0.16; 6.2 is needed.",
        ),
        (
            "%3\r\n$7\r\nversion\r\n$5\r\n6.2.0\r\n$5\r\nproto\r\n:3\r\n$4\r\nrole\r\n$7\r\nreplica\r\n",
            "it is a replica; its master is needed.",
        ),
    ],
)
async def test_a_server_that_is_of_no_use(tmp_path: Path, hello: str, reason: str) -> None:
    """What is too old, or a replica, is refused by what it answers to HELLO; no password is repeated."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            if line == b"HELLO\r\n":
                writer.write(hello.encode())
        writer.close()

    path = tmp_path / "r"
    async with await asyncio.start_unix_server(serve, path):
        connection = Connection.open(Settings(redis_url=f"unix://{path}", redis_password=SecretStr("hush")))
        with pytest.raises(Unavailable) as caught:
            await connection.check()
        assert str(caught.value) == f"Redis cannot be used: {reason}"
        assert "hush" not in "".join(traceback.format_exception(caught.value)), "a log of it would show the password"
        await connection.close()
