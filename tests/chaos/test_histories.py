"""Logs that are followed while whoever carries them is killed, stopped and emptied, by chance.

These are the simulation's histories on real parts: each follower comes and goes, at any server and by any transport,
and has the log as it was said. HISTORIES=50 plays so many.
"""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.chaos.audit import Audit
from tests.chaos.conftest import Judge
from tests.chaos.places import Local
from tests.integration.server import API, LocalServer, parse_events, poll, processes

pytestmark = pytest.mark.slow

HISTORIES = int(os.environ.get("HISTORIES", "2"))
TRANSPORTS = ("sse", "ndjson", "websocket", "text")
_CUT = (httpx.TransportError, WebSocketException, OSError)


@pytest.fixture
def audit(directory: Any, judge: Judge) -> Iterator[Audit]:
    """The audit of a place on this machine whose Redis holds little of a log."""
    local = Local(directory, REDIS_LOG_LINES="300", HEARTBEAT_SECONDS="1")
    yield judge(local)
    local.close()


@pytest.mark.fault(
    "recorder, stream servers and Redis are killed, stopped and emptied by chance, and followers come and go"
)
def test_histories_of_logs(audit: Audit) -> None:
    """Every follower has every line once, in order, whoever told it."""
    place = audit.place
    assert isinstance(place, Local)
    servers = [audit.witness, place.server(), place.server()]
    for seed in range(HISTORIES):
        dice = random.Random(seed)
        parts = [dice.choice((1, 3, 40, 400)) for _ in range(dice.randrange(10, 25))]
        script, number = [], 0
        for part in parts:
            script.append(f"seq {number + 1} {number + part}; sleep {dice.choice((0, 0.05, 0.3, 0.8))}")
            number += part
        answer = audit.witness.call(
            "POST", "/run", json={"pipeline": "owner/stub", "parameters": {"script": "; ".join(script)}}
        )
        assert answer.status_code == 201, answer.text
        run_id = str(answer.json()["run_id"])
        with ThreadPoolExecutor(2 * len(TRANSPORTS)) as pool:
            followers = [
                pool.submit(followed, servers, run_id, transport, random.Random(f"{seed} {turn} {transport}"))
                for transport in TRANSPORTS
                for turn in range(2)
            ]
            with disturbed(place, servers[1:], dice) as done:
                assert audit.witness.ended(run_id)["status"] == "succeeded"
            told = [follower.result() for follower in followers]
        expected = [str(line) for line in range(1, number + 1)]
        for lines in told:
            assert lines == expected, f"seed {seed}: {_difference(lines, expected)}"
        audit.ends[run_id] = "succeeded"
        audit.figures.update(histories=1, disturbances=done[0])
        audit.figures["lines told"] += number * len(told)
    audit.finish()


@contextmanager
def disturbed(place: Local, servers: list[LocalServer], dice: random.Random) -> Iterator[list[int]]:
    """Let things happen, one after the other, until the end of the context; how many there were."""
    over, done = Event(), [0]

    def kill_server() -> None:
        server = dice.choice(servers)
        server.kill()
        server.start()

    def stop_recorder() -> None:
        stopped = _recorders(place, signal.SIGSTOP)
        over.wait(dice.choice((0.2, 2.0)))
        for process in stopped:
            _signal(process, signal.SIGCONT)

    def hang_redis() -> None:
        place.redis.pause()
        over.wait(dice.choice((0.2, 2.0)))
        place.redis.resume()

    deeds: list[Callable[[], object]] = [
        lambda: _recorders(place, signal.SIGKILL),
        stop_recorder,
        kill_server,
        kill_server,
        hang_redis,
        lambda: place.redis.ask("FLUSHALL"),
    ]

    def disturb() -> None:
        while not over.wait(dice.choice((0.1, 0.3, 0.8))):
            dice.choice(deeds)()
            done[0] += 1

    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        try:
            yield done
        finally:
            over.set()
        disturbing.result()


def _recorders(place: Local, number: signal.Signals) -> list[psutil.Process]:
    found = processes("common.recorder.local", str(place.state))
    for process in found:
        _signal(process, number)
    return found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def followed(servers: list[LocalServer], run_id: str, transport: str, dice: random.Random) -> list[str]:
    """A run's lines as one follower has them, who is cut or hangs up now and then, and comes back to any server."""
    lines: list[str] = []
    after: dict[str, str] = {}
    for _ in poll("the run's end to be told"):
        most = dice.choice((3, 100, 1_000, 10_000))
        try:
            for event in _WAYS[transport](dice.choice(servers), {"run_id": run_id, **after}):
                if event["type"] == "complete":
                    return lines
                assert event["type"] in ("log", "status", "progress"), event
                if event["type"] == "log":
                    lines.append(event["data"]["line"])
                    after = {"after": event["id"]}
                    most -= 1
                if not most:
                    break
        except _CUT:
            continue
    raise AssertionError


def _sse(server: LocalServer, query: dict[str, str]) -> Iterator[Any]:
    with server.stream("text/event-stream", query) as response:
        for fields in parse_events(_lines(response)):
            yield json.loads(fields["data"])


def _ndjson(server: LocalServer, query: dict[str, str]) -> Iterator[Any]:
    with server.stream("application/x-ndjson", query) as response:
        for line in _lines(response):
            if line:
                yield json.loads(line)


def _text(server: LocalServer, query: dict[str, str]) -> Iterator[Any]:
    with server.stream("text/plain", {**query, "timestamps": "true"}) as response:
        for line in _lines(response):
            if line.startswith("# the server is stopping"):
                return
            if line.startswith("#"):
                yield {"type": line.split(" ")[1].rstrip(":")}
            else:
                cursor, _, text = line.partition(" ")
                yield {"type": "log", "id": cursor, "data": {"line": text}}
    yield {"type": "complete"}


def _websocket(server: LocalServer, query: dict[str, str]) -> Iterator[Any]:
    url = f"{server.url.replace('http', 'ws')}{API}/stream?{httpx.QueryParams(query)}"
    # Who hangs up in the middle reads no further, so no closing frame comes to it.
    with connect(url, additional_headers=server.authorization, proxy=None, close_timeout=0.1) as socket:
        for message in socket:
            yield json.loads(message)


def _lines(response: httpx.Response) -> Iterator[str]:
    if response.status_code == 503:
        raise httpx.TransportError("it says that it cannot tell now")
    assert response.status_code == 200, response.read()
    return response.iter_lines()


_WAYS = {"sse": _sse, "ndjson": _ndjson, "text": _text, "websocket": _websocket}


def _difference(lines: list[str], expected: list[str]) -> str:
    """Where two logs part, in short."""
    for at, (line, wanted) in enumerate(zip(lines, expected, strict=False)):
        if line != wanted:
            return f"line {at} of {len(lines)} is {line!r}, not {wanted!r}"
    return f"{len(lines)} lines, not {len(expected)}"
