"""Cancel through the API: the whole tree of processes goes, and the answer is the truth."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.server import LocalServer, nextflows, poll, processes

pytestmark = pytest.mark.slow

SECONDS = "3600.0625"  # marks the sleeps of this test among all processes


def start_sleeper(server: LocalServer) -> str:
    """A run whose tasks sleep, once they do."""
    run_id = str(server.run("sleeper", parameters={"tasks": 1, "seconds": float(SECONDS)})["run_id"])
    for _ in poll("the task to sleep in all its ways"):
        if len(processes("sleep", SECONDS)) >= 5:
            return run_id
    raise AssertionError


def test_cancel_ends_the_whole_tree(server: LocalServer, state_dir: Path) -> None:
    """Background, setsid'd and environment-less grandchildren included; again it is 404 and harmless."""
    run_id = start_sleeper(server)
    answer = server.call("DELETE", "/cancel")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["run_id"], answer.json()["status"], answer.json()["cancelled"]) == (run_id, "cancelled", True)
    assert processes("sleep", SECONDS) == []
    assert nextflows(state_dir) == []
    again = server.call("DELETE", "/cancel")
    assert (again.status_code, again.json()["type"]) == (404, "urn:nextflow-controller:problem:nothing-active")
    named = server.call("DELETE", "/cancel", params={"run_id": run_id})
    assert (named.status_code, named.json()["cancelled"]) == (200, True)
    status = server.status(run_id)
    assert (status["status"], status["message"]) == ("cancelled", "Cancelled by local.")
    assert server.call("GET", "/history").json()["runs"][0]["status"] == "cancelled"
    assert server.run("chatty", parameters={"lines": 1})["attached"] is False
    server.ended(server.call("GET", "/status").json()["run_id"])


def test_many_cancels_at_once_agree(server: LocalServer) -> None:
    """Ten cancels together: all tell the same run, none fails."""
    run_id = start_sleeper(server)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: server.call("DELETE", "/cancel"), range(10)))
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert {answer.json()["run_id"] for answer in answers if answer.status_code == 200} == {run_id}
    assert server.status(run_id)["status"] == "cancelled"


def test_a_cancel_that_takes_longer_says_so(make_server: Callable[..., LocalServer], state_dir: Path) -> None:
    """202 and `cancelling` while the head does not go; after the grace it is forced; a POST meanwhile is 409."""
    server = make_server(CANCEL_WAIT_SECONDS="0.3", CANCEL_GRACE_SECONDS="3", BUSY_WAIT_SECONDS="0.2")
    run_id = start_sleeper(server)
    (head,) = nextflows(state_dir)
    os.kill(head.pid, signal.SIGSTOP)  # it cannot react to a polite request
    answer = server.call("DELETE", "/cancel")
    assert (answer.status_code, answer.json()["status"], answer.json()["cancelled"]) == (202, "cancelling", False)
    assert server.status(run_id)["status"] == "cancelling"
    busy = server.call("POST", "/run", json={"pipeline": "tests/pipelines/chatty.nf"})
    assert (busy.status_code, busy.json()["run_id"]) == (409, run_id)
    assert int(busy.headers["retry-after"]) >= 1
    assert server.ended(run_id)["status"] == "cancelled"
    assert processes("sleep", SECONDS) == []


def test_a_run_that_ended_first_stays_what_it_was(server: LocalServer) -> None:
    """Cancelling a finished run by its id changes nothing; one that never was is 404."""
    run_id = server.run("chatty", parameters={"lines": 1})["run_id"]
    server.ended(run_id)
    answer = server.call("DELETE", "/cancel", params={"run_id": run_id})
    assert (answer.status_code, answer.json()["status"], answer.json()["cancelled"]) == (200, "succeeded", False)
    assert server.status(run_id)["status"] == "succeeded"
    missing = server.call("DELETE", "/cancel", params={"run_id": "run-aaaaaaaaaaaaaaaa"})
    assert missing.status_code == 404


def test_a_killed_head_is_a_failure(server: LocalServer, state_dir: Path) -> None:
    """kill -9 of Nextflow: failed, said in words, its tasks gone, the slot free."""
    run_id = start_sleeper(server)
    (head,) = nextflows(state_dir)
    head.kill()
    status = server.ended(run_id)
    assert status["status"] == "failed"
    assert "signal 9 (Killed)" in status["message"]
    assert (status["progress"]["total"]["running"], status["progress"]["total"]["failed"]) == (0, 1)
    assert processes("sleep", SECONDS) == []
    assert server.run("chatty", parameters={"lines": 1})["attached"] is False
    server.ended(server.call("GET", "/status").json()["run_id"])


def test_killed_supervisors_free_the_slot(server: LocalServer, state_dir: Path) -> None:
    """kill -9 of all that watched the run: Nextflow goes too, it has failed, the next one sweeps its tasks."""
    run_id = start_sleeper(server)
    for supervisor in processes("common.local.supervisor", run_id):
        supervisor.kill()
    for _ in poll("Nextflow to go with its supervisor"):
        if not nextflows(state_dir):
            break
    assert server.ended(run_id)["status"] == "failed"
    assert server.run("chatty", parameters={"lines": 1})["attached"] is False
    assert processes("sleep", SECONDS) == []
    server.ended(server.call("GET", "/status").json()["run_id"])
