"""KubernetesRunner: a run is a Job, the fence a Lease, and the cluster holds everything there is to know.

This object holds a connection and nothing else: any number of them, in any number of processes, work
on the same runs. Every write names the resourceVersion that its writer read.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.errors import Conflict, Unavailable
from common.events import ZERO
from common.jobs import Holder, Job, Lease
from common.kube import objects, reading, tasks
from common.kube.archive import ArchiveClient, Kept
from common.kube.objects import HEAD, ROLE, RUN_ID
from common.kube.paths import Paths
from common.kube.transport import Api, Object
from common.models import CancelMark, Progress, RunRecord, RunRequest
from common.names import is_run_id
from common.settings import Settings
from common.sources import Sources

if TYPE_CHECKING:
    from common.events import Line, LineId

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


class KubernetesRunner:
    """A `common.runner.Runner` on Kubernetes."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api
        # What is on the work volume is not to be seen from here; what is in our image heads get a copy of.
        self._sources = Sources(
            settings.pipeline_sources, settings.pipelines_dir if settings.controller_image else None
        )
        self._paths = Paths(settings)
        self._of_tasks = (self._paths.jobs, self._paths.pods)
        self._archive = ArchiveClient.open(settings)

    @classmethod
    def open(cls, settings: Settings) -> "KubernetesRunner":
        """The runner that settings ask for; nothing is sent yet."""
        return cls(settings, Api(settings.kube_context))

    async def check(self) -> None:
        await self.lease()

    async def close(self) -> None:
        await self._api.close()
        if self._archive is not None:
            await self._archive.close()

    # The fence.

    async def lease(self) -> Lease:
        return reading.lease(await self._api.get(self._paths.lease))

    async def write_lease(self, read: Lease, holder: Holder | None) -> Lease:
        body = objects.lease(self._settings.release, holder, read.version)
        if read.version:
            return reading.lease(await self._api.replace(self._paths.lease, body))
        return reading.lease(await self._api.create(self._paths.leases, body))

    # Jobs.

    async def accept(self, request: RunRequest) -> None:
        from common.kube import head

        head.check_size(request, self._settings)
        await asyncio.to_thread(self._sources.resolve, request.pipeline)

    async def create(self, record: RunRecord) -> Job:
        from common.kube import head

        pipeline = await asyncio.to_thread(self._sources.resolve, record.request.pipeline)
        made = head.job(record, self._settings, pipeline, self._sources.root_of(pipeline))
        return _ours(await self._api.create(self._paths.jobs, made))

    async def job(self, run_id: str) -> Job | None:
        return (await self._seen(run_id))[0]

    async def _seen(self, run_id: str) -> tuple[Job | None, Sequence[Object]]:
        """A run's Job, and the pods that were looked at for it."""
        found = await self._api.get(self._paths.job(run_id)) if is_run_id(run_id) else None
        while True:
            if found is None:
                return None, ()
            # One whose record cannot be read is not absent: it may have pods, and its Lease must not be emptied.
            job = _ours(found)
            if not job.launched:
                return job, ()
            pods = await self._api.items(self._paths.pods, f"{RUN_ID}={run_id}")
            if job.condition is not None or any(reading.is_heads(pod, run_id) and reading.lives(pod) for pod in pods):
                break
            # The last head may be neither among the counted nor the pods: it was counted and deleted in between.
            found = await self._api.get(self._paths.job(run_id))
            if found is not None and found["metadata"]["resourceVersion"] == job.version:
                break
        if job.condition is not None:  # the Jobs of its tasks make pods as long as they are there
            jobs = await self._api.items(self._paths.jobs, f"{RUN_ID}={run_id}")
            pods += [task for task in jobs if not reading.is_heads(task, run_id)]
        job = _ours(found, pods)
        if job.awaited_since is not None and job.message is None:
            about = next((pod for pod in pods if reading.is_heads(pod, run_id)), found)
            job = replace(job, message=reading.warning(await self._warnings(about)))
        return job, pods

    async def jobs(self) -> Sequence[Job]:
        found = await self._api.items(self._paths.jobs, f"{ROLE}={HEAD}")
        return [job for item in found if (job := reading.job(item)) is not None]

    async def launch(self, read: Job) -> Job:
        if not read.inert:
            raise Conflict("The Job is not inert.")
        return await self._patch(read, objects.launch(read.version, datetime.now(UTC)))

    async def seal(self, read: Job, mark: CancelMark | None, reason: str | None = None) -> Job:
        if not read.inert:
            raise Conflict("The Job is not inert.")
        return await self._patch(read, objects.seal(read.version, mark, reason))

    async def stop(self, read: Job, mark: CancelMark) -> Job:
        if not read.launched or read.ended:
            raise Conflict("The Job does not run.")
        # The mark and the deadline came with one patch: who reads the one knows that the other is there.
        return read if read.mark is not None else await self._patch(read, objects.stop(read.version, mark))

    async def delete(self, read: Job) -> None:
        if not read.inert and not read.ended:
            raise Conflict("The Job runs.")
        conditions = {"uid": read.uid, "resourceVersion": read.version}
        try:
            await self._api.delete(
                self._paths.job(read.run_id), {"preconditions": conditions, "propagationPolicy": "Background"}
            )
        except Conflict:  # of a Job that is another by now, the one that was read is gone
            found = await self._api.get(self._paths.job(read.run_id))
            if found is not None and found["metadata"]["uid"] == read.uid:
                raise

    async def sweep(self, run_id: str) -> tuple[str, ...]:
        job = await self.job(run_id)
        if job is None or not job.ended or not job.remains:
            return ()
        await tasks.delete(self._api, await tasks.find(self._api, self._of_tasks, run_id))
        left = await self.job(run_id)  # counts a head that has not ended, too
        return left.remains if left is not None else ()

    async def sweep_orphans(self) -> Mapping[str, Sequence[str]]:
        """Have the tasks of all runs deleted that have ended or are gone; their names, by run.

        Raises:
            Unavailable: the API server does not answer; some may be left, but only of runs it says nothing of.
        """
        found: dict[str, list[tasks.Task]] = {}
        # Before their Jobs are looked at: what another run of the same id makes after that is not among them.
        for task in await tasks.find(self._api, self._of_tasks):
            found.setdefault(task.run_id, []).append(task)
        orphans: dict[str, Sequence[str]] = {}
        refusal: Unavailable | None = None
        for run_id, left in found.items():
            try:
                job = await self.job(run_id)
                if job is None or job.ended:
                    await tasks.delete(self._api, left)
                    orphans[run_id] = [task.name for task in left]
                    log.warning("left behind", extra={"run_id": run_id, "tasks": orphans[run_id]})
            except Unavailable as away:
                log.warning("whether tasks are left behind is not known", extra={"run_id": run_id, "cause": str(away)})
                refusal = away
        if refusal is not None:
            raise refusal
        return orphans

    # What a run says.

    async def lines(self, run_id: str, attempt: int, after: "LineId" = ZERO) -> "AsyncGenerator[Sequence[Line], None]":
        if not is_run_id(run_id):
            return
        from common.kube import log as logs

        log, kept = logs.Log(after), Kept(self._archive, run_id, attempt)
        async for lines in logs.begin(log, kept):
            yield lines
        if kept.whole:
            return
        while True:
            job, pods = await self._seen(run_id)
            if job is None or job.sealed or attempt > job.attempt:
                break
            heads = (pod for pod in pods if reading.is_heads(pod, run_id))
            pod = next((head for head in heads if reading.attempt(head) == attempt), None)
            if pod is not None and logs.is_there(pod) and not log.complete:
                async for lines in logs.read(self._api, self._paths.pods, pod, log, kept):
                    yield lines
            gone = pod is None or not logs.is_there(pod) or logs.is_cleared(pod)
            if _is_past(job, attempt) and (gone or log.complete or kept.whole):
                break
            yield ()
            await asyncio.sleep(_LOOK_SECONDS)
        if job is None or (not job.sealed and attempt <= job.attempt and job.started_at is not None):
            async for lines in logs.rest(log, kept):
                yield lines

    async def final(self, run_id: str, attempt: int) -> bool | None:
        job = await self.job(run_id)
        if job is not None:
            return _is_past(job, attempt)
        # What is kept of it is all that there will be.
        kept = None if self._archive is None else await self._archive.page(run_id, attempt, ZERO)
        return True if kept and kept.lines else None

    async def progress(self, run_id: str) -> Progress | None:
        with suppress(Unavailable):  # Redis has it, too, or no one will
            return await self._archive.progress(run_id) if self._archive is not None else None
        return None

    async def _warnings(self, about: Object) -> list[Object]:
        """What the cluster has to complain about an object; nothing where that is not to be read."""
        query = f"involvedObject.uid={about['metadata']['uid']},type=Warning"
        with suppress(Unavailable):
            found = await self._api.get(self._paths.events, fieldSelector=query)
            return list(found["items"]) if found else []
        return []

    async def _patch(self, read: Job, patch: Object) -> Job:
        return _ours(await self._api.merge(self._paths.job(read.run_id), patch))


def _ours(found: Object, pods: Sequence[Object] = ()) -> Job:
    job = reading.job(found, pods)
    if job is None:
        raise Unavailable("runner", f"The Job {found['metadata']['name']} carries no record that can be read.")
    return job


def _is_past(job: Job, attempt: int) -> bool:
    """Whether an attempt of this Job's run has ended."""
    return job.ended or attempt < job.attempt
