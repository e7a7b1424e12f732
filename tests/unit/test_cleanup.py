"""The clean-up does what a start and a cancel do, and is nobody to Redis."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from common import cleanup
from common.errors import Conflict, Unavailable
from common.jobs import Holder, Job, Lease
from common.kube.runner import KubernetesRunner
from common.settings import Settings
from common.settle import tidy
from tests.unit.samples import job, record, run_id


def made(number: int, age: timedelta, **changes: object) -> Job:
    """A Job that was made so long ago."""
    accepted = record(run_id=run_id(number), created_at=datetime.now(UTC) - age)
    return job(record=accepted, uid=f"uid-{number}", **changes)


def ended(number: int, age: timedelta) -> Job:
    """One whose run ended at once."""
    return made(number, age, launched=True, condition="Complete", finished_at=datetime.now(UTC) - age)


class Cluster(KubernetesRunner):
    """A runner on a cluster that has these Jobs, the Lease of one of them, and orphans; some Jobs cannot be deleted."""

    def __init__(self, found: Sequence[Job], holder: Holder | None = None, changed: Sequence[str] = ()) -> None:
        self._found, self._holder, self._changed = found, holder, changed
        self.deleted: list[str] = []
        self.closed = False

    async def jobs(self) -> Sequence[Job]:
        return self._found

    async def lease(self) -> Lease:
        return Lease("1", self._holder)

    async def delete(self, read: Job) -> None:
        if read.run_id in self._changed:
            raise Conflict("it is another")
        self.deleted.append(read.run_id)

    async def sweep_orphans(self) -> Mapping[str, Sequence[str]]:
        raise Unavailable("runner", "not all of it")

    async def close(self) -> None:
        self.closed = True


async def test_the_jobs_that_retention_has_no_place_for_go() -> None:
    """The oldest of too many, those that are too old, and inert ones that nobody will launch; never the Lease's."""
    minute = timedelta(minutes=1)
    jobs = [
        *(ended(number, number * minute) for number in (3, 1, 4, 2)),
        made(5, 60 * minute, launched=True),
        made(6, 6 * minute),
        made(7, 4 * minute),
        made(8, 60 * minute),
    ]
    cluster = Cluster(jobs, jobs[-1].holder, [run_id(3)])
    await tidy(cluster, Settings(history_max_runs=2, history_ttl_seconds=90))
    assert cluster.deleted == [run_id(number) for number in (4, 2, 6)]


async def test_the_clean_up_needs_nothing_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a Redis whose Secret and files it has not been given; what it cannot do is an error."""
    cluster = Cluster([ended(1, timedelta(days=20))])
    monkeypatch.setattr(KubernetesRunner, "open", lambda settings: cluster)
    monkeypatch.setattr(cleanup, "configure_logging", lambda level: None)
    redis = {"REDIS_CA_FILE": "/nowhere", "REDIS_USERNAME": "ada", "REDIS_SENTINELS": "one:26379"}
    with pytest.raises(Unavailable, match="not all of it"):
        await cleanup._main({"RUNNER": "kubernetes", **redis})
    assert (cluster.deleted, cluster.closed) == ([run_id(1)], True)
