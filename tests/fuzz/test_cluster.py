"""Jobs and pods that somebody has changed: what they say is theirs, and none of our functions falls over it."""

import asyncio
from typing import Any

from hypothesis import strategies as st

from common.jobs import info
from common.kube import head, objects, reading
from common.kube.runner import KubernetesRunner
from common.models import CancelMark, RunStatus
from common.names import is_run_id
from tests.fuzz import fuzz
from tests.fuzz.values import TIMES, changed
from tests.unit.test_kube_objects import RECORD, RUN_ID, SETTINGS
from tests.unit.test_kube_reading import LAUNCHED, MARK, condition
from tests.unit.test_kube_runner import Answers

ANNOTATIONS = st.fixed_dictionaries(
    {objects.RECORD: changed(RECORD)},
    optional={
        objects.CANCEL: changed(MARK),
        objects.SEALED: st.text(max_size=20),
        objects.LAUNCHED_AT: st.one_of(TIMES, st.just(LAUNCHED.isoformat())),
        "other": st.text(max_size=5),
    },
)
COUNTS = st.one_of(st.integers(0, 9).map(str), st.text(max_size=8), st.just("9" * 5000), st.just("²"))
STATES = st.sampled_from(
    [
        {},
        {"running": {"startedAt": "2030-01-02T03:04:06Z"}},
        {"waiting": {"reason": "ErrImagePull"}},
        {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": "2030-01-02T03:04:07Z"}},
    ]
)
# Statuses are the API server's own: their types hold.
PODS = st.lists(
    st.builds(
        lambda count, state, phase: {
            "metadata": {
                "name": "pod",
                "creationTimestamp": "2030-01-02T03:04:10Z",
                "annotations": {objects.FAILURES: count},
                "ownerReferences": [{"kind": "Job", "name": RUN_ID, "uid": "uid-1", "controller": True}],
            },
            "status": {
                "phase": phase,
                "containerStatuses": [{"name": "nextflow", "image": "images.example/nextflow:1", "state": state}],
            },
        },
        COUNTS,
        STATES,
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    ),
    max_size=3,
)
STATUSES = st.sampled_from(
    [
        {},
        {"active": 1, "ready": 1},
        {"failed": 1, "conditions": [condition("Failed")]},
        {"succeeded": 1, "completionTime": "2030-01-02T03:04:05Z", "conditions": [condition("Complete")]},
    ]
)


HOLDERS = st.one_of(
    st.sampled_from(
        ["", "/", f"{RUN_ID}/uid-1", f"{RUN_ID}/", "/uid-1", "../../secrets/x", f"{RUN_ID}/uid-1/x", "\u2028"]
    ),
    st.text(max_size=20),
)


@fuzz(st.one_of(st.none(), st.fixed_dictionaries({}, optional={"holderIdentity": st.one_of(st.none(), HOLDERS)})))
def test_a_lease_that_somebody_has_changed(spec: dict[str, Any] | None) -> None:
    """It names a run and a Job, or nobody; a name that is no run's is never a part of a path."""
    found = {"metadata": {"resourceVersion": "7"}, **({} if spec is None else {"spec": spec})}
    holder = reading.lease(found).holder
    assert holder is None or holder.uid
    server = Answers({}, [])
    for one in [holder] if holder and not is_run_id(holder.run_id) else []:
        assert asyncio.run(KubernetesRunner(SETTINGS, server).job(one.run_id)) is None
    told = objects.lease("release", holder, "7")
    assert reading.lease({**told, "metadata": {"resourceVersion": "7"}}).holder == holder


EVENTS = st.lists(
    st.fixed_dictionaries(
        {"involvedObject": st.fixed_dictionaries({"kind": st.sampled_from(["Pod", "Job"])})},
        optional={
            "message": st.one_of(st.none(), st.text(max_size=20)),
            "lastTimestamp": st.one_of(st.none(), TIMES),
            "eventTime": st.one_of(st.none(), TIMES),
        },
    ),
    max_size=4,
)


@fuzz(EVENTS)
def test_events_of_anybody(events: list[dict[str, Any]]) -> None:
    """Whoever may make events says in them what it likes: the last of them is told, or nothing."""
    told = reading.warning(events)
    assert (told is None) == (not events)


@fuzz(ANNOTATIONS, STATUSES, PODS, st.booleans())
def test_a_job_that_somebody_has_changed(
    annotations: dict[str, str],
    status: dict[str, Any],
    pods: list[dict[str, Any]],
    launched: bool,  # what Hypothesis gives
) -> None:
    """It is none of ours, or can be told of: of the run that it is named after, and of no other."""
    found = head.job(RECORD, SETTINGS, "owner/name")
    found["metadata"] |= {"uid": "uid-1", "resourceVersion": "7", "annotations": annotations}
    found["spec"]["parallelism"] = int(launched)
    job = reading.job({**found, "status": status}, pods)
    if job is None:
        return
    told = info(job)
    assert told.run_id == RUN_ID
    RunStatus.model_validate_json(RunStatus(**dict(told)).model_dump_json())
    if job.mark is not None:
        CancelMark.model_validate_json(job.mark.model_dump_json())
