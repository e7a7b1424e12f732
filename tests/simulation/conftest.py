"""What the models are compared with."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from common.connection import take_entries_as_sent
from tests.redis_server import OwnRedis


@pytest.fixture(scope="module")
def real() -> Iterator["redis.Redis"]:
    """A client of a real Redis."""
    with tempfile.TemporaryDirectory() as directory:
        server = OwnRedis(Path(directory) / "r")
        with redis.Redis.from_url(server.url) as client:
            take_entries_as_sent(client)
            yield client
        server.stop()
