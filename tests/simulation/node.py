"""A node: pods start on it, end, and are taken from it; what runs in them is somebody else's matter.

A head's pod prepares its attempt before its main container is started. It may be evicted, or ended by its
kubelet, or its node may be away for longer than it is given to end; or it is refused, or never comes up.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from common.kube import objects
from common.kube.transport import Object
from tests.simulation.api_server import ApiServer, merged, moment
from tests.simulation.job_rules import over
from tests.simulation.virtual import now

_AWAY_SECONDS = 15.0  # longer than any grace, and than the first back-off


class Work(Protocol):
    """What the main containers of pods do."""

    def begin(self, name: str) -> None:
        """The pod's main container has been started."""

    def asked_to_end(self, name: str) -> None:
        """It got SIGTERM, and has the time to do something about it."""


class Node:
    """Where all pods of a namespace run.

    Attributes:
        starts, ends: how long pods take to start, and to end: one of these.
        reach_seconds: within how long from a head's beginning it may be taken.
        taken, refused, stuck: how probable each is, of a head.
        prepare: what is done before the main container of a head that replaces another.
        started: told of every head whose main container starts.
    """

    def __init__(self, server: ApiServer, rng: random.Random, pods: str, work: Work) -> None:
        self._server = server
        self._rng = rng
        self._pods = pods
        self._work = work
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._away: dict[str, Object] = {}  # the status that nobody has been told of yet
        self.starts: tuple[float, ...] = (0.0, 0.1, 1.0)
        self.ends: tuple[float, ...] = (0.02, 0.5, 3.0)
        self.reach_seconds = 3.0
        self.taken = self.refused = self.stuck = 0.0
        self.prepare: Callable[[Object], Coroutine[Any, Any, None]] | None = None
        self.started: list[Callable[[Object], None]] = []
        server.watchers.append(self._changed)

    def pod(self, name: str) -> Object | None:
        """A pod as it is, whatever the API server has been told."""
        found = self._server.find(f"{self._pods}/{name}")
        return found if found is None or name not in self._away else merged(found, {"status": self._away[name]})

    def is_ending(self, name: str) -> bool:
        """Whether a pod's containers have been asked to end; where the node is away they have not."""
        found = self._server.find(f"{self._pods}/{name}")
        return name not in self._away and found is not None and "deletionTimestamp" in found["metadata"]

    def end(self, name: str, code: int, **told: Any) -> None:
        """The container of a pod that runs now ends, and with it the pod; `told` is what its status says besides."""
        pod = self.pod(name)
        if pod is None or over(pod):
            return
        state = {"terminated": {"exitCode": code, "finishedAt": moment(now())}}
        which, container = "containerStatuses", pod["spec"]["containers"][0]["name"]
        if (task := self._preparing.pop(name, None)) is not None:
            task.cancel()
            which, container = "initContainerStatuses", objects.PREPARE
        status: Object = {which: [{"name": container, "state": state}]}
        self._update(name, {"phase": "Failed" if code else "Succeeded", **status, **told})

    # What becomes of a pod.

    def _changed(self, before: Object | None, after: Object | None) -> None:
        if after is None or after["kind"] != "Pod":
            return
        metadata = after["metadata"]
        name, loop = metadata["name"], asyncio.get_running_loop()
        if before is None:
            loop.call_later(self._rng.choice(self.starts), self._start, name)
            if is_head(after) and self._rng.random() < self.taken:
                loop.call_later(self._rng.random() * self.reach_seconds, self._take, name)
        elif "deletionTimestamp" in metadata and "deletionTimestamp" not in before["metadata"]:
            grace = metadata["deletionGracePeriodSeconds"]
            takes = min(grace, self._rng.choice(self.ends))
            if name not in self._away:
                loop.call_later(takes, self._ended_by_signal, name, takes < grace)

    def _start(self, name: str) -> None:
        pod = self.pod(name)
        if pod is None or "deletionTimestamp" in pod["metadata"] or over(pod):
            return
        if not is_head(pod):
            self._begin(name)
        elif self._rng.random() < self.refused:
            self._update(name, {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource"})
        elif self._rng.random() >= self.stuck:
            self._prepare(pod)

    def _prepare(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        again = pod["metadata"].get("annotations", {}).get(objects.FAILURES, "0") != "0"
        if self.prepare is None or not again or "initContainers" not in pod["spec"]:
            self._begin(name)
            return
        self._update(name, {"initContainerStatuses": [{"name": objects.PREPARE, "state": {"running": {}}}]})

        async def prepared(done: Coroutine[Any, Any, None]) -> None:
            await done
            del self._preparing[name]
            if not self.is_ending(name):
                self._begin(name)

        # In a context of its own: it is nobody's of those whose call has led to it.
        self._preparing[name] = asyncio.create_task(prepared(self.prepare(pod)), context=Context())

    def _begin(self, name: str) -> None:
        pod = self.pod(name)
        if pod is None or over(pod):
            return
        container = pod["spec"]["containers"][0]["name"]
        running = [{"name": container, "state": {"running": {"startedAt": moment(now())}}}]
        self._update(name, {"phase": "Running", "initContainerStatuses": None, "containerStatuses": running})
        if is_head(pod):
            for observer in self.started:
                observer(pod)
        self._work.begin(name)

    def _ended_by_signal(self, name: str, politely: bool) -> None:
        pod = self.pod(name)
        if pod is None:
            return
        if pod["status"]["phase"] == "Pending" and name not in self._preparing:  # nothing of it has ever run
            self._update(name, {"phase": "Failed"})
        elif not over(pod):
            if politely and name not in self._preparing:
                self._work.asked_to_end(name)
            self.end(name, 143 if politely else 137)
        self._server.remove(f"{self._pods}/{name}")

    # How a head is taken.

    def _take(self, name: str) -> None:
        how = self._rng.choice([self._evict, self._push_out, self._lose])
        if self.pod(name) is not None and name not in self._away:
            how(name)

    def _evict(self, name: str) -> None:
        """By a drain, or for a pod of a higher priority."""
        self._server.call("POST", f"{self._pods}/{name}/eviction", {})

    def _push_out(self, name: str) -> None:
        """By its kubelet, whose node has not enough of something: it is not deleted."""
        pod = self.pod(name)
        if pod is not None and not over(pod) and "deletionTimestamp" not in pod["metadata"]:
            self.end(name, 137, reason="Evicted", conditions=[_taken("TerminationByKubelet")])

    def _lose(self, name: str) -> None:
        """Its node is away: it is to be deleted, and nobody hears of that there, nor here of what it does."""
        pod = self.pod(name)
        if pod is not None and not over(pod) and "deletionTimestamp" not in pod["metadata"]:
            self._update(name, {"conditions": [_taken("DeletionByTaintManager")]})
            self._away[name] = {}
            self._server.call("DELETE", f"{self._pods}/{name}", {})
            asyncio.get_running_loop().call_later(_AWAY_SECONDS, self._back, name)

    def _back(self, name: str) -> None:
        self.end(name, 137)
        self._server.update(f"{self._pods}/{name}", {"status": self._away.pop(name)})
        self._server.remove(f"{self._pods}/{name}")

    def _update(self, name: str, status: Object) -> None:
        if name in self._away:
            self._away[name] = {**self._away[name], **status}
        else:
            self._server.update(f"{self._pods}/{name}", {"status": status})


def is_head(pod: Object) -> bool:
    """Whether it is a head's pod."""
    return bool(pod["metadata"].get("labels", {}).get(objects.ROLE) == objects.HEAD)


def _taken(reason: str) -> Object:
    return {"type": objects.DISRUPTED, "status": "True", "reason": reason, "message": reason}
