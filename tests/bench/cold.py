"""Cold starts: from the start of the process to the first 200, and the memory it then has.

Each function and the bare one are started by the same command line, in turn. What is asked needs
the function's whole way: `run` is attached to the active run, `cancel` is told of the ended one, and
status, active and history look at the runner themselves, as after a while in which nobody asked;
"fresh" is what they take when somebody did within a second. Where the bare starts differ much from each
other the machine had other things to do, and the figures are void.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import psutil

from tests.bench.report import Row
from tests.bench.scene import API, PATIENCE_SECONDS, ROOT, Scene

HELLO = "hello"
READERS = ("active", "status", "history")
FUNCTIONS = (*READERS, "run", "cancel")
# With the Kubernetes client, which status, active and history need only where nothing in Redis is fresh.
_BOUNDS = {
    "local": {"active": 2.0, "status": 2.0, "history": 2.0, "run": 2.3, "cancel": 2.3},
    "kubernetes": {"run": 2.7, "cancel": 2.7},
}
_FRESH_BOUND = 2.0
_MEMORY_MB = 75
_UNEVEN = 1.25  # third quartile over first


@dataclass(frozen=True, slots=True)
class Start:
    """One cold start: seconds to the first answer; MB of the worker, and of it and its master together."""

    seconds: float
    worker_mb: float
    all_mb: float
    all_pss_mb: float


def rows(scene: Scene, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Start everything so often, in turn."""
    sides = [(HELLO, False), *((name, False) for name in FUNCTIONS), *((name, True) for name in READERS)]
    starts: dict[tuple[str, bool], list[Start]] = {side: [] for side in sides}
    for number in range(-1, rounds):  # the first one compiles, and is not counted
        say(f"cold starts, round {number + 1} of {rounds}")
        for name, fresh in sides:
            found = _start(scene, name, fresh=fresh)
            if number >= 0:
                starts[name, fresh].append(found)
    hello = starts.pop((HELLO, False))
    return [*_times(scene.runner, starts, hello), *_memory(starts, hello)]


def _times(runner: str, starts: Mapping[tuple[str, bool], Sequence[Start]], hello: Sequence[Start]) -> Iterator[Row]:
    bare = [start.seconds * 1000 for start in hello]
    for (name, fresh), found in starts.items():
        what = f"cold start of {name}{', fresh' if fresh else ''}"
        bound = _FRESH_BOUND if fresh else _BOUNDS[runner].get(name)
        yield Row(what, "ms", [start.seconds * 1000 for start in found], bare, bound, void=_void(bare))


def _void(bare: Sequence[float]) -> str:
    low, _, high = quantiles(bare, n=4) if len(bare) > 1 else [*bare] * 3
    return f"bare starts differ by {high / low - 1:.0%}" if high / low > _UNEVEN else ""


def _memory(starts: Mapping[tuple[str, bool], Sequence[Start]], hello: Sequence[Start]) -> Iterator[Row]:
    for name in READERS:
        found, bound = starts[name, False], _MEMORY_MB
        worker = [start.worker_mb for start in found], [start.worker_mb for start in hello]
        yield Row(f"memory of {name}: worker, RSS", "MB", *worker, bound, "figure")
        both = [start.all_pss_mb for start in found], [start.all_pss_mb for start in hello]
        yield Row(f"memory of {name}: worker and master, PSS", "MB", *both)
        both = [start.all_mb for start in found], [start.all_mb for start in hello]
        yield Row(f"memory of {name}: worker and master, RSS", "MB", *both)


def _start(scene: Scene, name: str, *, fresh: bool) -> Start:
    question = _question(scene, name)
    scene.refresh() if fresh else scene.forget()
    began = time.perf_counter()
    with process(scene, name, scene.environ) as (started, port):
        answer = _asked(port, question, started)
        seconds = time.perf_counter() - began
        if answer[9:12] != b"200":
            raise RuntimeError(f"{name} answers {answer.decode()}\n{_log(scene, name).read_text()}")
        return Start(seconds, *_resident(started.pid))


@contextmanager
def process(scene: Scene, name: str, environ: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A function as functions-framework serves it, on a port that was free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    source = "tests/bench/hello.py" if name == HELLO else f"functions/{name}/main.py"
    command = [str(Path(sys.executable).with_name("functions-framework")), "--source", source, "--target", name]
    command += ["--asgi", "--host", "127.0.0.1", "--port", str(port)]
    with _log(scene, name).open("wb") as output:
        started = subprocess.Popen(command, cwd=ROOT, env=dict(environ), stdout=output, stderr=output)
    try:
        yield started, port
    finally:
        started.terminate()
        started.wait()


def first_answer(scene: Scene, name: str, environ: Mapping[str, str]) -> str:
    """What a function's processes have written by the time they have answered and ended."""
    with process(scene, name, environ) as (started, port):
        _asked(port, _question(scene, name), started)
    return _log(scene, name).read_text()


def _log(scene: Scene, name: str) -> Path:
    return scene.directory / f"{name}.log"


def _question(scene: Scene, name: str) -> bytes:
    body = json.dumps({"pipeline": "tests/pipelines/sleeper.nf"}).encode() if name == "run" else b""
    method = {"run": "POST", "cancel": "DELETE"}.get(name, "GET")
    query = f"?run_id={scene.ended}" if name == "cancel" else ""
    headers = {**scene.headers, "host": "127.0.0.1", "content-type": "application/json", "content-length": len(body)}
    lines = [f"{method} {API}/{name}{query} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _asked(port: int, question: bytes, started: subprocess.Popen[bytes]) -> bytes:
    """The answer to a question that is put as soon as somebody listens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
                connection.sendall(question)
                return connection.recv(65_536)
        except ConnectionRefusedError:
            if started.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def _resident(pid: int) -> tuple[float, float, float]:
    master = psutil.Process(pid)
    family = [master, *master.children(recursive=True)]
    memory = [each.memory_full_info() for each in family]
    rss, pss = ([getattr(part, kind) / 1e6 for part in memory] for kind in ("rss", "pss"))
    return rss[-1], sum(rss), sum(pss)
