"""The Job controller, garbage collector and TTL controller: what the cluster does with Jobs by itself, late.

The controller decides from its own cache, which is told of every change in order, but as late as chance will
have it; what it writes to a Job is conditional on the version it has there. Its own pods it knows at once.

A pod that has ended is counted in two writes: its UID first, and its number only after its finalizer is gone.
Where failures are counted on the pods of an index, the last one that failed is held until there is another.
"""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from common.kube.objects import FAILURES
from common.kube.transport import Object
from tests.simulation.api_server import TRACKING, ApiServer, moment, owners
from tests.simulation.job_rules import ending, failed, failures, failures_with, indexed, over, replaced_from, verdict
from tests.simulation.virtual import now

_APART_SECONDS = 1e-6
_UNCOUNTED = "uncountedTerminatedPods"


@dataclass(eq=False)
class _Known:
    """A Job as the controller has it, with its pods by name.

    Attributes:
        made: how many pods it was given.
        counted: the UIDs of those that were let go of, whatever the cache still says of them.
        refused: no further pod of it can be made (a quota, an admission webhook).
        due: when the last piece of news arrives: they arrive in order.
    """

    job: Object
    pods: dict[str, Object] = field(default_factory=dict)
    made: int = 0
    counted: set[str] = field(default_factory=set)
    gone: bool = False
    refused: bool = False
    due: float = 0.0


