"""LocalRunner: runs as processes and files of one machine.

The state directory is the cluster (see `common.local.state`), a supervisor the kubelet (see
`common.local.supervisor`). This object holds nothing but paths: any number of them, in any number
of processes, may be at work in one directory, be killed, and be made again.

One thread makes all changes of this object, in order, so that its callers do not compete for the
mutex; whoever has waited for longer than a stopped holder is worth is told so.

What only a start needs (the command line, the toolchain, psutil) is imported by what starts: most
processes never do.
"""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from common.errors import Conflict, Invalid, NotAllowed, OutcomeUnknown, Unavailable
from common.events import ZERO, Line, LineId
from common.jobs import Holder, Job, Lease
from common.local.state import PATIENCE_SECONDS, Files, JobFile, LeaseFile, Orders, State, check_unchanged
from common.models import CancelMark, Progress, RunRecord, RunRequest
from common.names import is_run_id
from common.settings import Settings
from common.sources import ANY, Sources

_T = TypeVar("_T")

_SWEEP_GRACE_SECONDS = 2.0
_SWEEP_WAIT_SECONDS = 2.0  # after SIGKILL
_BATCH_LINES = 500
_PAUSES = (0.02, 0.03, 0.05, 0.1)  # between looks at a log with nothing new; the last one repeats
_TICK_SECONDS = 0.5
_AT_ONCE = 100  # Jobs that are looked at in one critical section


