"""The demo: start (or attach to) a real Nextflow run through the API, watch it live, tell how it ended.

    make demo                                     examples/simple-pipeline
    .venv/bin/python examples/demo.py PIPELINE '{"parameter": "value"}'

A client of the API like any other: the standard library and HTTP. It starts a server if none
answers, and if one goes away in the middle it starts another and goes on where it was.
Exit code: 0 if the run succeeded.
"""

import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

PORT = int(os.environ.get("PORT") or 8000)
STATE_DIR = Path(os.environ.get("STATE_DIR") or ".state")
TOKEN = STATE_DIR / "token"
API = "/api/v1/pipeline"
START_SECONDS = 30.0


def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One call of the API: status and JSON."""
    connection = HTTPConnection("127.0.0.1", PORT, timeout=60)
    try:
        headers = authorization() | ({"content-type": "application/json"} if body is not None else {})
        connection.request(method, API + path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def authorization() -> dict[str, str]:
    """The header that shows the token which the local server has made, if it has."""
    try:
        return {"authorization": f"Bearer {TOKEN.read_text('ascii').strip()}"}
    except FileNotFoundError:
        return {}


class Server:
    """The server, ours if nobody else's answers."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Have a server answer."""
        if self._answers():
            return
        STATE_DIR.mkdir(parents=True, exist_ok=True)
        log = STATE_DIR / "server.log"
        say(f"starting the server on port {PORT} (log: {log})")
        with log.open("ab") as output:
            command = [sys.executable, "-m", "functions.server"]
            environ = {**os.environ, "PORT": str(PORT), "STATE_DIR": str(STATE_DIR)}
            # A session of its own: Ctrl-C here must not cut it off before it has been told to stop.
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environ, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                if self._answers():  # another demo's server was faster
                    return
                words = log.read_text("utf-8", "replace")[-2000:]
                sys.exit(f"demo: the server does not come up; its last words ({log}):\n{words}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server if it is ours."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            status, answer = call("GET", "/active")
        except (OSError, HTTPException, ValueError):
            return False
        if status == 200 and "active" in answer:
            return True
        if status == 401:
            sys.exit(f"demo: the server on port {PORT} does not know the token in {TOKEN}; is it of another STATE_DIR?")
        sys.exit(f"demo: something else answers on port {PORT}; choose another: PORT={PORT + 1} make demo")


def events(server: Server, run_id: str) -> Iterator[dict[str, Any]]:
    """The run's events to its end; a connection that is cut is taken up behind the last event seen."""
    seen = ""
    while True:
        connection = HTTPConnection("127.0.0.1", PORT, timeout=60)
        try:
            headers = authorization() | {"accept": "text/event-stream"} | ({"last-event-id": seen} if seen else {})
            connection.request("GET", f"{API}/stream?run_id={run_id}", headers=headers)
            response = connection.getresponse()
            if response.status == 204:
                return
            for raw in response:
                if raw.startswith(b"data: "):
                    event = json.loads(raw[6:])
                    seen = event["id"]
                    yield event
                    if event["type"] in ("complete", "error"):
                        return
        except (OSError, HTTPException):
            say("the connection is gone; taking up where it was")
        finally:
            connection.close()
        server.ensure()


def watch(server: Server, run_id: str) -> None:
    """Print the run's log and progress as they come."""
    for event in events(server, run_id):
        data = event["data"]
        match event["type"]:
            case "log":
                print(data["line"], flush=True)
            case "progress":
                say(_progress(data["total"]))
            case "status":
                say(f"status: {data['status']}")
            case "gap" | "restarted" | "error":
                say(f"{event['type']}: {data}")


def _progress(total: dict[str, int]) -> str:
    done = total["succeeded"] + total["failed"] + total["cached"]
    counts = ", ".join(f"{count} {name}" for name, count in total.items() if count and name != "submitted")
    return f"tasks: {done} of {total['submitted'] + total['cached']} done ({counts})"


def say(text: str) -> None:
    """The demo's own words, told apart from the pipeline's."""
    print(f"\033[36m── {text}\033[0m" if sys.stdout.isatty() else f"-- {text}", flush=True)


def main(pipeline: str = "examples/simple-pipeline", parameters: str = "{}") -> int:
    """Run the demo; the exit code is the run's outcome."""
    server = Server()
    try:
        server.ensure()
        asked = {
            "pipeline": pipeline,
            "parameters": json.loads(parameters),
            "triggered_by": f"demo ({getpass.getuser()})",
        }
        status, run = call("POST", "/run", asked)
        if status not in (200, 201):
            sys.exit(f"demo: {run['title']}: {run['detail']}")
        run_id = run["run_id"]
        verb = f"attached to {run_id}, started by {run['triggered_by']}:" if run["attached"] else f"started {run_id}:"
        say(f"{verb} {run['pipeline']}")
        url = f"http://127.0.0.1:{PORT}"
        say(f"see it in a browser: {url}/follow?run_id={run_id} (token: cat {TOKEN})")
        say(f"or in a terminal: curl -N -H \"Authorization: Bearer $(cat {TOKEN})\" '{url}{run['stream_url']}'")
        watch(server, run_id)
        return _outcome(server, run_id)
    except KeyboardInterrupt:
        say("left; the run goes on. `make demo` attaches to it, `make run` serves it, DELETE /cancel ends it.")
        return 130
    finally:
        with suppress(OSError):
            server.stop()


def _outcome(server: Server, run_id: str) -> int:
    server.ensure()
    _, final = call("GET", f"/status?run_id={run_id}")
    _, history = call("GET", "/history?limit=200")
    entry = next((run for run in history["runs"] if run["run_id"] == run_id), None)
    say(f"final status: {json.dumps(final)}")
    say(f"history entry: {json.dumps(entry)}")
    if final["message"]:
        say(final["message"])
    say(f"{run_id} {final['status']} in {final['duration_seconds']} s")
    return 0 if final["status"] == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
