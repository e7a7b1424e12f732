"""What is written to Kubernetes, but for the Job itself (`common.kube.head`): plain dicts from pure functions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from common.jobs import Holder
from common.kube.transport import Object
from common.models import CancelMark

DOMAIN = "nextflow-controller"
RUN_ID = f"{DOMAIN}/run-id"  # a label of every pod and Job of a run
ROLE = f"{DOMAIN}/role"
HEAD = "head"
RECORD = f"{DOMAIN}/record"
SEALED = f"{DOMAIN}/sealed"
CANCEL = f"{DOMAIN}/cancel-requested"
LAUNCHED_AT = f"{DOMAIN}/launched-at"
CONTAINER = "nextflow"
# What a head says before its Nextflow does: a file of its log that does not begin with this is not the first one.
OPENING = f"{DOMAIN}: the log begins here"
OPENS = ("sh", "-c", f"echo '{OPENING}'; exec \"$@\"", "nextflow")  # of a command, before the arguments that it runs
PREPARE, RECORDER = "prepare", "recorder"
FAILURES = "batch.kubernetes.io/job-index-failure-count"  # on a pod: how many were before it
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
DISRUPTED = "DisruptionTarget"  # a pod's condition: evicted, preempted, drained, or its node is lost


def lease(name: str, holder: Holder | None, version: str) -> Object:
    """The fence; its version is empty where it is yet to be made."""
    spec = {"holderIdentity": f"{holder.run_id}/{holder.uid}"} if holder else {}
    metadata: Object = {"name": name, "labels": labels(name, "fence")}
    if version:
        metadata["resourceVersion"] = version
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def launch(version: str, at: datetime) -> Object:
    """The patch that lets a Job have its pod."""
    metadata = {"resourceVersion": version, "annotations": {LAUNCHED_AT: at.isoformat()}}
    return {"metadata": metadata, "spec": {"parallelism": 1}}


def seal(version: str, mark: CancelMark | None, reason: str | None) -> Object:
    """The patch after which a Job is never launched."""
    annotations = {SEALED: reason or ""} | ({CANCEL: mark.model_dump_json()} if mark else {})
    return {"metadata": {"resourceVersion": version, "annotations": annotations}}


def stop(version: str, mark: CancelMark) -> Object:
    """The patch that ends a launched Job: SIGTERM and grace for the head, and no end before its pod is gone."""
    return {
        "metadata": {"resourceVersion": version, "annotations": {CANCEL: mark.model_dump_json()}},
        "spec": {"activeDeadlineSeconds": 1},
    }


def labels(release: str, component: str) -> dict[str, str]:
    """The recommended labels of everything that belongs to a release of the controller."""
    return {
        "app.kubernetes.io/name": DOMAIN,
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": DOMAIN,
    }


def merged(base: Any, extra: Any) -> Any:
    """`base` with `extra` merged in: mappings by key, lists by their items' names, anything else replaced.

    Items of lists that have no name, or none that `base` knows, come after the others, as `kubectl patch` does it.
    """
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        both = {key: merged(base[key], extra[key]) for key in base.keys() & extra.keys()}
        return {**base, **extra, **both}
    if isinstance(base, list) and isinstance(extra, list):
        named = {item["name"]: item for item in extra if _has_name(item)}
        items = [merged(item, named.pop(item["name"], {})) if _has_name(item) else item for item in base]
        return [*items, *(item for item in extra if not _has_name(item) or item["name"] in named)]
    return extra


def _has_name(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)
