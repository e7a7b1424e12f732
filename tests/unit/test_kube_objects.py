"""What is written to Kubernetes: whole manifests."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Invalid
from common.jobs import Holder
from common.kube import head, objects
from common.models import CancelMark, RunRecord, RunRequest
from common.settings import Settings
from tests.unit import samples

RUN_ID = samples.run_id(1)
LABELS = {
    "app.kubernetes.io/name": "nextflow-controller",
    "app.kubernetes.io/instance": "nextflow-controller",
    "app.kubernetes.io/component": "head",
    "app.kubernetes.io/managed-by": "nextflow-controller",
    "nextflow-controller/run-id": RUN_ID,
    "nextflow-controller/role": "head",
}
RECORD = RunRecord(
    run_id=RUN_ID,
    request=RunRequest(pipeline="owner/name", profile="a,b", workdir="x/y", parameters={"price": "${HOME} $5"}),
    caller="ada",
    fingerprint="f" * 64,
    session_id="00000000-0000-4000-8000-000000000000",
    created_at=datetime(2030, 1, 2, tzinfo=UTC),
)
SETTINGS = Settings(
    run_namespace="runs",
    head_image="images.example/nextflow:1",
    head_service_account="head",
    task_service_account="task",
    work_claim="work",
    work_path="/mnt/work",
    cancel_grace_seconds=30,
    nextflow_config="process.cpus = 1",
    controller_image="images.example/controller:1",
)
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
CONFIG = """\
process {
    executor = 'k8s'
    withName: '.*|nextflow-controller' { executor = 'k8s' }
}
k8s {
    namespace = "runs"
    serviceAccount = "task"
    computeResourceType = "Pod"
    storageClaimName = "work"
    storageMountPath = "/mnt/work"
    pod = [[label: "nextflow-controller/run-id", value: "%s"]]
}
"""


def test_a_job_is_inert_restricted_and_carries_its_record() -> None:
    """The whole manifest; our configuration is what every runner writes, and the Kubernetes part after it."""
    made = head.job(RECORD, SETTINGS, "owner/name")
    annotations = made["spec"]["template"]["metadata"].pop("annotations")
    config = annotations.pop("nextflow-controller/config")
    assert config.endswith(CONFIG % RUN_ID)
    assert config.startswith("process.cpus = 1\n// Written by the controller.")
    assert json.loads(annotations.pop("nextflow-controller/params")) == {"price": "${HOME} $5"}
    assert annotations == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    [container] = made["spec"]["template"]["spec"].pop("containers")
    assert container == {
        "name": "nextflow",
        "image": "images.example/nextflow:1",
        "command": [
            *("sh", "-c", "echo 'nextflow-controller: the log begins here'; exec \"$@\"", "nextflow"),
            *("nextflow", "-log", "/tmp/nextflow.log", "run", "owner/name"),  # noqa: S108
            *("-name", RUN_ID, "-ansi-log", "false"),
            *("-params-file", "/etc/nextflow-controller/params.json"),
            *("-w", "/mnt/work/work/x/y", "-with-trace", "/run/nextflow-controller/trace.txt"),
            *("-profile", "a,b", "-c", "/run/nextflow-controller/attempt.config"),
            *("-c", "/etc/nextflow-controller/nextflow.config"),
        ],
        "workingDir": "/mnt/work",
        "env": [
            {"name": "HOME", "value": "/home/nextflow"},
            {"name": "NXF_HOME", "value": "/home/nextflow/.nextflow"},
            {"name": "NXF_ASSETS", "value": f"/mnt/work/.nextflow-controller/{RUN_ID}/clones"},
            {"name": "NXF_IGNORE_RESUME_HISTORY", "value": "true"},
            {"name": "NXF_UUID", "value": RECORD.session_id},
        ],
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "work", "mountPath": "/mnt/work"},
            {"name": "run", "mountPath": "/run/nextflow-controller"},
            {"name": "files", "mountPath": "/etc/nextflow-controller", "readOnly": True},
            {"name": "home", "mountPath": "/home/nextflow"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    [prepare] = made["spec"]["template"]["spec"].pop("initContainers")
    orders = [RUN_ID, RECORD.session_id, "fresh", "owner/name", ""]
    assert prepare["command"] == ["python", "-m", "common.kube.prepare", *orders]
    assert made == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": RUN_ID,
            "labels": LABELS,
            "annotations": {"nextflow-controller/record": RECORD.model_dump_json()},
        },
        "spec": {
            "parallelism": 0,
            "completions": 1,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": 2,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    *(
                        {
                            "action": "FailJob",
                            "onExitCodes": {"containerName": name, "operator": "NotIn", "values": [0]},
                        }
                        for name in ("nextflow", "prepare")
                    ),
                ]
            },
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "head",
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 1000,
                        "fsGroup": 1000,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "volumes": [
                        {"name": "work", "persistentVolumeClaim": {"claimName": "work"}},
                        {"name": "run", "emptyDir": {}},
                        {"name": "home", "emptyDir": {}},
                        {"name": "tmp", "emptyDir": {}},
                        {
                            "name": "files",
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": path,
                                        "fieldRef": {
                                            "fieldPath": f"metadata.annotations['nextflow-controller/{name}']"
                                        },
                                    }
                                    for path, name in (("params.json", "params"), ("nextflow.config", "config"))
                                ]
                            },
                        },
                    ],
                },
            },
        },
    }


def pod_of(settings: Settings, bundle: str | None = None) -> Any:
    """The spec of the head's pod."""
    return head.job(RECORD, settings, "owner/name", bundle)["spec"]["template"]["spec"]


