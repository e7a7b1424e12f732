"""A place where runs happen only as far as they are written down, and the process of a server before it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from common.connection import Connection
from common.errors import Conflict
from common.jobs import Holder, Job, Lease
from common.models import CancelMark, RunRecord, RunRequest
from common.platform import Platform
from common.runner import Runner
from common.settings import Settings
from common.sources import Sources
from tests.unit import samples
from tests.unit.logs import LogRunner, Run

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


class Notebook(LogRunner):
    """Lease and Jobs as the protocol has them; who is stopped has ended at once, and if `brief` who is started."""

    def __init__(self, *, brief: bool = False) -> None:
        super().__init__()
        self._ends: dict[str, Any] = {"condition": "Complete", "finished_at": samples.FINISHED} if brief else {}
        self._sources = Sources(("./", "owner/", "https://git.example/owner/"), PIPELINES)
        self._versions = 0

    def written(self) -> tuple[Any, ...]:
        """All that is written down."""
        return self._holder, tuple((run_id, run.job) for run_id, run in self.runs.items())

    def live(self) -> list[str]:
        """The runs that have a head."""
        jobs = [run.job for run in self.runs.values() if run.job is not None]
        return [job.run_id for job in jobs if job.launched and not job.ended]

    def _wrote(self, read: Job, **changes: Any) -> Job:
        run = self.runs.get(read.run_id)
        if run is None or run.job is None or (run.job.uid, run.job.version) != (read.uid, read.version):
            raise Conflict("It has changed.")
        self._versions += 1
        run.job = replace(run.job, version=str(self._versions), **changes)
        return run.job

    async def lease(self) -> Lease:
        return Lease(str(self._versions), self._holder)

    async def write_lease(self, read: Lease, holder: Holder | None) -> Lease:
        if read != await self.lease():
            raise Conflict("It has changed.")
        self._versions += 1
        self._holder = holder
        return await self.lease()

    async def accept(self, request: RunRequest) -> None:
        self._sources.resolve(request.pipeline)

    async def create(self, record: RunRecord) -> Job:
        if record.run_id in self.runs:
            raise Conflict("There is one.")
        job = samples.job(record=record, uid=f"uid-{len(self.runs)}")
        self.add(job)
        return job

    async def launch(self, read: Job) -> Job:
        return self._wrote(read, launched=True, started_at=samples.STARTED, **self._ends)

    async def seal(self, read: Job, mark: CancelMark | None, reason: str | None = None) -> Job:
        return self._wrote(read, sealed=True, mark=mark, message=reason)

    async def stop(self, read: Job, mark: CancelMark) -> Job:
        return self._wrote(read, mark=mark, condition="Failed", finished_at=samples.FINISHED)

    async def delete(self, read: Job) -> None:
        with suppress(KeyError):
            del self.runs[read.run_id]

    async def sweep(self, run_id: str) -> tuple[str, ...]:
        return ()


@asynccontextmanager
async def process(url: str, runner: LogRunner, **changes: Any) -> AsyncIterator[Platform]:
    """A process of its own: what it has met is forgotten with it."""
    quick = {"busy_wait_seconds": 0.05, "cancel_wait_seconds": 0.05, "rate_limits": ("off",)}
    settings = Settings(redis_url=url, **{**quick, **changes})
    made = Platform.assemble(settings, lambda: cast("Runner", runner), Connection.open(settings))
    try:
        yield made
    finally:
        await made.close()


def ended(number: int) -> Run:
    """A run that was."""
    record = samples.record(run_id=samples.run_id(number))
    return Run(
        samples.job(
            record=record, launched=True, condition="Complete", started_at=samples.STARTED, finished_at=samples.FINISHED
        )
    )
