"""What is read from Kubernetes, as the library's own values."""

from datetime import UTC, datetime
from typing import Any

import pytest

from common.jobs import Holder, Job, Lease, state
from common.kube import head, objects, reading
from common.kube.log import Log
from common.models import CancelMark
from common.phases import State
from tests.unit.test_kube_objects import RECORD, RUN_ID, SETTINGS

LAUNCHED = datetime(2030, 1, 2, 3, 4, 5, 500000, UTC)
MARK = CancelMark(requested_by="ada", requested_at=LAUNCHED)


def a_job(*patches: dict[str, Any], **status: Any) -> dict[str, Any]:
    """The run's Job as the API server shows it after these patches."""
    found = head.job(RECORD, SETTINGS, "owner/name")
    for patch in patches:
        found = objects.merged(found, patch)
    found["metadata"] |= {"uid": "uid-1", "resourceVersion": "7"}
    return {**found, "status": status}


def condition(kind: str, message: str = "") -> dict[str, str]:
    """A condition of a Job that is true."""
    return {"type": kind, "status": "True", "lastTransitionTime": "2030-01-02T03:05:00Z", "message": message}


def a_pod(role: str | None = "head", phase: str = "Running", **state: Any) -> dict[str, Any]:
    """A pod of the run; `state` is its container's."""
    labels = {"nextflow-controller/run-id": RUN_ID} | ({"nextflow-controller/role": role} if role else {})
    statuses = [{"name": "nextflow", "image": "images.example/nextflow:1", "state": state}] if state else []
    metadata: dict[str, Any] = {"name": f"pod-{role}", "labels": labels, "creationTimestamp": "2030-01-02T03:04:10Z"}
    if role == "head":
        metadata["ownerReferences"] = [{"kind": "Job", "name": RUN_ID, "uid": "uid-1", "controller": True}]
    return {"metadata": metadata, "status": {"phase": phase, "containerStatuses": statuses}}


def read(found: dict[str, Any], *pods: dict[str, Any]) -> Job:
    """The Job, which is ours."""
    job = reading.job(found, pods)
    assert job is not None
    return job


LAUNCH = objects.launch("6", LAUNCHED)
STOP = objects.stop("6", MARK)
RUNNING = a_pod(running={"startedAt": "2030-01-02T03:04:06Z"})


def test_leases() -> None:
    """One that was never made, an empty one, and one that names a run and its Job."""
    assert reading.lease(None) == Lease("", None)
    assert reading.lease({"metadata": {"resourceVersion": "3"}, "spec": {}}) == Lease("3", None)
    held = objects.lease("nfc", Holder(RUN_ID, "uid-1"), "4")
    assert reading.lease(held) == Lease("4", Holder(RUN_ID, "uid-1"))


@pytest.mark.parametrize(
    ("found", "pods", "expected"),
    [
        (a_job(), [], State.QUEUED),
        (a_job(startTime="2030-01-02T03:04:05Z"), [], State.QUEUED),
        (a_job(LAUNCH), [], State.STARTING),
        (a_job(LAUNCH, active=1, ready=0), [a_pod(phase="Pending")], State.STARTING),
        (a_job(LAUNCH, active=1, ready=0), [RUNNING], State.RUNNING),
        (a_job(LAUNCH, active=1, ready=1), [], State.RUNNING),
        # Failed before, active again; targets are not ends; suspended means nothing here.
        (a_job(LAUNCH, failed=1, active=1), [], State.RUNNING),
        (a_job(LAUNCH, ready=0, conditions=[condition("FailureTarget")]), [RUNNING], State.RUNNING),
        (a_job(LAUNCH, ready=0, conditions=[condition("SuccessCriteriaMet")]), [RUNNING], State.RUNNING),
        (a_job(LAUNCH, conditions=[condition("Complete") | {"status": "False"}]), [RUNNING], State.RUNNING),
        (a_job(LAUNCH, succeeded=1, conditions=[condition("Complete")]), [], State.SUCCEEDED),
        (a_job(LAUNCH, failed=1, conditions=[condition("Failed")]), [], State.FAILED),
        (a_job(LAUNCH, STOP, active=1), [RUNNING], State.CANCELLING),
        (a_job(LAUNCH, STOP, conditions=[condition("FailureTarget")]), [], State.CANCELLING),
        (a_job(LAUNCH, STOP, failed=1, conditions=[condition("Failed")]), [], State.CANCELLED),
        (a_job(LAUNCH, STOP, failed=1, conditions=[condition("Failed")]), [a_pod(None)], State.CANCELLING),
        (a_job(objects.seal("6", None, "Too late.")), [], State.FAILED),
        (a_job(objects.seal("6", MARK, None)), [], State.CANCELLED),
    ],
)
def test_states(found: dict[str, Any], pods: list[dict[str, Any]], expected: State) -> None:
    """A Job that was just created is not failed, an end is told by a terminal condition and nothing else."""
    assert state(read(found, *pods)) is expected


