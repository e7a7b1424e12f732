"""The simulation's API server, Job controller and node beside the real ones, call by call.

A story is played on both. Each call is noted as what callers can tell of it: the status, why it was refused,
whether the object has another version and the same UID, and the fields that the library reads; both notes must
be the same. Of what happens by itself the order is compared, not the time.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from common.kube import head, objects
from common.kube.transport import Api, Object
from common.settings import Settings
from tests.cluster.place import IMAGES, namespace
from tests.simulation.api_server import Answer
from tests.simulation.cluster import NAMESPACE, Cluster
from tests.simulation.job_rules import failures, over
from tests.unit import samples

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster"),
]

_PATIENCE_SECONDS = 60.0  # to give up, on a busy machine
_PATHS = {
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
}
_SCRIPT = re.compile(r"sleep (\S+); exit (\d+)")
Seen = dict[str, Any]


class _Scripted(Cluster):
    """A model whose pods do what their scripts say."""

    def begin(self, name: str) -> None:
        super().begin(name)
        pod = self.node.pod(name)
        if pod is not None:
            _, (seconds, code) = _SCRIPT.findall(pod["spec"]["containers"][0]["command"][-1])
            asyncio.get_running_loop().call_later(float(seconds), self.node.end, name, int(code))


class Side:
    """One of the two: it plays a story and notes what it saw."""

    def __init__(self, namespace: str, send: Callable[..., Awaitable[Answer]]) -> None:
        self._namespace = namespace
        self._send = send
        self._last: dict[str, Object] = {}
        self.notes: list[Seen | list[str]] = []

    async def call(self, method: str, kind: str, name: str = "", body: Object | None = None, **query: str) -> Object:
        """One call, which is noted; the object as it came."""
        path = _PATHS[kind].format(self._namespace) + (f"/{name}" if name else "")
        answer = await self._send(method, path, body, query)
        self.notes.append(
            {"call": f"{method} {kind} {name}", "status": answer.status, **self._facts(method, kind, answer)}
        )
        return answer.body

    async def quietly(self, kind: str, name: str = "") -> Object | None:
        """What is at a path, not noted; None if there is nothing."""
        answer = await self._send("GET", _PATHS[kind].format(self._namespace) + (f"/{name}" if name else ""), None, {})
        return answer.body if answer.status == 200 else None

    async def until(self, kind: str, name: str, fits: Callable[[Object | None], bool]) -> list[Object | None]:
        """Look again and again until what is there fits; every different thing that was seen."""
        seen: list[Object | None] = []
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not seen or not fits(seen[-1]):
            assert time.monotonic() < deadline, f"waited in vain for {kind} {name}: {seen[-1:]}"
            found = await self.quietly(kind, name)
            if not seen or found != seen[-1]:
                seen.append(found)
            await asyncio.sleep(0.02)
        return seen

    def _facts(self, method: str, kind: str, answer: Answer) -> Seen:
        body = answer.body
        if answer.status >= 300:
            return {"reason": body["reason"]}
        if method == "DELETE":  # nobody reads what comes with it
            return {}
        if "items" in body:
            names = [item["metadata"]["name"] for item in body["items"]]
            return {"names": names, "more": bool(body["metadata"].get("continue"))}
        metadata = body["metadata"]
        before = self._last.get(f"{kind} {metadata['name']}", {}).get("metadata", {})
        self._last[f"{kind} {metadata['name']}"] = body
        spec = {key: body["spec"][key] for key in _SHOWN if key in body["spec"]}
        annotations = metadata.get("annotations", {})
        return {
            "changed": metadata["resourceVersion"] != before.get("resourceVersion"),
            "same": metadata["uid"] == before.get("uid"),
            "spec": spec,
            "annotations": sorted(key for key in annotations if key.startswith(objects.DOMAIN)),
            "ending": "deletionTimestamp" in metadata,
            "finalizers": metadata.get("finalizers", []),
            "owned": [owner["name"] for owner in metadata.get("ownerReferences", [])],
        }


_SHOWN = (
    "parallelism",
    "completions",
    "completionMode",
    "suspend",
    "backoffLimit",
    "backoffLimitPerIndex",
    "podReplacementPolicy",
    "activeDeadlineSeconds",
    "holderIdentity",
)


@pytest.fixture
async def real() -> AsyncIterator[Side]:
    """The real API server, and a namespace of it."""
    api = Api()

    async def send(method: str, path: str, body: Object | None, query: dict[str, str]) -> Answer:
        response = await api._send(method, path, body, query, 10)
        return Answer(response.status, await response.json())

    with namespace("model") as name:
        yield Side(name, send)
    await api.close()


@pytest.fixture
async def model() -> Side:
    """The model, in the same time as the real one."""
    cluster = _Scripted(random.Random("beside the real one"), life_seconds=None)
    cluster.controller.delays, cluster.node.ends = (0.01, 0.1), (1.0,)

    async def send(method: str, path: str, body: Object | None, query: dict[str, str]) -> Answer:
        return cluster.server.call(method, path, body, query)

    return Side(NAMESPACE, send)


Story = Callable[[Side], Awaitable[None]]
_NAME = samples.RUN_ID


def a_job(script: str = "sleep 0; exit 0", **changes: Any) -> Object:
    """The library's own Job, inert, whose head runs a script that dies at SIGTERM only after two seconds."""
    settings = Settings(head_image=IMAGES["head"], cancel_grace_seconds=5)
    made = head.job(samples.record(), settings, "owner/name")
    made["spec"] |= changes
    trap = f"trap 'sleep 2; exit 143' TERM; {{ {script}; }} & wait $!"
    made["spec"]["template"]["spec"]["containers"][0]["command"] = ["bash", "-c", trap]
    return made


