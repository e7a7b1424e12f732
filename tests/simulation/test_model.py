"""The model API server, Job controller and node, by themselves; tests/cluster compares them with real ones."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from common.kube import head, objects
from common.kube.transport import Object
from common.models import RunRecord
from tests.simulation import virtual
from tests.simulation.api_server import ApiServer, selector
from tests.simulation.cluster import Cluster
from tests.simulation.job_rules import failures
from tests.simulation.words import describe
from tests.unit import samples
from tests.unit.test_kube_objects import SETTINGS

JOBS = "/apis/batch/v1/namespaces/default/jobs"
PODS = "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
RECORD: RunRecord = samples.record()


def lived(story: Callable[[Cluster], Awaitable[None]], life_seconds: float | None = 3.0) -> None:
    """A story in a cluster that does everything at once."""

    async def main() -> None:
        cluster = Cluster(random.Random("model"), life_seconds, 0.0)
        cluster.controller.delays, cluster.controller.pauses = (0.0,), (0.0,)
        cluster.node.starts, cluster.node.ends = (0.0,), (0.5,)
        await story(cluster)

    virtual.run(main())


def a_job(**changes: Any) -> Object:
    """A run's Job, inert."""
    made = head.job(RECORD, SETTINGS, "owner/name")
    return {**made, "spec": {**made["spec"], **changes}}


def conditions(cluster: Cluster) -> list[str]:
    """The types of the Job's conditions, in order."""
    job = cluster.server.find(f"{JOBS}/{RECORD.run_id}")
    assert job is not None
    return [condition["type"] for condition in job["status"].get("conditions", [])]


def phases(cluster: Cluster) -> list[str]:
    """Of all pods."""
    return [pod["status"]["phase"] for pod in cluster.server.objects(PODS)]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", "abcd"),
        ("x=1", "a"),
        ("x==1", "a"),
        ("x!=1", "bcd"),
        ("x=1,y=2", ""),
        ("x", "ab"),
        ("!x", "cd"),
        ("y!=2,!x", "c"),
    ],
)
def test_selectors(text: str, chosen: str) -> None:
    """Unequal is also who has no such label."""
    labels = {"a": {"x": "1"}, "b": {"x": "2"}, "c": {}, "d": {"y": "2"}}
    assert "".join(name for name, own in labels.items() if selector(text)(own)) == chosen


