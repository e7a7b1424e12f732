"""Start a run, or be attached to the one that is active.

The optimistic lock answers most callers from Redis. Whoever it sends to look goes through the
fence, which alone admits a run: create the Job inert, write it into the Lease at the version that
was read, launch it. Between any two steps the caller may die: the Job is inert and unnamed (deleted
some day), or named and inert (the next caller launches it), or launched. A conflict or an unknown
outcome means: read again and decide again.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ValidationError

from common import look
from common.errors import Busy, Conflict, ControllerError, Invalid, KeyReused, OutcomeUnknown, RunNotFound, Unavailable
from common.jobs import Job, Lease, info
from common.lock import Verdict
from common.models import RunInfo, RunRecord, RunRequest
from common.names import keyed_run_id, new_run_id
from common.phases import State
from common.platform import Platform
from common.settle import settle, tidy

log = logging.getLogger(__name__)

_LIVE = (State.STARTING, State.RUNNING)
_ENDING_SECONDS = 0.2  # between two looks at a run that is ending

_Round = Callable[[Platform, RunRecord, float], Awaitable[RunInfo | None]]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a caller got: a run, and whether it is somebody else's that was there already."""

    run: RunInfo
    attached: bool


async def start(platform: Platform, request: RunRequest, *, caller: str, key: str | None = None) -> Claimed:
    """Start a run as requested, or attach to the active one.

    With `key`, an Idempotency-Key, a retry gets the first answer again.

    Raises:
        Busy: another run is active and `on_busy` is `reject`, or it is ending and takes too long.
        KeyReused: the key was used with another request.
        Invalid: `resume` names no run, or the runner cannot run the request.
        NotAllowed: the pipeline is not from an allowed source.
        Unavailable: the runner does not answer; nothing was started.
        OutcomeUnknown: the run may have been started; its id is in the error.
    """
    if key is None:
        await platform.runner.accept(request)
        return await _start(platform, await _record(platform, request, caller, key), _shared_claim)
    record = await _record(platform, request, caller, key)
    first = await _first_answer(platform, record)
    if first is not None:
        return first
    claimed = await _started(platform, record)
    if claimed is None:
        await platform.runner.accept(request)
        claimed = await _start(platform, record, _claim)  # what a key is answered depends on what came with it
    return await _keep_first(platform, record, claimed)


async def _start(platform: Platform, record: RunRecord, claim: _Round) -> Claimed:
    deadline = asyncio.get_running_loop().time() + platform.settings.busy_wait_seconds
    while True:
        holding = await claim(platform, record, deadline)
        if holding is not None:
            if holding.run_id == record.run_id:
                return Claimed(run=holding, attached=False)
            if not _ending(holding):
                if record.request.on_busy == "reject":
                    raise _busy(holding)
                return Claimed(run=holding, attached=True)
        if asyncio.get_running_loop().time() >= deadline:
            raise _busy(holding) if holding else Unavailable("redis", "Others are looking at the slot; ask again.")
        await asyncio.sleep(look.WAIT_SECONDS if holding is None else _ENDING_SECONDS)


async def _shared_claim(platform: Platform, record: RunRecord, deadline: float) -> RunInfo | None:
    """One round for all in this process who want a run: one goes, with his own, and what he finds holds for all."""
    went = False

    async def go() -> RunInfo | None:
        nonlocal went
        went = True
        return await _claim(platform, record, deadline)

    try:
        return await platform.flights.share("claim", go)
    except ControllerError:
        if went:
            raise
        return None  # that was about another's request


async def _claim(platform: Platform, record: RunRecord, deadline: float) -> RunInfo | None:
    """One round: the run that has the slot now (perhaps the caller's own), or None: ask again soon."""
    verdict = None
    with suppress(Unavailable):
        told = await platform.lock.ask(record.run_id)
        if told.run is not None and not _tells_enough(platform, told.run, record):
            told = await platform.lock.ask(record.run_id, fresh_ms=0)
        verdict = told  # and not before: what does not tell enough does not do so when Redis goes away, either
    if verdict is None:
        log.warning("degraded: at the fence without Redis", extra={"run_id": record.run_id})
    elif verdict.kind != "look":
        return verdict.run
    try:
        found = info(await _Admission(platform, record, deadline).job())
    except BaseException:
        if verdict is not None:
            with suppress(Unavailable):
                await platform.lock.give_up(verdict)
        raise
    if verdict is not None:
        await _tell(platform, verdict, found, own=found.run_id == record.run_id)
    if found.run_id == record.run_id:
        await tidy(platform.runner, platform.settings)
    return found