def a_lease(holder: str = "", version: str = "", name: str = "fence", **own: str) -> Object:
    """The library's own Lease."""
    made = objects.lease(name, None, version)
    made["metadata"]["labels"] = own
    return {**made, "spec": {"holderIdentity": holder} if holder else {}}


def version(found: Object) -> str:
    """An object's version."""
    made: str = found["metadata"]["resourceVersion"]
    return made


async def leases(side: Side) -> None:
    """A Lease is created once, and replaced at the version that was read."""
    await side.call("GET", "leases", "fence")
    first = await side.call("POST", "leases", body=a_lease("a"))
    await side.call("POST", "leases", body=a_lease("b"))
    second = await side.call("PUT", "leases", "fence", a_lease("b", version(first)))
    await side.call("PUT", "leases", "fence", a_lease("c", version(first)))
    await side.call("PUT", "leases", "fence", a_lease("b", version(second)))  # changes nothing
    await side.call("GET", "leases", "fence")
    await side.call("PUT", "leases", "fence", a_lease("", version(second)))
    await side.call("PUT", "leases", "fence", a_lease("c"))
    await side.call("DELETE", "leases", "fence", {})
    await side.call("PUT", "leases", "fence", a_lease("c", version(second)))
    await side.call("GET", "leases", "fence")


async def inert(side: Side) -> None:
    """An inert Job changes once by itself; then only who has read it may change it."""
    made = await side.call("POST", "jobs", body=a_job())
    await side.until("jobs", _NAME, lambda job: job is not None and "startTime" in job["status"])
    await side.call("POST", "jobs", body=a_job())
    await side.call("PATCH", "jobs", _NAME, objects.launch(version(made), datetime.now(UTC)))
    read = await side.call("GET", "jobs", _NAME)
    await side.call("PATCH", "jobs", _NAME, {"metadata": {"uid": "00000000-0000-4000-8000-000000000000"}})
    await side.call("PATCH", "jobs", _NAME, {"metadata": {"resourceVersion": version(read)}})  # changes nothing
    await side.call("PATCH", "jobs", _NAME, {"spec": {"parallelism": -1}})
    await side.call("PATCH", "jobs", _NAME, {"spec": {"completions": 2}})
    await side.call("PATCH", "jobs", _NAME, {"spec": {"backoffLimitPerIndex": 5}})
    await side.call("PATCH", "jobs", _NAME, {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}})
    await side.call("PATCH", "jobs", _NAME, objects.seal(version(read), samples.MARK, None))
    await side.call("PATCH", "jobs", _NAME, objects.launch(version(read), datetime.now(UTC)))
    await side.call("PATCH", "jobs", "run-none", objects.launch(version(read), datetime.now(UTC)))
    sealed = await side.call("GET", "jobs", _NAME)
    for conditions in (
        {"uid": "00000000-0000-4000-8000-000000000000"},
        {"uid": read["metadata"]["uid"], "resourceVersion": version(read)},
        {"uid": read["metadata"]["uid"], "resourceVersion": version(sealed)},
        {"uid": read["metadata"]["uid"]},
    ):
        await side.call("DELETE", "jobs", _NAME, {"preconditions": conditions, "propagationPolicy": "Background"})
    await side.call("GET", "jobs", _NAME)
    await side.call("POST", "jobs", body=a_job())


async def _launched(side: Side, script: str, **changes: Any) -> None:
    await side.call("POST", "jobs", body=a_job(script, **changes))
    await side.until("jobs", _NAME, lambda job: job is not None and "startTime" in job["status"])
    await side.call("PATCH", "jobs", _NAME, {"spec": {"parallelism": 1}})


def _conditions(seen: list[Object | None]) -> list[str]:
    """The types of a Job's conditions, in the order in which they were seen to come."""
    found: list[str] = []
    for job in filter(None, seen):
        for condition in job["status"].get("conditions", []):
            if condition["type"] not in found:
                found.append(condition["type"])
    return found


