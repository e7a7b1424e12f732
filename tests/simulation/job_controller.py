"""The Job controller, garbage collector and TTL controller: what the cluster does with Jobs by itself, late.

The controller decides from its own cache, which is told of every change in order, but as late as chance will
have it; what it writes to a Job is conditional on the version it has there. Its own pods it knows at once.
"""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from common.kube.transport import Object
from tests.simulation.api_server import TRACKING, ApiServer, moment, owners
from tests.simulation.virtual import now

_OVER = ("Succeeded", "Failed")


@dataclass(eq=False)
class _Known:
    """A Job as the controller has it, with its pods by name."""

    job: Object
    pods: dict[str, Object] = field(default_factory=dict)
    made: int = 0
    gone: bool = False
    due: float = 0.0  # when the last piece of news arrives: they arrive in order


class JobController:
    """For the Jobs of one namespace.

    Attributes:
        jobs, pods: the paths of the namespace's collections.
    """

    def __init__(self, server: ApiServer, rng: random.Random, namespace: str) -> None:
        self._server = server
        self._rng = rng
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self._known: dict[str, _Known] = {}
        self.delays: tuple[float, ...] = (0.0, 0.01, 0.01, 0.1, 1.0)
        server.watchers.append(self._changed)

    def catch_up(self, uid: str) -> None:
        """Let it know a Job as it is, at once."""
        known = self._known[uid]
        known.job = self._server.find(f"{self.jobs}/{known.job['metadata']['name']}") or known.job
        known.pods = {pod["metadata"]["name"]: pod for pod in self._server.objects(self.pods) if uid in owners(pod)}
        known.made = max(known.made, len(known.pods), 1)

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
        known.due = max(known.due, loop.time() + self._rng.choice(self.delays))
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
        job, spec, status = known.job, known.job["spec"], known.job["status"]
        if known.gone:
            return
        if _true(status, "Complete", "Failed"):
            self._release(known)
            self._expire(uid)
            return
        active = [pod for pod in known.pods.values() if pod["status"]["phase"] not in _OVER]
        succeeded = any(pod["status"]["phase"] == "Succeeded" for pod in known.pods.values())
        failed = [pod for pod in known.pods.values() if pod["status"]["phase"] == "Failed"]
        started = status.get("startTime")
        why = self._failure(known, failed, started)
        changes: Object = {} if started else {"startTime": moment(now())}
        if why is not None:
            for pod in active:
                if "deletionTimestamp" not in pod["metadata"]:
                    self._server.call("DELETE", f"{self.pods}/{pod['metadata']['name']}")
            changes["conditions"] = _conditions(status, "FailureTarget", *([] if active else ["Failed"]), **why)
        elif succeeded:
            why = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
            changes["conditions"] = _conditions(status, "SuccessCriteriaMet", *([] if active else ["Complete"]), **why)
            if not active:
                changes["completionTime"] = moment(now())
        elif not active and not known.made and spec["parallelism"] > 0 and self._is_there(uid, job):
            active.append(self._create(known))
        changes["active"] = len(active)
        changes["ready"] = sum(pod["status"]["phase"] == "Running" for pod in active)
        changes["succeeded"] = int(succeeded)
        # Once it fails, a pod that is being ended counts as failed; `Failed` waits until it is gone all the same.
        ending = [pod for pod in active if why is not None and "deletionTimestamp" in pod["metadata"]]
        changes["failed"] = max(len(failed) + len(ending), status.get("failed", 0))
        self._write(uid, changes)

    def _is_there(self, uid: str, job: Object) -> bool:
        """Assumed, though nothing but speed makes it so: a Job that is gone is not given a pod.

        A real controller whose cache is late may do so, for the moment until the pod is collected. It matters where
        tasks are Jobs: a head's Job is never deleted while it may have a pod.
        """
        found = self._server.find(f"{self.jobs}/{job['metadata']['name']}")
        return found is not None and found["metadata"]["uid"] == uid

    def _failure(self, known: _Known, failed: list[Object], started: str | None) -> dict[str, str] | None:
        """Why the Job has failed, if it has; a deadline is looked at again when it is due."""
        for condition in known.job["status"].get("conditions", []):
            if condition["type"] == "FailureTarget":
                return {"reason": condition["reason"], "message": condition["message"]}
        for pod in failed:
            for container in pod["status"].get("containerStatuses", []):
                code = container["state"].get("terminated", {}).get("exitCode")
                if code and "podFailurePolicy" in known.job["spec"]:
                    words = f"Container {container['name']} for pod runs/x failed with exit code {code}"
                    return {"reason": "PodFailurePolicy", "message": words}
        if len(failed) > known.job["spec"]["backoffLimit"]:
            return {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        seconds = known.job["spec"].get("activeDeadlineSeconds")
        if seconds is not None and started is not None:
            left = (datetime.fromisoformat(started) + timedelta(seconds=seconds) - now()).total_seconds()
            if left <= 0:
                return {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
            asyncio.get_running_loop().call_later(left, self._sync, known.job["metadata"]["uid"])
        return None

    def _create(self, known: _Known) -> Object:
        job, template = known.job["metadata"], known.job["spec"]["template"]
        known.made += 1
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["name"], "uid": job["uid"], "controller": True}
        metadata = {
            **template.get("metadata", {}),
            "name": f"{job['name']}-{job['uid']}-{known.made}",
            "ownerReferences": [owner],
            "finalizers": [TRACKING],
        }
        made = self._server.call("POST", self.pods, {"metadata": metadata, "spec": template["spec"]}).body
        known.pods[made["metadata"]["name"]] = made
        return made

    def _write(self, uid: str, changes: Object) -> None:
        """Write the status, if the Job is what it was decided on; its pods are let go of once they are counted."""
        known = self._known[uid]
        path = f"{self.jobs}/{known.job['metadata']['name']}"
        found = self._server.find(path)
        if found is None or found["metadata"]["resourceVersion"] != known.job["metadata"]["resourceVersion"]:
            return  # a conflict: the news of what it is by now are on their way
        known.job = self._server.update(path, {"status": changes}) or known.job
        self._release(known)

    def _release(self, known: _Known) -> None:
        fails = _true(known.job["status"], "FailureTarget")
        for name, pod in list(known.pods.items()):
            done = pod["status"]["phase"] in _OVER or (fails and "deletionTimestamp" in pod["metadata"])
            if done and pod["metadata"].get("finalizers"):
                self._server.update(f"{self.pods}/{name}", {"metadata": {"finalizers": None}})

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


def _true(status: Object, *types: str) -> bool:
    return any(found["type"] in types for found in status.get("conditions", []))


def _conditions(status: Object, *types: str, reason: str, message: str) -> list[Object]:
    """The conditions there are, and these after them."""
    there = status.get("conditions", [])
    new = [kind for kind in types if not _true(status, kind)]
    made = {"status": "True", "reason": reason, "message": message, "lastTransitionTime": moment(now())}
    return [*there, *({"type": kind, **made} for kind in new)]
