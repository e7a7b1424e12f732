"""Schemathesis puts what /openapi.json says to the running server, and finds no failure."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.server import ROOT, LocalServer, poll, processes

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).with_name("schemathesis.toml")
SECONDS = 600  # to give up, on a busy machine
QUICK = {"CANCEL_GRACE_SECONDS": "2", "CANCEL_WAIT_SECONDS": "3", "BUSY_WAIT_SECONDS": "3"}


def test_the_server_does_what_its_document_says(make_server: Callable[..., LocalServer], tmp_path: Path) -> None:
    """Good and bad values for every operation, and sequences of calls: each answer is as described, none is a 500."""
    server = make_server(PIPELINES_DIR="tests/pipelines", RATE_LIMITS="1000000/day", **QUICK)
    token = server.authorization["authorization"].removeprefix("Bearer ")
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIG), "run"]
    done = subprocess.run(
        [*command, server.url + "/openapi.json"],
        cwd=tmp_path,  # for what it leaves there
        env={**os.environ, "TOKEN": token, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    server.call("DELETE", "/cancel")  # nobody waits for its last run
    for _ in poll("the last run to be over"):  # its recorder would wait for a Redis that ends with the server
        if not processes("common.recorder", str(server.state_dir)):
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Operations: +(\d+) selected / \1 total", done.stdout), done.stdout
    assert [line for line in server.output if '"level":"ERROR"' in line] == []
