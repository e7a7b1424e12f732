"""The chart, installed on the cluster of KUBECONFIG, and called through its Ingress as users call it."""

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.cluster.place import IMAGES, command, kubectl

T = TypeVar("T")
R = TypeVar("R", bound="Release")
Object = dict[str, Any]

CHART = Path(__file__).resolve().parents[2] / "chart"
API = "/api/v1/pipeline"
FUNCTIONS = ("run", "status", "active", "cancel", "history", "stream", "docs")
PATIENCE_SECONDS = 180.0  # to give up, on a busy machine; no test passes by waiting it out
INGRESS = os.environ.get("TEST_INGRESS", "127.0.0.1:8080")

# A run that goes on until the test lets it (see `Release.let`); what it says is known.
HELD = "echo ready; until [ -e /tmp/go ]; do sleep 0.1; done; echo done"
HELD_LOG = ["ready", "done"]
# One that `helm test` follows: it goes on for as long as a follower takes to be there.
TOLD = "for number in $(seq 30); do echo $number; sleep 0.1; done"


@dataclass(frozen=True)
class Release:
    """One installation with two namespaces of its own, and the first caller's token."""

    mark: str

    @property
    def name(self) -> str:
        """The release's name, which everything in it begins with."""
        return f"nfc-{self.mark}-nextflow-controller"

    @property
    def namespace(self) -> str:
        """Where the functions are."""
        return f"nfc-system-{self.mark}"

    @property
    def runs(self) -> str:
        """Where runs are."""
        return f"nfc-runs-{self.mark}"

    @property
    def host(self) -> str:
        """What the functions are called by."""
        return f"{self.mark}.nfc.test"

    # Life.

    def install(self, chart: Path = CHART) -> None:
        """Install it, with pods that Pod Security `restricted` takes, and wait until the Ingress leads to all of it."""
        kubectl("create", "namespace", self.namespace)
        kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        self.helm("install", chart=chart)
        self.reached()

    def reached(self) -> None:
        """Wait until all pods are there, and the Ingress leads to them."""
        self.rolled_out()
        for function in FUNCTIONS:
            path = "/docs" if function == "docs" else f"{API}/{function}"
            until(lambda path=path: not _is_away(self.look(path)), f"the Ingress to lead to {function}")  # type: ignore[misc]

    def helm(self, verb: str, *flags: str, chart: Path = CHART, **settings: str) -> str:
        """`helm install` or `upgrade` with the tests' values, and more settings; what helm says."""
        repository, _, tag = IMAGES["functions"].rpartition(":")
        values = {
            "image": {"repository": repository, "tag": tag},
            # Several releases find room on a small node, beside tasks that ask for a whole CPU.
            "defaults": {"replicas": 1, "resources": {"requests": {"cpu": "5m"}}},
            "functions": {"run": {"replicas": 3}},
            "ingress": {"host": self.host},
            "redis": {"image": IMAGES["valkey"], "resources": {"requests": {"cpu": "5m"}}},
            "runs": {"namespace": self.runs, "headImage": IMAGES["head"]},
            "work": {"accessMode": "ReadWriteOnce"},
            # Tests ask more often than people, and their heads run a script and do not clean up.
            "settings": {
                "RATE_LIMITS": "off",
                "PIPELINE_SOURCES": "./,owner/",
                "CANCEL_GRACE_SECONDS": "1",
                **settings,
            },
        }
        if chart == CHART:  # an older one knows less
            values["test"] = {"idleSeconds": 10, "run": {"pipeline": "owner/stub", "parameters": {"script": TOLD}}}
        given = ("--namespace", self.namespace, "--timeout", "180s", "--values", "-", *flags)
        return command("helm", verb, f"nfc-{self.mark}", str(chart), *given, stdin=json.dumps(values))

    def rolled_out(self) -> None:
        """Wait for all pods. Not helm's `--wait`: a volume may be made for its first pod only."""
        for what in (f"statefulset/{self.name}-redis", *(f"deployment/{self.name}-{name}" for name in FUNCTIONS)):
            kubectl("rollout", "status", what, f"--namespace={self.namespace}", "--timeout=180s")

    def uninstall(self) -> None:
        """Remove it, and what it keeps for its users."""
        try:
            command("helm", "uninstall", f"nfc-{self.mark}", "--namespace", self.namespace)
        finally:
            kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", self.namespace, self.runs)

    # The cluster.

    def get(self, *what: str, namespace: str = "") -> Any:
        """`kubectl get`, as it is in JSON."""
        return json.loads(kubectl("get", "--namespace", namespace or self.namespace, "--output", "json", *what))

    def secret(self, name: str) -> dict[str, str]:
        """A Secret of the release."""
        data = self.get("secret", f"{self.name}-{name}")["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    @property
    def token(self) -> str:
        """The first caller's token."""
        return self.secret("tokens")["token"]

    def jobs(self) -> set[str]:
        """Names of the Jobs there are."""
        return {item["metadata"]["name"] for item in self.get("jobs", namespace=self.runs)["items"]}

    def pods_of(self, run_id: str) -> list[str]:
        """Names of all pods of a run."""
        found = self.get("pods", "--selector", f"nextflow-controller/run-id={run_id}", namespace=self.runs)
        return [item["metadata"]["name"] for item in found["items"]]

    def let(self, run_id: str) -> None:
        """Let a HELD run go on to its end, as soon as its node takes such a word."""
        touch = ("kubectl", "exec", "--namespace", self.runs, f"job/{run_id}", "--", "touch", "/tmp/go")  # noqa: S108
        until(
            lambda: subprocess.run(touch, capture_output=True, check=False).returncode == 0, f"{run_id} to be let go on"
        )

    def evict(self, run_id: str) -> None:
        """Have a run's head taken from its node, as a drain or an autoscaler does it."""
        (head,) = [name for name in self.pods_of(run_id) if name.startswith(run_id)]
        path = f"/api/v1/namespaces/{self.runs}/pods/{head}/eviction"
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": head, "namespace": self.runs}}
        command("kubectl", "create", "--raw", path, "--filename", "-", stdin=json.dumps(body))

    def pods(self, component: str) -> dict[str, Object]:
        """A component's pods that are not on their way out, by uid."""
        chosen = f"app.kubernetes.io/component={component},app.kubernetes.io/instance=nfc-{self.mark}"
        found = self.get("pods", "--selector", chosen, namespace=self.place_of(component))["items"]
        return {item["metadata"]["uid"]: item for item in found if "deletionTimestamp" not in item["metadata"]}

    def place_of(self, component: str) -> str:
        """The namespace of a component."""
        return self.runs if component == "archive" else self.namespace

    def kill(self, component: str) -> None:
        """End all pods of a component as a crash would, and wait until as many others are ready."""
        old = self.pods(component)
        names = [pod["metadata"]["name"] for pod in old.values()]
        kubectl("delete", "pods", "--namespace", self.place_of(component), "--grace-period=0", "--force", *names)
        self.await_pods(component, len(old), but=old)

    def await_pods(self, component: str, count: int, but: Container[str] = ()) -> None:
        """Wait until a component has so many pods, all ready; none of those of the uids `but`."""

        def there() -> bool:
            pods = self.pods(component)
            return len(pods) == count and all(uid not in but and _is_ready(pod) for uid, pod in pods.items())

        until(there, f"{count} pods of {component}")

    def scale(self, function: str, replicas: int) -> None:
        """Have a function so many pods; returns at once."""
        deployment = f"deployment/{self.name}-{function}"
        kubectl("scale", "--namespace", self.namespace, deployment, f"--replicas={replicas}")

    def scale_redis(self, replicas: int) -> None:
        """Take Redis away (0), or bring it back (1)."""
        redis = f"statefulset/{self.name}-redis"
        kubectl("scale", "--namespace", self.namespace, redis, f"--replicas={replicas}")
        self.await_pods("redis", replicas)

    def empty_redis(self) -> None:
        """Have Redis lose all it has."""
        kubectl("exec", "--namespace", self.namespace, f"{self.name}-redis-0", "--", "rm", "-rf", "/data/appendonlydir")
        self.kill("redis")

    # Calls.

    @property
    def headers(self) -> dict[str, str]:
        """What a caller sends."""
        return {"host": self.host, "authorization": f"Bearer {self.token}"}

    def look(self, path: str) -> httpx.Response:
        """One GET."""
        return httpx.get(f"http://{INGRESS}{path}", headers=self.headers, trust_env=False, timeout=PATIENCE_SECONDS)

    @asynccontextmanager
    async def caller(self) -> AsyncIterator["Caller"]:
        """The first caller, at the Ingress."""
        limits = httpx.Limits(max_connections=200)
        base = f"http://{INGRESS}{API}"
        async with httpx.AsyncClient(
            base_url=base, headers=self.headers, timeout=PATIENCE_SECONDS, trust_env=False, limits=limits
        ) as http:
            yield Caller(self, http)


@dataclass(frozen=True)
class Caller:
    """Somebody who calls the functions."""

    release: Release
    http: httpx.AsyncClient

    async def start(self, script: str, **request: Any) -> httpx.Response:
        """Ask for a run whose head runs this script."""
        body = {"pipeline": "owner/stub", "parameters": {"script": script}, **request}
        return await self.http.post("/run", json=body)

    async def asked(self, script: str) -> httpx.Response:
        """Ask for a run, until anybody answers; 503 with Retry-After means that nothing was started, or perhaps."""

        async def ask() -> httpx.Response | None:
            response = await self.start(script)
            return None if _is_away(response) else response

        return await eventually(ask, "POST /run to answer")

    async def started(self, script: str) -> str:
        """Start a run; its id."""
        response = await self.start(script)
        assert response.status_code == 201, response.text
        return str(response.json()["run_id"])

    async def json(self, path: str, **query: Any) -> Any:
        """What a GET answers, which is 200."""
        response = await self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    async def truth(self, path: str, **query: Any) -> Any:
        """What a GET answers, once it does: a function that is away at this moment says so and claims nothing."""

        async def ask() -> Any:
            response = await self.http.get(path, params=query)
            if _is_away(response):
                return None
            assert response.status_code == 200, response.text
            return response.json()

        return await eventually(ask, f"{path} to answer")

    async def cancel(self) -> httpx.Response:
        """Cancel what is active, until it is gone."""

        async def ask() -> httpx.Response | None:
            response = await self.http.delete("/cancel")
            return None if response.status_code == 202 or _is_away(response) else response

        return await eventually(ask, "the run to be gone")

    async def ended(self, run_id: str) -> Any:
        """A run's status once it has ended."""

        async def ask() -> Any:
            status = await self.truth("/status", run_id=run_id)
            return status if status["finished_at"] else None

        return await eventually(ask, f"{run_id} to end")

    async def ready(self, run_id: str) -> None:
        """Return once a HELD run waits to be let go on."""
        async with self.http.stream("GET", "/stream", params={"run_id": run_id}) as response:
            async for line in response.aiter_lines():
                if line == HELD_LOG[0]:
                    return
        raise AssertionError(f"{run_id} has ended without a word")

    # The log by each transport, to its end.

    async def text(self, run_id: str, **query: Any) -> str:
        """As plain text."""
        response = await self.http.get("/stream", params={"run_id": run_id, **query})
        assert response.status_code == 200, response.text
        return response.text

    async def ndjson(self, run_id: str, **query: Any) -> list[Object]:
        """As NDJSON, from who is there at this moment or comes next."""

        async def ask() -> httpx.Response | None:
            headers = {"accept": "application/x-ndjson"}
            response = await self.http.get("/stream", params={"run_id": run_id, **query}, headers=headers)
            return None if _is_away(response) else response

        response = await eventually(ask, "a stream")
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines() if line]

    async def sse(self, run_id: str) -> list[Object]:
        """As Server-Sent Events; the field `id` and the event's own are the same."""
        headers = {"accept": "text/event-stream"}
        response = await self.http.get("/stream", params={"run_id": run_id}, headers=headers)
        assert response.status_code == 200, response.text
        found = []
        for block in response.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in fields:
                event = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (event["id"], event["type"])
                found.append(event)
        return found

    async def websocket(self, run_id: str) -> list[Object]:
        """As a WebSocket, which closes with 1000 when all is sent."""
        host, _, port = INGRESS.rpartition(":")
        headers = {"authorization": f"Bearer {self.release.token}"}
        url = f"ws://{self.release.host}{API}/stream?run_id={run_id}"
        async with connect(url, host=host, port=int(port), additional_headers=headers, proxy=None) as socket:
            found = [json.loads(message) async for message in socket]
        assert socket.close_code == 1000
        return found