def test_a_head_pod_is_what_settings_make_of_it() -> None:
    """Settings are merged into the pod's spec, and into what they name in it."""
    limits = {"limits": {"memory": "1Gi"}}
    extra = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "more"}],
        "containers": [{"name": "nextflow", "resources": limits}, {"name": "beside"}],
    }
    pod = pod_of(SETTINGS.model_copy(update={"head_pod": extra}))
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert [volume["name"] for volume in pod["volumes"]] == ["work", "run", "home", "tmp", "files", "more"]
    plain = pod_of(SETTINGS)["containers"][0]
    assert pod["containers"] == [plain | {"resources": limits}, {"name": "beside"}]


def test_a_bundled_pipeline_comes_from_the_controllers_image() -> None:
    """To the path where it is there; nothing else of the pod changes."""
    plain, pod = pod_of(SETTINGS), pod_of(SETTINGS, "/app/pipelines")
    [before], [prepare] = plain["initContainers"], pod["initContainers"]
    assert prepare["command"] == [*before["command"][:-1], "/app/pipelines"]
    assert prepare["volumeMounts"].pop() == {"name": "pipelines", "mountPath": "/pipelines"}
    prepare["command"] = before["command"]
    assert pod["volumes"].pop() == {"name": "pipelines", "emptyDir": {}}
    mount = {"name": "pipelines", "mountPath": "/app/pipelines", "readOnly": True}
    assert pod["containers"][0]["volumeMounts"].pop() == mount
    assert pod == plain


def test_a_recorder_is_a_sidecar_with_a_secret_of_its_own() -> None:
    """Restricted like all others; it knows of the settings what it needs, and which attempt it records."""
    prepare, recorder = pod_of(SETTINGS.model_copy(update={"recorder_secret": "recorder"}))["initContainers"]
    assert recorder["command"] == ["python", "-m", "common.recorder.kubernetes", RUN_ID]
    assert (recorder["restartPolicy"], "restartPolicy" in prepare) == ("Always", False)
    assert recorder["envFrom"] == [{"secretRef": {"name": "recorder"}}]
    assert recorder["securityContext"] == prepare["securityContext"] == RESTRICTED
    assert recorder["volumeMounts"] == prepare["volumeMounts"]
    known = {variable["name"]: variable.get("value") for variable in recorder["env"]}
    assert known == {
        "RUN_NAMESPACE": "runs",
        "TASK_RESOURCE": "Pod",
        "WORK_PATH": "/mnt/work",
        "REDIS_PREFIX": "nfc",
        "REDIS_LOG_LINES": "100000",
        "REDIS_LOG_BYTES": "16777216",
        "HISTORY_TTL_SECONDS": "604800",
        "HISTORY_MAX_RUNS": "1000",
        "LOG_LEVEL": "INFO",
        "POD_NAME": None,
        "FAILURES": None,
    }
    Settings.read({name: value for name, value in known.items() if value is not None})


def test_what_stands_beside_nextflow_says_what_it_needs() -> None:
    """A quota of the namespace may ask for it; the settings say otherwise, by name."""
    usual = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    more = {"initContainers": [{"name": "recorder", "resources": {"limits": {"memory": "1Gi"}}}]}
    settings = SETTINGS.model_copy(update={"recorder_secret": "recorder"})
    assert [one["resources"] for one in pod_of(settings)["initContainers"]] == [usual, usual]
    made = pod_of(settings.model_copy(update={"head_pod": more}))["initContainers"]
    assert [one["resources"] for one in made] == [usual, usual | {"limits": {"memory": "1Gi"}}]


