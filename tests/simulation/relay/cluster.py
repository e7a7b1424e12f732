"""The API server as those see it who read logs: Jobs, heads, their logs, and the Lease, all of them only read."""

import asyncio
import json
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from aiohttp import ClientConnectionError, ClientPayloadError

from common.jobs import Holder
from common.kube import objects
from common.kube.transport import _SILENT_SECONDS, Api, Object
from common.models import RunRecord
from tests.simulation import virtual
from tests.simulation.api_server import moment
from tests.simulation.relay.kubelet import Container, Following
from tests.simulation.relay.steps import Process, Steps
from tests.unit import samples

if TYPE_CHECKING:
    import aiohttp

_STALL_SECONDS = 1.0
_SPEC = {"containers": [{"name": objects.CONTAINER, "command": [*objects.OPENS, "nextflow", "run"]}]}
_CHUNK_BYTES = (1 << 20, 1 << 20, 1000, 70)


class Head:
    """One attempt's pod.

    Attributes:
        gone: there is no such pod any more.
        cleared: the kubelet has put it out: it is there, and its log is not.
        exited: its Nextflow has ended.
        counted: the Job controller has taken it for over.
    """

    def __init__(self, run_id: str, attempt: int, container: Container) -> None:
        self.name = f"{run_id}-{attempt}"
        self.run_id, self.attempt, self.container = run_id, attempt, container
        self.made = self.begun = self.ended = virtual.now()
        self.gone = self.cleared = self.exited = self.started = self.counted = False

    @property
    def readable(self) -> bool:
        """Whether its log is."""
        return self.started and not self.gone and not self.container.gone

    def shown(self) -> Object:
        """The pod as the API server shows it."""
        metadata = {
            "name": self.name,
            "uid": f"uid-{self.name}",
            "creationTimestamp": moment(self.made),
            "annotations": {objects.FAILURES: str(self.attempt - 1)},
            "ownerReferences": [{"kind": "Job", "name": self.run_id, "uid": f"uid-{self.run_id}", "controller": True}],
        }
        state: Object = {"running": {"startedAt": moment(self.begun)}}
        if self.exited:
            state = {"terminated": {**state["running"], "exitCode": 0, "reason": "Completed"}}
            state["terminated"]["finishedAt"] = moment(self.ended)
        statuses = [{"name": objects.CONTAINER, "state": state if self.started else {"waiting": {}}}]
        status: Object = {"phase": "Running", "containerStatuses": statuses}
        if self.cleared:
            status |= {"phase": "Failed", "reason": "Evicted"}
        elif self.exited:
            status["phase"] = "Succeeded"
        return {"metadata": metadata, "spec": _SPEC, "status": status}


