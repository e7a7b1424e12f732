"""What the chart makes of its values, by helm itself; skipped where there is none."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped] # comes without types

from common.callers import Caller, Callers
from common.settings import Settings
from functions.server import FUNCTIONS
from tests.unit.rendering import CHART, HELMS, ROOT, Object, environ, helm, needs_helm, pods, render

pytestmark = needs_helm

# Settings that are no operator's in a cluster: the chart or the image decides them, or a Secret holds them.
DECIDED = {
    *("auth", "controller_image", "head_image", "head_pod", "head_service_account", "release", "release_namespace"),
    *("run_namespace", "runner", "task_resource", "task_service_account", "tokens_file", "work_claim", "work_path"),
    *("host", "kube_context", "nextflow", "pipelines_dir", "port", "state_dir"),
    *("redis_ca_file", "redis_cert_file", "redis_key_file", "redis_password", "redis_sentinel_master"),
    *("redis_sentinel_password", "redis_sentinel_username", "redis_sentinels", "redis_url", "redis_username"),
    *("archive_token", "archive_url", "max_attempts", "recorder_secret"),
}


@pytest.mark.parametrize("program", HELMS)
def test_the_chart_is_well_formed(program: str) -> None:
    """By every helm's own judgement, warnings included; and for the project's version."""
    done = helm("lint", "--strict", str(CHART), "--kube-version", "1.30", program=program)
    assert done.returncode == 0, done.stdout
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == version


def test_every_function_gets_the_same_objects() -> None:
    """One Deployment, Service, account and pair of Roles each, and nothing else but what is common to all."""
    objects = render()
    name = "r-nextflow-controller"
    mine = {f"{kind} system/{name}-{one}" for one in FUNCTIONS for kind in ("Deployment", "Service", "ServiceAccount")}
    roles = {f"{kind} system/{name}-{one}" for one in FUNCTIONS for kind in ("Role", "RoleBinding")}
    roles |= {
        f"{kind} system-runs/{name}-{one}" for one in FUNCTIONS if one != "docs" for kind in ("Role", "RoleBinding")
    }
    budgets = {f"PodDisruptionBudget system/{name}-{one}" for one in FUNCTIONS if one != "docs"}
    assert set(objects) - mine - roles - budgets == {
        f"ConfigMap system/{name}",
        f"ConfigMap system/{name}-redis",
        f"CronJob system/{name}-cleanup",
        f"Deployment system-runs/{name}-archive",
        f"Ingress system/{name}",
        "Namespace system/system-runs",
        f"PersistentVolumeClaim system-runs/{name}-work",
        f"Pod system/{name}-test",
        *(f"{kind} system-runs/{name}-{one}" for kind in ("Role", "RoleBinding") for one in ("cleanup", "head")),
        *(f"{kind} system/{name}-cleanup" for kind in ("Role", "RoleBinding", "ServiceAccount")),
        f"Secret system-runs/{name}-archive",
        f"Secret system-runs/{name}-recorder",
        f"Secret system/{name}-archive",
        f"Secret system/{name}-redis",
        f"Secret system/{name}-tokens",
        f"Service system-runs/{name}-archive",
        f"Service system/{name}-redis",
        f"ServiceAccount system-runs/{name}-head",
        f"ServiceAccount system-runs/{name}-task",
        f"StatefulSet system/{name}-redis",
    }
    assert mine | roles | budgets < set(objects)


def test_every_pod_is_restricted() -> None:
    """Pod Security `restricted`, a read-only root, limits, no variable that a Service makes."""
    for spec in pods(render()):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_a_deployment_whole() -> None:
    """What a function's Deployment says, but for its labels."""
    found = render({"functions": {"status": {"replicas": 3}}})["Deployment system/r-nextflow-controller-status"]["spec"]
    selector = {
        "app.kubernetes.io/name": "nextflow-controller",
        "app.kubernetes.io/instance": "r",
        "app.kubernetes.io/component": "status",
    }
    template = found.pop("template")
    assert found == {
        "replicas": 3,
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": selector},
    }
    assert selector.items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"].pop("containers")
    assert template["spec"] == {
        "serviceAccountName": "r-nextflow-controller-status",
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 40,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            {
                "name": "files",
                "projected": {
                    "sources": [
                        {
                            "secret": {
                                "name": "r-nextflow-controller-tokens",
                                "items": [{"key": "tokens", "path": "tokens"}],
                            }
                        }
                    ]
                },
            }
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
    }
    password = {"secretKeyRef": {"name": "r-nextflow-controller-redis", "key": "password"}}
    archive = {"secretKeyRef": {"name": "r-nextflow-controller-archive", "key": "archive-token"}}
    assert container == {
        "name": "status",
        "image": "nextflow-controller:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "args": ["status"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [
            {"name": "PORT", "value": "8080"},
            {"name": "REDIS_PASSWORD", "valueFrom": password},
            {"name": "ARCHIVE_TOKEN", "valueFrom": archive},
        ],
        "envFrom": [{"configMapRef": {"name": "r-nextflow-controller"}}],
        "startupProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 60,
        },
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 8},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "files", "mountPath": "/etc/nextflow-controller", "readOnly": True}],
    }