def test_a_job_that_has_ended_in_full() -> None:
    """Record, versions and times; its end, in whole seconds, is not before its start."""
    found = a_job(LAUNCH, succeeded=1, completionTime="2030-01-02T03:04:05Z", conditions=[condition("Complete")])
    assert read(found) == Job(
        record=RECORD,
        uid="uid-1",
        version="7",
        launched=True,
        condition="Complete",
        started_at=LAUNCHED,
        finished_at=LAUNCHED,
        exit_code=0,
    )


PREPARE = {"name": "prepare", "state": {"terminated": {"exitCode": 1}}}
PREPARE_REFUSED = {"name": "prepare", "state": {"terminated": {"exitCode": 1, "message": "its own words"}}}


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    """A head that has ended."""
    return a_pod(phase="Failed", terminated={"exitCode": code, "reason": reason})


def taken(**status: Any) -> dict[str, Any]:
    """A head whose pod says who took it."""
    pod = ended(143)
    pod["status"] |= status
    return pod


FAILED_BY_POLICY = condition(
    "Failed", "Container nextflow for pod ns/x failed with exit code 3 matching FailJob rule at index 0"
)


@pytest.mark.parametrize(
    ("failure", "pods", "code", "message"),
    [
        (FAILED_BY_POLICY, [], 3, "Nextflow ended with exit code 3."),
        (FAILED_BY_POLICY, [ended(3)], 3, "Nextflow ended with exit code 3."),
        (FAILED_BY_POLICY, [ended(137, "OOMKilled")], 137, "Nextflow was killed: it took more memory than its limit."),
        (
            condition("Failed", "Pod ns/x has condition DisruptionTarget matching FailJob rule at index 0"),
            [],
            None,
            "Its pod was taken from its node before Nextflow had ended.",
        ),
        (
            FAILED_BY_POLICY,
            [taken(reason="Evicted", message="The node was low on resource: memory.")],
            143,
            "Its pod was taken from its node before Nextflow had ended: The node was low on resource: memory.",
        ),
        (
            FAILED_BY_POLICY,
            [taken(conditions=[{"type": "DisruptionTarget", "status": "True", "message": "preempting"}])],
            143,
            "Its pod was taken from its node before Nextflow had ended: preempting",
        ),
        (
            condition("Failed", "Job has failed indexes") | {"reason": "FailedIndexes"},
            [],
            None,
            "Its pod was taken from its node before Nextflow had ended.",
        ),
        (
            condition("Failed") | {"reason": "BackoffLimitExceeded"},
            [a_pod(phase="Failed") | {"status": {"initContainerStatuses": [PREPARE]}}],
            None,
            "Nextflow was not started: prepare ended with exit code 1 before it.",
        ),
        (
            condition("Failed") | {"reason": "BackoffLimitExceeded"},
            [a_pod(phase="Failed") | {"status": {"initContainerStatuses": [PREPARE_REFUSED]}}],
            None,
            "Nextflow was not started: its own words",
        ),
        (
            condition("Failed", "Job was active longer than specified deadline"),
            [],
            None,
            "Job was active longer than specified deadline",
        ),
    ],
)
def test_failures_in_words(failure: dict[str, Any], pods: list[dict[str, Any]], code: int | None, message: str) -> None:
    """The exit code is told by the pod, and where that is gone by the Job's condition."""
    job = read(a_job(LAUNCH, failed=1, conditions=[failure]), *pods)
    assert (job.exit_code, job.message) == (code, message)


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        (
            a_pod(phase="Pending", waiting={"reason": "ImagePullBackOff", "message": "Back-off pulling image"}),
            "The image images.example/nextflow:1 cannot be pulled: Back-off pulling image",
        ),
        (
            a_pod(phase="Pending", waiting={"reason": "CreateContainerConfigError", "message": "no such secret"}),
            "The container cannot be made: no such secret",
        ),
        (a_pod(phase="Pending", waiting={"reason": "ContainerCreating"}), None),
        (a_pod(phase="Pending"), None),
    ],
)
def test_what_holds_a_head_up(pod: dict[str, Any], message: str | None) -> None:
    """In plain words; ordinary waiting needs none."""
    assert read(a_job(LAUNCH, active=1), pod).message == message


