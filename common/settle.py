"""Bring the fence to rest: what `run` and `cancel`, the only two who write to the cluster, do with a run that is over.

Every step is conditional on what was read before it, so any caller may die, sleep or be beaten to it
at any point: the next one reads again and goes on from what is there.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from common.errors import Conflict, Unavailable
from common.jobs import Job, info
from common.look import Sight, note
from common.models import CancelMark
from common.platform import Platform
from common.runner import Runner
from common.settings import Settings

log = logging.getLogger(__name__)


async def settle(platform: Platform, seen: Sight, stamp_ms: int) -> Job | None:
    """Empty a Lease whose run is over and gone; the Job that has the slot, or None: it is free now.

    One whose head does not come is given up: it is stopped, and its run will have failed.

    The Lease is emptied at the version that was read before the Job, and only after the Job's end
    was recorded: a Job that was launched since has made that version, or the Job's, another.

    Raises:
        Conflict: the Lease has changed: read again.
        Unavailable: the runner does not answer, or the outcome is unknown: read again.
    """
    if seen.lease.holder is None:
        return None
    job = seen.job
    if job is not None:
        if not job.ended:
            return await _given_up(platform, job) if _is_late(platform, job) else job
        left = await platform.runner.sweep(job.run_id) if job.remains else ()
        if left:
            return replace(job, remains=left)
        if stamp_ms:
            await note(platform, info(replace(job, remains=())), stamp_ms)
    await platform.runner.write_lease(seen.lease, None)
    return None


def _is_late(platform: Platform, job: Job) -> bool:
    """Whether a head has been awaited for too long.

    By the clock of whoever launched it and ours: nothing is proved by that, and nothing hangs on it but when to give
    up. The write is conditional on the Job of a head that has not come, whatever the clocks say.
    """
    limit = timedelta(seconds=platform.settings.start_deadline_seconds)
    return job.mark is None and job.awaited_since is not None and datetime.now(UTC) - job.awaited_since > limit


async def _given_up(platform: Platform, job: Job) -> Job:
    seconds = platform.settings.start_deadline_seconds
    reason = f"It did not start within {seconds:g} seconds. {job.message or ''}".strip()
    mark = CancelMark(requested_by="controller", requested_at=datetime.now(UTC), reason=reason)
    stopped = await platform.runner.stop(job, mark)
    log.warning("given up", extra={"run_id": job.run_id, "cause": reason})
    return stopped


async def tidy(runner: Runner, settings: Settings) -> None:
    """Delete the Jobs that retention has no place for, and inert ones that nobody will launch.

    The Lease is read after the Jobs: one that has been named since is kept. Never needed for
    correctness, so whatever cannot be done now is left to the next start.
    """
    try:
        jobs = await runner.jobs()
        holder = (await runner.lease()).holder
        oldest = datetime.now(UTC) - timedelta(seconds=settings.history_ttl_seconds)
        ended = sorted((job for job in jobs if job.ended), key=lambda job: job.record.created_at, reverse=True)
        kept, surplus = ended[: settings.history_max_runs], ended[settings.history_max_runs :]
        expired = [job for job in kept if (job.finished_at or job.record.created_at) < oldest]
        # An inert Job may be a caller's who is on the way to the Lease: taking its Job away makes it create another.
        forgotten = [job for job in jobs if job.inert and job.record.created_at < datetime.now(UTC) - _ON_THE_WAY]
        for job in [*surplus, *expired, *forgotten]:
            if job.holder != holder:
                await _delete(runner, job)
    except Unavailable as away:
        log.warning("old Jobs are left for the next start", extra={"cause": str(away)})


_ON_THE_WAY = timedelta(minutes=5)  # spares live callers the detour; deleting earlier would be as safe


async def _delete(runner: Runner, job: Job) -> None:
    try:
        await runner.delete(job)
    except Conflict:
        log.info("a Job changed while it was to be deleted; kept", extra={"run_id": job.run_id})