def test_the_settings_can_be_read() -> None:
    """By the functions' own code, and they mean what the values say."""
    values = {
        "settings": {"RATE_LIMITS": "off", "ALLOWED_HOSTS": "*.lan", "NEXTFLOW_CONFIG": "a = 1\nb = '2'"},
        "ingress": {"host": "runs.example.org"},
        "imagePullSecrets": [{"name": "pull"}],
        "runs": {"namespace": "elsewhere", "headPod": {"nodeSelector": {"disk": "fast"}}, "taskResource": "Job"},
        "work": {"existingClaim": "shared", "path": "/data"},
    }
    read = Settings.read(environ(render(values)))
    assert read.model_dump(exclude_defaults=True, exclude={"allowed_hosts"}, mode="json") == {
        "redis_url": "redis://r-nextflow-controller-redis:6379/0",
        "shutdown_grace_seconds": 30,
        "tokens_file": "/etc/nextflow-controller/tokens",
        "rate_limits": ["off"],
        "redis_username": "functions",
        "nextflow_config": "a = 1\nb = '2'",
        "runner": "kubernetes",
        "release": "r-nextflow-controller",
        "release_namespace": "system",
        "run_namespace": "elsewhere",
        "task_resource": "Job",
        "controller_image": "nextflow-controller:0.1.0",
        "head_service_account": "r-nextflow-controller-head",
        "task_service_account": "r-nextflow-controller-task",
        "recorder_secret": "r-nextflow-controller-recorder",
        "archive_url": "http://r-nextflow-controller-archive.elsewhere.svc:8080",
        "work_claim": "shared",
        "work_path": "/data",
        "head_pod": {"imagePullSecrets": [{"name": "pull"}], "nodeSelector": {"disk": "fast"}},
    }
    services = [f"r-nextflow-controller-{function}" for function in sorted(FUNCTIONS)]
    inside = ["*.system", "*.system.svc", "*.system.svc.cluster.local"]
    local = ["localhost", "127.0.0.1", "[::1]"]
    assert list(read.allowed_hosts) == ["runs.example.org", *local, *services, *inside, "*.lan"]


