"""One installation of the chart for all tests of it, with nothing active when a test begins."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.release import Caller, Release, installed


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """The chart, installed for these tests alone."""
    with installed(Release(secrets.token_hex(3))) as made:
        yield made


@pytest.fixture
async def caller(release: Release) -> AsyncIterator[Caller]:
    """A caller of an installation in which nothing is active, and in which nothing is left."""
    async with release.caller() as made:
        await made.cancel()
        yield made
        await made.cancel()
