"""A cluster: an API server, the Job controller, and a node whose heads start tasks and end.

A head is Nextflow as far as the protocol can see it: it makes task pods (or Jobs) under the label that its
configuration says, takes them away when it ends in order, keeps some that failed, and leaves them all when
it is killed. How long anything takes, and how it ends, is up to chance.
"""

import asyncio
import random
import re
from typing import Literal

from common.kube import objects
from common.kube.transport import Object
from tests.simulation.api_server import ApiServer, moment, owners
from tests.simulation.job_controller import JobController
from tests.simulation.job_rules import over
from tests.simulation.node import Node, is_head
from tests.simulation.virtual import now

NAMESPACE = "default"
_LABEL = re.compile(r'label: "([^"]+)", value: "([^"]+)"')
_KIND = re.compile(r'computeResourceType = "(\w+)"')


class Cluster:
    """One namespace, one node.

    Attributes:
        life_seconds: how long heads usually live; None: until `finish`.
        leftovers: how probable it is that a head leaves tasks behind.
        runs_of: which run made a pod, whatever the pod's labels say.
    """

    def __init__(self, rng: random.Random, life_seconds: float | None = 3.0, leftovers: float = 0.3) -> None:
        self._rng = rng
        self.life_seconds = life_seconds
        self.leftovers = leftovers
        self.server = ApiServer(now)
        self.runs_of: dict[str, str] = {}
        self._tasks = 0
        # First: who made a pod is known before anybody else hears of it.
        self.server.watchers.append(self._changed)
        self.controller = JobController(self.server, rng, NAMESPACE)
        self.node = Node(self.server, rng, self.controller.pods, self)

    def pods(self, run_id: str) -> list[Object]:
        """The run's pods that run, or may: heads that have not ended, and every task's."""
        found = []
        for pod in self.server.objects(self.controller.pods):
            if self.runs_of[pod["metadata"]["name"]] == run_id and (not is_head(pod) or not over(pod)):
                found.append(pod)
        return found

    def finish(self, run_id: str, condition: Literal["Complete", "Failed"], *, remains: int = 0) -> None:
        """The run's head is gone, at once, and so many of its tasks' pods are not."""
        path = f"{self.controller.jobs}/{run_id}"
        job = self.server.find(path)
        assert job is not None
        made = {"type": condition, "status": "True", "lastTransitionTime": moment(now()), "reason": "", "message": ""}
        for _ in range(remains):
            self._task(run_id, {objects.RUN_ID: run_id}, "Pod")
        self.server.update(path, {"status": {"conditions": [made], "succeeded": 1}})
        self.controller.catch_up(job["metadata"]["uid"])
        for pod in [pod for pod in self.pods(run_id) if is_head(pod)]:
            self.node.end(pod["metadata"]["name"], 0 if condition == "Complete" else 1)

    def _changed(self, before: Object | None, after: Object | None) -> None:
        if before is None and after is not None and after["kind"] == "Pod":
            metadata = after["metadata"]
            run_id = metadata.get("labels", {}).get(objects.RUN_ID) or self._run_of_task_job(after)
            self.runs_of.setdefault(metadata["name"], run_id)

    def _run_of_task_job(self, pod: Object) -> str:
        owner = pod["metadata"]["ownerReferences"][0]["name"]
        return self.runs_of[owner]

    # What runs in the pods.

    def begin(self, name: str) -> None:
        """A task runs for a while; a head makes tasks."""
        loop, pod = asyncio.get_running_loop(), self.node.pod(name)
        if pod is None or not is_head(pod):
            loop.call_later(self._rng.choice([0.1, 1.0, 30.0, 60.0]), self.node.end, name, self._rng.choice([0, 0, 1]))
        elif self.life_seconds is not None:
            life = self._rng.choice([0.05, 0.5, 1.0, 2.0]) * self.life_seconds
            for _ in range(self._rng.choice([0, 0, 1, 2])):
                loop.call_later(self._rng.random() * life, self._submit, name)
            loop.call_later(life, self._head_ends, name)

    def asked_to_end(self, name: str) -> None:
        """A head takes its tasks along, if all is well with it."""
        pod = self.node.pod(name)
        if pod is not None and is_head(pod) and self._rng.random() >= self.leftovers:
            self._clean_up(name)

    def _submit(self, head: str) -> None:
        """A living head starts a task, as its configuration says."""
        pod = self.node.pod(head)
        if pod is None or over(pod):
            return
        config = pod["metadata"]["annotations"]["nextflow-controller/config"]
        kind = _KIND.search(config)
        assert kind is not None
        self._task(self.runs_of[head], dict(_LABEL.findall(config)), kind[1])

    def _task(self, run_id: str, labels: dict[str, str], kind: str) -> None:
        self._tasks += 1
        name = f"nf-{self._tasks}"
        self.runs_of[name] = run_id
        spec = {"containers": [{"name": name}], "restartPolicy": "Never", "terminationGracePeriodSeconds": 30}
        metadata = {"name": name, "labels": labels}
        if kind == "Pod":
            self.server.call("POST", self.controller.pods, {"metadata": metadata, "spec": spec})
        else:
            template = {"metadata": {"labels": labels}, "spec": spec}
            job = {"metadata": metadata, "spec": {"backoffLimit": 0, "template": template}}
            self.server.call("POST", self.controller.jobs, job)

    def _head_ends(self, name: str) -> None:
        pod = self.node.pod(name)
        if pod is None or over(pod) or self.node.is_ending(name):
            return
        if self._rng.random() < self.leftovers:
            self.node.end(name, self._rng.choice([137, 1]))
            return
        self._clean_up(name)
        self.node.end(name, self._rng.choice([0, 1]))

    def _clean_up(self, head: str) -> None:
        """What Nextflow does before it ends: its tasks are asked to end, which takes them some time."""
        run_id = self.runs_of[head]
        for path in (self.controller.pods, self.controller.jobs):
            for task in list(self.server.objects(path)):
                name = task["metadata"]["name"]
                if name.startswith("nf-") and self.runs_of[name] == run_id and not owners(task):
                    self.server.call("DELETE", f"{path}/{name}", {"propagationPolicy": "Background"})
