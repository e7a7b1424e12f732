"""`helm test`: every function answers, a run is told as it happens, and a silent stream stays open.

A line for each promise, beginning with `ok` or `FAILED`. The way is the one that users take where there is a URL, else
the functions' Services.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

API = "/api/v1/pipeline"
NOBODY = "run_id=run-aaaaaaaaaaaaaaaa"
CALLS = {
    "run": ("POST", f"{API}/run", 422),
    "status": ("GET", f"{API}/status?{NOBODY}", 404),
    "active": ("GET", f"{API}/active", 200),
    "cancel": ("DELETE", f"{API}/cancel?{NOBODY}", 404),
    "history": ("GET", f"{API}/history", 200),
    "stream": ("GET", f"{API}/stream?{NOBODY}", 404),
    "docs": ("GET", "/openapi.json", 200),
}
OPEN = {"docs"}
PATIENCE_SECONDS = 30  # a Service may lead nowhere for a moment after its pods have changed
SILENCE_SECONDS = 60  # more than a heartbeat of any sensible setting

Event = dict[str, Any]


class Broken(Exception):
    """A promise that is not kept; its text says how."""


class Users:
    """The functions as their users reach them, one of whom shows a token."""

    def __init__(self, release: str, url: str, host: str, token: str | None) -> None:
        self.release, self.url, self.host, self.token = release, url, host, token

    def base(self, function: str) -> str:
        """Where a function is."""
        return self.url or f"http://{self.release}-{function}"

    def headers(self, *, stranger: bool = False) -> dict[str, str]:
        """What is sent with every call."""
        host = {"Host": self.host} if self.url else {}
        return host | ({"Authorization": f"Bearer {self.token}"} if self.token and not stranger else {})

    def open(self, request: Request) -> HTTPResponse:
        """The answer, which may be an error; its body is yet to be read."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer: HTTPResponse = urlopen(request, timeout=SILENCE_SECONDS)  # noqa: S310  # http or https
            except HTTPError as error:
                return error  # type: ignore[return-value]  # it has what an answer has
            except URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return answer

    def call(
        self, function: str, method: str, path: str, body: Any = None, *, stranger: bool = False
    ) -> tuple[int, Any]:
        """One call; its status and what its JSON says."""
        sent = json.dumps(body or {}).encode() if method == "POST" else None
        headers = {"Content-Type": "application/json", **self.headers(stranger=stranger)}
        with self.open(Request(self.base(function) + path, sent, headers, method=method)) as answer:  # noqa: S310  # as above
            return answer.status, json.loads(answer.read())

    def lines(self, query: str) -> Iterator[str]:
        """The lines of a stream of Server-Sent Events as they come, until it ends."""
        headers = {"Accept": "text/event-stream", **self.headers()}
        with self.open(Request(f"{self.base('stream')}{API}/stream?{query}", headers=headers)) as answer:  # noqa: S310  # as above
            if answer.status != 200:
                raise Broken(f"GET /stream: {answer.status} {answer.read().decode()}")
            for line in answer:
                yield line.decode().rstrip("\n")

    def websocket(self, query: str) -> list[Event]:
        """All that a WebSocket tells, to its end."""
        url = urlsplit(self.base("stream"))
        tls = url.scheme == "https"
        address = (url.hostname or "", url.port or (443 if tls else 80))
        target = f"{'wss' if tls else 'ws'}://{self.host or url.netloc}{API}/stream?{query}"
        authorization = {key: value for key, value in self.headers().items() if key != "Host"}
        plain = socket.create_connection(address, SILENCE_SECONDS)
        with connect(target, sock=plain, additional_headers=authorization, proxy=None) as connection:
            events = [json.loads(message) for message in connection]
        if connection.close_code != 1000:
            raise Broken(f"the WebSocket was closed with {connection.close_code}")
        return events


def answers(users: Users, function: str) -> str:
    """It is ready, answers who shows a token, and nobody else."""
    inside = Users(users.release, "", "", users.token)
    method, path, expected = CALLS[function]
    found = (
        inside.call(function, "GET", "/readyz")[0],
        users.call(function, method, path)[0],
        users.call(function, method, path, stranger=True)[0],
    )
    refused = 401 if users.token and function not in OPEN else expected
    if found != (200, expected, refused):
        raise Broken(f"ready, a caller, a stranger: {found}, not {(200, expected, refused)}")
    return f"ready, a caller, a stranger: {found}"


def silence(users: Users, seconds: float) -> str:
    """A stream in which nothing happens is not cut by anything between, and its heartbeats come through."""
    begun = time.monotonic()
    beats = 0
    for line in users.lines("run_id=*&types=status"):
        beats += line.startswith(":")
        if time.monotonic() - begun > seconds:
            return f"open for {seconds:g} s, {beats} heartbeats"
    raise Broken(f"cut after {time.monotonic() - begun:.1f} s, {beats} heartbeats")


def events(lines: Iterator[str]) -> Iterator[Event]:
    """What the lines of an event stream say, each event when it is whole."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def run(users: Users, request: Event) -> str:
    """A run is started and succeeds; its events come while it goes on, and a WebSocket tells the same."""
    status, started = users.call(
        "run", "POST", f"{API}/run", {**request, "on_busy": "reject", "triggered_by": "helm test"}
    )
    if status != 201:
        raise Broken(f"POST /run: {status} {started.get('detail', started)}")
    query = f"run_id={started['run_id']}"
    told: list[Event] = []
    live = 0
    for event in events(users.lines(query)):
        told.append(event)
        # Through a proxy that buffers, the first would come when all is over.
        if live < 2 and event["type"] in ("status", "log"):
            live += users.call("status", "GET", f"{API}/status?{query}")[1]["finished_at"] is None
    last: Event = told[-1] if told else {"type": "nothing", "data": None}
    if last["type"] != "complete" or last["data"]["status"] != "succeeded":
        raise Broken(f"{query} ended with {last}")
    if live < 2:
        raise Broken(f"{query}: {len(told)} events, and no more than {live} before the run was over")
    log = [event["id"] for event in told if event["type"] == "log"]
    again = [event["id"] for event in users.websocket(query) if event["type"] == "log"]
    if log != again:
        raise Broken(f"{query}: {len(log)} lines by SSE, {len(again)} by WebSocket, and not the same")
    return f"{query} succeeded, {len(log)} lines as they came, the same by WebSocket"


def prove(what: str, promise: Callable[[], str]) -> bool:
    """Whether a promise is kept, and say so."""
    try:
        print("ok    ", what + ":", promise(), flush=True)
    except (Broken, OSError, WebSocketException, ValueError, KeyError) as error:
        print("FAILED", what + ":", error, flush=True)
        return False
    return True


def main(environ: dict[str, str]) -> int:
    """Prove all of it; the number of promises that are not kept."""
    users = Users(
        environ["TEST_RELEASE"], environ.get("TEST_URL", ""), environ.get("TEST_HOST", ""), environ.get("TEST_TOKEN")
    )
    proven = [prove(function, lambda function=function: answers(users, function)) for function in CALLS]  # type: ignore[misc]
    proven.append(prove("a run", lambda: run(users, json.loads(environ["TEST_RUN"]))))
    proven.append(
        prove("silence", lambda: silence(users, float(environ["TEST_IDLE_SECONDS"])))
    )  # the first run is there
    return proven.count(False)


if __name__ == "__main__":
    sys.exit(main(dict(os.environ)))