class LocalRunner:
    """A `common.runner.Runner` on this machine.

    Args:
        nextflow: the executable; None: runs can be read but not started, unless `installed`.
        installed: start with the Nextflow and the Java that `common.local.toolchain` has found by then.
        environ: what Nextflow may see of it is decided by `common.nextflow.environment`.
        config: of Nextflow, for every run; it overrides the pipelines' own.
        recorder: command of the process beside each run; run id and directory are added to it. Empty: none.
        recorder_environ: all that it sees.
    """

    def __init__(  # noqa: PLR0913  # by keyword: what `open` takes from the settings
        self,
        state_dir: Path,
        nextflow: Path | None,
        environ: Mapping[str, str],
        *,
        installed: bool = False,
        sources: Sources = Sources((ANY,), Path(".")),  # noqa: B008  # frozen
        config: str = "",
        grace_seconds: float = 20.0,
        recorder: Sequence[str] = (),
        recorder_environ: Mapping[str, str] | None = None,
    ) -> None:
        self._state = State(state_dir.absolute())
        self._nextflow = nextflow
        self._installed = installed
        self._environ = dict(environ)
        self._sources = replace(sources, root=sources.root and sources.root.absolute(), launch=self._state.launch)
        self._config = config
        self._grace_seconds = grace_seconds
        self._recorder = list(recorder)
        self._recorder_environ = dict(recorder_environ or {})
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="local-runner")

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str]) -> "LocalRunner":
        """The runner that settings and environment ask for, with a recorder beside each run."""
        return cls(
            settings.state_dir,
            None,
            environ,
            installed=True,
            sources=Sources(settings.pipeline_sources, settings.pipelines_dir),
            config=settings.nextflow_config,
            grace_seconds=settings.cancel_grace_seconds,
            recorder=(sys.executable, "-m", "common.recorder.local"),
            recorder_environ={**environ, "STATE_DIR": str(settings.state_dir.absolute())},
        )

    async def check(self) -> None:
        await self._do(lambda _: None)
        if not os.access(self._state.root, os.W_OK):
            raise Unavailable("runner", "The state directory cannot be written.")
        await asyncio.to_thread(self._tools)

    async def close(self) -> None:
        self._changes.shutdown(wait=False)

    # The fence.

    async def lease(self) -> Lease:
        return _as_lease(await self._do(Files.lease))

    async def write_lease(self, read: Lease, holder: Holder | None) -> Lease:
        def change(files: Files) -> LeaseFile:
            current = files.lease()
            if str(current.version) != read.version:
                raise Conflict("The Lease has changed since it was read.")
            run_id, uid = (holder.run_id, holder.uid) if holder else (None, None)
            return files.write_lease(replace(current, run_id=run_id, uid=uid))

        return _as_lease(await self._do(change))

    # Jobs.

    async def accept(self, request: RunRequest) -> None:
        await asyncio.to_thread(self._sources.resolve, request.pipeline)

    async def create(self, record: RunRecord) -> Job:
        job = JobFile(str(uuid.uuid4()), record.model_dump(mode="json"))

        def change(files: Files) -> JobFile:
            if files.job(record.run_id) is not None:
                raise Conflict("There is a Job of this name.")
            return files.create_job(record.run_id, job)

        return _as_job(await self._do(change), record)

    async def job(self, run_id: str) -> Job | None:
        found = await self._do(lambda files: _look(files, run_id))
        if found is None:
            return None
        job = _readable(found)
        # One whose record cannot be read is not absent: its head may live, and its Lease must not be emptied.
        if job is None:
            raise Unavailable("runner", f"The record of {run_id} cannot be read: it is of another version's form.")
        if not _may_have_left(found):
            return job
        return replace(job, remains=await asyncio.to_thread(_marked, run_id))

    async def jobs(self) -> Sequence[Job]:
        run_ids = await self._do(Files.run_ids)
        found: list[JobFile | None] = []
        for start in range(0, len(run_ids), _AT_ONCE):
            found += await self._do(partial(_look_at_all, run_ids=run_ids[start : start + _AT_ONCE]))
        return [job for file in found if file is not None and (job := _readable(file)) is not None]

    async def launch(self, read: Job) -> Job:
        from common.local import processes

        if not read.inert:
            raise Conflict("The Job is not inert.")
        await self._do(lambda files: _unchanged(files, read))  # spares a process where this tells already
        try:
            orders = await asyncio.to_thread(self._orders, read)
        except (Invalid, NotAllowed) as error:  # the directory of pipelines is not what it was
            await self.seal(read, None, str(error))
            raise Conflict(str(error)) from error
        verb, _, rest = (await asyncio.to_thread(processes.start_supervisor, orders)).partition(" ")
        match verb:
            case "launched":
                return replace(read, launched=True, version=rest)
            case "refused":
                raise Conflict(rest)
            case "unavailable":
                raise Unavailable("runner", rest)
        # It died without an answer, so what it has done is done and can be read.
        try:
            await self._do(lambda files: _unchanged(files, read))
        except Conflict:
            raise OutcomeUnknown("runner", "The supervisor was lost in the launch.", run_id=read.run_id) from None
        raise Unavailable("runner", "The run's supervisor could not start; its supervisor.err says why.")

    async def seal(self, read: Job, mark: CancelMark | None, reason: str | None = None) -> Job:
        def change(files: Files) -> JobFile:
            current = _unchanged(files, read)
            if not current.inert:
                raise Conflict("The Job is not inert.")
            return files.write_job(
                read.run_id,
                replace(current, sealed=True, mark=mark.model_dump(mode="json") if mark else None, message=reason),
            )

        return _as_job(await self._do(change), read.record)

    async def stop(self, read: Job, mark: CancelMark) -> Job:
        def change(files: Files) -> tuple[JobFile, bool]:
            current = _unchanged(files, read)
            if not current.runs:
                raise Conflict("The Job does not run.")
            if current.mark is None:
                current = files.write_job(read.run_id, replace(current, mark=mark.model_dump(mode="json")))
            return current, files.supervised(read.run_id)

        stopping, supervised = await self._do(change)
        if not supervised:  # a head whose supervisor is dead has been asked already, and nobody would force it
            await asyncio.to_thread(_end, read.run_id, 0)
        return _as_job(stopping, read.record)

    async def delete(self, read: Job) -> None:
        def change(files: Files) -> JobFile | None:
            current = _look(files, read.run_id)
            if current is None or current.uid != read.uid:
                return None
            check_unchanged(current, read.uid, read.version)
            if current.runs:
                raise Conflict("The Job runs.")
            return current

        current = await self._do(change)
        if current is None:
            return
        if _may_have_left(current) and await self.sweep(read.run_id):
            raise Unavailable("runner", "Processes of the run cannot be ended.")
        await self._do(lambda files: files.discard(read.run_id) if change(files) else None)
        await asyncio.to_thread(self._state.empty_trash)

    async def sweep(self, run_id: str) -> tuple[str, ...]:
        found = await self._do(lambda files: _look(files, run_id))
        if found is not None and found.runs:  # they are its supervisor's
            return await asyncio.to_thread(_marked, run_id)
        return await asyncio.to_thread(_end, run_id, _SWEEP_GRACE_SECONDS)

    # What a run says.

    async def lines(self, run_id: str, attempt: int, after: LineId = ZERO) -> AsyncGenerator[Sequence[Line], None]:
        from common.local.tail import Tail, kept

        if attempt != 1 or not is_run_id(run_id):
            return
        async with aclosing(kept(self._state.run(run_id), after)) as batches:
            async for lines in batches:
                yield lines
                after = lines[-1].id
        log = Tail(self._state.run(run_id) / "log")
        ticked_at, quiet, uid, final = 0.0, 0, None, False
        while True:
            fresh = [line for line in await asyncio.to_thread(log.read) if line.id > after]
            for start in range(0, len(fresh), _BATCH_LINES):
                yield fresh[start : start + _BATCH_LINES]
            if log.grew:
                quiet = 0
                continue
            if final:
                break
            # Looked up before the read that finds nothing more: nothing written in between is lost.
            found, whole = await self._do(lambda files: (_look(files, run_id), files.has_whole_log(run_id)))
            final = whole or found is None or uid not in (None, found.uid) or found.sealed or found.end is not None
            uid = found.uid if found else uid
            if not final:
                if time.monotonic() - ticked_at >= _TICK_SECONDS:
                    yield ()  # the end of what there is, for now
                    ticked_at = time.monotonic()
                await asyncio.sleep(_PAUSES[min(quiet, len(_PAUSES) - 1)])
                quiet += 1
        if rest := [line for line in log.rest() if line.id > after]:
            yield rest

    async def final(self, run_id: str, attempt: int) -> bool | None:
        job = await self.job(run_id)
        return None if job is None else job.ended or await self._do(lambda files: files.has_whole_log(run_id))

    async def progress(self, run_id: str) -> Progress | None:
        if not is_run_id(run_id):
            return None
        try:
            raw = await asyncio.to_thread((self._state.run(run_id) / "progress.json").read_bytes)
            return Progress.model_validate_json(raw)
        except (OSError, ValidationError):
            return None

    # How it is done.

    async def _do(self, action: Callable[[Files], _T]) -> _T:
        """Do something with the files of the state directory, which nobody else touches meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS  # from now on, not from when the thread is free

        def transaction() -> _T:
            with self._state.held(deadline - time.monotonic()) as files:
                return action(files)

        return await asyncio.get_running_loop().run_in_executor(self._changes, transaction)

    def _tools(self) -> tuple[Path, dict[str, str]]:
        """The Nextflow to start, and the variables it may see."""
        executable, environ = self._nextflow, self._environ
        if self._installed:
            from common.local import toolchain

            if (found := toolchain.find(toolchain.default_cache(environ), environ)) is not None:
                executable, environ = found.nextflow, environ | found.environment(environ)
        if executable is None or not os.access(executable, os.X_OK):
            raise Unavailable("runner", "There is no Nextflow yet; `make toolchain` finds or installs one.")
        return executable, environ

    def _orders(self, job: Job) -> Orders:
        """What the supervisor of this Job is asked to do."""
        from common import nextflow

        record, directory = job.record, self._state.run(job.run_id)
        history = nextflow.History.read(self._state.launch)
        place = nextflow.Place(
            pipeline=self._sources.resolve(record.request.pipeline),
            params=directory / "params.json",
            configs=[directory / "nextflow.config"],
            log=directory / "nextflow.log",
            trace=directory / "trace.txt",
            work=self._state.work / (record.request.workdir or ""),
        )
        executable, environ = self._tools()
        return Orders(
            state_dir=str(self._state.root),
            run_id=job.run_id,
            uid=job.uid,
            version=job.version,
            command=nextflow.command(executable, record, place, history),
            environ=nextflow.environment(environ, record, history),
            grace_seconds=self._grace_seconds,
            files={
                place.params.name: nextflow.params_file(record.request),
                place.configs[0].name: nextflow.config(self._config),
            },
            notes=nextflow.notes(record, history),
            recorder=[*self._recorder, job.run_id, str(directory)] if self._recorder else [],
            recorder_environ=self._recorder_environ,
        )


def _look(files: Files, run_id: str) -> JobFile | None:
    return files.job(run_id) if is_run_id(run_id) else None  # anything else might be a path to anywhere


def _may_have_left(found: JobFile) -> bool:
    """Whether processes of an ended run may be there: a clean end was written when there was none."""
    return found.end is not None and not found.end.clean


def _look_at_all(files: Files, run_ids: Sequence[str]) -> list[JobFile | None]:
    return [_look(files, run_id) for run_id in run_ids]


def _unchanged(files: Files, read: Job) -> JobFile:
    return check_unchanged(_look(files, read.run_id), read.uid, read.version)


def _marked(run_id: str) -> tuple[str, ...]:
    from common.local import processes  # psutil: of no use to those who only look at what runs

    return tuple(f"process {process.pid}" for process in processes.marked(run_id))


def _end(run_id: str, grace_seconds: float) -> tuple[str, ...]:
    from common.local import processes

    left = processes.end(lambda: processes.marked(run_id), grace_seconds, _SWEEP_WAIT_SECONDS)
    return _marked(run_id) if left else ()


def _as_lease(file: LeaseFile) -> Lease:
    named = Holder(file.run_id, file.uid) if file.run_id is not None and file.uid is not None else None
    return Lease(str(file.version), named)


def _readable(file: JobFile) -> Job | None:
    """The Job; None if its record was written by another version of this program, in a form it has no more."""
    try:
        return _as_job(file, RunRecord.model_validate(file.record))
    except ValueError:  # a time that is none, too
        return None


def _as_job(file: JobFile, record: RunRecord) -> Job:
    end = file.end
    return Job(
        record=record,
        uid=file.uid,
        version=str(file.version),
        launched=file.launched,
        sealed=file.sealed,
        mark=CancelMark.model_validate(file.mark) if file.mark else None,
        condition=end.condition if end else None,
        started_at=_time(file.started_at),
        finished_at=_time(end.finished_at) if end else None,
        exit_code=end.exit_code if end else None,
        message=end.message if end else file.message,
    )


def _time(text: str | None) -> datetime | None:
    found = datetime.fromisoformat(text) if text else None
    if found is not None and found.tzinfo is None:
        raise ValueError("a time without its zone")
    return found