def _ended(job: Object | None) -> bool:
    return job is not None and any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions", []))


async def _pods(side: Side) -> list[str]:
    found = await side.quietly("pods") or {"items": []}
    return sorted(f"{pod['status']['phase']} {pod['metadata'].get('finalizers', [])}" for pod in found["items"])


async def _running(side: Side) -> int:
    """How many pods have not ended."""
    found = await side.quietly("pods") or {"items": []}
    return sum(not over(pod) for pod in found["items"])


async def succeeded(side: Side) -> None:
    """A launched Job has one pod, which stays after its end, and goes with the Job."""
    await _launched(side, "sleep 1; exit 0")
    seen = await side.until("jobs", _NAME, _ended)
    await _let_go(side)
    side.notes.append({"conditions": _conditions(seen), "pods": await _pods(side), **_end(seen)})
    await side.call("DELETE", "jobs", _NAME, {"propagationPolicy": "Background"})
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])


async def _let_go(side: Side) -> None:
    """Wait until no pod that has ended is held by a finalizer."""
    await side.until(
        "pods", "", lambda pods: pods is not None and not any("finalizers" in pod["metadata"] for pod in pods["items"])
    )


async def failed(side: Side) -> None:
    """Its exit code is in the condition; there is no second pod, though there might be."""
    await _launched(side, "sleep 1; exit 3", backoffLimitPerIndex=2)
    seen = await side.until("jobs", _NAME, _ended)
    await _let_go(side)
    side.notes.append({"conditions": _conditions(seen), "pods": await _pods(side), **_end(seen)})


def _end(seen: list[Object | None]) -> Seen:
    """What an ended Job says of itself; of a message what is nobody's own name."""
    status = (seen[-1] or {})["status"]
    told = [(one["reason"], re.sub(r"for pod \S+", "for pod x", one["message"])) for one in status["conditions"]]
    return {"told": told, **{key: status.get(key) for key in (*_COUNTS, "failedIndexes", "uncountedTerminatedPods")}}


_COUNTS = ("active", "ready", "terminating", "failed", "succeeded")


async def stopped(side: Side) -> None:
    """A deadline on a running Job: no terminal condition before the pod is gone, and the pod is not kept."""
    await _launched(side, "sleep 60; exit 0")
    await side.until("jobs", _NAME, lambda job: job is not None and bool(job["status"].get("ready")))
    await side.call("PATCH", "jobs", _NAME, {"spec": {"activeDeadlineSeconds": 1}})
    targeted = await side.until("jobs", _NAME, lambda job: job is not None and bool(job["status"].get("conditions")))
    side.notes.append({"conditions": _conditions(targeted), "running": await _running(side)})
    seen = await side.until("jobs", _NAME, _ended)
    side.notes.append({"running": await _running(side), "failed": (seen[-1] or {})["status"]["failed"]})
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])
    reasons = [condition["reason"] for condition in (seen[-1] or {})["status"]["conditions"]]
    side.notes.append({"conditions": _conditions(seen), "reasons": reasons})
    await side.call("PATCH", "jobs", _NAME, {"metadata": {"annotations": {objects.SEALED: ""}}})


async def deleted_pod(side: Side) -> None:
    """A head's pod that is deleted ends gracefully; deleting it again changes nothing; its Job has failed."""
    await _launched(side, "sleep 60; exit 0")
    await side.until("jobs", _NAME, lambda job: job is not None and bool(job["status"].get("ready")))
    pods = await side.quietly("pods")
    assert pods is not None
    name = pods["items"][0]["metadata"]["name"]
    for _ in range(2):
        answer = await side._send("DELETE", f"{_PATHS['pods'].format(side._namespace)}/{name}", {}, {})
        side.notes.append({"status": answer.status, "ending": "deletionTimestamp" in answer.body["metadata"]})
    seen = await side.until("jobs", _NAME, _ended)
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])
    side.notes.append({"conditions": _conditions(seen)})


async def _evicted(side: Side) -> None:
    """Evict the head that runs, and wait until it has ended and its Job has seen that."""
    await side.until("jobs", _NAME, lambda job: job is not None and bool(job["status"].get("ready")))
    pods = await side.quietly("pods")
    assert pods is not None
    (head,) = [pod for pod in pods["items"] if not over(pod)]
    path = f"{_PATHS['pods'].format(side._namespace)}/{head['metadata']['name']}"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": head["metadata"]["name"]}}
    answer = await side._send("POST", f"{path}/eviction", body, {})
    pod = (await side._send("GET", path, None, {})).body
    reasons = [one["reason"] for one in pod["status"]["conditions"] if one["type"] == objects.DISRUPTED]
    side.notes.append(
        {"status": answer.status, "reasons": reasons, "ending": "deletionTimestamp" in pod["metadata"]}
        | {"failures": failures(pod), "phase": pod["status"]["phase"]}
    )