def test_any_operators_setting_may_be_set() -> None:
    """The schema knows all settings but those that the chart decides or a Secret holds."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    offered = set(schema["properties"]["settings"]["properties"])
    assert offered == {name.upper() for name in Settings.model_fields if name not in DECIDED}


def test_the_token_is_the_first_callers(tmp_path: Path) -> None:
    """By the functions' own code: the file's one line names the caller whose token it is."""
    secret = render()["Secret system/r-nextflow-controller-tokens"]["stringData"]
    (tmp_path / "tokens").write_text(secret["tokens"])
    assert Callers(tmp_path / "tokens").of_token(secret["token"]) == Caller("admin", "run")
    assert re.fullmatch(r"nfc_[A-Za-z0-9]{43}", secret["token"])
    assert render()["Secret system/r-nextflow-controller-tokens"]["stringData"]["token"] != secret["token"]


def test_redis_users_rights_are_those_of_the_readme() -> None:
    """All that is used, and no more; nobody else may come in."""
    (documented,) = re.findall(r"^ACL SETUSER nfc on >PASSWORD (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    secret = render({"settings": {"REDIS_PREFIX": "other"}})["Secret system/r-nextflow-controller-redis"]["stringData"]
    default, user, _ = secret["users.acl"].splitlines()
    assert default == "user default off"
    digest = hashlib.sha256(secret["password"].encode()).hexdigest()
    rights = documented.replace("+select ", "").replace("~nfc:", "~other:")
    assert user == f"user functions on #{digest} {rights}"


def test_an_external_redis_is_a_secret_of_settings() -> None:
    """Nothing of the chart's own Redis is left, and a function sees the Secret's keys as its variables."""
    objects = render({"redis": {"enabled": False, "externalSecret": "redis"}})
    assert not [key for key in objects if key.endswith("-redis")]
    assert not {"REDIS_URL", "REDIS_USERNAME"} & set(environ(objects))
    (container,) = objects["Deployment system/r-nextflow-controller-run"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "r-nextflow-controller"}},
        {"secretRef": {"name": "redis"}},
    ]
    assert container["env"] == [{"name": "PORT", "value": "8080"}]


@pytest.mark.parametrize(
    ("tls", "files"),
    [
        ({"ca": True}, {"REDIS_CA_FILE": "ca.crt"}),
        ({"certificate": True}, {"REDIS_CERT_FILE": "tls.crt", "REDIS_KEY_FILE": "tls.key"}),
    ],
)
def test_an_external_redis_files_are_mounted(tls: Object, files: dict[str, str], tmp_path: Path) -> None:
    """Where the settings look for them, for whoever uses Redis: the functions."""
    objects = render({"redis": {"enabled": False, "externalSecret": "redis", "tls": tls}})
    said = {key: value for key, value in environ(objects).items() if key.startswith("REDIS_")}
    assert said == {key: f"/etc/nextflow-controller/redis/{file}" for key, file in files.items()}
    for name in FUNCTIONS:
        spec = objects[f"Deployment system/r-nextflow-controller-{name}"]["spec"]["template"]["spec"]
        (mount,) = spec["containers"][0]["volumeMounts"]
        (volume,) = spec["volumes"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/etc/nextflow-controller")
        secret = volume["projected"]["sources"][-1]["secret"]
        assert secret["name"] == "redis"
        assert [item["key"] for item in secret["items"]] == list(files.values())
        for item in secret["items"]:
            (tmp_path / item["path"]).parent.mkdir(exist_ok=True)
            (tmp_path / item["path"]).touch()
    there = {key: value.replace("/etc/nextflow-controller", str(tmp_path)) for key, value in said.items()}
    read = Settings.read({"REDIS_URL": "rediss://redis:6379", **there})
    assert {str(getattr(read, key.lower())) for key in files} == {
        str(tmp_path / "redis" / file) for file in files.values()
    }


def test_runs_are_limited_as_the_values_say() -> None:
    """By the specs of a ResourceQuota and a LimitRange as they are; by default there are neither."""
    quota = {"hard": {"pods": "100", "requests.cpu": "64"}}
    limits = {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1"}}]}
    objects = render({"runs": {"resourceQuota": quota, "limitRange": limits}})
    assert objects["ResourceQuota system-runs/r-nextflow-controller"]["spec"] == quota
    assert objects["LimitRange system-runs/r-nextflow-controller"]["spec"] == limits
    assert {"ResourceQuota", "LimitRange"}.isdisjoint(one["kind"] for one in render().values())


def test_helm_test_starts_the_run_that_is_asked_for() -> None:
    """Over the values' own, with a place for its results that tasks and head share."""
    objects = render(
        {"test": {"run": {"pipeline": "nf-core/demo", "parameters": {"input": "x"}}}, "work": {"path": "/d"}}
    )
    (container,) = objects["Pod system/r-nextflow-controller-test"]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert json.loads(env["TEST_RUN"] or "") == {
        "pipeline": "nf-core/demo",
        "profile": "kubernetes",
        "parameters": {"delay_seconds": 0, "greetings": ["Hello", "Hallo"], "input": "x", "outdir": "/d/helm-test"},
    }
    assert {"TEST_URL", "TEST_HOST"}.isdisjoint(env)


