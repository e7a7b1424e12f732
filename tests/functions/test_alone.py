"""Each function runs alone under functions-framework, against a state that others share."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from common.callers import add
from tests.integration.server import API, ROOT, poll
from tests.redis_server import OwnRedis

pytestmark = pytest.mark.slow

CALLS = {
    "run": ("POST", API + "/run", 415),
    "status": ("GET", API + "/status", 404),
    "active": ("GET", API + "/active", 200),
    "cancel": ("DELETE", API + "/cancel", 404),
    "history": ("GET", API + "/history", 200),
    "stream": ("GET", API + "/stream", 404),
    "docs": ("GET", "/openapi.json", 200),
}
OPEN = {"docs"}  # to those without a token


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """An environment that all functions share: one state directory, one Redis, one file of tokens."""
    with tempfile.TemporaryDirectory(prefix="nfc-") as name:
        own = OwnRedis(Path(name) / "redis")
        yield {**os.environ, "STATE_DIR": name, "REDIS_URL": own.url}
        own.stop()


@pytest.mark.parametrize("name", CALLS)
def test_a_function_serves_alone(name: str, environ: dict[str, str]) -> None:
    """Its own path to those with a token, its health paths, a problem for every other path and method."""
    token = {"authorization": f"Bearer {add(Path(environ['STATE_DIR']) / 'tokens', name, 'run')}"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "functions_framework", "--source", f"functions/{name}/main.py"]
    command += ["--target", name, "--asgi", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in poll(f"{name} to answer"):
            try:
                assert httpx.get(url + "/healthz").json() == {"status": "alive"}
                break
            except httpx.TransportError:
                assert process.poll() is None, process.stdout and process.stdout.read()
        method, path, expected = CALLS[name]
        answer = httpx.request(method, url + path, headers=token)
        assert answer.status_code == expected, answer.text
        assert httpx.request(method, url + path).status_code == (200 if name in OPEN else 401)
        for host in ("evil.example", "localhost.evil.example"):
            assert httpx.request(method, url + path, headers={**token, "host": host}).status_code == 421
        assert httpx.get(url + "/health").status_code == 200
        assert "nfc_http_requests_total" in httpx.get(url + "/metrics").text
        assert httpx.get(url + "/readyz").json()["redis"] == "ok"
        others = {path for other, (_, path, _) in CALLS.items() if other != name}
        for other in others:
            missing = httpx.get(url + other)
            assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        wrong = httpx.request("PATCH", url + path)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD" if method == "GET" else method)
    finally:
        process.terminate()
        process.communicate()
