"""The API server gone in the middle of a run, first mute and then not there at all.

The functions reach it through a proxy of the test's, which stands for the network between them.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cluster.place import IMAGES, kubectl, namespace
from tests.cluster.release import eventually
from tests.integration.server import LocalServer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster"),
]

AWAY_SECONDS = 30.0  # longer than a call to the API server is waited for
SCRIPT = "echo ready; until [ -e /tmp/go ]; do sleep 0.1; done; echo done"


class Proxy:
    """Passes connections on to the API server; `mute` it passes nothing more, `gone` it is not there."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._mute = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def there(self) -> None:
        """Be there, on the same port as before."""
        self._mute.clear()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def mute(self) -> None:
        """Take connections, and let nothing through."""
        self._mute.set()

    async def gone(self) -> None:
        """Not be there; what was connected is cut."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # of one that never began, too

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            back, far = await asyncio.open_connection(*self._to)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far))
                group.create_task(self._pass(back, writer))
        finally:
            if far is not None:
                far.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if self._mute.is_set():
                    await asyncio.Event().wait()
                to.write(data)
                await to.drain()


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy to the cluster of KUBECONFIG, and `tmp_path/kubeconfig` that leads through it."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))
    cluster = config["clusters"][0]["cluster"]
    real = urlsplit(cluster["server"])
    assert real.hostname is not None
    made = Proxy(real.hostname, real.port or 443)
    await made.there()
    cluster["server"] = f"https://127.0.0.1:{made.port}"
    cluster["tls-server-name"] = real.hostname
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    yield made
    await made.gone()


@pytest.fixture
def own() -> Iterator[str]:
    """An empty namespace."""
    with namespace("away") as name:
        yield name


@pytest.fixture
def server(tmp_path: Path, proxy: Proxy, own: str) -> Iterator[LocalServer]:
    """The functions, on this side of the proxy."""
    made = LocalServer(
        tmp_path / "state",
        RUNNER="kubernetes",
        KUBECONFIG=str(tmp_path / "kubeconfig"),
        RELEASE_NAMESPACE=own,
        RUN_NAMESPACE=own,
        HEAD_IMAGE=IMAGES["head"],
        PIPELINE_SOURCES="*",
    )
    made.start()
    yield made
    made.stop()


async def ask(server: LocalServer, method: str, path: str, **options: Any) -> httpx.Response:
    """One call, while the proxy goes on."""
    return await asyncio.to_thread(server.call, method, path, **options)


@pytest.mark.fault("the network to the API server swallows everything, then the API server is not there")
async def test_an_api_server_that_is_away(server: LocalServer, proxy: Proxy, own: str) -> None:
    """Answers are the truth of a moment ago or 503; nothing is started or cancelled; after it all goes on."""
    body = {"pipeline": "owner/stub", "parameters": {"script": SCRIPT}}
    run_id = (await ask(server, "POST", "/run", json=body)).json()["run_id"]
    following = asyncio.create_task(asyncio.to_thread(server.text, run_id))

    async def running() -> bool:
        return bool((await ask(server, "GET", "/status")).json()["status"] == "running")

    await eventually(running, "the run to run")
    calls: tuple[tuple[str, str, dict[str, Any]], ...]
    calls = (("GET", "/active", {}), ("GET", "/status", {}), ("GET", "/history", {}), ("POST", "/run", {"json": body}))
    told: list[tuple[str, int]] = []

    async def all_the_while(until: float) -> None:
        while time.monotonic() < until:
            for method, path, options in calls:
                answer = await ask(server, method, path, **options)
                told.append((path, answer.status_code))
                if answer.status_code == 503:
                    assert answer.json()["dependency"] == "runner"
                    assert int(answer.headers["retry-after"]) >= 1
                else:  # of a record that is fresh
                    assert (answer.status_code, run_id in answer.text) == (200, True)

    proxy.mute()
    await all_the_while(time.monotonic() + AWAY_SECONDS / 2)
    await proxy.gone()
    await all_the_while(time.monotonic() + AWAY_SECONDS / 2)
    assert {path for path, status in told if status == 503} == {path for _, path, _ in calls}
    refused = await ask(server, "DELETE", "/cancel")
    assert (refused.status_code, refused.json()["dependency"]) == (503, "runner")
    for path, status in (("/healthz", 200), ("/readyz", 503)):
        answer = await asyncio.to_thread(httpx.get, server.url + path, timeout=60)
        assert answer.status_code == status
    await proxy.there()

    async def back() -> bool:
        answer = await ask(server, "GET", "/status")
        return answer.status_code == 200 and answer.json()["status"] == "running"

    await eventually(back, "the truth again")
    jobs = json.loads(kubectl("get", "jobs", "--namespace", own, "--output", "json"))["items"]
    assert [job["metadata"]["name"] for job in jobs] == [run_id]
    kubectl("exec", "--namespace", own, f"job/{run_id}", "--", "touch", "/tmp/go")  # noqa: S108  # the pod's
    ended = await asyncio.to_thread(server.ended, run_id)
    assert (ended["status"], ended["exit_code"]) == ("succeeded", 0)
    assert [line for line in (await following).splitlines() if not line.startswith("#")] == ["ready", "done"]
