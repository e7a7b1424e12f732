"""Cancel the active run, leaving nothing of it behind.

The mark on the Job, written by one conditional write, is what decides "cancelled"; everything
after it can be done by any later caller. An end that came first stays what it was.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from common import look
from common.errors import Conflict, NothingActive, OutcomeUnknown
from common.jobs import Job, info
from common.models import CancelMark, RunInfo
from common.phases import State
from common.platform import Platform
from common.settle import settle, stamp

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
        Unavailable: the runner does not answer.
    """
    deadline = asyncio.get_running_loop().time() + platform.settings.cancel_wait_seconds
    mark = CancelMark(requested_by=by, requested_at=datetime.now(UTC))
    target: Job | None = None
    while True:
        with suppress(Conflict, OutcomeUnknown):  # read again, decide again
            stamp_ms = await stamp(platform)
            seen = await look.sight(platform.runner)
            current = seen.job
            if current is not None and run_id not in (None, current.run_id):
                current = None
            if current is None or (target is not None and current.holder != target.holder):
                return await _after(platform, target, run_id)
            target = current
            if current.ended:
                if await settle(platform, seen, stamp_ms) is None:
                    return await _after(platform, target, run_id)
            elif current.mark is None:
                change = platform.runner.seal if current.inert else platform.runner.stop
                target = await change(current, mark)
            if stamp_ms and target.mark is not None:
                await look.note(platform, info(target), stamp_ms)
        if asyncio.get_running_loop().time() >= deadline:
            if target is None or target.mark is None:
                raise OutcomeUnknown("runner", "Others keep changing the run; ask again.", run_id=run_id)
            return Cancelled(info(target), "The run is being ended; ask again to see it gone.")
        await asyncio.sleep(_POLL_SECONDS)


async def _after(platform: Platform, target: Job | None, run_id: str | None) -> Cancelled:
    """What to say once the slot is not (or no longer) the run's."""
    if target is not None:
        run_id = target.run_id
    elif run_id is None:
        raise NothingActive("No run is active, so there is nothing to cancel.")
    ended = await look.run(platform, run_id)
    if ended.status is State.CANCELLED:
        return Cancelled(ended, "The run is cancelled and nothing of it is left.")
    return Cancelled(ended, f"The run had already ended ({ended.status}); that stays what it was.")