def _counts(seen: list[Object | None]) -> list[dict[str, int]]:
    """How many heads of each kind the Job was seen to have, in the order in which that was first seen."""
    found: list[dict[str, int]] = []
    for job in filter(None, seen):
        counts = {key: job["status"][key] for key in ("active", "terminating", "failed") if job["status"].get(key)}
        if counts not in found:
            found.append(counts)
    return found


def _held(job: Object | None) -> bool:
    """Whether the last head has ended and is not counted."""
    return job is not None and not _counts([job])[0]


async def replaced(side: Side) -> None:
    """An evicted head is held until there is another, which has its number; after the last one the Job has failed."""
    await _launched(side, "sleep 60; exit 0", backoffLimitPerIndex=1)
    await _evicted(side)
    seen = await side.until("jobs", _NAME, _held)
    side.notes.append(await _pods(side))
    seen += await side.until("jobs", _NAME, lambda job: job is not None and bool(job["status"].get("failed")))
    side.notes.append({"counts": _counts(seen), "pods": len(await _pods(side))})
    await _evicted(side)
    seen = await side.until("jobs", _NAME, _ended)
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])
    side.notes.append({"conditions": _conditions(seen), "counts": _counts(seen)[-1:], **_end(seen)})


async def stopped_between(side: Side) -> None:
    """A deadline while no head is there: the Job has failed, and the last head is let go of."""
    await _launched(side, "sleep 60; exit 0", backoffLimitPerIndex=1)
    await _evicted(side)
    await side.until("jobs", _NAME, _held)
    await side.call("PATCH", "jobs", _NAME, {"spec": {"activeDeadlineSeconds": 1}})
    seen = await side.until("jobs", _NAME, _ended)
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])
    side.notes.append({"conditions": _conditions(seen), **_end(seen)})


async def deleted_between(side: Side) -> None:
    """A Job that is deleted while no head is there takes the last one along."""
    await _launched(side, "sleep 60; exit 0", backoffLimitPerIndex=1)
    await _evicted(side)
    await side.until("jobs", _NAME, _held)
    await side.call("DELETE", "jobs", _NAME, {"propagationPolicy": "Background"})
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])
    await side.call("GET", "jobs", _NAME)


async def orphaned(side: Side) -> None:
    """A Job that is deleted without a word leaves its pods, which are nobody's then."""
    await _launched(side, "sleep 60; exit 0")
    await side.until("jobs", _NAME, lambda job: job is not None and bool(job["status"].get("ready")))
    await side.call("DELETE", "jobs", _NAME, {})

    def orphans(pods: Object | None) -> bool:
        return pods is not None and not any("ownerReferences" in pod["metadata"] for pod in pods["items"])

    await side.until("pods", "", orphans)
    side.notes.append([pod.partition(" ")[0] for pod in await _pods(side)])


async def expired(side: Side) -> None:
    """A finished Job is deleted after its time, with its pod."""
    await _launched(side, "sleep 0; exit 0", ttlSecondsAfterFinished=2)
    seen = await side.until("jobs", _NAME, lambda job: job is None)
    await side.until("pods", "", lambda pods: pods is not None and not pods["items"])
    side.notes.append(_conditions(seen))


async def lists(side: Side) -> None:
    """Selectors, and pages that show what was there at the first."""
    for name, own in (("c", {"x": "1"}), ("a", {"x": "2"}), ("b", {"y": "1", "x": "1"}), ("d", {})):
        await side.call("POST", "leases", body=a_lease(name=name, **own))
    for selector in ("x=1", "x==1", "x!=1", "x=1,y!=1", "x=1,y=1", "x", "!x", "z=1", ""):
        await side.call("GET", "leases", labelSelector=selector)
    page = await side.call("GET", "leases", limit="2")
    await side.call("POST", "leases", body=a_lease(name="e"))
    await side.call("DELETE", "leases", "d", {})
    token = page["metadata"]["continue"]
    await side.call("GET", "leases", limit="2", **{"continue": token})
    await side.call("GET", "leases", labelSelector="x=1", limit="1")


@pytest.mark.parametrize(
    "story",
    [
        leases,
        inert,
        lists,
        succeeded,
        failed,
        stopped,
        deleted_pod,
        replaced,
        stopped_between,
        deleted_between,
        orphaned,
        expired,
    ],
    ids=lambda story: story.__name__,
)
async def test_the_model_answers_as_a_real_cluster_does(real: Side, model: Side, story: Story) -> None:
    """Every call of the story has the same outcome on both, and what happens by itself comes in the same order."""
    await asyncio.gather(story(real), story(model))
    assert model.notes == real.notes
