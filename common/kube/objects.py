"""What is written to Kubernetes, but for the Job itself (`common.kube.head`): plain dicts from pure functions."""

from datetime import datetime

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
