"""What is true of runs, for those who only read: from Redis while it is fresh, else from the cluster.

A look compares the cached record with the cluster and writes the result back, stamped with the
time before it looked and only over the version it was asked to check: what another process did
meanwhile wins, and the look is made again. Readers never write to the cluster. With Redis away
everything here is answered from the Lease and the Jobs alone.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from common.errors import RunNotFound, Unavailable
from common.jobs import Job, Lease, info
from common.lock import Verdict
from common.models import Progress, RunInfo, RunOverview, RunStatus, Streaming
from common.phases import State
from common.platform import Platform
from common.runner import Runner
from common.store import Page, in_page

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.02  # between two questions while somebody else looks or launches
_OPEN = tuple(state for state in State if not state.terminal and state is not State.UNKNOWN)
_GONE = "Its Job is gone; how it ended is not known."


@dataclass(frozen=True, slots=True)
class Sight:
    """The fence as it was seen: the Lease, and after it the Job it names (None: gone, or another)."""

    lease: Lease
    job: Job | None


async def sight(runner: Runner) -> Sight:
    """Read the Lease, then its Job.

    Raises:
        Unavailable: the runner does not answer.
    """
    lease = await runner.lease()
    if lease.holder is None:
        return Sight(lease, None)
    job = await runner.job(lease.holder.run_id)
    return Sight(lease, job if job is not None and job.uid == lease.holder.uid else None)


async def active(platform: Platform) -> RunInfo | None:
    """The active run, or None.

    Raises:
        Unavailable: neither a fresh record nor the runner can be reached.
    """
    # Not even the question to Redis is outside of the flight: who is told to look must be the one who flies.
    return await platform.flights.share("active", lambda: _active(platform))


async def run(platform: Platform, run_id: str | None = None) -> RunInfo:
    """The run with this id; without one the active run, or else the most recent.

    Raises:
        RunNotFound: none is retained.
        Unavailable: as `active`.
    """
    if run_id is None:
        latest = await active(platform) or next(iter((await history(platform, 1)).runs), None)
        if latest is None:
            raise RunNotFound(None)
        return latest
    known = None
    with suppress(Unavailable):
        known = await platform.store.run(run_id)
    if known is not None and known.status.terminal and not known.left_behind:
        return known
    current = await active(platform)
    if current is not None and current.run_id == run_id:
        return current
    found = await platform.flights.share(f"run {run_id}", lambda: _refreshed(platform, run_id))
    if found is None:
        raise RunNotFound(run_id)
    return found


async def status(platform: Platform, run_id: str | None = None) -> RunStatus:
    """A run (see `run`) with the progress of its tasks."""
    return await platform.flights.share(f"status {run_id}", lambda: _status(platform, run_id))


async def overview(platform: Platform, run_id: str | None = None) -> RunOverview:
    """A run (see `run`) with the progress of its tasks and the state of its streams."""
    return await platform.flights.share(f"overview {run_id}", lambda: _overview(platform, run_id))


async def _status(platform: Platform, run_id: str | None) -> RunStatus:
    found = await run(platform, run_id)
    progress, _ = await _told(platform, found)
    return RunStatus(**dict(found), progress=progress)


async def _overview(platform: Platform, run_id: str | None) -> RunOverview:
    found = await run(platform, run_id)
    progress, streaming = await _told(platform, found)
    return RunOverview(**dict(found), progress=progress, streaming=streaming)


async def _told(platform: Platform, found: RunInfo) -> tuple[Progress | None, Streaming | None]:
    """How far a run's tasks are, and the state of its streams, which Redis alone knows.

    Progress is Redis', else that of where the run happens; once it has ended the other way round.
    """
    progress = streaming = None
    with suppress(Unavailable):
        told = await platform.streams.told(found.run_id)
        progress, streaming = told.progress, told.streaming
    # What Redis holds may be from before an outage, which matters where nothing newer will come.
    if found.status.terminal or progress is None:
        progress = await platform.runner.progress(found.run_id) or progress
    return progress, streaming


async def history(platform: Platform, limit: int, cursor: str | None = None, states: Collection[State] = ()) -> Page:
    """Past and present runs, newest first, `limit` at most, before `cursor`, of these states (all if empty).

    Raises:
        Unavailable: the runner is needed and does not answer.
    """
    try:
        if not await platform.store.listed():
            await platform.flights.share("list", lambda: _list(platform))
        await _refresh_open(platform)
        return await platform.store.page(limit, cursor, states)
    except Unavailable as away:
        if away.dependency != "redis":
            raise
    jobs = await _accepted(platform.runner)
    return in_page([info(job) for job in jobs], limit, cursor, states)


async def stamp(platform: Platform) -> int:
    """Redis' time before a look, to record with what it shows; 0 with Redis away: record nothing."""
    try:
        return await platform.store.now_ms()
    except Unavailable:
        return 0