class JobController:
    """For the Jobs of one namespace.

    Attributes:
        jobs, pods: the paths of the namespace's collections.
        delays: how late it learns of a change: one of these, in seconds.
        pauses: how long there is between the two writes of a count.
        refuses: how probable it is that from some pod on no other one of a Job can be made.
    """

    def __init__(self, server: ApiServer, rng: random.Random, namespace: str) -> None:
        self._server = server
        self._rng = rng
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self._known: dict[str, _Known] = {}
        self.delays: tuple[float, ...] = (0.0, 0.01, 0.01, 0.1, 1.0)
        self.pauses: tuple[float, ...] = (0.0, 0.0, 0.2)
        self.refuses = 0.0
        server.watchers.append(self._changed)

    def catch_up(self, uid: str) -> None:
        """Let it know a Job as it is, at once."""
        known = self._known[uid]
        known.job = self._server.find(f"{self.jobs}/{known.job['metadata']['name']}") or known.job
        known.pods = {pod["metadata"]["name"]: pod for pod in self._server.objects(self.pods) if uid in owners(pod)}

    # News.

    def _changed(self, before: Object | None, after: Object | None) -> None:
        found = after or before
        assert found is not None
        if found["kind"] == "Job":
            uid = found["metadata"]["uid"]
            if before is None:
                self._known[uid] = _Known(found)
            self._later(uid, self._see_job, uid, after)
        elif found["kind"] == "Pod":
            for uid in owners(found):
                self._later(uid, self._see_pod, uid, found["metadata"]["name"], after)

    def _later(self, uid: str, act: Any, *args: Any) -> None:
        loop, known = asyncio.get_running_loop(), self._known[uid]
        # Of two timers for the same moment the loop may take either first.
        known.due = max(known.due + _APART_SECONDS, loop.time() + self._rng.choice(self.delays))
        loop.call_at(known.due, act, *args)

    def _see_job(self, uid: str, job: Object | None) -> None:
        known = self._known[uid]
        if job is None:
            known.gone = True
            self._collect(uid)
            return
        # What it was made to know at once (`catch_up`) is newer than news that were on the way.
        if int(job["metadata"]["resourceVersion"]) >= int(known.job["metadata"]["resourceVersion"]):
            known.job = job
            self._sync(uid)

    def _see_pod(self, uid: str, name: str, pod: Object | None) -> None:
        pods = self._known[uid].pods
        if pod is None:
            pods.pop(name, None)
        else:
            pods[name] = pod
        self._sync(uid)

    def _collect(self, uid: str) -> None:
        """The garbage collector: pods whose Job is gone are deleted, in the background."""
        for pod in list(self._server.objects(self.pods)):
            if uid in owners(pod):
                path = f"{self.pods}/{pod['metadata']['name']}"
                self._server.update(path, {"metadata": {"finalizers": None}})
                self._server.call("DELETE", path)

    # Reconciling.

    def _sync(self, uid: str) -> None:
        known = self._known[uid]
        status = known.job["status"]
        if known.gone:
            return
        if _true(status, "Complete", "Failed"):
            self._let_go(known, known.pods.values())
            self._expire(uid)
        elif any(status.get(_UNCOUNTED, {}).values()):
            self._count(uid)
        else:
            self._decide(uid)

    def _decide(self, uid: str) -> None:
        known = self._known[uid]
        spec, status = known.job["spec"], known.job["status"]
        why = self._failure(known)
        done = any(pod["status"]["phase"] == "Succeeded" for pod in known.pods.values())
        living = [pod for pod in known.pods.values() if not over(pod)]
        conditions: list[Object] = status.get("conditions", [])
        if why is not None:
            conditions = _conditions(status, "FailureTarget", **why)
            for pod in living:
                if not ending(pod):
                    self._server.call("DELETE", f"{self.pods}/{pod['metadata']['name']}")
        elif done:
            why = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
            conditions = _conditions(status, "SuccessCriteriaMet", **why)
        counted = [pod for pod in known.pods.values() if self._counts(known, pod, over_all=bool(conditions))]
        if not conditions and spec["parallelism"] > 0 and all(failed(spec, pod) for pod in known.pods.values()):
            living += self._make(known)
        active = [pod for pod in living if not conditions and not ending(pod)]
        ended = {
            kind: [pod["metadata"]["uid"] for pod in counted if (pod["status"]["phase"] == "Succeeded") is good] or None
            for kind, good in (("failed", False), ("succeeded", True))
        }
        changes: Object = {
            "startTime": status.get("startTime") or moment(now()),
            "conditions": conditions or None,
            "active": len(active) or None,
            "ready": sum(pod["status"]["phase"] == "Running" for pod in active),
            "terminating": len(living) - len(active),
            "failedIndexes": "0" if self._exhausted(known) else "",
            _UNCOUNTED: ended,
        }
        if not indexed(spec):
            del changes["failedIndexes"]
        if not self._write(known, changes):
            return
        if counted:
            self._let_go(known, counted)
            asyncio.get_running_loop().call_later(self._rng.choice(self.pauses), self._sync, uid)
        elif conditions and not living:
            self._count(uid)

    def _count(self, uid: str) -> None:
        """The second write: how many have ended; and, once none is left, what became of the Job."""
        known = self._known[uid]
        status = known.job["status"]
        uncounted = status.get(_UNCOUNTED, {})
        uids = {uid for counted in uncounted.values() for uid in counted}
        self._let_go(known, [pod for pod in known.pods.values() if pod["metadata"]["uid"] in uids])
        changes: Object = {_UNCOUNTED: {"failed": None, "succeeded": None}}
        for kind in ("failed", "succeeded"):
            changes[kind] = status.get(kind, 0) + len(uncounted.get(kind, ())) or None
        if all(over(pod) for pod in known.pods.values()):
            for target, end in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
                for found in [one for one in status.get("conditions", []) if one["type"] == target]:
                    changes["conditions"] = _conditions(status, end, reason=found["reason"], message=found["message"])
                    changes |= {"completionTime": moment(now())} if end == "Complete" else {}
                    changes["terminating"] = 0
        self._write(known, changes)

    def _counts(self, known: _Known, pod: Object, *, over_all: bool) -> bool:
        """Whether a pod is to be counted and let go of; once the Job ends, one that is being ended is, too."""
        if TRACKING not in pod["metadata"].get("finalizers", []) or pod["metadata"]["uid"] in known.counted:
            return False
        if over_all or pod["status"]["phase"] == "Succeeded":
            return True
        others = [one for one in known.pods.values() if not over(one) and not ending(one)]
        if indexed(known.job["spec"]) and not others and pod is _last_failed(known):
            return False  # it says how many there were
        return failed(known.job["spec"], pod)

    def _exhausted(self, known: _Known) -> bool:
        last, spec = _last_failed(known), known.job["spec"]
        if not indexed(spec) or last is None:
            return bool(known.job["status"].get("failedIndexes"))
        return bool(failures_with(spec, last) > spec["backoffLimitPerIndex"])

    def _failure(self, known: _Known) -> dict[str, str] | None:
        """Why the Job has failed, if it has; a deadline is looked at again when it is due."""
        spec, status = known.job["spec"], known.job["status"]
        for condition in status.get("conditions", []):
            if condition["type"] == "FailureTarget":
                return {"reason": condition["reason"], "message": condition["message"]}
        ended = [pod for pod in known.pods.values() if failed(spec, pod)]
        for pod in ended:
            action, words = verdict(spec, pod)
            if action == "FailJob":
                return {"reason": "PodFailurePolicy", "message": words}
        seconds, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
        if seconds is not None and started is not None:
            left = (datetime.fromisoformat(started) + timedelta(seconds=seconds) - now()).total_seconds()
            if left <= 0:
                return {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
            asyncio.get_running_loop().call_later(left, self._sync, known.job["metadata"]["uid"])
        if self._exhausted(known):
            return {"reason": "FailedIndexes", "message": "Job has failed indexes"}
        if not indexed(spec) and len(ended) > spec["backoffLimit"]:
            return {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        return None

    def _make(self, known: _Known) -> list[Object]:
        """A pod, if there may be one now; one that is to come later is looked at again then."""
        spec, uid = known.job["spec"], known.job["metadata"]["uid"]
        last = _last_failed(known)
        if last is not None:
            left = (replaced_from(spec, last) - now()).total_seconds()
            if left > 0:
                asyncio.get_running_loop().call_later(left, self._sync, uid)
                return []
        if indexed(spec) and self._rng.random() < self.refuses:
            known.refused = True
        if known.refused or not self._is_there(known):
            return []
        return [self._create(known, 0 if last is None else failures_with(spec, last))]

    def _is_there(self, known: _Known) -> bool:
        """Assumed, though nothing but speed makes it so: a Job that is gone is not given a pod.

        A real controller whose cache is late may do so, for the moment until the pod is collected. It matters where
        tasks are Jobs: a head's Job is never deleted while it may have a pod.
        """
        metadata = known.job["metadata"]
        found = self._server.find(f"{self.jobs}/{metadata['name']}")
        return found is not None and bool(found["metadata"]["uid"] == metadata["uid"])

    def _create(self, known: _Known, before: int) -> Object:
        job, template = known.job["metadata"], known.job["spec"]["template"]
        known.made += 1
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["name"], "uid": job["uid"], "controller": True}
        own = template.get("metadata", {})
        metadata = {
            **own,
            "name": f"{job['name']}-0-{job['uid']}x{known.made}",
            "ownerReferences": [owner],
            "finalizers": [TRACKING],
        }
        if indexed(known.job["spec"]):
            metadata["annotations"] = {**own.get("annotations", {}), FAILURES: str(before)}
        made = self._server.call("POST", self.pods, {"metadata": metadata, "spec": template["spec"]}).body
        known.pods[made["metadata"]["name"]] = made
        return made

    def _write(self, known: _Known, changes: Object) -> bool:
        """Write the status, if the Job is what it was decided on."""
        path = f"{self.jobs}/{known.job['metadata']['name']}"
        found = self._server.find(path)
        if found is None or found["metadata"]["resourceVersion"] != known.job["metadata"]["resourceVersion"]:
            return False  # a conflict: the news of what it is by now are on their way
        known.job = self._server.update(path, {"status": changes}) or known.job
        return True

    def _let_go(self, known: _Known, pods: Iterable[Object]) -> None:
        for pod in pods:
            if pod["metadata"].get("finalizers"):
                known.counted.add(pod["metadata"]["uid"])
                self._server.update(f"{self.pods}/{pod['metadata']['name']}", {"metadata": {"finalizers": None}})

    def _expire(self, uid: str) -> None:
        """The TTL controller: a finished Job is deleted so long after its end."""
        job = self._known[uid].job
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return
        ended = max(
            datetime.fromisoformat(condition["lastTransitionTime"]) for condition in job["status"]["conditions"]
        )
        left = (ended + timedelta(seconds=seconds) - now()).total_seconds()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._expire, uid)
            return
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        self._server.call("DELETE", f"{self.jobs}/{job['metadata']['name']}", options)


def _last_failed(known: _Known) -> Object | None:
    spec = known.job["spec"]
    return max((pod for pod in known.pods.values() if failed(spec, pod)), key=failures, default=None)


def _true(status: Object, *types: str) -> bool:
    return any(found["type"] in types for found in status.get("conditions", []))


def _conditions(status: Object, *types: str, reason: str, message: str) -> list[Object]:
    """The conditions there are, and these after them."""
    there = status.get("conditions", [])
    new = [kind for kind in types if not _true(status, kind)]
    made = {"status": "True", "reason": reason, "message": message, "lastTransitionTime": moment(now())}
    return [*there, *({"type": kind, **made} for kind in new)]