def test_an_image_before_nextflow_holds_it_up_too() -> None:
    """The pod's first container is as good as any."""
    pod = a_pod(phase="Pending", waiting={"reason": "PodInitializing"})
    first = {
        "name": "pipelines",
        "image": "images.example/controller:1",
        "state": {"waiting": {"reason": "ErrImagePull"}},
    }
    pod["status"]["initContainerStatuses"] = [first]
    job = read(a_job(LAUNCH, active=1), pod)
    assert job.message == "The image images.example/controller:1 cannot be pulled."


@pytest.mark.parametrize(
    ("found", "pods", "awaited"),
    [
        (a_job(), [], False),
        (a_job(LAUNCH), [], True),
        (a_job(LAUNCH, active=1), [a_pod(phase="Pending")], True),
        (a_job(LAUNCH, active=1), [RUNNING], False),
        (a_job(LAUNCH, uncountedTerminatedPods={}), [], True),
        # Its pod has ended and is gone; the Job's own end is yet to come.
        (a_job(LAUNCH, uncountedTerminatedPods={"failed": ["uid-2"]}), [], False),
        (a_job(LAUNCH, conditions=[condition("FailureTarget")]), [], False),
        (a_job(LAUNCH, conditions=[condition("Failed")]), [], False),
    ],
)
def test_who_is_awaited(found: dict[str, Any], pods: list[dict[str, Any]], awaited: bool) -> None:
    """A head that was asked for, and of which nothing has been seen."""
    assert read(found, *pods).awaited_since == (LAUNCHED if awaited else None)


@pytest.mark.parametrize(
    ("status", "attempt"),
    [
        ({}, 1),
        ({"active": 1}, 1),
        ({"failed": 1, "active": 1}, 2),
        ({"failed": 1, "terminating": 1}, 2),
        # The last of three has ended: its predecessor, too, is yet to be counted by number.
        ({"failed": 1, "uncountedTerminatedPods": {"failed": ["uid-2", "uid-3"]}}, 3),
        # A head that is asked to end is among the failed before it has done so.
        ({"conditions": [condition("FailureTarget")], "failed": 1, "terminating": 1}, 1),
        ({"conditions": [condition("Failed")], "failed": 3}, 3),
        ({"conditions": [condition("Complete")], "failed": 1, "succeeded": 1}, 2),
    ],
)
def test_heads_are_counted_without_their_pods(status: dict[str, Any], attempt: int) -> None:
    """Once each, in every state that the Job controller was seen to write."""
    assert read(a_job(LAUNCH, **status)).attempt == attempt


def an_event(kind: str, at: str, message: str) -> dict[str, Any]:
    """A warning of the cluster's."""
    return {"involvedObject": {"kind": kind}, "lastTimestamp": at, "message": message}


def test_the_last_warning_counts() -> None:
    """About the Job as long as there is no pod, else about the pod."""
    assert reading.warning([]) is None
    quota = [an_event("Job", "2030-01-02T03:05:00Z", "exceeded quota"), an_event("Job", "2030-01-02T03:04:00Z", "x")]
    assert reading.warning(quota) == "Its pod cannot be made: exceeded quota"
    volume = an_event("Pod", "2030-01-02T03:04:00Z", "no such volume") | {"lastTimestamp": None, "eventTime": "2030"}
    assert reading.warning([volume]) == "Its pod does not come up: no such volume"


def test_a_head_that_no_node_takes() -> None:
    """The scheduler's own words."""
    pod = a_pod(phase="Pending")
    words = "0/1 nodes are available: 1 Insufficient cpu."
    pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": words}]
    assert read(a_job(LAUNCH, active=1), pod).message == f"No node takes the pod: {words}"


def test_what_remains_is_counted_once_the_head_has_ended() -> None:
    """Pods of tasks in any phase, and a head that has not ended; not before."""
    pods = [RUNNING, a_pod(None, "Succeeded"), a_pod(None, "Running")]
    assert read(a_job(LAUNCH, active=1), *pods).remains == ()
    assert read(a_job(LAUNCH, failed=1, conditions=[condition("Failed")]), *pods).remains == (
        "pod-head",
        "pod-None",
        "pod-None",
    )
    pods[0] = ended(1)
    assert read(a_job(LAUNCH, failed=1, conditions=[condition("Failed")]), *pods).remains == ("pod-None", "pod-None")


@pytest.mark.parametrize("record", [None, "", "{}", "not json"])
def test_a_job_without_a_record_is_none_of_ours(record: str | None) -> None:
    """Also one whose record somebody has tampered with."""
    found = a_job()
    found["metadata"]["annotations"] = {} if record is None else {objects.RECORD: record}
    assert reading.job(found) is None


