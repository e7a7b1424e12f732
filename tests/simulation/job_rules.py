"""What a Job's spec says about its pods: pure functions, as the Job controller applies them."""

from datetime import datetime, timedelta
from typing import Literal

from common.kube.objects import FAILURES
from common.kube.transport import Object

_BACKOFF_SECONDS = 10
_OVER = ("Succeeded", "Failed")


def over(pod: Object) -> bool:
    """Whether its containers have ended."""
    return pod["status"]["phase"] in _OVER


def ending(pod: Object) -> bool:
    """Whether it was deleted, and its containers have not ended."""
    return "deletionTimestamp" in pod["metadata"] and not over(pod)


def failed(spec: Object, pod: Object) -> bool:
    """Whether the pod has failed: where it may be replaced while it ends, one that is deleted has."""
    if spec["podReplacementPolicy"] == "TerminatingOrFailed" and ending(pod):
        return True
    return bool(pod["status"]["phase"] == "Failed")


def indexed(spec: Object) -> bool:
    """Whether failures are counted on the pods of an index."""
    return "backoffLimitPerIndex" in spec


def failures(pod: Object) -> int:
    """How many of its index had failed before it."""
    return int(pod["metadata"].get("annotations", {}).get(FAILURES, 0))


def failures_with(spec: Object, pod: Object) -> int:
    """How many of its index have failed, with this one."""
    return failures(pod) + (verdict(spec, pod)[0] != "Ignore")


def verdict(spec: Object, pod: Object) -> tuple[Literal["Count", "Ignore", "FailJob"], str]:
    """What the first rule that fits says of a failed pod, and in words; without one it counts."""
    for number, rule in enumerate(spec.get("podFailurePolicy", {}).get("rules", [])):
        for wanted in rule.get("onPodConditions", []):
            for condition in pod["status"].get("conditions", []):
                if (condition["type"], condition["status"]) == (wanted["type"], wanted.get("status", "True")):
                    return rule["action"], f"Pod runs/x has condition {wanted['type']} matching rule at index {number}"
        if (codes := rule.get("onExitCodes")) is None:
            continue
        status = pod["status"]
        for container in (*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])):
            code = container["state"].get("terminated", {}).get("exitCode")
            fits = (code in codes["values"]) is (codes["operator"] == "In")
            if code and fits and codes.get("containerName") in (None, container["name"]):
                words = f"Container {container['name']} for pod runs/x failed with exit code {code}"
                return rule["action"], f"{words} matching {rule['action']} rule at index {number}"
    return "Count", ""


def replaced_from(spec: Object, pod: Object) -> datetime:
    """When the next one of a failed pod's index may be made."""
    states = [container["state"] for container in pod["status"].get("containerStatuses", [])]
    times = [state["terminated"]["finishedAt"] for state in states if "terminated" in state]
    ended = datetime.fromisoformat(max(times, default=pod["metadata"]["creationTimestamp"]))
    return ended + timedelta(seconds=_BACKOFF_SECONDS * 2 ** (failures_with(spec, pod) - 1))
