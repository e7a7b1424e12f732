"""What is read from Kubernetes, as the library's own values: pure functions of the API server's dicts."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from common.jobs import Holder, Job, Lease
from common.kube.objects import (
    CANCEL,
    CONTAINER,
    DISRUPTED,
    FAILURES,
    LAUNCHED_AT,
    OPENS,
    RECORD,
    RECORDER,
    SEALED,
)
from common.kube.transport import Object
from common.models import CancelMark, RunRecord

_COUNT = re.compile(r"[0-9]{1,5}")
_EXIT_CODE = re.compile(rf"Container {CONTAINER} .*exit code (\d+)")
_EXHAUSTED = "FailedIndexes"  # the last attempt was lost without an end of Nextflow's own
_TAKEN = "Its pod was taken from its node before Nextflow had ended"
_OVER = ("Succeeded", "Failed")


def lease(found: Object | None) -> Lease:
    """The fence; where there is none yet its version is empty."""
    if found is None:
        return Lease("", None)
    run_id, _, uid = (found.get("spec", {}).get("holderIdentity") or "").partition("/")
    return Lease(found["metadata"]["resourceVersion"], Holder(run_id, uid) if uid else None)


def job(found: Object, pods: Sequence[Object] = ()) -> Job | None:
    """A run's Job, with what the run's pods tell beyond it; None if it does not carry its record, so is not ours."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
    annotations = metadata.get("annotations", {})
    try:
        record = RunRecord.model_validate_json(annotations.get(RECORD, ""))
        mark = CancelMark.model_validate_json(annotations[CANCEL]) if CANCEL in annotations else None
    except ValidationError:
        return None
    if record.run_id != metadata["name"]:
        return None
    heads = sorted((pod for pod in pods if is_heads(pod, record.run_id)), key=attempt, reverse=True)
    condition = _condition(status)
    end = None if condition is None else _end(condition, heads, status.get("failed", 0))
    launched = spec.get("parallelism", 1) > 0
    launched_at = _time(annotations.get(LAUNCHED_AT)) or _time(status.get("startTime"))
    started_at = launched_at if _has_started(status, heads) else None
    finished_at = _time(status.get("completionTime") or (condition or {}).get("lastTransitionTime"))
    return Job(
        record=record,
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        launched=launched,
        sealed=SEALED in annotations,
        mark=mark,
        condition=condition["type"] if condition else None,
        started_at=started_at,
        # The end is told in whole seconds: it is never before the start.
        finished_at=max(finished_at, started_at) if finished_at and started_at else finished_at,
        exit_code=end.exit_code if end else None,
        message=annotations.get(SEALED) or (end.words if end else _hold_up(heads)),
        attempt=max(1, _made(status), *map(attempt, heads)),
        awaited_since=_awaited_since(heads, started_at, launched_at) if launched and not _is_ending(status) else None,
        remains=_remains(pods, heads) if condition else (),
    )


def attempt(pod: Object) -> int:
    """Which head of its run a pod is: the Job controller writes on each how many failed before it."""
    count = pod["metadata"].get("annotations", {}).get(FAILURES, "")
    return 1 + int(count) if _COUNT.fullmatch(count) else 1