def log(events: list[Object]) -> list[tuple[str, str]]:
    """The log that events carry: ids and lines."""
    assert [event for event in events if event["type"] in ("gap", "error")] == []
    return [(event["id"], event["data"]["line"]) for event in events if event["type"] == "log"]


async def eventually(ask: Callable[[], Awaitable[T | None]], what: str) -> T:
    """What `ask` says, once it says anything."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (said := await ask()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.05)
    return said


def until(ask: Callable[[], bool], what: str) -> None:
    """Return once `ask` says yes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ask():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


def _is_away(response: httpx.Response) -> bool:
    """Whether the Ingress, or the function itself, says that it cannot answer at this moment.

    An Ingress may know nothing of a path whose function has no pods; the function's own 404 is an answer.
    """
    theirs = response.headers.get("content-type") != "application/problem+json"
    return response.status_code in (502, 503, 504) or (response.status_code == 404 and theirs)


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextmanager
def installed(release: R) -> Iterator[R]:
    """A release for as long as it is needed, where a cluster is to be tested on."""
    if "TEST_CLUSTER" not in os.environ:  # whoever has a KUBECONFIG need not want tests in that cluster
        pytest.skip("make test-cluster runs it on a cluster")
    try:
        release.install()
        yield release
    finally:
        release.uninstall()
