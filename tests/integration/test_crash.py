"""Crashes and outages in mid-run: one Nextflow, the right end, and not a line lost."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis

from tests.integration.server import API, LocalServer, log_text, nextflows, poll, processes
from tests.redis_server import OwnRedis

pytestmark = pytest.mark.slow

CHATTY = {"lines": 300, "pause_ms": 10}
NUMBERED = [f"line {number}" for number in range(1, 301)]


class Follower:
    """A client that reads events for ever, and comes back behind the last one it saw, wherever the server is now."""

    def __init__(self, server: LocalServer, run_id: str, *, cuts: int = 0, seed: int = 0) -> None:
        self._server = server
        self._run_id = run_id
        self._random = random.Random(seed)
        self._cuts = cuts
        self.events: list[dict[str, str]] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        seen = None
        while not (self.events and self.events[-1]["event"] == "complete"):
            try:
                with self._server.events(self._run_id, seen) as stream:
                    self.connections += 1
                    until = self._random.randint(1, 25) if self.connections <= self._cuts else None
                    for count, event in enumerate(stream, 1):
                        self.events.append(event)
                        seen = event["id"]
                        if count == until:
                            break
            except (httpx.HTTPError, AssertionError):
                threading.Event().wait(0.05)

    def wait(self) -> list[str]:
        """The lines, once the run is complete."""
        self._thread.join(90)
        assert not self._thread.is_alive(), self.events[-3:]
        return [json.loads(event["data"])["data"]["line"] for event in self.events if event["event"] == "log"]

    def wait_for_line(self, wanted: str) -> None:
        """Return once a line has come."""
        for _ in poll(wanted):
            if any(wanted in event["data"] for event in list(self.events)):
                return


def exact(server: LocalServer, run_id: str, lines: list[str]) -> None:
    """The lines are the run's whole log, and so is the text of a new follower."""
    assert [line for line in lines if line.startswith("line ")] == NUMBERED
    written = log_text(server.state_dir, run_id)
    assert "".join(line + "\n" for line in lines) == written
    assert server.text(run_id) == written


@pytest.mark.fault("a follower's connection is cut twenty times")
def test_a_follower_that_is_cut_twenty_times_has_every_line(server: LocalServer) -> None:
    """Twenty random cuts and resumes by Last-Event-ID: exactly the full log, in order."""
    run_id = server.run("chatty", parameters=CHATTY)["run_id"]
    follower = Follower(server, run_id, cuts=20, seed=7)
    lines = follower.wait()
    assert follower.connections > 20
    exact(server, run_id, lines)


@pytest.mark.fault("the server is killed in the middle of a run")
def test_a_killed_server_loses_nothing(make_server: Callable[..., LocalServer], state_dir: Path) -> None:
    """kill -9 in mid-run and restart: the same run goes on, no hole, no duplicate, the end recorded."""
    server = make_server()
    run_id = server.run("chatty", parameters=CHATTY)["run_id"]
    follower = Follower(server, run_id)
    follower.wait_for_line("line 50")
    server.kill()
    assert len(nextflows(state_dir)) == 1
    server.start()
    assert server.run("chatty")["run_id"] == run_id
    assert server.status(run_id)["status"] == "running"
    exact(server, run_id, follower.wait())
    assert server.ended(run_id)["status"] == "succeeded"
    assert [run["run_id"] for run in server.call("GET", "/history").json()["runs"]] == [run_id]


@pytest.mark.fault("server and Redis are killed, and the run ends before they are back")
def test_a_run_that_ends_while_no_server_is_there_is_recorded(
    make_server: Callable[..., LocalServer], state_dir: Path
) -> None:
    """Server and Redis killed; the run ends by itself; afterwards its end and its whole log are there."""
    server = make_server()
    run_id = server.run("chatty", parameters={"lines": 300, "pause_ms": 5})["run_id"]
    server.kill()
    for process in processes("redis-server"):
        if str(state_dir) in (process.cwd(), str(Path(process.cwd()).parent)):
            process.kill()
    for _ in poll("Nextflow to end"):
        if not nextflows(state_dir):
            break
    server.start()
    assert server.ended(run_id)["status"] == "succeeded"
    assert server.text(run_id) == log_text(state_dir, run_id)
    assert [line for line in server.text(run_id).splitlines() if line.startswith("line ")] == NUMBERED


