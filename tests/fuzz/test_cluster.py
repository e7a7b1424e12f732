"""Jobs and pods that somebody has changed: what they say is theirs, and none of our functions falls over it."""

import json
from typing import Any

from hypothesis import strategies as st

from common.jobs import info
from common.kube import head, objects, reading
from common.models import CancelMark, RunStatus
from tests.fuzz import fuzz
from tests.unit.test_kube_objects import RECORD, RUN_ID, SETTINGS
from tests.unit.test_kube_reading import LAUNCHED, MARK, condition

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.one_of(
    st.just(LAUNCHED.isoformat()),
    st.sampled_from(["2030-01-02", "2030-01-02T03:04:05", "never", ""]),
    st.text(max_size=20),
)


def changed(model: Any) -> st.SearchStrategy[str]:
    """A model's JSON with some of its values replaced, or something else."""
    whole: dict[str, Any] = json.loads(model.model_dump_json())
    values = st.one_of(JSON, TIMES)
    near = st.dictionaries(st.sampled_from(sorted(whole)), values, max_size=2)
    return st.one_of(
        st.just(json.dumps(whole)), near.map(lambda other: json.dumps(whole | other)), JSON.map(json.dumps), st.text()
    )


ANNOTATIONS = st.fixed_dictionaries(
    {objects.RECORD: changed(RECORD)},
    optional={
        objects.CANCEL: changed(MARK),
        objects.SEALED: st.text(max_size=20),
        objects.LAUNCHED_AT: TIMES,
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
