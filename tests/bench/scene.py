"""What both sides meet: a Redis, an ended run and an active one, a caller with a token.

Runs are made by the real server, with a stub in Nextflow's place: it ends at once, or has one task and sleeps. On
Kubernetes that is the head image of the contract tests.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from common.callers import add
from common.connection import Connection
from common.local import toolchain
from common.lock import Lock
from common.settings import Settings
from tests.cluster.place import IMAGES, namespace
from tests.redis_server import OwnRedis

ROOT = Path(__file__).resolve().parents[2]
API = "/api/v1/pipeline"
PATIENCE_SECONDS = 60.0

_STUB = """\
#!/bin/sh
case "$*" in
  -version) echo "      version 24.10.0 build 1" ;;
  *sleeper.nf*) echo "[ab/123456] Submitted process > SLEEP (1)"; exec sleep 3600 ;;
esac
"""


@dataclass(frozen=True)
class Scene:
    """Where everything is measured.

    Attributes:
        runner: where runs happen, `local` or `kubernetes`.
        environ: of every process: the defaults, but for where things are.
        ended: the id of the run that has.
        record: a key in Redis, with what /active answers.
    """

    runner: str
    directory: Path
    environ: Mapping[str, str]
    headers: Mapping[str, str]
    url: str
    redis_pid: int
    ended: str
    record: str

    def refresh(self) -> None:
        """Have somebody look at what is active, whatever was seen before: that is good for a second from now."""
        self.forget()
        _call(self.url, self.headers, "GET", "/active")

    def forget(self) -> None:
        """Have the next caller look."""
        asyncio.run(_give_up_look(Settings.read(self.environ)))


@contextmanager
def scene(runner: str) -> Iterator[Scene]:
    """A scene, and nothing left of it afterwards."""
    place: AbstractContextManager[dict[str, str]] = _namespace() if runner == "kubernetes" else nullcontext({})
    with tempfile.TemporaryDirectory(prefix="nfc-bench-", ignore_cleanup_errors=True) as name, place as where:
        directory = Path(name)
        own = OwnRedis(directory / "redis")
        try:
            environ = {**_environ(directory, own.url), **where}
            token = add(Settings.read(environ).token_path, "bench", "run")
            with serving(directory, "server", "functions.server", environ={**environ, "RATE_LIMITS": "off"}) as server:
                headers = {"authorization": f"Bearer {token}"}
                try:
                    yield _made(runner, directory, environ, headers, server.url)
                finally:
                    httpx.delete(f"{server.url}{API}/cancel", headers=headers, timeout=PATIENCE_SECONDS)
        finally:
            own.stop()
            _end_left(directory)


def _end_left(directory: Path) -> None:
    """End a recorder that Redis' end has met at work: it would wait for it."""
    every = psutil.process_iter(["cmdline"])
    left = [process for process in every if any(str(directory) in part for part in process.info["cmdline"] or ())]
    _, left = psutil.wait_procs(left, timeout=1)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def _namespace() -> Iterator[dict[str, str]]:
    """A namespace of the cluster of KUBECONFIG, as settings name it."""
    with namespace("bench") as name:
        yield {
            "RUNNER": "kubernetes",
            "RELEASE_NAMESPACE": name,
            "RUN_NAMESPACE": name,
            "HEAD_IMAGE": IMAGES["head"],
            "PIPELINE_SOURCES": "*",
            "CANCEL_GRACE_SECONDS": "1",
        }


async def _give_up_look(settings: Settings) -> None:
    connection = Connection.open(settings)
    lock = Lock(connection, settings.redis_prefix)
    await lock.give_up(await lock.ask(fresh_ms=0))
    await connection.close()


def _environ(directory: Path, redis_url: str) -> dict[str, str]:
    ours = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    stub = directory / "nextflow"
    stub.write_text(_STUB)
    stub.chmod(0o755)
    places = {"STATE_DIR": str(directory / "state"), "TOOLCHAIN_DIR": str(directory / "toolchain")}
    environ = inherited | places | {"REDIS_URL": redis_url, "NEXTFLOW": str(stub), "PORT": "0"}
    toolchain.install(directory / "toolchain", environ, lambda _: None)
    return environ


def _made(runner: str, directory: Path, environ: Mapping[str, str], headers: Mapping[str, str], url: str) -> Scene:
    ended = _run(url, headers, "params", "true", lambda status: status["finished_at"])
    said = "progress" if runner == "local" else "started_at"
    _run(url, headers, "sleeper", "sleep 3600", lambda status: status[said])
    record = "bench:record"
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        client.set(record, _call(url, headers, "GET", "/active").content)
        pid: int = client.info("server")["process_id"]
    return Scene(runner, directory, environ, headers, url, pid, ended, record)


def _run(
    url: str, headers: Mapping[str, str], pipeline: str, script: str, until: Callable[[dict[str, Any]], object]
) -> str:
    """Start a run and wait until its status is as wanted; on Kubernetes its head runs the script."""
    body = {"pipeline": f"tests/pipelines/{pipeline}.nf", "parameters": {"script": script}}
    run_id: str = _call(url, headers, "POST", "/run", body).json()["run_id"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until(_call(url, headers, "GET", f"/status?run_id={run_id}").json()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{pipeline} does not get anywhere")
        time.sleep(0.1)
    return run_id


def _call(url: str, headers: Mapping[str, str], method: str, path: str, body: object = None) -> httpx.Response:
    response = httpx.request(method, url + API + path, headers=dict(headers), json=body, timeout=PATIENCE_SECONDS)
    return response.raise_for_status()


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens."""

    url: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serving(directory: Path, name: str, module: str, *arguments: str, environ: Mapping[str, str]) -> Iterator[Server]:
    """A module of the repository that serves, once it has said where; its output is kept in a file."""
    output = directory / f"{name}.log"
    with output.open("wb") as file:
        command = [sys.executable, "-m", module, *arguments]
        # A session of its own: Ctrl-C is for the bench, which has to cancel its run.
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environ), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield Server(_said(process, output), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _said(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := re.search(r"^listening on (http://[\d.:]+)", output.read_text(), re.MULTILINE)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(output.read_text())
        time.sleep(0.02)
    return found[1]