def _tells_enough(platform: Platform, found: RunInfo, own: RunRecord) -> bool:
    """Whether a fresh record is enough to attach to.

    It cannot tell whether one that is ending has gone, whether anybody is going to launch one that is queued, whether
    one that does not start (again) is to be given up, or what request the own id stands for.
    """
    if found.status not in _LIVE or found.run_id == own.run_id:
        return False
    age = datetime.now(UTC) - found.created_at
    return found.status is State.RUNNING or age.total_seconds() < platform.settings.start_deadline_seconds


async def _tell(platform: Platform, verdict: Verdict, found: RunInfo, *, own: bool) -> None:
    """Write to Redis who has the slot, for everybody who waits there."""
    await look.note(platform, found, verdict.now_ms)
    with suppress(Unavailable):
        told = await platform.lock.settle(verdict, None if found.status.terminal else found.run_id)
        # A launch that took long: others have looked meanwhile, and may have seen nothing yet. The next looks again.
        while own and not told:
            told = await platform.lock.give_up(await platform.lock.ask(fresh_ms=0))


class _Admission:
    """A caller's way through the fence, and what it must take back if it has to give up."""

    def __init__(self, platform: Platform, record: RunRecord, deadline: float) -> None:
        self._platform = platform
        self._runner = platform.runner
        self._record = record
        self._deadline = deadline
        self._own: Job | None = None
        self._sent = False  # the Lease may name the own Job, or come to: others may launch it

    async def job(self) -> Job:
        """The Job that has the slot: the caller's own if the slot was free, launched."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                with suppress(Conflict, OutcomeUnknown):  # read again, decide again
                    job = await self._round()
                    if job is not None:
                        return job
                if loop.time() >= self._deadline:
                    raise Unavailable("runner", "Others keep coming first; ask again.")
        except Unavailable as refusal:
            started = await self._withdraw(refusal)
            if started is None:
                raise
            return started

    async def _round(self) -> Job | None:
        stamp_ms = await look.stamp(self._platform)
        seen = await look.sight(self._runner)
        if self._own is not None and seen.lease.holder == self._own.holder:
            return await self._launched(self._own)
        holding = await settle(self._platform, seen, stamp_ms)
        if holding is not None:
            return await self._discard() or await self._launched(holding)
        if seen.lease.holder is not None:
            return None  # emptied just now: its new version is still to be read
        if self._sent:
            # Never created again: it may have been launched by others, have ended, and be gone since.
            self._own = await self._still_there()
        else:
            self._own = await _created(self._platform, self._record)
        if self._own.ended:  # the same key's first run, or one that others launched or sealed: over already
            return self._own
        await self._take(seen.lease, self._own)
        return await self._launched(self._own)

    async def _take(self, free: Lease, own: Job) -> None:
        before, self._sent = self._sent, True
        try:
            await self._runner.write_lease(free, own.holder)
        except Conflict:
            self._sent = before
            raise

    async def _launched(self, job: Job) -> Job | None:
        """The Job, launched if it was inert; None if it is not there any more."""
        current = await self._runner.job(job.run_id)
        if current is None or current.uid != job.uid:
            if self._own is not None and job.holder == self._own.holder:
                self._own = await self._still_there() if self._sent else None
            return None
        if current.run_id == self._record.run_id:
            _same_request(self._record, current.record.fingerprint)
        return await self._runner.launch(current) if current.inert else current

    async def _still_there(self) -> Job:
        job = await self._runner.job(self._record.run_id)
        if job is None or self._own is None or job.holder != self._own.holder:
            raise Unavailable("runner", "The run's own Job is gone.")
        return job

    async def _discard(self) -> Job | None:
        """Delete the own Job, as another has the slot; the Job itself if it has not stayed inert."""
        if self._own is not None:
            try:
                await self._runner.delete(self._own)
            except Conflict:
                self._own = await self._still_there()
                if self._own.inert:
                    raise
                return self._own
            self._own, self._sent = None, False
        return None

    async def _withdraw(self, refusal: Unavailable) -> Job | None:
        """Before a refusal is told: make sure that the own Job never runs; the Job if it has not stayed inert."""
        if self._own is None or not self._sent:
            return None
        try:
            current = await self._still_there()
            if not current.inert:
                return current
            await self._runner.delete(current)
        except (Conflict, Unavailable):
            run_id = self._record.run_id
            detail = f"Whether the run was started is not known. Ask GET /api/v1/pipeline/status?run_id={run_id}."
            raise OutcomeUnknown("runner", detail, run_id=run_id) from refusal
        with suppress(Conflict, Unavailable):  # a Lease that names what is gone stops nobody
            seen = await look.sight(self._runner)
            if seen.lease.holder == current.holder:
                await self._runner.write_lease(seen.lease, None)
        return None


async def _created(platform: Platform, record: RunRecord) -> Job:
    """The caller's own Job, inert; one of that name is success only if it is the same request's."""
    try:
        return await platform.runner.create(record)
    except (Conflict, OutcomeUnknown):
        job = await platform.runner.job(record.run_id)
        if job is None:
            raise
        _same_request(record, job.record.fingerprint)
        return job


class _Answer(BaseModel):
    """The first answer to a key, as Redis keeps it."""

    fingerprint: str
    run: RunInfo
    attached: bool


async def _first_answer(platform: Platform, record: RunRecord) -> Claimed | None:
    """What the key was answered before, as far as Redis remembers."""
    with suppress(Unavailable, ValidationError):  # one that is damaged is none: the run's Job knows
        raw = await platform.store.answer(record.run_id)
        if raw is not None:
            answer = _Answer.model_validate_json(raw)
            _same_request(record, answer.fingerprint)
            return Claimed(run=answer.run, attached=answer.attached)
    return None


async def _started(platform: Platform, record: RunRecord) -> Claimed | None:
    """What the key has started before, though Redis does not remember: its Job does."""
    job = await platform.runner.job(record.run_id)
    if job is None:
        return None
    _same_request(record, job.record.fingerprint)
    return None if job.inert else Claimed(run=info(job), attached=False)


async def _keep_first(platform: Platform, record: RunRecord, claimed: Claimed) -> Claimed:
    """Keep the answer for retries; where a twin was faster, the twin's is the first (but hides no run)."""
    answer = _Answer(fingerprint=record.fingerprint, run=claimed.run, attached=claimed.attached)
    with suppress(Unavailable):
        if not await platform.store.keep_answer(record.run_id, answer.model_dump_json().encode()):
            first = await _first_answer(platform, record)
            if first is not None and (claimed.attached or not first.attached):
                return first
    return claimed


