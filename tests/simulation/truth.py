"""What really happened, and what of it a promise forbids: told from the cluster's objects at every change.

Nothing here asks the code under test: a run's end is what became of its Job, its pods are those that it or
its head made.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from common.kube import objects
from common.kube.transport import Object
from common.phases import State
from tests.simulation.api_server import owners
from tests.simulation.cluster import Cluster
from tests.simulation.job_rules import failures, over
from tests.simulation.node import is_head

_NO_TIME = -1e9
_DEADLINE_SECONDS = 1.0  # which a Job is given that is to end at once


@dataclass(eq=False)
class Run:
    """A Job of a run, as it last was.

    Attributes:
        record: the run's own, as it was accepted.
        marked_by, given_up: who marked it, and whether for a reason of the controller's.
        marked_at: when that was.
        failing: whether the Job controller has said that it is going to fail.
        ended_at: when it was first sealed or stopped.
        heads: its heads as they last were, in order.
        remains: how many of its pods, and of its tasks' Jobs, there are now; but no head that has ended.
        gone: whether it was deleted.
    """

    run_id: str
    uid: str
    record: dict[str, Any]
    number: int
    launched: bool = False
    sealed: bool = False
    marked_by: str | None = None
    given_up: bool = False
    marked_at: float | None = None
    failing: bool = False
    condition: str | None = None
    ended_at: float | None = None
    heads: dict[str, Object] = field(default_factory=dict)
    remains: int = 0
    gone: bool = False

    @property
    def live(self) -> bool:
        """Launched, and not stopped."""
        return self.launched and self.condition is None and not self.gone

    @property
    def ended(self) -> bool:
        """Sealed or stopped."""
        return self.sealed or self.condition is not None

    @property
    def end(self) -> State | None:
        """How it is to be told: nothing is cancelled while something is left of it."""
        if not self.ended:
            return None
        if self.marked_by is not None:
            ended = State.FAILED if self.given_up else State.CANCELLED
            return State.CANCELLING if self.remains else ended
        return State.SUCCEEDED if self.condition == "Complete" and not self.sealed else State.FAILED


class Truth:
    """Watches one cluster.

    Attributes:
        broken: what happened that a promise forbids.
        ever: every Job of a run that there has been.
        moments: (time, run id or None) whenever the run that is active became another.
        created: when each run's Job was last created.
        forgets: whether retention is so short that a key's run may be started anew.
    """

    def __init__(self, cluster: Cluster, max_attempts: int) -> None:
        self._cluster = cluster
        self._max_attempts = max_attempts
        self._uids: dict[str, Run] = {}
        self._named: dict[str, Run] = {}
        self._holder = ""
        self._heads: dict[str, Run] = {}
        self._parts: dict[str, set[tuple[str, str]]] = {}
        self.broken: list[str] = []
        self.forgets = False
        self.created: dict[str, float] = {}
        self.ever: list[Run] = []
        self.moments: list[tuple[float, str | None]] = [(_NO_TIME, None)]
        cluster.server.watchers.append(self._changed)
        cluster.node.started.append(self._see_start)

    def last(self, run_id: str) -> Run | None:
        """The latest Job of this name, gone or not."""
        return self._named.get(run_id)

    def launched(self, run_id: str) -> bool:
        """Whether the run was ever launched."""
        return any(run.launched for run in self.ever if run.run_id == run_id)

    def was_gone(self, run_id: str) -> bool:
        """Whether a Job of this name was ever deleted."""
        return any(run.gone for run in self.ever if run.run_id == run_id)

    def active(self) -> str | None:
        """The run that the Lease names, unless it has ended, in the end of a cancel with all it had."""
        run_id, _, uid = self._holder.partition("/")
        run = self._uids.get(uid)
        if run is None or run.gone or run.run_id != run_id:
            return None
        return run.run_id if run.end in (None, State.CANCELLING) else None

    def was_active(self, run_id: str | None, since: float, until: float) -> bool:
        """Whether `run_id` (None: no run) was the active one at any time between the two."""
        ends = [moment for moment, _ in self.moments[1:]] + [float("inf")]
        return any(
            name == run_id and begin <= until and end >= since
            for (begin, name), end in zip(self.moments, ends, strict=True)
        )

    # Changes.

    def _changed(self, before: Object | None, after: Object | None) -> None:
        found = after or before
        assert found is not None
        match found["kind"]:
            case "Lease":
                self._holder = (after or {}).get("spec", {}).get("holderIdentity") or ""
            case "Pod":
                self._see_part(before, after)
            case "Job" if found["metadata"]["name"] in self._cluster.runs_of:
                self._see_part(before, after)
            case _:
                self._see_job(found["metadata"]["uid"], found, gone=after is None)
        active = self.active()
        if self.moments[-1][1] != active:
            self.moments.append((asyncio.get_running_loop().time(), active))

    def _see_job(self, uid: str, found: Object, *, gone: bool) -> None:
        run = self._uids.get(uid)
        annotations, spec = found["metadata"]["annotations"], found["spec"]
        if run is None:
            name = found["metadata"]["name"]
            run = Run(name, uid, json.loads(annotations[objects.RECORD]), len(self.ever))
            self._uids[uid] = self._named[name] = run
            self.ever.append(run)
            self.created[name] = asyncio.get_running_loop().time()
        if gone:
            if run.condition and self._holder == f"{run.run_id}/{uid}":
                self._break(f"{run.run_id} was deleted before the Lease had let go of it")
            if run.remains or run.live:
                self._break(f"{run.run_id} was deleted with its pods")
            run.gone = True
            return
        if run.sealed and objects.SEALED not in annotations:
            self._break(f"{run.run_id} lost its seal")
        if run.condition and run.marked_by is None and objects.CANCEL in annotations:
            self._break(f"{run.run_id} was marked after its end")
        run.launched = run.launched or spec["parallelism"] > 0
        run.sealed = objects.SEALED in annotations
        if run.sealed and run.launched:
            self._break(f"{run.run_id} is launched, and sealed")
        mark = json.loads(annotations.get(objects.CANCEL, "{}"))
        run.marked_by, run.given_up = mark.get("requested_by"), mark.get("reason") is not None
        if run.marked_by is not None and run.marked_at is None:
            run.marked_at = asyncio.get_running_loop().time()
        conditions = found["status"].get("conditions", [])
        run.failing = any(one["type"] == "FailureTarget" for one in conditions)
        run.condition = next((one["type"] for one in conditions if one["type"] in ("Complete", "Failed")), None)
        if run.ended and run.ended_at is None:
            run.ended_at = asyncio.get_running_loop().time()

    def _see_part(self, before: Object | None, after: Object | None) -> None:
        """A pod of a run, or the Job of a task."""
        part = after or before
        assert part is not None
        name, kind = part["metadata"]["name"], part["kind"]
        run_id = self._cluster.runs_of[name]
        there = self._parts.setdefault(run_id, set())
        run = self._named.get(run_id)
        if is_head(part):
            self._see_head(part, new=before is None)
        if after is None or (is_head(after) and over(after)):
            there.discard((kind, name))
        elif before is None:
            if run is not None and run.ended and not there:
                self._break(f"{run_id} has ended, with nothing left of it, and has a new pod, {name}")
            there.add((kind, name))
        if run is not None:
            run.remains = len(there)
        alive = sorted(run_id for run_id, parts in self._parts.items() if any(kind == "Pod" for kind, _ in parts))
        if len(alive) > 1:
            self._break(f"pods of two runs at once: {alive}")

    def _see_head(self, pod: Object, *, new: bool) -> None:
        """One replaces another that was lost and is gone; so often and not more, and not once its run is to end."""
        name = pod["metadata"]["name"]
        run = self._heads.get(name) or self._uids[owners(pod)[0]]  # one that is orphaned has no owner any more
        self._heads[name] = run
        earlier = list(run.heads.values())
        run.heads[name] = pod
        if not new:
            return
        run_id, number = run.run_id, len(run.heads)
        executed = [other for other in self.ever if other.run_id == run_id and other.heads]
        others = [head for other in executed for head in other.heads.values() if head is not pod]
        if len(executed) > 1 and not self.forgets:
            self._break(f"{run_id} was executed by {len(executed)} Jobs")
        if number > self._max_attempts:
            self._break(f"{run_id} has a head too many: {number}")
        if failures(pod) != number - 1:
            self._break(f"{run_id} has head {number}, which is told to be number {failures(pod) + 1}")
        if any(not over(head) and self._is_there(head) for head in others):
            self._break(f"{run_id} has two heads at a time")
        if earlier and over(earlier[-1]) and not _lost(earlier[-1]):
            self._break(f"{run_id} has ended by itself, and is executed again")
        late = max(self._cluster.controller.delays) + _DEADLINE_SECONDS
        if run.failing or (run.marked_at is not None and asyncio.get_running_loop().time() > run.marked_at + late):
            self._break(f"{run_id} is to end, and has another head")

    def _is_there(self, pod: Object) -> bool:
        return self._cluster.node.pod(pod["metadata"]["name"]) is not None

    def _see_start(self, pod: Object) -> None:
        """Nextflow is started: of what its run has there is nothing but its own pod."""
        name = pod["metadata"]["name"]
        if left := sorted(part for _, part in self._parts[self._cluster.runs_of[name]] if part != name):
            self._break(f"{name} is started while there are {left}")

    def _break(self, what: str) -> None:
        if what not in self.broken:
            self.broken.append(what)


def _lost(head: Object) -> bool:
    """Whether a head that is over has not ended by itself."""
    status = head["status"]
    taken = any(one["type"] == objects.DISRUPTED for one in status.get("conditions", []))
    return status["phase"] == "Failed" and (taken or not status.get("containerStatuses"))