def test_what_exists_already_is_not_made() -> None:
    """Secrets, the runs' namespace and the work volume of somebody else's making."""
    values = {
        "archive": {"existingSecret": "archive"},
        "auth": {"existingSecret": "callers"},
        "redis": {"existingSecret": "users", "persistence": {"enabled": False}},
        "runs": {"namespace": "there", "create": False},
        "work": {"existingClaim": "shared"},
    }
    objects = render(values)
    assert not [key for key in objects if key.split()[0] in ("Secret", "Namespace", "PersistentVolumeClaim")]
    spec = objects["Deployment system/r-nextflow-controller-run"]["spec"]["template"]["spec"]
    assert spec["volumes"][0]["projected"]["sources"][0]["secret"]["name"] == "callers"
    archive = objects["Deployment there/r-nextflow-controller-archive"]["spec"]["template"]["spec"]
    assert archive["volumes"][0]["secret"]["secretName"] == "archive"
    assert spec["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"] == "users"
    redis = objects["StatefulSet system/r-nextflow-controller-redis"]["spec"]
    assert "volumeClaimTemplates" not in redis
    assert redis["template"]["spec"]["volumes"][1]["secret"]["secretName"] == "users"


def test_nobody_shows_a_token_where_none_is_asked_for() -> None:
    """No Secret, no file, no variable of the test."""
    objects = render({"auth": {"mode": "off"}})
    assert "Secret system/r-nextflow-controller-tokens" not in objects
    assert Settings.read(environ(objects)).auth == "off"
    spec = objects["Deployment system/r-nextflow-controller-run"]["spec"]["template"]["spec"]
    assert "volumes" not in spec
    (test,) = objects["Pod system/r-nextflow-controller-test"]["spec"]["containers"]
    assert "TEST_TOKEN" not in {one["name"] for one in test["env"]}


def test_a_recorder_may_write_logs_and_nothing_else() -> None:
    """Where pipelines run is the one Secret of the user who may; its server is found from another namespace."""
    objects = render({"settings": {"REDIS_PREFIX": "other"}})
    given = objects["Secret system-runs/r-nextflow-controller-recorder"]["stringData"]
    own = objects["Secret system/r-nextflow-controller-redis"]["stringData"]
    assert given == {
        "REDIS_URL": "redis://r-nextflow-controller-redis.system.svc:6379/0",
        "REDIS_USERNAME": "recorder",
        "REDIS_PASSWORD": own["recorder-password"],
    }
    assert Settings.read(given).redis_username == "recorder"
    assert given["REDIS_PASSWORD"] != own["password"]
    digest = hashlib.sha256(given["REDIS_PASSWORD"].encode()).hexdigest()
    rights = "resetkeys resetchannels ~other:log:* -@all +ping +evalsha +script|load +xadd +xtrim +expire +xinfo|stream"
    assert own["users.acl"].splitlines()[-1] == f"user recorder on #{digest} {rights} +xrevrange"
    assert environ(objects)["RECORDER_SECRET"] == "r-nextflow-controller-recorder"


@pytest.mark.parametrize("redis", [{"existingSecret": "users"}, {"enabled": False, "externalSecret": "redis"}])
def test_recorders_of_another_redis_are_told_by_a_secret_that_exists(redis: Object) -> None:
    """And where none is named, there are no recorders: functions and heads are told of none."""
    assert "RECORDER_SECRET" not in environ(render({"redis": redis}))
    objects = render({"redis": {**redis, "recorderSecret": "logs"}})
    assert environ(objects)["RECORDER_SECRET"] == "logs"
    assert not [key for key in objects if key.endswith("-recorder")]


def test_the_archive_knows_one_caller(tmp_path: Path) -> None:
    """The functions that ask it have the token; where pipelines run there is only its hash."""
    objects = render()
    token = objects["Secret system/r-nextflow-controller-archive"]["stringData"]["archive-token"]
    secret = objects["Secret system-runs/r-nextflow-controller-archive"]["stringData"]
    assert set(secret) == {"tokens"}
    (tmp_path / "tokens").write_text(secret["tokens"])
    assert Callers(tmp_path / "tokens").of_token(token) == Caller("stream", "read")
    given = {
        key.rpartition("-")[2]
        for key, one in objects.items()
        if one["kind"] == "Deployment" and "ARCHIVE_TOKEN" in json.dumps(one)
    }
    assert given == {"status", "stream"}


