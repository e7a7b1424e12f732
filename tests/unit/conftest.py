"""Redis for unit tests: the one in memory, and a real one to show that it behaves alike."""

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from common.connection import Connection


@pytest.fixture(params=["fakeredis", pytest.param("redis-server", marks=pytest.mark.slow)])
def own_client(request: pytest.FixtureRequest) -> "Redis":
    """A client of an empty Redis: of the model, and of a real server."""
    if request.param == "fakeredis":
        return FakeAsyncRedis()
    return Redis.from_url(request.getfixturevalue("redis_url"))


@pytest.fixture
async def client(own_client: "Redis") -> "AsyncIterator[Redis]":
    """A client of an empty Redis, closed in the end."""
    await own_client.flushall()
    yield own_client
    await own_client.aclose()


@pytest.fixture
def connection(client: "Redis") -> Connection:
    """The library's way to that Redis."""
    return Connection(client)
