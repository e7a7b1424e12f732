"""What a head's pod has beside Nextflow, both of the controller's image: what prepares an attempt, and its recorder."""

from pathlib import PurePosixPath

from common.kube.objects import CONTAINER, FAILURES, PREPARE, RECORDER, RESTRICTED
from common.kube.transport import Object
from common.models import RunRecord
from common.settings import Settings
from common.sources import ANY

RUN = PurePosixPath("/run/nextflow-controller")  # what the containers of one pod have in common
ATTEMPT_CONFIG = RUN / "attempt.config"
LAST_WORDS = PurePosixPath("/dev/termination-log")  # what the kubelet tells of a container that has ended
TRACE = RUN / "trace.txt"
PIPELINES = PurePosixPath("/pipelines")
_MODULES = {PREPARE: "common.kube.prepare", RECORDER: "common.recorder.kubernetes"}
_REDIS = PurePosixPath("/etc/nextflow-controller/redis")
_KEPT = ".nextflow-controller"
CLONES = "clones"  # of the Git repositories that the run's pipeline comes from
# A quota may ask every container for them, and who requests nothing is the first to be evicted.
_RESOURCES: Object = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
# What the two have to know of the settings; the rest of their surroundings is the image's and the Secret's.
_SETTINGS = (
    "run_namespace",
    "task_resource",
    "work_path",
    "redis_prefix",
    "redis_log_lines",
    "redis_log_bytes",
    "history_ttl_seconds",
    "history_max_runs",
    "log_level",
)


def kept(work_path: str, run_id: str = "") -> PurePosixPath:
    """Where on the work volume all that is kept of runs lies, or of one run: its archive, progress and CLONES."""
    return PurePosixPath(work_path) / _KEPT / run_id


def containers(record: RunRecord, settings: Settings, image: str, pipeline: str, bundle: str | None) -> Object:
    """The part of a head's pod that is about them.

    Args:
        pipeline: what Nextflow is told to run.
        bundle: the directory of the image that has the pipeline; Nextflow finds it at the same path.
    """
    fetched = "" if ANY in settings.pipeline_sources else pipeline
    orders = (record.run_id, record.session_id, _goes_on(record), fetched, bundle or "")
    prepare = _container(PREPARE, image, settings, *orders)
    found: Object = {"initContainers": [prepare], "volumes": []}
    if settings.recorder_secret is not None:
        found["initContainers"].append(_recorder(record, settings, image, settings.recorder_secret))
        if files := _redis_files(settings):
            items = [{"key": key, "path": key} for key in files.values()]
            found["volumes"].append(
                {"name": "redis", "secret": {"secretName": settings.recorder_secret, "items": items}}
            )
    if bundle is not None:
        prepare["volumeMounts"].append({"name": "pipelines", "mountPath": str(PIPELINES)})
        mount = {"name": "pipelines", "mountPath": bundle, "readOnly": True}
        found["containers"] = [{"name": CONTAINER, "volumeMounts": [mount]}]
        found["volumes"].append({"name": "pipelines", "emptyDir": {}})
    return found


def _recorder(record: RunRecord, settings: Settings, image: str, secret: str) -> Object:
    made = _container(RECORDER, image, settings, record.run_id)
    made |= {"restartPolicy": "Always", "envFrom": [{"secretRef": {"name": secret}}]}
    if files := _redis_files(settings):
        made["env"] += [{"name": name, "value": str(_REDIS / key)} for name, key in files.items()]
        made["volumeMounts"].append({"name": "redis", "mountPath": str(_REDIS), "readOnly": True})
    return made


def _redis_files(settings: Settings) -> dict[str, str]:
    """The files that Redis asks the functions for, too: settings, and keys of the recorder's Secret."""
    keys = {"redis_ca_file": "ca.crt", "redis_cert_file": "tls.crt", "redis_key_file": "tls.key"}
    return {name.upper(): key for name, key in keys.items() if getattr(settings, name) is not None}


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
        "resources": _RESOURCES,
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "work", "mountPath": settings.work_path}, {"name": "run", "mountPath": str(RUN)}],
    }