def is_heads(found: Object, run_id: str) -> bool:
    """Whether a Pod or Job is a head, or its Job, and no task: by who has made it, as any task may have any label."""
    metadata = found["metadata"]
    if "template" in found.get("spec", ()):  # a Job
        return bool(metadata["name"] == run_id)
    owners = [owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    return any(owner["kind"] == "Job" and owner["name"] == run_id for owner in owners)


def lives(pod: Object) -> bool:
    """Whether a pod's containers have not all ended."""
    return pod.get("status", {}).get("phase") not in _OVER


def _made(status: Object) -> int:
    """How many heads the Job controller has made, as far as it has written that down.

    One that has ended is counted twice over: by its UID until its finalizer is gone, then by number. Once the Job is
    ending, one that is still there is counted among the failed.
    """
    ended = sum(status.get(count) or 0 for count in ("failed", "succeeded"))
    ended += sum(map(len, filter(None, status.get("uncountedTerminatedPods", {}).values())))
    living = sum(status.get(count) or 0 for count in ("active", "terminating"))
    return ended if status.get("conditions") else ended + living


def warning(events: Sequence[Object]) -> str | None:
    """What the cluster last said about a head that has no pod yet, or whose pod is not coming up."""
    last = max(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")), default=None)
    if last is None:
        return None
    made = last["involvedObject"]["kind"] == "Pod"
    return _told("Its pod does not come up" if made else "Its pod cannot be made", last)


def _remains(pods: Sequence[Object], heads: Sequence[Object]) -> tuple[str, ...]:
    """Every pod (or Job) of a task, whatever it says of itself, and every head that has not ended."""
    over = [pod for pod in heads if not lives(pod)]
    return tuple(pod["metadata"]["name"] for pod in pods if pod not in over)


class _End(NamedTuple):
    exit_code: int | None
    words: str | None


def _end(condition: dict[str, Any], heads: Sequence[Object], failures: int) -> _End:
    if condition["type"] == "Complete":
        return _End(0, None)
    if condition.get("reason") == _EXHAUSTED and failures > 1:
        why = next(filter(None, map(_taken, heads)), _TAKEN)
        return _End(None, f"{why.rstrip('.')}. That was attempt {failures}, the last one.")
    for pod in heads:
        ended = container(pod).get("state", {}).get("terminated")
        if taken := _taken(pod):
            return _End(ended["exitCode"] if ended else None, taken)
        if ended:
            return _End(ended["exitCode"], _words(ended["exitCode"], ended.get("reason")))
        for status in pod.get("status", {}).get("initContainerStatuses", []):
            before = status.get("state", {}).get("terminated", {})
            if (code := before.get("exitCode")) and status["name"] != RECORDER:
                why = before.get("message") or f"{status['name']} ended with exit code {code} before it."
                return _End(None, f"Nextflow was not started: {why}")
    if DISRUPTED in condition.get("message", "") or condition.get("reason") == _EXHAUSTED:
        return _End(None, f"{_TAKEN}.")
    if told := _EXIT_CODE.search(condition.get("message", "")):
        return _End(int(told[1]), _words(int(told[1]), None))
    return _End(None, condition.get("message"))


def _taken(pod: Object) -> str | None:
    """Who ended a pod that did not end by itself."""
    status = pod.get("status", {})
    if status.get("reason") in ("Evicted", "Preempting", "NodeShutdown", "Terminated"):
        return _told(_TAKEN, status)
    for condition in status.get("conditions", []):
        if condition["type"] == DISRUPTED and condition["status"] == "True":
            return _told(_TAKEN, condition)
    return None


def container(pod: Object) -> Object:
    """The status of the head's main container; empty before it has one."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    found: Object = next((status for status in statuses if status["name"] == CONTAINER), {})
    return found


def opens(pod: Object) -> bool:
    """Whether a head that has begun said OPENING first.

    One of an older release did not, nor one whose container could not be started: its status says that it was in 1970.
    """
    containers = pod.get("spec", {}).get("containers", [])
    commands = (one.get("command") or () for one in containers if one["name"] == CONTAINER)
    state = container(pod).get("state", {})
    begun = _time((state.get("running") or state.get("terminated") or {}).get("startedAt"))
    return any(tuple(command[: len(OPENS)]) == OPENS for command in commands) and bool(begun and begun.timestamp())


def ended_at(pod: Object) -> datetime | None:
    """When its Nextflow has ended, in whole seconds."""
    return _time(container(pod).get("state", {}).get("terminated", {}).get("finishedAt"))


def _condition(status: Object) -> dict[str, Any] | None:
    # FailureTarget and SuccessCriteriaMet are not enough: pods may still be there.
    for condition in status.get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            found: dict[str, Any] = condition
            return found
    return None


def _is_ending(status: Object) -> bool:
    """Whether the Job controller has seen a pod end, though it has not told the Job's end yet."""
    return bool(status.get("conditions") or any(status.get("uncountedTerminatedPods", {}).values()))


def _awaited_since(
    heads: Sequence[Object], started_at: datetime | None, launched_at: datetime | None
) -> datetime | None:
    """Since when a head, or the next one, is not there; None while one runs, or has ended for good."""
    if started_at is None:
        return launched_at
    newest = next(iter(heads), None)
    if newest is None or newest.get("status", {}).get("phase") == "Succeeded":
        return None
    metadata, state = newest["metadata"], container(newest).get("state", {})
    if _taken(newest) is not None:
        ended = state.get("terminated", {}).get("finishedAt")
        # Who is put out by the kubelet before Nextflow was started has neither of the two.
        return _time(ended or metadata.get("deletionTimestamp") or metadata["creationTimestamp"])
    return None if {"running", "terminated"} & state.keys() else _time(metadata["creationTimestamp"])


def _has_started(status: Object, heads: Sequence[Object]) -> bool:
    if any(status.get(count) for count in ("ready", "succeeded", "failed")):
        return True
    return any({"running", "terminated"} & container(pod).get("state", {}).keys() for pod in heads)


def _words(code: int, reason: str | None) -> str:
    if reason == "OOMKilled":
        return "Nextflow was killed: it took more memory than its limit."
    return f"Nextflow ended with exit code {code}."


def _hold_up(heads: Sequence[Object]) -> str | None:
    """Why a head has not started, in plain words."""
    for pod in heads[:1]:  # the newest
        if taken := _taken(pod):
            return f"{taken.rstrip('.')}. It is started again."
        told = pod.get("status", {})
        for status in (*told.get("initContainerStatuses", ()), *told.get("containerStatuses", ())):
            waiting = status.get("state", {}).get("waiting", {})
            match waiting.get("reason"):
                case "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull":
                    return _told(f"The image {status['image']} cannot be pulled", waiting)
                case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
                    return _told("The container cannot be made", waiting)
        for condition in told.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return _told("No node takes the pod", condition)
    return None


def _told(what: str, by: dict[str, Any]) -> str:
    return f"{what}: {by['message']}" if by.get("message") else f"{what}."


def _time(text: str | None) -> datetime | None:
    """A moment; None also where somebody has put something else in its place."""
    with suppress(ValueError):
        found = datetime.fromisoformat(text or "")
        return found if found.tzinfo is not None else None
    return None
