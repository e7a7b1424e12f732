"""A run's Job, and in it the pod of its head: plain dicts from pure functions, as one would `kubectl apply` them.

The Job carries the whole record of its run in annotations; the files that Nextflow reads are
annotations of its pod, mounted by the downward API, so that nothing else has to be created with it
or cleaned up after it. Only who starts a run imports this.
"""

import json
from math import ceil
from pathlib import Path, PurePosixPath

from common import nextflow
from common.errors import Invalid
from common.kube import beside
from common.kube.objects import (
    CONTAINER,
    DISRUPTED,
    DOMAIN,
    HEAD,
    OPENS,
    PREPARE,
    RECORD,
    RESTRICTED,
    ROLE,
    RUN_ID,
    labels,
    merged,
)
from common.kube.transport import Object
from common.models import RunRecord, RunRequest
from common.settings import Settings

_PARAMS, _CONFIG = f"{DOMAIN}/params", f"{DOMAIN}/config"
_FILES = PurePosixPath("/etc/nextflow-controller")
_HOME = "/home/nextflow"
_USER = 1000
_ANNOTATIONS_BYTES = 240 * 1024  # of the 256 KiB that an object's annotations may have


def job(record: RunRecord, settings: Settings, pipeline: str, bundle: str | None = None) -> Object:
    """A run's Job, inert: it has no pod until its parallelism is 1.

    Args:
        pipeline: what Nextflow is told to run.
        bundle: the directory of the controller's image that it is in; None: it is from elsewhere.
    """
    own = {**labels(settings.release, HEAD), RUN_ID: record.run_id, ROLE: HEAD}
    pod = merged(_pod(record, settings, pipeline, bundle), settings.head_pod)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": record.run_id, "labels": own, "annotations": {RECORD: record.model_dump_json()}},
        "spec": {
            "parallelism": 0,
            "completions": 1,
            # Indexed for the sake of its count of attempts, which is written on each pod; there is one index.
            "completionMode": "Indexed",
            "backoffLimitPerIndex": _attempts(settings) - 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failures(pod)},
            "template": {"metadata": {"labels": own, "annotations": _files(record, settings)}, "spec": pod},
        },
    }


def _attempts(settings: Settings) -> int:
    """How many heads a run may have: another one has to find what the last has left, and to be made ready for it."""
    return settings.max_attempts if settings.work_claim and settings.controller_image else 1


def _failures(pod: Object) -> list[Object]:
    """What a failed pod means: one that was taken is replaced, what has failed by itself would fail again.

    What failed stands in the Job's own condition, and outlives the pod.
    """
    taken: Object = {"action": "Count", "onPodConditions": [{"type": DISRUPTED, "status": "True"}]}
    names = [container["name"] for container in (*pod["containers"], *pod.get("initContainers", ()))]
    ended = [
        {"containerName": name, "operator": "NotIn", "values": [0]} for name in names if name in (CONTAINER, PREPARE)
    ]
    return [taken, *({"action": "FailJob", "onExitCodes": codes} for codes in ended)]


def check_size(request: RunRequest, settings: Settings) -> None:
    """Return unless a run's record, or its files, are longer than the annotations of the Job, or of its pod, may be.

    Raises:
        Invalid: they are.
    """
    files = nextflow.params_file(request) + settings.nextflow_config
    size = max(len(text.encode()) for text in (files, request.model_dump_json()))
    if size > _ANNOTATIONS_BYTES:
        raise Invalid("/parameters", f"they take {size} bytes as a file; at most {_ANNOTATIONS_BYTES} are possible")


def _pod(record: RunRecord, settings: Settings, pipeline: str, bundle: str | None) -> Object:
    head = _head(record, settings, pipeline)
    if settings.controller_image is None:
        return head
    pod: Object = merged(head, beside.containers(record, settings, settings.controller_image, pipeline, bundle))
    return pod


def _head(record: RunRecord, settings: Settings, pipeline: str) -> Object:
    work = {"persistentVolumeClaim": {"claimName": settings.work_claim}} if settings.work_claim else {"emptyDir": {}}
    return {
        "restartPolicy": "Never",
        "serviceAccountName": settings.head_service_account,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": ceil(settings.cancel_grace_seconds),
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
                "command": _command(record, settings, pipeline),
                "workingDir": settings.work_path,
                "env": _environment(record, settings),
                "securityContext": RESTRICTED,
                "volumeMounts": [
                    {"name": "work", "mountPath": settings.work_path},
                    {"name": "run", "mountPath": str(beside.RUN)},
                    {"name": "files", "mountPath": str(_FILES), "readOnly": True},
                    {"name": "home", "mountPath": _HOME},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the container's own
                ],
            }
        ],
        "volumes": [
            {"name": "work", **work},
            {"name": "run", "emptyDir": {}},
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


def _command(record: RunRecord, settings: Settings, pipeline: str) -> list[str]:
    root = PurePosixPath(settings.work_path)
    place = nextflow.Place(
        pipeline=pipeline,
        params=Path(_FILES / "params.json"),
        configs=[
            *([Path(beside.ATTEMPT_CONFIG)] if settings.controller_image else []),
            Path(_FILES / "nextflow.config"),
        ],
        log=Path("/tmp/nextflow.log"),  # noqa: S108  # the container's own
        trace=Path(beside.TRACE),
        work=Path(root / "work" / (record.request.workdir or "")),
    )
    # The kubelet puts variables in place of $(NAME), and a dollar in place of two.
    vector = nextflow.command(Path("nextflow"), record, place, None)
    return [*OPENS, *(part.replace("$", "$$") for part in vector)]


def _environment(record: RunRecord, settings: Settings) -> list[Object]:
    seen = {
        "HOME": _HOME,
        "NXF_HOME": f"{_HOME}/.nextflow",
        # On the volume: tasks use files of the pipeline, the programs of its `bin` first of all.
        "NXF_ASSETS": str(beside.kept(settings.work_path, record.run_id) / beside.CLONES),
        **nextflow.environment({}, record, None),
    }
    return [{"name": name, "value": value} for name, value in seen.items()]


def _files(record: RunRecord, settings: Settings) -> dict[str, str]:
    return {
        _PARAMS: nextflow.params_file(record.request),
        _CONFIG: nextflow.config(settings.nextflow_config) + _kubernetes(record.run_id, settings),
        # A head that is moved is started again, and loses what its running tasks had done: autoscalers are to leave it.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


def _kubernetes(run_id: str, settings: Settings) -> str:
    """The part of our configuration that makes tasks pods of the run."""
    chosen = {
        "namespace": settings.run_namespace,
        "serviceAccount": settings.task_service_account,
        "computeResourceType": settings.task_resource,
    }
    if settings.work_claim:
        chosen |= {"storageClaimName": settings.work_claim, "storageMountPath": settings.work_path}
    lines = [f"    {name} = {json.dumps(value)}" for name, value in chosen.items()]
    pod = f"    pod = [[label: {json.dumps(RUN_ID)}, value: {json.dumps(run_id)}]]"
    # A process may name its executor itself, over what is said for all. A selector is over both, and the last of them
    # over those before; but one that was there already stays in its place, so ours is one that nobody else has.
    process = ["process {", "    executor = 'k8s'", "    withName: '.*|nextflow-controller' { executor = 'k8s' }", "}"]
    return "\n".join([*process, "k8s {", *lines, pod, "}", ""])
