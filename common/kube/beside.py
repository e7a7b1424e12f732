"""What a head's pod has beside Nextflow, both of the controller's image: what prepares an attempt, and its recorder."""

from pathlib import PurePosixPath

from common.kube.objects import CONTAINER, FAILURES, PREPARE, RECORDER, RESTRICTED
from common.kube.transport import Object
from common.models import RunRecord
from common.settings import Settings

RUN = PurePosixPath("/run/nextflow-controller")  # what the containers of one pod have in common
ATTEMPT_CONFIG = RUN / "attempt.config"
TRACE = RUN / "trace.txt"
PIPELINES = PurePosixPath("/pipelines")
_MODULES = {PREPARE: "common.kube.prepare", RECORDER: "common.recorder.kubernetes"}
_KEPT = ".nextflow-controller"
CLONES = "clones"  # of the Git repositories that the run's pipeline comes from
# What the two have to know of the settings; the rest of their surroundings is the image's and the Secret's.
_SETTINGS = (
    "release",
    "run_namespace",
    "task_resource",
    "work_path",
    "redis_prefix",
    "history_ttl_seconds",
    "history_max_runs",
    "log_level",
)


def kept(work_path: str, run_id: str = "") -> PurePosixPath:
    """Where on the work volume all that is kept of runs lies, or of one run: its archive, progress and CLONES."""
    return PurePosixPath(work_path) / _KEPT / run_id


def containers(record: RunRecord, settings: Settings, image: str, bundle: str | None) -> Object:
    """The part of a head's pod that is about them.

    Args:
        bundle: the directory of the image that has the pipeline; Nextflow finds it at the same path.
    """
    prepare = _container(PREPARE, image, settings, record.run_id, record.session_id, _goes_on(record), bundle or "")
    found: Object = {"initContainers": [prepare]}
    if settings.recorder_secret is not None:
        recorder = _container(RECORDER, image, settings, record.run_id)
        recorder |= {"restartPolicy": "Always"}
        recorder["envFrom"] = [{"secretRef": {"name": settings.recorder_secret}}]
        found["initContainers"].append(recorder)
    if bundle is not None:
        prepare["volumeMounts"].append({"name": "pipelines", "mountPath": str(PIPELINES)})
        mount = {"name": "pipelines", "mountPath": bundle, "readOnly": True}
        found["containers"] = [{"name": CONTAINER, "volumeMounts": [mount]}]
        found["volumes"] = [{"name": "pipelines", "emptyDir": {}}]
    return found


def _goes_on(record: RunRecord) -> str:
    return "resume" if record.resumed_from is not None else "fresh"


def _container(name: str, image: str, settings: Settings, *arguments: str) -> Object:
    known = {name.upper(): str(value) for name, value in settings.model_dump(include=set(_SETTINGS)).items()}
    return {
        "name": name,
        "image": image,
        "command": ["python", "-m", _MODULES[name], *arguments],
        "env": [
            *({"name": name, "value": value} for name, value in known.items()),
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "FAILURES", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{FAILURES}']"}}},
        ],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "work", "mountPath": settings.work_path}, {"name": "run", "mountPath": str(RUN)}],
    }
