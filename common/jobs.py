"""A run's Job as every runner shows it, and what it means: pure functions of that one value.

A Job is *inert* (as created), *launched*, *sealed* (will never be launched), *stopping* (carries a
cancel mark) or *stopped* (its runner wrote that it is complete or failed, and nothing of its head
is left). Sealed and stopped are for ever. No terminal state is told before a terminal condition.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from common.models import CancelMark, RunInfo, RunRecord
from common.phases import State


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a Lease names: a run and the very Job that carries it."""

    run_id: str
    uid: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The fence's record: who may run, and the version a conditional write must name."""

    version: str
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class Job:
    """A run's Job at one version.

    Attributes:
        version: what a conditional write to this Job must name.
        condition: the runner's last word on the head; None until it is gone.
        started_at, finished_at: of the head, by the clock of where it runs; on Kubernetes it starts with its launch.
        exit_code: of the head; None where nobody saw it.
        message: what the runner knows about a state that needs words.
        attempt: the number of the head that it has now, or had last: one taken from its node is replaced by another.
        awaited_since: when a head was asked for that has not come; None where none is awaited.
        remains: the names of what is still there of the run (pods, Jobs, processes), where that was looked at.
    """

    record: RunRecord
    uid: str
    version: str
    launched: bool = False
    sealed: bool = False
    mark: CancelMark | None = None
    condition: Literal["Complete", "Failed"] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    message: str | None = None
    attempt: int = 1
    awaited_since: datetime | None = None
    remains: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def holder(self) -> Holder:
        return Holder(self.record.run_id, self.uid)

    @property
    def ended(self) -> bool:
        """Sealed or stopped: this Job will never run (again)."""
        return self.sealed or self.condition is not None

    @property
    def inert(self) -> bool:
        return not self.launched and not self.ended


def end_state(job: Job) -> State:
    """How an ended Job ended: a mark decides, then the seal, then its condition.

    What the controller ended for a reason of its own has failed.

    An exit code never decides "cancelled": Nextflow exits alike for a failure and for SIGTERM.
    """
    if job.mark is not None:
        return State.CANCELLED if job.mark.reason is None else State.FAILED
    if job.sealed or job.condition == "Failed":
        return State.FAILED
    return State.SUCCEEDED


def state(job: Job) -> State:
    """Where the run of this Job is."""
    if job.ended:
        # "Cancelled" promises that nothing is left, so it waits for the last pod.
        return State.CANCELLING if job.mark is not None and job.remains else end_state(job)
    if job.mark is not None:
        return State.CANCELLING
    if not job.launched:
        return State.QUEUED
    return State.RUNNING if job.started_at is not None and job.awaited_since is None else State.STARTING


def info(job: Job) -> RunInfo:
    """What is told about the run of this Job."""
    request = job.record.request
    duration = None
    if job.started_at is not None and job.finished_at is not None:
        duration = round((job.finished_at - job.started_at).total_seconds(), 3)
    return RunInfo(
        run_id=job.run_id,
        status=state(job),
        pipeline=request.pipeline,
        revision=request.revision,
        profile=request.profile,
        triggered_by=request.triggered_by,
        created_at=job.record.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        duration_seconds=duration,
        exit_code=job.exit_code,
        job_name=job.run_id,
        attempt=job.attempt,
        session_id=job.record.session_id,
        resumed_from=job.record.resumed_from,
        message=_message(job),
        left_behind=job.remains if job.ended else (),
    )


def _message(job: Job) -> str | None:
    if job.mark is not None:
        if job.mark.reason is not None:
            return job.mark.reason
        verb = "Cancelled" if state(job).terminal else "Cancel requested"
        return f"{verb} by {job.mark.requested_by}."
    if job.sealed:
        return job.message or "It never started."
    return job.message
