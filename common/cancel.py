"""Cancel the active run, leaving nothing of it behind.

The mark on the Job, written by one conditional write, is what decides "cancelled"; everything
after it can be done by any later caller. An end that came first stays what it was. What is told
here is read from the cluster, never from a cached record: that may be a second old.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from common import look
from common.errors import Conflict, NothingActive, OutcomeUnknown, RunNotFound, Unavailable
from common.jobs import Job, info
from common.models import CancelMark, RunInfo
from common.phases import State
from common.platform import Platform
from common.settle import settle

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run, as it is after the cancel, and in words what the cancel did."""

    run: RunInfo
    detail: str


async def cancel(platform: Platform, *, by: str, run_id: str | None = None) -> Cancelled:
    """Cancel the active run (only if it is `run_id`, where that is given) and wait a bounded time until it is gone.

    Raises:
        NothingActive: there is nothing to cancel.
        RunNotFound: `run_id` is of no retained run.
        Unavailable: the runner does not answer; nothing was done.
        OutcomeUnknown: the run may have been marked.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + platform.settings.cancel_wait_seconds
    attempt = _Attempt(platform, CancelMark(requested_by=by, requested_at=datetime.now(UTC)), run_id)
    while True:
        try:
            done = await attempt.round()
            if done is not None:
                return done
        except Conflict:
            pass  # read again, decide again
        except Unavailable as away:
            # Once a mark may be written, "nothing was done" would be untrue: only the time ends the wait.
            if not attempt.sent and not isinstance(away, OutcomeUnknown):
                raise
        if loop.time() >= deadline:
            return attempt.so_far()
        await asyncio.sleep(_POLL_SECONDS)


class _Attempt:
    """One caller's cancel: the run it is about, as last seen, and whether a mark of it may be written."""

    def __init__(self, platform: Platform, mark: CancelMark, run_id: str | None) -> None:
        self._platform = platform
        self._mark = mark
        self._run_id = run_id
        self._target: Job | None = None
        self.sent = False

    async def round(self) -> Cancelled | None:
        """Do the next thing there is to do; what is to be told once nothing is left to do."""
        runner = self._platform.runner
        stamp_ms = await look.stamp(self._platform)
        seen = await look.sight(runner)
        job = seen.job
        if job is None or not self._is_meant(job):
            return await self._after()
        self._target = job
        if job.ended:
            left = await settle(self._platform, seen, stamp_ms)
            if left is None:
                return await self._after()
            self._target = left
        elif not self.sent or job.mark is None:  # over another's mark too: who was to act on it may have died
            self.sent = True
            self._target = await (runner.seal if job.inert else runner.stop)(job, self._mark)
        if stamp_ms and self._target.mark is not None:
            await look.note(self._platform, info(self._target), stamp_ms)
        return None

    def so_far(self) -> Cancelled:
        """What is to be told when the time is over."""
        target = self._target
        if target is None or (target.mark is None and not target.ended):
            run_id = target.run_id if target is not None else self._run_id
            raise OutcomeUnknown("runner", "Whether the run is being cancelled is not known; ask again.", run_id=run_id)
        return _told(info(target))

    def _is_meant(self, job: Job) -> bool:
        if self._target is not None:
            return job.holder == self._target.holder
        return self._run_id in (None, job.run_id)

    async def _after(self) -> Cancelled:
        """What is to be told of a run that has not, or no longer, the slot."""
        run_id = self._target.run_id if self._target is not None else self._run_id
        if run_id is None:
            raise NothingActive("No run is active, so there is nothing to cancel.")
        job = await self._platform.runner.job(run_id)
        if job is None:
            return _told(await self._retained(run_id))
        if job.inert:
            raise NothingActive(f"Run {run_id} has not been started, so there is nothing to cancel.")
        if not job.ended:
            raise Conflict(f"run {run_id} has come to the slot since it was looked at")
        return _told(info(job))

    async def _retained(self, run_id: str) -> RunInfo:
        """What is known of a run whose Job is gone: at least what this cancel saw of it, and has perhaps done to it."""
        try:
            known = await look.run(self._platform, run_id)
        except RunNotFound:
            if self._target is None:
                raise
            known = info(self._target)
        return known if known.status.terminal else known.model_copy(update={"status": State.UNKNOWN})


def _told(run: RunInfo) -> Cancelled:
    details = {
        State.CANCELLED: "The run is cancelled and nothing of it is left.",
        State.CANCELLING: "The run is being ended; ask again to see it gone.",
        State.UNKNOWN: "The run is gone; how it ended is not known.",
    }
    return Cancelled(run, details.get(run.status, f"The run had already ended ({run.status}); that stays what it was."))
