"""A real Redis for whoever asks, and how Hypothesis plays inputs: for as long as it takes, as a busy machine breaks
no promise.

With FAULTS set, the tests that are cases of a fault write the table of them (see `tests.chaos.table`).
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.redis_server import OwnRedis

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Have the table written where it is asked for."""
    if "FAULTS" in os.environ:
        from tests.chaos.table import Table

        config.pluginmanager.register(Table())


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Where the session's real Redis listens."""
    with tempfile.TemporaryDirectory() as directory:
        server = OwnRedis(Path(directory) / "r")
        yield server.url
        server.stop()