def test_an_inert_job_changes_once_by_itself() -> None:
    """It is given a start time, and no pod."""

    async def story(cluster: Cluster) -> None:
        made = cluster.server.call("POST", JOBS, a_job()).body
        await asyncio.sleep(10)
        found = cluster.server.call("GET", f"{JOBS}/{RECORD.run_id}").body
        assert found["status"] == {
            "startTime": "2030-01-01T00:00:00Z",
            "ready": 0,
            "terminating": 0,
            "failedIndexes": "",
            "uncountedTerminatedPods": {},
        }
        assert found["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
        assert phases(cluster) == []

    lived(story)


def test_a_launched_job_has_one_pod_and_ends_with_it() -> None:
    """Its conditions come in order, and the pod stays."""

    async def story(cluster: Cluster) -> None:
        cluster.server.call("POST", JOBS, a_job())
        cluster.server.call("PATCH", f"{JOBS}/{RECORD.run_id}", {"spec": {"parallelism": 1}})
        await asyncio.sleep(0.01)
        assert phases(cluster) == ["Running"]
        await asyncio.sleep(10)
        assert (phases(cluster), conditions(cluster)) in (
            (["Succeeded"], ["SuccessCriteriaMet", "Complete"]),
            (["Failed"], ["FailureTarget", "Failed"]),
        )

    lived(story)


def test_a_deadline_ends_a_job_only_when_its_pod_is_gone() -> None:
    """First it is going to fail, then the pod goes, then it has failed; the pod is not kept."""

    async def story(cluster: Cluster) -> None:
        cluster.server.call("POST", JOBS, a_job(parallelism=1))
        await asyncio.sleep(5)
        cluster.server.call("PATCH", f"{JOBS}/{RECORD.run_id}", {"spec": {"activeDeadlineSeconds": 1}})
        await asyncio.sleep(0.1)
        assert (phases(cluster), conditions(cluster)) == (["Running"], ["FailureTarget"])
        await asyncio.sleep(0.5)
        assert (phases(cluster), conditions(cluster)) == ([], ["FailureTarget", "Failed"])

    lived(story, life_seconds=None)


def only_pod(cluster: Cluster) -> Object:
    """The only pod there is."""
    (pod,) = cluster.server.objects(PODS)
    return pod


def test_a_head_that_is_evicted_is_replaced_so_often() -> None:
    """After a back-off that doubles, each with its number; meanwhile the last one is held, and then let go of."""

    async def story(cluster: Cluster) -> None:
        cluster.server.call("POST", JOBS, a_job(parallelism=1, backoffLimitPerIndex=2))
        for before, between in ((0, 10), (1, 20)):
            await asyncio.sleep(2)
            pod = only_pod(cluster)
            assert (pod["status"]["phase"], failures(pod)) == ("Running", before)
            cluster.server.call("POST", f"{PODS}/{pod['metadata']['name']}/eviction", {})
            await asyncio.sleep(between - 1)
            held = only_pod(cluster)
            assert (held["metadata"]["name"], held["status"]["phase"]) == (pod["metadata"]["name"], "Failed")
            await asyncio.sleep(2)
        cluster.server.call("POST", f"{PODS}/{only_pod(cluster)['metadata']['name']}/eviction", {})
        await asyncio.sleep(60)
        assert (phases(cluster), conditions(cluster)) == ([], ["FailureTarget", "Failed"])
        job = cluster.server.call("GET", f"{JOBS}/{RECORD.run_id}").body
        assert (job["status"]["failed"], job["status"]["failedIndexes"]) == (3, "0")

    lived(story, life_seconds=None)


@pytest.mark.parametrize(("code", "left"), [(0, ["Succeeded"]), (3, ["Failed"])])
def test_a_head_that_ends_by_itself_is_not_replaced(code: int, left: list[str]) -> None:
    """However it ends, and though it might be."""

    async def story(cluster: Cluster) -> None:
        cluster.server.call("POST", JOBS, a_job(parallelism=1, backoffLimitPerIndex=2))
        await asyncio.sleep(1)
        cluster.node.end(only_pod(cluster)["metadata"]["name"], code)
        await asyncio.sleep(60)
        assert phases(cluster) == left

    lived(story, life_seconds=None)


def test_a_head_whose_node_is_away_is_replaced_when_it_is_back() -> None:
    """What it does meanwhile is done, and told when the node is back."""

    async def story(cluster: Cluster) -> None:
        cluster.server.call("POST", JOBS, a_job(parallelism=1, backoffLimitPerIndex=2))
        await asyncio.sleep(1)
        name = only_pod(cluster)["metadata"]["name"]
        cluster.node._lose(name)
        await asyncio.sleep(12)
        assert phases(cluster) == ["Running"]
        cluster.node.end(name, 0)
        await asyncio.sleep(1)
        assert phases(cluster) == ["Running"]
        await asyncio.sleep(5)
        assert conditions(cluster) == ["SuccessCriteriaMet", "Complete"]

    lived(story, life_seconds=None)


def test_a_job_takes_its_pods_along_only_where_it_is_asked_to() -> None:
    """`Orphan` is what the API server does with Jobs by itself."""

    async def story(cluster: Cluster) -> None:
        for policy, left in (({}, ["Running"]), ({"propagationPolicy": "Background"}, [])):
            cluster.server.call("POST", JOBS, a_job(parallelism=1))
            await asyncio.sleep(1)
            cluster.server.call("DELETE", f"{JOBS}/{RECORD.run_id}", policy)
            await asyncio.sleep(1)
            assert phases(cluster) == left
            for pod in list(cluster.server.objects(PODS)):
                path = f"{PODS}/{pod['metadata']['name']}"
                cluster.server.update(path, {"metadata": {"finalizers": None}})
                cluster.server.call("DELETE", path)
            await asyncio.sleep(1)

    lived(story, life_seconds=None)


def test_a_finished_job_is_deleted_after_its_time() -> None:
    """With its pod."""

    async def story(cluster: Cluster) -> None:
        cluster.server.call("POST", JOBS, a_job(parallelism=1, ttlSecondsAfterFinished=30))
        await asyncio.sleep(20)
        assert len(phases(cluster)) == 1
        await asyncio.sleep(20)
        assert (list(cluster.server.objects(JOBS)), phases(cluster)) == ([], [])

    lived(story)


def test_pages_show_what_was_there_at_the_first() -> None:
    """And a page that was never begun has expired."""

    async def story(cluster: Cluster) -> None:
        server: ApiServer = cluster.server
        for name in "cab":
            server.call("POST", LEASES, {"metadata": {"name": name}, "spec": {}})
        first = server.call("GET", LEASES, query={"limit": "2"}).body
        server.call("POST", LEASES, {"metadata": {"name": "d"}, "spec": {}})
        rest = server.call("GET", LEASES, query={"limit": "2", "continue": first["metadata"]["continue"]}).body
        assert [found["metadata"]["name"] for found in first["items"] + rest["items"]] == ["a", "b", "c"]
        assert "continue" not in rest["metadata"]
        assert server.call("GET", LEASES, query={"continue": "page-9"}).status == 410

    lived(story)


def test_calls_are_told_by_what_they_are_for() -> None:
    """In the words of the runner's contract: scripted stories look for them."""
    name = f"{JOBS}/run-a"
    launched = objects.launch("7", samples.CREATED)
    assert describe("GET", f"{LEASES}/x", None, {}) == "lease"
    assert describe("POST", JOBS, {"metadata": {"name": "run-a"}}, {}) == "create run-a"
    assert describe("GET", JOBS, None, {"labelSelector": "a=b"}) == "jobs  a=b"
    assert describe("PATCH", name, launched, {}) == "launch run-a at 7"
    assert describe("PATCH", name, objects.seal("7", None, None), {}) == "seal run-a at 7"
    assert describe("PATCH", name, objects.stop("7", samples.MARK), {}) == "stop run-a at 7"
    assert describe("DELETE", name, {}, {}) == "delete run-a"
    assert describe("DELETE", f"{PODS}/nf-1", {}, {}) == "sweep nf-1"