@pytest.mark.fault("Redis is emptied (FLUSHALL) in the middle of a run")
def test_a_flushed_redis_changes_nothing(server: LocalServer, state_dir: Path) -> None:
    """FLUSHALL in mid-run: no second Nextflow, followers go on, history and status stay right."""
    run_id = server.run("chatty", parameters=CHATTY)["run_id"]
    follower = Follower(server, run_id)
    follower.wait_for_line("line 50")
    with redis.Redis(unix_socket_path=str(state_dir / "redis" / "redis.sock")) as client:
        client.flushall()
    assert server.run("chatty")["run_id"] == run_id
    assert len(nextflows(state_dir)) == 1
    exact(server, run_id, follower.wait())
    assert server.ended(run_id)["status"] == "succeeded"
    assert [run["run_id"] for run in server.call("GET", "/history").json()["runs"]] == [run_id]


@pytest.mark.fault("Redis is stopped and started under load")
def test_redis_stopped_and_started_under_load(make_server: Callable[..., LocalServer], state_dir: Path) -> None:
    """Without Redis every answer is the truth or 503 with Retry-After, never another; then all goes on."""
    own = OwnRedis(state_dir / "own")
    server = make_server(REDIS_URL=own.url)
    run_id = server.run("chatty", parameters={"lines": 300, "pause_ms": 20})["run_id"]
    follower = Follower(server, run_id)
    follower.wait_for_line("line 20")
    answers: list[httpx.Response] = []
    done = threading.Event()

    def load() -> None:
        body = {"pipeline": "tests/pipelines/chatty.nf"}
        while not done.is_set():
            answers.append(server.call("POST", "/run", json=body))
            answers.append(server.call("GET", "/active"))
            answers.append(server.call("GET", "/status"))
            answers.append(server.call("GET", "/history"))

    threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    own.stop()
    for _ in poll("the outage to be visible"):
        if httpx.get(server.url + "/readyz").json()["status"] == "degraded":
            break
    before = len(answers)
    for _ in poll("answers without Redis"):
        if len(answers) > before + 40:
            break
    own.start()
    for _ in poll("Redis to be back"):
        if httpx.get(server.url + "/readyz").json()["status"] == "ready":
            break
    done.set()
    for thread in threads:
        thread.join()
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.status_code == 200
            told = answer.json()
            run = told.get("run", told) if "runs" not in told else told["runs"][0]
            assert run["run_id"] == run_id
    assert len(nextflows(state_dir)) == 1
    exact(server, run_id, follower.wait())
    assert server.ended(run_id)["status"] == "succeeded"
    own.stop()


@pytest.mark.fault("the server is stopped politely while it is followed")
def test_a_stopping_server_tells_its_followers_where_to_go_on(
    make_server: Callable[..., LocalServer], state_dir: Path
) -> None:
    """SIGTERM: streams end cleanly and promptly; the next server gives the rest, the run never noticed."""
    server = make_server()
    run_id = server.run("chatty", parameters=CHATTY)["run_id"]
    url = f"{server.url}{API}/stream?run_id={run_id}&timestamps=true"
    with httpx.stream("GET", url, headers=server.authorization, timeout=60) as response:
        lines = response.iter_lines()
        first = [next(lines) for _ in range(30)]
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        first += list(lines)  # ends without an error
    stopping.join()
    place = first[-1]
    assert place.startswith("# the server is stopping; go on with after=")
    server.start()
    rest = server.text(run_id, after=place.partition("after=")[2])
    before = "".join(line.partition(" ")[2] + "\n" for line in first[:-1])
    assert before + rest == log_text(state_dir, run_id)


def test_text_and_events_show_the_same(server: LocalServer) -> None:
    """A text follower and an event follower of the same live run get the same lines."""
    run_id = server.run("chatty", parameters=CHATTY)["run_id"]
    follower = Follower(server, run_id)
    text = server.text(run_id)
    assert text == "".join(line + "\n" for line in follower.wait())
