"""The seam: what the library needs from a place where runs happen.

`common.local` implements it with processes and files, `common.kube` with Jobs, Pods and a Lease.
Both keep to the same contract (tests/contract), so claim, settle and look are written once:

- every write to the Lease or a Job is conditional on the version its writer read; `Conflict` says
  it was definitely not done, `OutcomeUnknown` that it may or may not have been;
- a Job is created inert and does nothing until it is launched, and is launched at most once;
- a read shows every write that ended before it began; it never writes.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from common.events import ZERO, Line, LineId
from common.jobs import Holder, Job, Lease
from common.models import CancelMark, Progress, RunRecord, RunRequest

Batches = AsyncGenerator[Sequence[Line], None]


class LogSource(Protocol):
    """Where the logs of runs are read. Every method may raise `Unavailable`."""

    def lines(self, run_id: str, attempt: int, after: LineId = ZERO) -> Batches:
        """The log of an attempt, from the line behind `after`, in batches, followed until it is final.

        An empty batch is a tick: this is all there is for now; skipping what is before `after` gives none. The
        generator ends once the head is gone and its last line was given. Ids are the same at every call. A line whose
        stream is `gap` says what is not to be had any more; that the first lines are not may be seen only by who asks
        for what is behind one of them, or behind 0-1, as there were some.
        """

    async def final(self, run_id: str, attempt: int) -> bool | None:
        """Whether what has been read of a log to its end is all of it; None if there is no such run any more."""


class Runner(LogSource, Protocol):
    """A place where runs happen.

    Every method may raise `Unavailable`; those that write may raise `OutcomeUnknown`.
    """

    async def check(self) -> None:
        """Return if runs could be started and read now."""

    async def close(self) -> None:
        """Let go of connections; runs are not touched."""

    # The fence.

    async def lease(self) -> Lease:
        """The Lease as it is."""

    async def write_lease(self, read: Lease, holder: Holder | None) -> Lease:
        """Name `holder` (None empties it), if the Lease is still the one that was `read`.

        Raises:
            Conflict: it has changed since.
        """

    # Jobs.

    async def accept(self, request: RunRequest) -> None:
        """Return unless it can be told already that the request must not or cannot be run; nothing is written.

        Raises:
            Invalid: it cannot be.
            NotAllowed: its pipeline is from elsewhere than settings allow.
        """

    async def create(self, record: RunRecord) -> Job:
        """Create the run's Job, inert, with the whole record.

        Raises:
            Conflict: there is a Job of this name.
            Invalid, NotAllowed: as `accept`, which may have been long ago.
        """

    async def job(self, run_id: str) -> Job | None:
        """The run's Job, with what `remains` of it once its head has ended."""

    async def jobs(self) -> Sequence[Job]:
        """All Jobs that are retained, in no order; what `remains` is not looked at."""

    async def launch(self, read: Job) -> Job:
        """Let the Job's head start.

        Raises:
            Conflict: the Job has changed since it was `read`, is gone, or sealed.
            Unavailable: it cannot be launched for now; it is as inert as before.
        """

    async def seal(self, read: Job, mark: CancelMark | None, reason: str | None = None) -> Job:
        """Make sure that an inert Job is never launched.

        Raises:
            Conflict: it has changed since it was `read`.
        """

    async def stop(self, read: Job, mark: CancelMark) -> Job:
        """Mark a launched Job as cancelled and have its head ended: asked politely, then forced.

        A Job that carries a mark keeps it, but whoever was to end its head may have died: that is seen to again.
        Returns at once; the Job is stopped when `job()` shows a condition.

        Raises:
            Conflict: it has changed since it was `read`.
        """

    async def delete(self, read: Job) -> None:
        """Delete the Job and what belongs to it; one that is gone already is success.

        Raises:
            Conflict: it has changed since it was `read`.
        """

    async def sweep(self, run_id: str) -> tuple[str, ...]:
        """End the pods or processes that an ended head left behind; the names of those that are still there.

        Those of a head that has not ended are its own, and are left alone.
        """

    # What a run says.

    async def progress(self, run_id: str) -> Progress | None:
        """How far the run's tasks are, as last written down where it runs; None if nowhere."""
