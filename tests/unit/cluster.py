"""An in-memory cluster that keeps the runner's contract to the letter, and watches the promises.

`Cluster` is the truth: the Lease, the Jobs and their pods. Each of its methods is one step that no
other comes between; what a promise forbids is noted in `broken` at the step that did it.
Who is disturbed how on the way to it is not its business: see `simulation`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from common.errors import Conflict
from common.jobs import Holder, Job, Lease
from common.models import CancelMark, RunRecord
from common.phases import State

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The running loop's time as a date."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass(eq=False)
class _Job:
    record: RunRecord
    uid: str
    version: int = 1
    launched: bool = False
    sealed: bool = False
    mark: CancelMark | None = None
    condition: Literal["Complete", "Failed"] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    remains: int = 0
    end: asyncio.TimerHandle | None = None

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def live(self) -> bool:
        return self.launched and self.condition is None

    @property
    def pods(self) -> int:
        return int(self.live) + self.remains

    @property
    def truth(self) -> State | None:
        """How it ended, told from what happened to it rather than by the code under test."""
        if self.sealed or (self.condition and not self.remains):
            if self.mark is not None:
                return State.CANCELLED
            return State.SUCCEEDED if self.condition == "Complete" else State.FAILED
        return None


class Cluster:
    """Lease, Jobs and pods; heads live and die by `rng`, or by `finish`.

    Attributes:
        broken: what happened that a promise forbids.
        ever: every Job there has been.
        moments: (time, run id or None) whenever the run that is active became another.
    """

    def __init__(self, rng: random.Random, life_seconds: float | None = 3.0, leftovers: float = 0.3) -> None:
        self._rng = rng
        self._life_seconds = life_seconds
        self._leftovers = leftovers
        self._lease_version = 1
        self._holder: Holder | None = None
        self._jobs: dict[str, _Job] = {}
        self._launches: Counter[str] = Counter()
        self.broken: list[str] = []
        self.ever: list[_Job] = []
        self.moments: list[tuple[float, str | None]] = [(-1e9, None)]
        self.watch: Callable[[str], None] = lambda text: None

    # What the runner's contract offers, each as one step.

    def lease(self) -> Lease:
        return Lease(str(self._lease_version), self._holder)

    def write_lease(self, read: Lease, holder: Holder | None) -> Lease:
        if read.version != str(self._lease_version):
            raise Conflict("the Lease has changed")
        self._lease_version += 1
        self._holder = holder
        self._changed()
        return self.lease()

    def create(self, record: RunRecord) -> Job:
        if record.run_id in self._jobs:
            raise Conflict("there is a Job of this name")
        job = _Job(record, uid=f"uid{len(self.ever)}")
        self._jobs[record.run_id] = job
        self.ever.append(job)
        self._changed()
        return self._view(job)

    def job(self, run_id: str) -> Job | None:
        job = self._jobs.get(run_id)
        return self._view(job) if job is not None else None

    def jobs(self) -> list[Job]:
        return [self._view(job, counted=False) for job in self._jobs.values()]

    def launch(self, read: Job) -> Job:
        job = self._same(read)
        if job.sealed or job.condition:
            raise Conflict("the Job is sealed")
        self.start_head(job)
        return self._view(job)

    def seal(self, read: Job, mark: CancelMark | None, reason: str | None = None) -> Job:
        job = self._same(read)
        if job.launched:
            raise Conflict("the Job was launched")
        job.sealed, job.mark = True, mark
        self._touched(job)
        return self._view(job)

    def stop(self, read: Job, mark: CancelMark) -> Job:
        job = self._same(read)
        if not job.live:
            raise Conflict("the Job is not running")
        job.mark = job.mark or mark
        self._end_in(job, self._rng.choice([0.02, 0.5, 3.0]))
        self._touched(job)
        return self._view(job)

    def delete(self, read: Job) -> None:
        current = self._jobs.get(read.run_id)
        if current is None or current.uid != read.uid:
            return
        job = self._same(read)
        if job.pods:
            self.broken.append(f"{job.run_id} was deleted with its pods")
        if job.condition and self._holder == read.holder:
            self.broken.append(f"{job.run_id} was deleted before the Lease had let go of it")
        del self._jobs[job.run_id]
        self._changed()

    def sweep(self, run_id: str) -> int:
        job = self._jobs.get(run_id)
        if job is None or not job.condition:
            return 0
        if self._rng.random() < 0.5:
            asyncio.get_running_loop().call_later(self._rng.choice([0.05, 1.0]), self._vanish, job)
        else:
            self._vanish(job)
        return job.remains

    # What happens by itself.

    def start_head(self, job: _Job) -> None:
        """The one way a head comes to be; never twice, never after the seal, never beside another."""
        self._launches[job.run_id] += 1
        if self._launches[job.run_id] > 1 or job.sealed:
            self.broken.append(f"{job.run_id} was launched {self._launches[job.run_id]} times, sealed: {job.sealed}")
        job.launched = True
        asyncio.get_running_loop().call_later(self._rng.choice([0.0, 0.1, 1.0]), self._started, job)
        if self._life_seconds is not None:
            self._end_in(job, self._rng.choice([0.05, 0.5, 1.0, 2.0]) * self._life_seconds)
        self._touched(job)

    def finish(self, run_id: str, condition: Literal["Complete", "Failed"], *, remains: int = 0) -> None:
        """The run's head is gone; so many of its pods are not."""
        job = self._jobs[run_id]
        job.condition, job.finished_at, job.remains = condition, now(), remains
        self._touched(job)

    def _started(self, job: _Job) -> None:
        if job.live:
            job.started_at = now()
            self._touched(job)

    def _end_in(self, job: _Job, seconds: float) -> None:
        if job.end is not None:
            job.end.cancel()
        job.end = asyncio.get_running_loop().call_later(seconds, self._ended, job)

    def _ended(self, job: _Job) -> None:
        remains = 2 if self._rng.random() < self._leftovers else 0
        if self._jobs.get(job.run_id) is job:
            self.finish(job.run_id, "Failed" if self._rng.random() < 0.5 else "Complete", remains=remains)

    def _vanish(self, job: _Job) -> None:
        if job.remains:
            job.remains = 0
            self._changed()

    # Bookkeeping.

    def _same(self, read: Job) -> _Job:
        job = self._jobs.get(read.run_id)
        if job is None or job.uid != read.uid or str(job.version) != read.version:
            raise Conflict("the Job has changed")
        return job

    def _touched(self, job: _Job) -> None:
        job.version += 1
        self.watch(
            f"{job.run_id} v{job.version} launched={job.launched} sealed={job.sealed} "
            f"mark={job.mark is not None} {job.condition} remains={job.remains}"
        )
        self._changed()

    def _changed(self) -> None:
        alive = [job.run_id for job in self.ever if job.pods]
        if len(alive) > 1:
            self.broken.append(f"pods of two runs at once: {alive}")
        active = self.active()
        if self.moments[-1][1] != active:
            self.moments.append((asyncio.get_running_loop().time(), active))

    def active(self) -> str | None:
        """The run the Lease names, unless it has ended."""
        job = self._jobs.get(self._holder.run_id) if self._holder else None
        if job is None or self._holder is None or job.uid != self._holder.uid or job.truth:
            return None
        return None if job.condition and job.mark is None else job.run_id

    def was_active(self, run_id: str | None, since: float, until: float) -> bool:
        """Whether `run_id` (None: no run) was the active one at any time between the two."""
        ends = [moment for moment, _ in self.moments[1:]] + [float("inf")]
        return any(
            name == run_id and begin <= until and end >= since
            for (begin, name), end in zip(self.moments, ends, strict=True)
        )

    def last(self, run_id: str) -> _Job | None:
        """The latest Job of this name, gone or not."""
        return next((job for job in reversed(self.ever) if job.run_id == run_id), None)

    def launched(self, run_id: str) -> bool:
        """Whether the run was ever launched."""
        return self._launches[run_id] > 0

    def _view(self, job: _Job, *, counted: bool = True) -> Job:
        return Job(
            record=job.record,
            uid=job.uid,
            version=str(job.version),
            launched=job.launched,
            sealed=job.sealed,
            mark=job.mark,
            condition=job.condition,
            started_at=job.started_at,
            finished_at=job.finished_at,
            exit_code={"Complete": 0, "Failed": 1, None: None}[job.condition],
            remains=job.remains if counted and job.condition else 0,
        )