def test_the_archive_serves_the_work_volume_where_it_is() -> None:
    """As the user heads are, who can read what they wrote; nothing of it can be written, and no account is needed."""
    objects = render({"work": {"existingClaim": "shared", "path": "/data"}})
    name = "r-nextflow-controller-archive"
    spec = objects[f"Deployment system-runs/{name}"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    url = httpx.URL(environ(objects)["ARCHIVE_URL"])
    assert str(url) == f"http://{name}.system-runs.svc:8080"
    assert url.host in env.pop("ALLOWED_HOSTS").split(",")
    assert objects[f"Service system-runs/{name}"]["spec"]["ports"][0]["port"] == url.port
    assert env == {
        "PORT": "8080",
        "AUTH": "tokens",
        "RATE_LIMITS": "off",
        "TOKENS_FILE": "/etc/nextflow-controller/tokens",
        "SHUTDOWN_GRACE_SECONDS": "30",
        "WORK_PATH": "/data",
    }
    assert container["args"] == ["archive"]
    assert {"name": "work", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
    assert {"name": "work", "persistentVolumeClaim": {"claimName": "shared"}} in spec["volumes"]
    user = {key: spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")}
    assert user == {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    assert (spec["automountServiceAccountToken"], "serviceAccountName" in spec) == (False, False)


@pytest.mark.parametrize("redis", [{}, {"enabled": False, "externalSecret": "x", "tls": {"ca": True}}])
def test_the_clean_up_sees_the_settings_and_no_secret(redis: Object) -> None:
    """With an account of its own; never two at once."""
    objects = render({"cleanup": {"schedule": "@hourly"}, "redis": redis})
    spec = objects["CronJob system/r-nextflow-controller-cleanup"]["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("@hourly", "Forbid")
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    (mine,) = pod["containers"]
    assert mine["command"] == ["/app/venv/bin/python", "-m", "common.cleanup"]
    assert mine["envFrom"] == [{"configMapRef": {"name": "r-nextflow-controller"}}]
    assert not {"env", "volumeMounts"} & set(mine)
    assert "volumes" not in pod
    assert pod["serviceAccountName"] == "r-nextflow-controller-cleanup"


def test_what_is_turned_off_leaves_nothing() -> None:
    """Neither objects nor settings nor rights."""
    objects = render({"archive": {"enabled": False}, "cleanup": {"enabled": False}})
    assert not [key for key in objects if key.endswith(("-archive", "-cleanup"))]
    assert "ARCHIVE" not in json.dumps(objects)


def test_heads_may_make_jobs_where_tasks_are_jobs() -> None:
    """And only there."""
    key = "Role system-runs/r-nextflow-controller-head"
    pods_only = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list"]},
        {"apiGroups": [""], "resources": ["pods/log", "pods/status"], "verbs": ["get"]},
    ]
    assert render()[key]["rules"] == pods_only
    assert render({"runs": {"taskResource": "Job"}})[key]["rules"] == [
        *pods_only,
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "delete", "list"]},
        {"apiGroups": ["batch"], "resources": ["jobs/status"], "verbs": ["get"]},
    ]


def test_a_pod_that_ends_has_the_time_its_function_takes() -> None:
    """What it goes on taking requests for, what its answers may take, and a little more."""
    objects = render({"stopDelaySeconds": 7, "settings": {"SHUTDOWN_GRACE_SECONDS": "42.5"}})
    spec = objects["Deployment system/r-nextflow-controller-run"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 7 + 43 + 5


def test_settings_that_change_start_pods_anew() -> None:
    """And nothing else does, the Secrets that every rendering makes anew included."""

    def annotation(values: Object) -> str:
        template = render(values)["Deployment system/r-nextflow-controller-run"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert annotation({}) == annotation({"functions": {"run": {"replicas": 9}}})
    assert annotation({}) != annotation({"settings": {"LOG_LEVEL": "DEBUG"}})
