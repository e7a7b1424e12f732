"""Where faults are made: real servers on one Redis, and heads that run a script in place of Nextflow.

Any number of servers share a place, as the replicas of a deployment do: one that something is done to (the victim)
and one that goes on (the witness). Each head begins with a lock on one file of the place, which it and all that it
starts hold until they are gone: so no second one can be there for a moment without saying so in its log.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from common.local import toolchain
from tests.cluster.place import IMAGES, kubectl
from tests.integration.redis_servers import EXECUTABLES, Server
from tests.integration.server import PROGRAM, LocalServer, belongings, poll, processes

BROKEN = (sys.executable, "-m", "tests.chaos.broken")
SITE = Path(__file__).with_name("site")
LINES = 5

_STUB = """\
#!{python} -IS
import json, os, sys
if "-version" in sys.argv:
    sys.exit(print("version 0.0.0"))
with open(sys.argv[sys.argv.index("-params-file") + 1]) as file:
    script = json.load(file)["script"]
os.execvp("bash", ["bash", "-c", script])
"""

# Bounds are short, so that who is stopped for longer than all of them need not be stopped for long.
_BOUNDS = {
    "PIPELINE_SOURCES": "*",
    "REDIS_TIMEOUT_SECONDS": "1",
    "BUSY_WAIT_SECONDS": "1",
    "CANCEL_GRACE_SECONDS": "1",
    "CANCEL_WAIT_SECONDS": "4",
    "HISTORY_MAX_RUNS": "5000",  # all that is asked for is looked for in the end
}


class Place(Protocol):
    """Servers, their Redis, and where their runs happen."""

    name: str

    def server(self, program: Sequence[str] = PROGRAM, **environ: str) -> LocalServer:
        """One more server, started."""

    def head(self, tag: str, *, held: bool = True, listing: bool = False) -> str:
        """The script of a run: see `script`."""

    def let(self, run_id: str, tags: Sequence[str]) -> None:
        """Let a held run go on to its end, whose tag is one of these."""

    def left(self) -> list[str]:
        """What is there besides servers and Redis."""

    def close(self) -> None:
        """End everything."""


def script(work: str, tag: str, *, held: bool, listing: bool) -> str:
    """What a head runs: it says `said`, with all tags before its end if it is `listing`; held, it waits to be let."""
    alone = f"exec 9>>{work}/slot; flock -n 9 && word=alone || word=beside; echo {tag} >&9; echo {tag} $word"
    wait = f"until [ -e {work}/go-{tag} ]; do sleep 0.02; done" if held else ":"
    return f"{alone}; {wait}; seq {LINES}; {f'cat {work}/slot' if listing else ':'}; echo done"


def said(tag: str) -> list[str]:
    """All that a head says that was not disturbed."""
    return [f"{tag} alone", *map(str, range(1, LINES + 1)), "done"]


def redis_server(directory: Path, *options: str) -> Server:
    """A Redis of whatever kind there is."""
    found = next(filter(None, (EXECUTABLES[kind] for kind in ("redis", "valkey", "redis-6.2"))))
    return Server(found, directory, options)


class _Servers:
    """The servers of one place, on this machine."""

    def __init__(self, state: Path, environ: Mapping[str, str]) -> None:
        self.state = state
        self._environ = environ
        self._servers: list[LocalServer] = []

    def server(self, program: Sequence[str] = PROGRAM, **environ: str) -> LocalServer:
        """One more server, started."""
        made = LocalServer(self.state, program=program, **{**_BOUNDS, **self._environ, **environ})
        made.start()
        self._servers.append(made)
        return made

    def end_servers(self) -> None:
        """Kill those that live."""
        for server in self._servers:
            if server.alive:
                server.kill()


class Local(_Servers):
    """A state directory, a Redis, and a stub of Nextflow on this machine."""

    name = "local"

    def __init__(self, root: Path, *redis_options: str, **environ: str) -> None:
        self.root = root
        self._work = root / "work"
        self._work.mkdir()
        self._redis = None
        if "REDIS_URL" not in environ:
            self._redis = redis_server(root / "redis", "appendonly yes", *redis_options)
            environ["REDIS_URL"] = self._redis.url
        stub = root / "nextflow"
        stub.write_text(_STUB.format(python=sys.executable))
        stub.chmod(0o755)
        super().__init__(root / "state", {"NEXTFLOW": str(stub), "TOOLCHAIN_DIR": str(root / "toolchain"), **environ})
        toolchain.install(root / "toolchain", {**os.environ, **self._environ}, lambda _: None)

    @property
    def redis(self) -> Server:
        """The Redis of the place's own."""
        assert self._redis is not None
        return self._redis

    def head(self, tag: str, *, held: bool = True, listing: bool = False) -> str:
        """The script of a run."""
        return script(str(self._work), tag, held=held, listing=listing)

    def let(self, run_id: str, tags: Sequence[str]) -> None:
        """Let a held run go on to its end."""
        for tag in tags:
            (self._work / f"go-{tag}").touch()

    def left(self) -> list[str]:
        """The processes of runs."""
        return [f"process {process.pid}" for process in self.processes()]

    def processes(self) -> list[psutil.Process]:
        """All processes of runs; a supervisor that has just begun is not in the state directory yet."""
        found = belongings(self.state)
        for process in processes("common.local.supervisor"):
            with suppress(psutil.Error):
                if process not in found and process.environ().get("STATE_DIR") == str(self.state):
                    found.append(process)
        return found

    def close(self) -> None:
        """End everything."""
        self.end_servers()
        if self._redis:
            self._redis.kill()
        for _ in poll("everything to be gone"):
            left = belongings(self.root) + self.processes()
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if not left:
                break


class Cluster(_Servers):
    """A namespace of the cluster that KUBECONFIG names, with the image of tests/cluster/head; servers are here."""

    name = "cluster"

    def __init__(self, root: Path, namespace: str, kubeconfig: str = "") -> None:
        self.namespace = namespace
        self.redis = redis_server(root / "redis", "appendonly yes")
        kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(_CLAIM))
        environ = {
            "REDIS_URL": self.redis.url,
            "RUNNER": "kubernetes",
            "RELEASE_NAMESPACE": namespace,
            "RUN_NAMESPACE": namespace,
            "HEAD_IMAGE": IMAGES["head"],
            "WORK_CLAIM": _CLAIM["metadata"]["name"],
        }
        super().__init__(root / "state", environ | ({"KUBECONFIG": kubeconfig} if kubeconfig else {}))

    def head(self, tag: str, *, held: bool = True, listing: bool = False) -> str:
        """The script of a run."""
        return script("/workspace", tag, held=held, listing=listing)

    def let(self, run_id: str, tags: Sequence[str]) -> None:
        """Let a held run go on to its end, as far as its head is there already."""
        files = [f"/workspace/go-{tag}" for tag in tags]
        command = ["kubectl", "exec", "--namespace", self.namespace, f"job/{run_id}", "--", "touch", *files]
        subprocess.run(command, capture_output=True, check=False)

    def left(self) -> list[str]:
        """The pods that live, and the Jobs that do."""
        found = json.loads(kubectl("get", "pods", "--namespace", self.namespace, "--output", "json"))["items"]
        return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] in ("Pending", "Running")]

    def close(self) -> None:
        """End the servers; the namespace goes with whoever made it."""
        self.end_servers()
        self.redis.kill()


_CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "work"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
}
