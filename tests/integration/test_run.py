"""Real runs of a real Nextflow through the local server."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.server import ENDS, LocalServer, log_text, nextflows, poll

pytestmark = pytest.mark.slow


def test_a_run_is_started_followed_and_kept(server: LocalServer, state_dir: Path) -> None:
    """201, then status, live events, text, final record and history agree with what Nextflow wrote."""
    response = server.call(
        "POST",
        "/run",
        json={
            "pipeline": "tests/pipelines/chatty.nf",
            "parameters": {"lines": 50, "pause_ms": 5},
            "triggered_by": "pytest",
        },
    )
    run = response.json()
    assert response.status_code == 201
    assert run["attached"] is False
    assert response.headers["location"] == run["status_url"]
    with server.events(run["run_id"]) as stream:
        events = list(stream)
    told = [json.loads(event["data"]) for event in events]
    assert told[0]["type"] == "status"
    assert [event["id"] for event in events] == [data["id"] for data in told]
    lines = [data["data"]["line"] for data in told if data["type"] == "log"]
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(1, 51)]
    final = told[-1]
    assert final["type"] == "complete"
    assert (final["data"]["status"], final["data"]["exit_code"]) == ("succeeded", 0)
    assert "".join(line + "\n" for line in lines) == server.text(run["run_id"]) == log_text(state_dir, run["run_id"])
    assert server.call("GET", "/active").json() == {"active": False, "run": None}
    status = server.status(run["run_id"])
    history = server.call("GET", "/history").json()
    assert history == {"runs": [{name: status[name] for name in history["runs"][0]}], "next_cursor": None}
    assert status["triggered_by"] == "pytest"
    assert status["duration_seconds"] > 0
    reconnect = server.call("GET", "/stream", headers={"accept": "text/event-stream", "last-event-id": final["id"]})
    assert reconnect.status_code == 204


def test_two_hundred_at_once_get_one_run(server: LocalServer, state_dir: Path) -> None:
    """One 201, 199 attached, one Nextflow; reject is 409 and names the run; an attached key stays attached."""
    body = {"pipeline": "tests/pipelines/chatty.nf", "parameters": {"lines": 100_000, "pause_ms": 10}}

    def ask(_number: int) -> httpx.Response:
        for _ in poll("an answer"):  # a slow machine may say that it is asked for too much: come back
            answer = server.call("POST", "/run", json=body)
            if answer.status_code != 503 or not answer.json()["type"].endswith(":overloaded"):
                return answer
        raise AssertionError

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(200)))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(200)) == (1, 199)
    assert sorted(answer.json()["attached"] for answer in answers) == [False] + [True] * 199
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    for _ in poll("the Nextflow of the run"):
        if heads := nextflows(state_dir):
            assert len(heads) == 1
            break
    run_id = answers[0].json()["run_id"]
    refused = server.call("POST", "/run", json={**body, "on_busy": "reject"})
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["run_id"], refused.json()["pipeline"]) == (run_id, body["pipeline"])
    assert server.call("DELETE", "/cancel").json()["run_id"] == run_id
    assert len(server.call("GET", "/history").json()["runs"]) == 1


def test_a_key_gets_its_first_answer_again(server: LocalServer) -> None:
    """The same Idempotency-Key, at once and after the end, is one run; with another body it is refused."""
    body = {"pipeline": "tests/pipelines/chatty.nf", "parameters": {"lines": 5}}
    key = {"idempotency-key": "one"}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: server.call("POST", "/run", json=body, headers=key), range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    server.ended(answers[0].json()["run_id"])
    again = server.call("POST", "/run", json=body, headers=key)
    assert (again.status_code, again.content) == (201, answers[0].content)
    other = server.call("POST", "/run", json={**body, "profile": "other"}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:nextflow-controller:problem:key-reused")


def test_parameters_arrive_as_they_were_sent(server: LocalServer) -> None:
    """Quotes, newlines, shell syntax, dashes and types reach the pipeline literally."""
    parameters = {
        "quotes": """it's "quoted" `back` \\ slash""",
        "newline": "two\nlines\ttab",
        "shell": "$(touch pwned) ${HOME} $HOME; rm -rf . | cat",
        "dashes": "--resume -profile evil",
        "unicode": "ünï → 🧬",
        "empty": "",
        "integer": 42,
        "large": 9_007_199_254_740_993,
        "float": 0.1,
        "yes": True,
        "no": False,
        "list": [1, "two", 3.5, False],
        "nested": {"a": {"b": [1, {"c": "d"}]}},
        "digits": "007",
        "word": "true",
    }
    run = server.run("params", parameters=parameters)
    text = server.text(run["run_id"])
    arrived = json.loads(next(line for line in text.splitlines() if line.startswith("params: "))[8:])
    assert {name: arrived[name] for name in parameters} == parameters


def test_a_failure_is_told_in_plain_words(server: LocalServer) -> None:
    """A failed task makes the run fail, with its exit code, a message and the failed task counted."""
    run = server.run("fail")
    status = server.ended(run["run_id"])
    assert (status["status"], status["exit_code"]) == ("failed", 1)
    assert "FAIL" in status["message"]
    assert status["progress"]["total"] == {
        "submitted": 1,
        "running": 0,
        "succeeded": 0,
        "failed": 1,
        "cached": 0,
        "retried": 0,
    }


def test_a_retried_task_is_counted_and_a_resumed_run_takes_it_from_the_cache(server: LocalServer) -> None:
    """Progress tells retries; `resume` by run id and by `true` reuse the finished task."""
    first = server.ended(server.run("retry")["run_id"])
    assert first["status"] == "succeeded"
    assert first["progress"]["processes"]["FLAKY"] == {
        "submitted": 2,
        "running": 0,
        "succeeded": 1,
        "failed": 0,
        "cached": 0,
        "retried": 1,
    }
    for resume in (first["run_id"], True):
        again = server.ended(server.run("retry", resume=resume)["run_id"])
        assert again["status"] == "succeeded", again
        assert again["session_id"] == first["session_id"]
        assert again["progress"]["total"]["cached"] == 1
    missing = server.call(
        "POST", "/run", json={"pipeline": "tests/pipelines/retry.nf", "resume": "run-aaaaaaaaaaaaaaaa"}
    )
    assert missing.status_code == 422
    assert missing.json()["errors"][0]["pointer"] == "/resume"


def test_progress_shows_while_the_run_goes_on(server: LocalServer) -> None:
    """A follower sees tasks submitted and finished before the run is complete."""
    run = server.call(
        "POST",
        "/run",
        json={"pipeline": "examples/simple-pipeline", "parameters": {"outdir": str(server.state_dir / "out")}},
    ).json()
    with server.events(run["run_id"]) as stream:
        told = [json.loads(event["data"]) for event in stream]
    progress = [data["data"]["total"] for data in told if data["type"] == "progress"]
    done = [total["succeeded"] for total in progress]
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert told[-1]["data"]["status"] == "succeeded"
    assert told[-1]["data"]["progress"]["total"]["succeeded"] == done[-1]
    assert any(total["running"] for total in progress)


def test_followers_see_states_in_order(server: LocalServer) -> None:
    """Status events never go back, and the last state is the end."""
    run = server.run("chatty", parameters={"lines": 20})
    with server.events(run["run_id"]) as stream:
        told = [json.loads(event["data"]) for event in stream]
    states = [data["data"]["status"] for data in told if data["type"] in ("status", "complete")]
    order = ["queued", "starting", "running", "cancelling", *ENDS]
    assert [order.index(state) for state in states] == sorted(order.index(state) for state in states)
    assert states[-1] == "succeeded"
