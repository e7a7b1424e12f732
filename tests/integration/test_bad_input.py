"""What cannot be used is refused with a precise problem document, and changes nothing.

Requests are written to the socket byte by byte: HTTP clients are too polite to send most of these.
"""

import http.client
import json
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from common.callers import Role, add
from tests.integration.refusals import KEY, LIMIT_BYTES, PROBLEM, QUOTA, ROWS, TYPED, Bad
from tests.integration.server import API, LocalServer, belongings, nextflows, poll

pytestmark = pytest.mark.slow


@dataclass
class Given:
    """A server whose only run has ended, and who may call it."""

    server: LocalServer
    known: dict[str, str]
    address: tuple[str, int] = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.server.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = parts.hostname, parts.port

    def state(self) -> tuple[bytes, bytes, list[str]]:
        """What there is: told, and on disk."""
        asked = f" HTTP/1.1\r\nHost: {self.known['host']}\r\nAuthorization: Bearer {self.known['run']}\r\n\r\n"
        told = [self.send(f"GET {API}{path}{asked}".encode(), "GET")[2] for path in ("/history", "/active")]
        return told[0], told[1], sorted(path.name for path in (self.server.state_dir / "runs").iterdir())

    def send(self, wire: bytes, method: str) -> tuple[bytes, http.client.HTTPResponse, bytes]:
        """Write a request; the first bytes of the answer, and the answer."""
        with socket.create_connection(self.address, timeout=60) as connection:
            connection.sendall(wire)
            first = connection.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            return first, response, response.read()


@pytest.fixture(scope="module")
def given() -> Iterator[Given]:
    """One server for all rows."""
    with tempfile.TemporaryDirectory(prefix="nfc-", ignore_cleanup_errors=True) as name:
        server = LocalServer(Path(name), RATE_LIMITS=f"cancel={QUOTA}/day")
        server.start()
        try:
            yield _prepared(server)
        finally:
            server.stop()
            for process in belongings(Path(name)):
                process.kill()


def _prepared(server: LocalServer) -> Given:
    roles: dict[str, Role] = {"reader": "read", "eager": "run"}
    tokens = {name: add(server.state_dir / "tokens", name, role) for name, role in roles.items()}
    run_id = server.run("params", headers={"idempotency-key": KEY})["run_id"]
    assert server.ended(run_id)["status"] == "succeeded"
    server.call("DELETE", "/cancel")  # may still be about this run, the first time
    known = {
        "host": urlsplit(server.url).netloc,
        "run": server.authorization["authorization"].removeprefix("Bearer "),
        "read": tokens["reader"],
        "eager": tokens["eager"],
        "run_id": run_id,
    }
    return Given(server, known)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_input_is_refused_precisely_and_changes_nothing(given: Given, row: Bad) -> None:
    """The status, the type, what is wrong and would be right, the place, the headers that are due; no new state."""
    before = given.state()
    if row.status == 429:
        for _ in range(QUOTA):
            _, response, _ = given.send(row.wire(given.known), row.method)
            assert response.status == 404
    first, response, raw = given.send(row.wire(given.known), row.method)
    assert first == f"HTTP/1.1 {row.status}".encode(), raw
    assert response.status == row.status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document = json.loads(raw)
    errors = document.pop("errors", [])
    assert [(place["pointer"], place["detail"]) for place in errors] == list(row.places)
    assert document.pop("request_id", None) == response.headers["x-request-id"]
    _detail(row, document.pop("detail"))
    assert document.pop("title")
    facts = {name: given.known["run_id"] if value == "{run_id}" else value for name, value in row.facts}
    assert document == {"type": PROBLEM + row.kind, "status": row.status, **facts}
    _headers(row, response.headers)
    assert given.state() == before


def _detail(row: Bad, detail: str) -> None:
    if row.kind == "too-many":
        assert detail.startswith(f"At most {QUOTA} calls in 86400 s. Come back in ")
    elif row.places:
        assert detail == "; ".join(f"{place or 'the body'}: {right}" for place, right in row.places)
    else:
        assert detail == row.detail


def _headers(row: Bad, headers: Any) -> None:
    due = dict(row.due)
    for name in ("allow", "www-authenticate", "accept", "accept-encoding"):
        assert headers[name] == due.get(name), name
    assert {name: headers[name] for name in due} == due
    if row.kind == "too-many":
        assert headers["ratelimit-policy"] == f'"cancel";q={QUOTA};w=86400'
        assert headers["ratelimit"] == f'"cancel";r=0;t={headers["retry-after"]}'
        assert 0 < int(headers["retry-after"]) <= 86_400
    else:
        assert headers["retry-after"] is None


def test_the_connection_of_a_refusal_can_be_used_again(given: Given) -> None:
    """A body that was refused unread is read over, so that the next request is not taken from its middle."""
    host, run = given.known["host"], given.known["run"]
    head = f"Host: {host}\r\nAuthorization: Bearer {run}\r\n"
    smuggled = b"DELETE /api/v1/pipeline/cancel HTTP/1.1\r\n\r\n"
    long = b" " * LIMIT_BYTES + smuggled
    with socket.create_connection(given.address, timeout=60) as connection:
        connection.sendall(f"POST {API}/run HTTP/1.1\r\n{head}{TYPED}\r\nContent-Length: {len(long)}\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, json.loads(response.read())["type"]) == (413, PROBLEM + "too-long")
        connection.sendall(long)
        connection.sendall(f"GET {API}/active HTTP/1.1\r\n{head}\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, json.loads(response.read())) == (200, {"active": False, "run": None})


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.method == "DELETE" and row.status != 429 and row.kind != "nothing-active"],
    ids=lambda row: row.id,
)
def test_a_cancel_that_is_refused_cancels_nothing(active: Given, row: Bad) -> None:
    """The run goes on."""
    before = active.state()
    _, response, _ = active.send(row.wire(active.known), row.method)
    assert response.status == row.status
    told = json.loads(active.state()[1])
    assert told["run"]["run_id"] == json.loads(before[1])["run"]["run_id"]
    assert told["run"]["status"] == "running"
    assert len(nextflows(active.server.state_dir)) == 1


@pytest.fixture(scope="module")
def active() -> Iterator[Given]:
    """A server with a run that goes on, and in the end does not."""
    with tempfile.TemporaryDirectory(prefix="nfc-", ignore_cleanup_errors=True) as name:
        server = LocalServer(Path(name))
        server.start()
        try:
            given = _prepared(server)
            run_id = server.run("sleeper")["run_id"]
            for _ in poll("the run to go on"):
                if server.status(run_id)["status"] == "running":
                    break
            yield given
            assert server.call("DELETE", "/cancel").json()["run_id"] == run_id
        finally:
            server.stop()
            for process in belongings(Path(name)):
                process.kill()