class JobState:
    """One run's Job.

    Attributes:
        failed: how many heads were taken.
        condition: how it has ended.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.heads: list[Head] = []
        self.failed = 0
        self.condition: str | None = None
        self.version = 1
        self._record = record.model_dump_json()
        self._launched = virtual.now().isoformat()
        self._finished = ""

    def changed(self) -> None:
        """It has another version from here on."""
        self.version += 1

    def complete(self) -> None:
        """It has ended."""
        self.condition = "Complete"
        self._finished = moment(virtual.now())
        self.changed()

    def shown(self) -> Object:
        """The Job as the API server shows it."""
        name = self.record.run_id
        annotations = {objects.RECORD: self._record, objects.LAUNCHED_AT: self._launched}
        metadata = {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(self.version),
            "annotations": annotations,
        }
        living = sum(not head.counted for head in self.heads)
        status: Object = {"failed": self.failed, "active": living, "ready": living}
        if self.condition is not None:
            status |= {"active": 0, "succeeded": 1, "completionTime": self._finished}
            status["conditions"] = [
                {"type": self.condition, "status": "True", "lastTransitionTime": self._finished, "message": ""}
            ]
        return {"metadata": metadata, "spec": {"parallelism": 1}, "status": status}


class Cluster:
    """All of it, and the way to it.

    Attributes:
        jobs: by run, in the order of their beginnings.
        away: nobody gets an answer.
        unsettled: when somebody last got none.
        stalls: when what a kubelet had sent of a followed log was on its way for long.
    """

    def __init__(self, steps: Steps, rng: random.Random, away: float) -> None:
        self.jobs: dict[str, JobState] = {}
        self.away = False
        self.unsettled = -1e9
        self.stalls: list[tuple[float, float]] = []
        self._steps, self._rng, self._chance = steps, rng, away

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return self._steps.time

    def calm(self) -> None:
        """From now on it answers."""
        self._chance, self.away = 0.0, False

    def head(self, name: str) -> Head | None:
        """The pod of this name."""
        heads = (head for job in self.jobs.values() for head in job.heads if not head.gone)
        return next((head for head in heads if head.name == name), None)

    async def answer(self, process: Process, path: str, query: Mapping[str, str]) -> "Response":
        """One call."""
        await self._steps.pause(process)
        if self.away or self._rng.random() < self._chance:
            self.unsettled = self._steps.time
            self._steps.note(process.name, f"GET {path}: no answer")
            if self._rng.random() < 0.5:
                return Response(503, {"message": "the model is busy"})
            raise ClientConnectionError("the model is away")
        found = self._found(process, path, query)
        await self._steps.pause(process)
        return found

    def _found(self, process: Process, path: str, query: Mapping[str, str]) -> "Response":
        _, kind, name, *part = [*path.partition("/namespaces/")[2].split("/"), ""][:4]
        if kind == "leases":
            newest = next(reversed(self.jobs.values()), None)
            holder = None if newest is None else Holder(newest.record.run_id, f"uid-{newest.record.run_id}")
            return Response(200, objects.lease("nfc", holder, "1"))
        if kind == "jobs" and name:
            job = self.jobs.get(name)
            return _NOT_FOUND if job is None else Response(200, job.shown())
        if kind == "pods" and name:
            head = self.head(name)
            if head is None:
                return _NOT_FOUND
            return self._log(process, head, query) if part == ["log"] else Response(200, head.shown())
        return Response(200, {"items": self._items(kind, query), "metadata": {}})

    def _items(self, kind: str, query: Mapping[str, str]) -> list[Object]:
        selector = query.get("labelSelector", "")
        match kind:
            case "jobs" if selector.startswith(objects.ROLE):
                return [job.shown() for job in self.jobs.values()]
            case "pods":
                job = self.jobs.get(selector.partition("=")[2])
                return [] if job is None else [head.shown() for head in job.heads if not head.gone]
        return []

    def _log(self, process: Process, head: Head, query: Mapping[str, str]) -> "Response":
        if not head.readable:
            return Response(400, {"message": "the container has no log"})
        if "follow" in query:
            return Response(200, {}, _Followed(self, process, head.container.follow()))
        limit = int(query["limitBytes"]) if "limitBytes" in query else None
        return Response(200, {}, _Whole(self, process, head.container.content(limit)))

    async def piece(self, process: Process) -> None:
        """One piece of an answer comes, or the answer is cut."""
        await self._steps.pause(process)
        if self.away or self._rng.random() < self._chance / 3:
            self.unsettled = self._steps.time
            self._steps.note(process.name, "a log was cut")
            raise ClientPayloadError("the model was cut")

    def most(self, there: int) -> int:
        """How many of so many bytes come at once."""
        return min(there, self._rng.choice(_CHUNK_BYTES))


class _Whole:
    """What a log file has now, as it comes."""

    def __init__(self, cluster: Cluster, process: Process, content: bytes) -> None:
        self._cluster, self._process, self._content = cluster, process, content

    async def readany(self) -> bytes:
        """The next piece; none at the end."""
        await self._cluster.piece(self._process)
        piece = self._content[: self._cluster.most(len(self._content))]
        self._content = self._content[len(piece) :]
        return piece


class _Followed:
    """What a log says as it goes on."""

    def __init__(self, cluster: Cluster, process: Process, following: Following) -> None:
        self._cluster, self._process, self._following = cluster, process, following

    async def readany(self) -> bytes:
        """The next piece; none at the end."""
        async with asyncio.timeout(_SILENT_SECONDS):
            piece = await self._following.next(self._cluster.most)
        begun = self._cluster.time
        try:
            await self._cluster.piece(self._process)
        finally:
            if self._cluster.time - begun > _STALL_SECONDS:
                self._cluster.stalls.append((begun, self._cluster.time))
        return piece


class Response:
    """What aiohttp gives for a call."""

    def __init__(self, status: int, body: Object, content: "_Whole | _Followed | None" = None) -> None:
        self.status, self.content = status, content
        self._body = body

    async def read(self) -> bytes:
        """The whole of it."""
        return json.dumps(self._body).encode()

    def close(self) -> None:
        """Let go of it."""


_NOT_FOUND = Response(404, {"message": "not found"})


class RelayApi(Api):
    """The library's own transport, with a process' way to the model in place of a connection."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        super().__init__()
        self._cluster, self._process = cluster, process

    async def _send(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str], limit: Any
    ) -> "aiohttp.ClientResponse":
        assert method == "GET", "who follows never writes"
        return cast("aiohttp.ClientResponse", await self._cluster.answer(self._process, path, query))


def record(number: int) -> RunRecord:
    """A run as it was accepted just now."""
    return samples.record(run_id=samples.run_id(number), created_at=virtual.now())
