"""The local server as a user has it: a process of its own, on a free port, with a state directory of its own."""

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "functions.server")
API = "/api/v1/pipeline"
ENDS = {"succeeded", "failed", "cancelled"}
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused; httpx would make one a call, which costs more than the call
PATIENCE_SECONDS = 90.0  # to give up, on a busy machine; no test passes by waiting it out


class LocalServer:
    """A server that can be started, killed and started again on the same state."""

    def __init__(self, state_dir: Path, *, program: Sequence[str] = PROGRAM, **environ: str) -> None:
        self.state_dir = state_dir
        self._program = program
        self._environ = environ
        self._process: subprocess.Popen[str] | None = None
        self._listener = threading.Thread()
        self.output: list[str] = []
        self.url = ""

    def start(self) -> None:
        """Start it and wait until it says where it listens."""
        # Tests ask more often than people: limits have tests of their own.
        environ = {**os.environ, "PORT": "0", "STATE_DIR": str(self.state_dir), "RATE_LIMITS": "off", **self._environ}
        self._process = subprocess.Popen(
            self._program, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=(self._process, said), daemon=True)
        self._listener.start()
        assert said.wait(PATIENCE_SECONDS), "".join(self.output)
        assert self._process.poll() is None, "".join(self.output)

    def _listen(self, process: "subprocess.Popen[str]", said: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line)
                if found := re.match(r"listening on (http://[\d.:]+)", line):
                    self.url = found[1]
                    said.set()
        said.set()

    def kill(self) -> None:
        """End it as a crash would: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE_SECONDS)
        self._listener.join(1)  # a Redis that outlives a killed server holds the pipe open

    @property
    def process(self) -> psutil.Process:
        """The process, as it was started."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    # Calls of the API.

    @property
    def authorization(self) -> dict[str, str]:
        """The header that shows the token which the server has made."""
        return {"authorization": f"Bearer {(self.state_dir / 'token').read_text('ascii').strip()}"}

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """One call, with the server's token."""
        shown = {**self.authorization, **(headers or {})}
        return httpx.request(method, self.url + API + path, timeout=60, headers=shown, verify=_NO_TLS, **options)

    def run(self, pipeline: str, headers: dict[str, str] | None = None, **request: Any) -> dict[str, Any]:
        """Start (or attach to) a run of a pipeline below tests/pipelines; its RunResponse."""
        body = {"pipeline": f"tests/pipelines/{pipeline}.nf", **request}
        response = self.call("POST", "/run", json=body, headers=headers)
        assert response.status_code in (200, 201), response.text
        answer: dict[str, Any] = response.json()
        return answer

    def status(self, run_id: str) -> dict[str, Any]:
        """A run's status."""
        response = self.call("GET", "/status", params={"run_id": run_id})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def ended(self, run_id: str) -> dict[str, Any]:
        """A run's status once it has ended."""
        for _ in poll(f"{run_id} to end"):
            status = self.status(run_id)
            if status["status"] in ENDS:
                return status
        raise AssertionError

    def text(self, run_id: str, **parameters: Any) -> str:
        """The run's log as plain text, followed to its end."""
        response = self.call(
            "GET", "/stream", params={"run_id": run_id, **parameters}, headers={"accept": "text/plain"}
        )
        assert response.status_code == 200, response.text
        return response.text

    @contextmanager
    def stream(self, accept: str, query: dict[str, str], **headers: str) -> Iterator[httpx.Response]:
        """A stream as it comes, or what is answered in its place."""
        shown = {**self.authorization, "accept": accept, **headers}
        with httpx.stream(
            "GET", f"{self.url}{API}/stream", params=query, headers=shown, timeout=60, verify=_NO_TLS
        ) as response:
            yield response

    @contextmanager
    def events(self, run_id: str, after: str | None = None) -> Iterator[Iterator[dict[str, str]]]:
        """The run's SSE events as they come."""
        headers = {"last-event-id": after} if after else {}
        with self.stream("text/event-stream", {"run_id": run_id}, **headers) as response:
            assert response.status_code == 200, response.read()
            yield parse_events(response.iter_lines())


def parse_events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-Sent Events as dictionaries of their fields."""
    found: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in found:
                yield found
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


def poll(what: str) -> Iterator[None]:
    """Turns until `what` has happened; fails when patience is at its end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s for {what}")


def processes(*words: str) -> list[psutil.Process]:
    """Living processes whose command line has all these words."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and all(word in command for word in words):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def belongings(state_dir: Path) -> list[psutil.Process]:
    """Living processes of any kind that work in a state directory, or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            place = Path(process.cwd())
            named = any(str(state_dir) in word for word in process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (named or state_dir in (place, *place.parents)):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def nextflows(state_dir: Path) -> list[psutil.Process]:
    """The Nextflow heads that run in a state directory."""
    return processes("nextflow.cli.Launcher", str(state_dir)) or processes("nextflow", "run", "-name", str(state_dir))


def log_text(state_dir: Path, run_id: str) -> str:
    """What the run wrote, from the runner's own file in the container runtimes' format."""
    lines = []
    for record in (state_dir / "runs" / run_id / "log").read_text("utf-8").splitlines():
        _, _, tag, text = record.split(" ", 3)
        lines.append(text + ("\n" if tag == "F" else ""))
    return "".join(lines)