def test_a_recorder_has_the_files_that_its_redis_asks_for() -> None:
    """Of its own Secret, where the functions have such files of theirs; the Secret's variables say the rest."""
    changes = {
        "recorder_secret": "recorder",
        "redis_ca_file": "/x/ca",
        "redis_cert_file": "/x/c",
        "redis_key_file": "/x/k",
    }
    pod = pod_of(SETTINGS.model_copy(update=changes))
    _, recorder = pod["initContainers"]
    files = {"REDIS_CA_FILE": "ca.crt", "REDIS_CERT_FILE": "tls.crt", "REDIS_KEY_FILE": "tls.key"}
    known = {variable["name"]: variable.get("value") for variable in recorder["env"]}
    assert {name: known[name] for name in files} == {
        name: f"/etc/nextflow-controller/redis/{key}" for name, key in files.items()
    }
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "redis")
    items = [{"key": key, "path": key} for key in files.values()]
    assert volume["secret"] == {"secretName": "recorder", "items": items}
    assert {"name": "redis", "mountPath": "/etc/nextflow-controller/redis", "readOnly": True} in recorder[
        "volumeMounts"
    ]
    assert "redis" not in [volume["name"] for volume in pod_of(SETTINGS)["volumes"]]


@pytest.mark.parametrize("lacking", ["controller_image", "work_claim"])
def test_what_cannot_go_on_is_not_started_again(lacking: str) -> None:
    """An attempt needs the volume with what the last one has done, and somebody who prepares it."""
    assert head.job(RECORD, SETTINGS, "x")["spec"]["backoffLimitPerIndex"] == 2
    settings = SETTINGS.model_copy(update={lacking: None})
    assert head.job(RECORD, settings, "x")["spec"]["backoffLimitPerIndex"] == 0


def test_files_that_no_annotation_can_hold_are_refused() -> None:
    """In Nextflow's file some characters take six bytes, so what fits into a body may not fit there."""
    head.check_size(RECORD.request, SETTINGS)
    head.check_size(RunRequest(pipeline="x", parameters={"a": "$" * 40_000}), SETTINGS)
    with pytest.raises(Invalid) as refused:
        head.check_size(RunRequest(pipeline="x", parameters={"a": "$" * 41_000}), SETTINGS)
    assert refused.value.pointer == "/parameters"


def test_a_dollar_arrives_as_one() -> None:
    """The kubelet would put a variable of the container in place of $(NAME)."""
    made = head.job(RECORD, SETTINGS, "https://host/$(HOME)/$$")
    command = made["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "https://host/$$(HOME)/$$$$" in command


def test_the_lease_names_run_and_job() -> None:
    """At the version that was read; without one where it is yet to be made; nobody where it is empty."""
    held = objects.lease("nfc", Holder(RUN_ID, "uid-1"), "7")
    assert held["spec"] == {"holderIdentity": f"{RUN_ID}/uid-1"}
    assert held["metadata"]["resourceVersion"] == "7"
    fresh = objects.lease("nfc", None, "")
    assert (fresh["spec"], "resourceVersion" in fresh["metadata"]) == ({}, False)


def test_every_patch_names_the_version_that_was_read() -> None:
    """Launch, seal and stop are one conditional write each."""
    mark = CancelMark(requested_by="ada", requested_at=datetime(2030, 1, 2, tzinfo=UTC))
    at = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
    assert objects.launch("7", at) == {
        "metadata": {
            "resourceVersion": "7",
            "annotations": {"nextflow-controller/launched-at": "2030-01-02T03:04:05.678901+00:00"},
        },
        "spec": {"parallelism": 1},
    }
    assert objects.seal("7", None, "Too late.") == {
        "metadata": {"resourceVersion": "7", "annotations": {"nextflow-controller/sealed": "Too late."}}
    }
    assert objects.seal("7", mark, None) == {
        "metadata": {
            "resourceVersion": "7",
            "annotations": {
                "nextflow-controller/sealed": "",
                "nextflow-controller/cancel-requested": mark.model_dump_json(),
            },
        }
    }
    assert objects.stop("7", mark) == {
        "metadata": {
            "resourceVersion": "7",
            "annotations": {"nextflow-controller/cancel-requested": mark.model_dump_json()},
        },
        "spec": {"activeDeadlineSeconds": 1},
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(json_values, json_values)
def test_merging_changes_neither_side_and_the_extra_wins(base: Any, extra: Any) -> None:
    """Whatever is merged: nothing of either is changed, and what is no mapping or list is the extra's."""
    before = json.dumps([base, extra])
    made = objects.merged(base, extra)
    assert json.dumps([base, extra]) == before
    match base, extra:
        case dict(), dict():
            assert made == {
                key: objects.merged(base[key], extra[key]) if key in base and key in extra else {**base, **extra}[key]
                for key in base | extra
            }
        case list(), list():
            assert made == base + extra
        case _:
            assert made == extra