def a_head(number: int, *, taken_at: str | None = None, **state: Any) -> dict[str, Any]:
    """The head of an attempt; one that was taken has ended at a time."""
    if taken_at is not None:
        state = {"terminated": {"exitCode": 143, "finishedAt": taken_at}}
    pod = a_pod(phase="Failed" if taken_at else "Running", **state)
    pod["metadata"]["annotations"] = {"batch.kubernetes.io/job-index-failure-count": str(number - 1)}
    if taken_at is not None:
        pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "message": "evicted"}]
    return pod


def taken_but_done() -> dict[str, Any]:
    """A head that was asked to go, and came to its end first."""
    pod = a_head(2, taken_at="2030-01-02T03:06:00Z")
    pod["status"]["phase"] = "Succeeded"
    return pod


TAKEN_AT = "2030-01-02T03:06:00Z"


@pytest.mark.parametrize(
    ("status", "pods", "expected", "attempt", "awaited"),
    [
        # As seen on 1.35: a failed pod is counted when its replacement is there.
        ({"terminating": 1}, [a_head(1, running={})], State.RUNNING, 1, None),
        ({"terminating": 0}, [a_head(1, taken_at=TAKEN_AT)], State.STARTING, 1, TAKEN_AT),
        (
            {"failed": 1, "active": 1},
            [a_head(1, taken_at=TAKEN_AT), a_head(2, waiting={"reason": "PodInitializing"})],
            *(State.STARTING, 2, "2030-01-02T03:04:10Z"),
        ),
        ({"failed": 1, "active": 1}, [a_head(2)], State.STARTING, 2, "2030-01-02T03:04:10Z"),
        ({"failed": 1, "active": 1}, [a_head(2, running={})], State.RUNNING, 2, None),
        ({"failed": 1, "terminating": 1}, [a_head(2, running={})], State.RUNNING, 2, None),
        ({"failed": 1, "terminating": 0}, [a_head(2, taken_at=TAKEN_AT)], State.STARTING, 2, TAKEN_AT),
        # Its kubelet has put it out while it was prepared.
        (
            {"failed": 1, "terminating": 0},
            [a_head(2) | {"status": {"phase": "Failed", "reason": "Evicted"}}],
            *(State.STARTING, 2, "2030-01-02T03:04:10Z"),
        ),
        # It has ended by itself, and the Job controller has not told it yet.
        ({"failed": 1}, [a_head(2, terminated={"exitCode": 0})], State.RUNNING, 2, None),
        ({"failed": 1}, [taken_but_done()], State.RUNNING, 2, None),
        ({"failed": 1, "succeeded": 1, "conditions": [condition("Complete")]}, [], State.SUCCEEDED, 2, None),
        ({"failed": 3, "conditions": [condition("Failed")]}, [], State.FAILED, 3, None),
    ],
)
def test_attempts(
    status: dict[str, Any], pods: list[dict[str, Any]], expected: State, attempt: int, awaited: str | None
) -> None:
    """A head that was taken from its node is awaited again; which one it is is told by pods and counts alike."""
    job = read(a_job(LAUNCH, **status), *pods)
    assert (state(job), job.attempt, job.started_at) == (expected, attempt, LAUNCHED)
    assert job.awaited_since == (datetime.fromisoformat(awaited) if awaited else None)


def test_a_head_that_is_started_again_in_words() -> None:
    """Who took it, as long as that is to be seen; and when it was the last one."""
    words = "Its pod was taken from its node before Nextflow had ended: evicted. "
    assert read(a_job(LAUNCH), a_head(1, taken_at=TAKEN_AT)).message == words + "It is started again."
    gone = {"failed": 3, "conditions": [condition("Failed") | {"reason": "FailedIndexes"}]}
    assert (
        read(a_job(LAUNCH, **gone), a_head(3, taken_at=TAKEN_AT)).message == words + "That was attempt 3, the last one."
    )
    assert read(a_job(LAUNCH, **gone)).message == words.replace(": evicted", "") + "That was attempt 3, the last one."


def test_a_log_is_the_same_however_it_is_cut() -> None:
    """Read again from its beginning it says nothing twice; what is no line is skipped."""
    stamp = b"2030-01-02T03:04:05.000000001Z "
    raw = b"".join(stamp + text + b"\n" for text in (b"a", b"", b"2030-01-02T03:04:05Z x", b"b c"))
    raw += b"failed to watch file: closing\n" + stamp + b"last"
    whole, pieces = Log(), Log()
    lines = whole.sent.feed(raw) + whole.rest()
    assert [line.text for line in lines] == [b"a", b"", b"2030-01-02T03:04:05Z x", b"b c", b"last"]
    told = []
    for cut in (3, 40, 77, len(raw)):
        pieces.begin()
        for at in range(0, cut, 7):
            told += pieces.fresh(pieces.sent.feed(raw[at : min(at + 7, cut)]))
    assert told + pieces.fresh(pieces.rest()) == lines
