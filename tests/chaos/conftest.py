"""The places of the cases, and what each case ends with."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.audit import Audit
from tests.chaos.places import Cluster, Local, Place
from tests.cluster.place import namespace

Judge = Callable[[Place], Audit]

NO_CLUSTER = pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for a socket; what is just ending may still write to it."""
    with tempfile.TemporaryDirectory(prefix="nfc-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def local(directory: Path) -> Iterator[Local]:
    """An empty place on this machine."""
    made = Local(directory)
    yield made
    made.close()


@pytest.fixture
def cluster(directory: Path) -> Iterator[Cluster]:
    """An empty place on the cluster."""
    with namespace("chaos") as name:
        made = Cluster(directory, name)
        yield made
        made.close()


@pytest.fixture(params=["local", pytest.param("cluster", marks=[pytest.mark.cluster, NO_CLUSTER])])
def place(request: pytest.FixtureRequest) -> Place:
    """Each place."""
    made: Place = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def judge(record_property: Callable[[str, object], None]) -> Iterator[Judge]:
    """Makes the audit of a place, by a server that nothing is done to; what it counts goes into the table of faults."""
    made: list[Audit] = []

    def make(place: Place) -> Audit:
        made.append(Audit(place, place.server()))
        return made[-1]

    yield make
    for audit in made:
        for name, count in audit.figures.items():
            record_property(name, count)


@pytest.fixture
def audit(place: Place, judge: Judge) -> Audit:
    """The audit of each place."""
    return judge(place)
