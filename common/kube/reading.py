"""What is read from Kubernetes, as the library's own values: pure functions of the API server's dicts."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from common.jobs import Holder, Job, Lease
from common.kube.objects import CANCEL, CONTAINER, HEAD, LAUNCHED_AT, RECORD, ROLE, SEALED
from common.kube.transport import Object
from common.models import CancelMark, RunRecord

_EXIT_CODE = re.compile(rf"Container {CONTAINER} .*exit code (\d+)")
_OVER = ("Succeeded", "Failed")


def lease(found: Object | None) -> Lease:
    """The fence; where there is none yet its version is empty."""
    if found is None:
        return Lease("", None)
    run_id, _, uid = (found.get("spec", {}).get("holderIdentity") or "").partition("/")
    return Lease(found["metadata"]["resourceVersion"], Holder(run_id, uid) if uid else None)


def job(found: Object, pods: Sequence[Object] = ()) -> Job | None:
    """A run's Job, with what the run's pods tell beyond it; None if it carries no record, and so is none of ours."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
    annotations = metadata.get("annotations", {})
    try:
        record = RunRecord.model_validate_json(annotations.get(RECORD, ""))
        mark = CancelMark.model_validate_json(annotations[CANCEL]) if CANCEL in annotations else None
    except ValidationError:
        return None
    heads = [pod for pod in pods if pod["metadata"]["labels"].get(ROLE) == HEAD]
    condition = _condition(status)
    end = None if condition is None else _end(condition, heads)
    started_at = _time(annotations.get(LAUNCHED_AT)) if _has_started(status, heads) else None
    finished_at = _time(status.get("completionTime") or (condition or {}).get("lastTransitionTime"))
    return Job(
        record=record,
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        launched=spec.get("parallelism", 1) > 0,
        sealed=SEALED in annotations,
        mark=mark,
        condition=condition["type"] if condition else None,
        started_at=started_at,
        # The end is told in whole seconds: it is never before the start.
        finished_at=max(finished_at, started_at) if finished_at and started_at else finished_at,
        exit_code=end.exit_code if end else None,
        message=annotations.get(SEALED) or (end.words if end else _hold_up(heads)),
        remains=_remains(pods, heads) if condition else 0,
    )


def _remains(pods: Sequence[Object], heads: Sequence[Object]) -> int:
    """Every pod of a task, whatever it says of itself, and every head that has not ended."""
    living = sum(pod.get("status", {}).get("phase") not in _OVER for pod in heads)
    return len(pods) - len(heads) + living


class _End(NamedTuple):
    exit_code: int | None
    words: str | None


def _end(condition: dict[str, Any], heads: Sequence[Object]) -> _End:
    if condition["type"] == "Complete":
        return _End(0, None)
    for pod in heads:
        if ended := container(pod).get("state", {}).get("terminated"):
            return _End(ended["exitCode"], _words(ended["exitCode"], ended.get("reason")))
    told = _EXIT_CODE.search(condition.get("message", ""))
    return _End(int(told[1]), _words(int(told[1]), None)) if told else _End(None, condition.get("message"))


def container(pod: Object) -> Object:
    """The status of the head's main container; empty before it has one."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    found: Object = next((status for status in statuses if status["name"] == CONTAINER), {})
    return found


def _condition(status: Object) -> dict[str, Any] | None:
    # FailureTarget and SuccessCriteriaMet are not enough: pods may still be there.
    for condition in status.get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            found: dict[str, Any] = condition
            return found
    return None


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
    for pod in heads:
        waiting = container(pod).get("state", {}).get("waiting", {})
        match waiting.get("reason"):
            case "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull":
                return _told(f"The image {container(pod)['image']} cannot be pulled", waiting)
            case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
                return _told("The container cannot be made", waiting)
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return _told("No node takes the pod", condition)
    return None


def _told(what: str, by: dict[str, Any]) -> str:
    return f"{what}: {by['message']}" if by.get("message") else f"{what}."


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
