"""What is written to Kubernetes: plain dicts from pure functions, as one would `kubectl apply` them.

The Job carries the whole record of its run in annotations; the files that Nextflow reads are
annotations of its pod, mounted by the downward API, so that nothing else has to be created with it
or cleaned up after it.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from common import nextflow
from common.jobs import Holder
from common.kube.transport import Object
from common.models import CancelMark, RunRecord
from common.settings import Settings

DOMAIN = "nextflow-controller"
RUN_ID = f"{DOMAIN}/run-id"  # a label of every pod and Job of a run
ROLE = f"{DOMAIN}/role"
HEAD = "head"
RECORD = f"{DOMAIN}/record"
SEALED = f"{DOMAIN}/sealed"
CANCEL = f"{DOMAIN}/cancel-requested"
LAUNCHED_AT = f"{DOMAIN}/launched-at"
CONTAINER = "nextflow"

_PARAMS, _CONFIG = f"{DOMAIN}/params", f"{DOMAIN}/config"
_FILES = PurePosixPath("/etc/nextflow-controller")
_HOME = "/home/nextflow"
_USER = 1000


def lease(name: str, holder: Holder | None, version: str) -> Object:
    """The fence; its version is empty where it is yet to be made."""
    spec = {"holderIdentity": f"{holder.run_id}/{holder.uid}"} if holder else {}
    metadata: Object = {"name": name, "labels": labels("fence")}
    if version:
        metadata["resourceVersion"] = version
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def job(record: RunRecord, settings: Settings) -> Object:
    """A run's Job, inert: it has no pod until its parallelism is 1."""
    own = {**labels(HEAD), RUN_ID: record.run_id, ROLE: HEAD}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": record.run_id, "labels": own, "annotations": {RECORD: record.model_dump_json()}},
        "spec": {
            "parallelism": 0,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            # The exit code stands in the Job's own condition, and outlives the pod.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [0]},
                    }
                ]
            },
            "template": {
                "metadata": {"labels": own, "annotations": _files(record, settings)},
                "spec": merged(_pod(record, settings), settings.head_pod),
            },
        },
    }


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


def labels(component: str) -> dict[str, str]:
    """The recommended labels of everything that belongs to the controller."""
    return {
        "app.kubernetes.io/name": DOMAIN,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": DOMAIN,
    }


def merged(base: Any, extra: Any) -> Any:
    """`base` with `extra` merged in: mappings by key, lists one after the other, anything else replaced."""
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        both = {key: merged(base[key], extra[key]) for key in base.keys() & extra.keys()}
        return {**base, **extra, **both}
    if isinstance(base, list) and isinstance(extra, list):
        return [*base, *extra]
    return extra


def _pod(record: RunRecord, settings: Settings) -> Object:
    work = {"persistentVolumeClaim": {"claimName": settings.work_claim}} if settings.work_claim else {"emptyDir": {}}
    return {
        "restartPolicy": "Never",
        "serviceAccountName": settings.head_service_account,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(settings.cancel_grace_seconds),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.head_image,
                "command": _command(record, settings),
                "workingDir": settings.work_path,
                "env": _environment(record),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "work", "mountPath": settings.work_path},
                    {"name": "files", "mountPath": str(_FILES), "readOnly": True},
                    {"name": "home", "mountPath": _HOME},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the container's own
                ],
            }
        ],
        "volumes": [
            {"name": "work", **work},
            {"name": "home", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {
                "name": "files",
                "downwardAPI": {
                    "items": [
                        _item("params.json", _PARAMS),
                        _item("nextflow.config", _CONFIG),
                    ]
                },
            },
        ],
    }


def _item(path: str, annotation: str) -> Object:
    return {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}


def _command(record: RunRecord, settings: Settings) -> list[str]:
    root = PurePosixPath(settings.work_path)
    place = nextflow.Place(
        pipeline=record.request.pipeline,
        params=Path(_FILES / "params.json"),
        config=Path(_FILES / "nextflow.config"),
        log=Path("/tmp/nextflow.log"),  # noqa: S108  # the container's own
        trace=Path("/tmp/trace.txt"),  # noqa: S108
        work=Path(root / "work" / (record.request.workdir or "")),
    )
    return nextflow.command(Path("nextflow"), record, place, nextflow.History())


def _environment(record: RunRecord) -> list[Object]:
    seen = {"HOME": _HOME, "NXF_HOME": f"{_HOME}/.nextflow", **nextflow.environment({}, record, nextflow.History())}
    return [{"name": name, "value": value} for name, value in seen.items()]


def _files(record: RunRecord, settings: Settings) -> dict[str, str]:
    return {
        _PARAMS: nextflow.params_file(record),
        _CONFIG: nextflow.config() + _kubernetes(record.run_id, settings),
        # A head that is moved loses its run: autoscalers are asked to leave it where it is.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


def _kubernetes(run_id: str, settings: Settings) -> str:
    """The part of our configuration that makes tasks pods of the run."""
    chosen = {
        "namespace": settings.run_namespace,
        "serviceAccount": settings.task_service_account,
        "computeResourceType": "Pod",
    }
    if settings.work_claim:
        chosen |= {"storageClaimName": settings.work_claim, "storageMountPath": settings.work_path}
    lines = [f"    {name} = {json.dumps(value)}" for name, value in chosen.items()]
    pod = f"    pod = [[label: {json.dumps(RUN_ID)}, value: {json.dumps(run_id)}]]"
    return "\n".join(["process.executor = 'k8s'", "k8s {", *lines, pod, "}", ""])