def _same_request(record: RunRecord, fingerprint: str) -> None:
    if fingerprint != record.fingerprint:
        raise KeyReused(record.run_id)


def _ending(found: RunInfo) -> bool:
    return found.status is State.CANCELLING or found.status.terminal


def _busy(holding: RunInfo) -> Busy:
    ending = _ending(holding)
    return Busy(
        holding.run_id,
        f"Run {holding.run_id} ({holding.pipeline}) is "
        + ("ending and still has the slot. Ask again soon." if ending else "active. Use on_busy=attach to follow it."),
        pipeline=holding.pipeline,
        triggered_by=holding.triggered_by,
        retry_after_seconds=2 if ending else None,
    )


async def _record(platform: Platform, request: RunRequest, caller: str, key: str | None) -> RunRecord:
    resumed = await _resumed(platform, request)
    return RunRecord(
        run_id=new_run_id() if key is None else keyed_run_id(caller, key),
        request=request,
        caller=caller,
        fingerprint=hashlib.sha256(request.model_dump_json().encode()).hexdigest(),
        session_id=resumed.session_id if resumed else str(uuid.uuid4()),
        resumed_from=resumed.run_id if resumed else None,
        created_at=datetime.now(UTC),
    )


async def _resumed(platform: Platform, request: RunRequest) -> RunInfo | None:
    """The earlier run whose finished tasks are to be used again."""
    if request.resume is False:
        return None
    if request.resume is True:
        runs = (await look.history(platform, 100)).runs
        return next((run for run in runs if run.pipeline == request.pipeline and run.started_at), None)
    try:
        return await look.run(platform, request.resume)
    except RunNotFound as missing:
        raise Invalid("/resume", str(missing)) from None