async def note(platform: Platform, found: RunInfo, stamp_ms: int) -> None:
    """Write down a run as it was seen; with Redis away the Job keeps what is needed.

    Not one that is queued: until it is launched it may be withdrawn, and then it never was.
    """
    if found.status is State.QUEUED:
        return
    with suppress(Unavailable):
        if not await platform.store.record(found, stamp_ms):
            log.info("an earlier record stands", extra={"run_id": found.run_id, "status": found.status})


def _if_active(found: RunInfo | None) -> RunInfo | None:
    return None if found is None or found.status.terminal else found


async def _seen_active(platform: Platform) -> RunInfo | None:
    job = (await sight(platform.runner)).job
    return _if_active(info(job)) if job is not None else None


async def _active(platform: Platform) -> RunInfo | None:
    """What is fresh in Redis; else look at the cluster, or wait for who does, until what was seen is written back."""
    try:
        while (verdict := await platform.lock.ask()).kind != "fresh":
            if verdict.kind == "wait":
                await asyncio.sleep(WAIT_SECONDS)
                continue
            found = await _looked(platform, verdict)
            if await platform.lock.settle(verdict, found.run_id if found else None):
                return found
    except Unavailable as away:
        if away.dependency != "redis":
            raise
        log.warning("degraded: answering from the cluster alone", extra={"cause": str(away)})
        return await _seen_active(platform)
    return _if_active(verdict.run)


async def _looked(platform: Platform, verdict: Verdict) -> RunInfo | None:
    try:
        return await _compare(platform, verdict)
    except Unavailable:
        with suppress(Unavailable):
            await platform.lock.give_up(verdict)
        raise


async def _compare(platform: Platform, verdict: Verdict) -> RunInfo | None:
    """See who is active; record it, and the end of the run that was believed to be."""
    job = (await sight(platform.runner)).job
    found = info(job) if job is not None else None
    if found is not None:
        await note(platform, found, verdict.now_ms)
    if verdict.believed is not None and (found is None or found.run_id != verdict.believed):
        await _refreshed(platform, verdict.believed)
    return _if_active(found)


async def _refreshed(platform: Platform, run_id: str) -> RunInfo | None:
    """A run as its Job shows it now, recorded; None if there is neither Job nor record."""
    stamp_ms = await stamp(platform)
    job = await platform.runner.job(run_id)
    if job is None:
        known = None
        with suppress(Unavailable):
            known = await platform.store.run(run_id)
        if known is None or known.status.terminal:
            return known
        # Nothing is claimed about an end that nobody saw.
        found = known.model_copy(update={"status": State.UNKNOWN, "message": _GONE})
    else:
        found = info(job)
        if job.inert:  # perhaps of a caller who is still at the fence: no run yet, nothing to record
            return found
    if stamp_ms:
        await note(platform, found, stamp_ms)
    return found


async def _refresh_open(platform: Platform) -> None:
    """Bring up to date every record that does not tell an end; there is seldom more than the active run."""
    current = await active(platform)
    for known in (await platform.store.page(20, states=_OPEN)).runs:
        if current is None or known.run_id != current.run_id:
            await _refreshed(platform, known.run_id)


async def _list(platform: Platform) -> None:
    """Record every Job whose end is not recorded: what a flushed or absent Redis has missed."""
    losses = platform.store.losses
    stamp_ms = await platform.store.now_ms()
    jobs = {job.run_id: job for job in await _accepted(platform.runner) if not job.inert}
    for run_id in await platform.store.without_end(list(jobs)):
        await platform.store.record(info(jobs[run_id]), stamp_ms)
    await platform.store.mark_listed(losses)


async def _accepted(runner: Runner) -> Sequence[Job]:
    """All Jobs but those of callers who are still at the fence, or never got past it.

    The Lease is read after the Jobs: an ended Job that it has let go of by then has nothing left. The one
    it names, and those that were inert, are read once more: with what remains, and what became of them.
    """
    jobs = await runner.jobs()
    holder = (await runner.lease()).holder
    found = [job for job in jobs if not job.inert and job.holder != holder]
    for listed in jobs:
        if listed.inert or listed.holder == holder:
            job = await runner.job(listed.run_id)
            if job is not None and (not job.inert or job.holder == holder):
                found.append(job)
    return found
