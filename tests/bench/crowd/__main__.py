"""What a crowd that asks for five times as much as one replica can do gets, and what the replica takes meanwhile.

    python -m tests.bench.crowd                 ten minutes of it; a table, and build/bench-crowd.json
    python -m tests.bench.crowd --seconds 60    one minute

Greedy callers go on asking, whatever they are told; polite ones ask once a second; an operator starts and cancels
runs; followers come and go. What one replica can do is measured first, with the same questions and no limits, and so is
what the polite ones wait for when nobody else but the operator is there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from common.callers import add
from common.local import toolchain
from common.settings import Settings
from tests.bench.crowd.clients import Answers, Kind, Plan, Told
from tests.bench.report import HEADER, Row, table
from tests.bench.scene import API, ROOT, Scene, Server, scene, serving
from tests.bench.throughput import cores, pin

_TIMES = 5
_CALLERS, _EACH = 8, 50  # greedy ones, and how many connections each of them has
_FOLLOWERS = 100
_IDLE_SECONDS, _CAPACITY_SECONDS = 20.0, 5.0
_BUSY = 0.8

# Ten lines ten times a second, until it is told to end.
_STUB = """\
#!/bin/sh
case "$*" in
  -version) echo "      version 24.10.0 build 1"; exit ;;
esac
trap exit TERM
while :; do
  for line in 1 2 3 4 5 6 7 8 9 10; do echo "[ab/123456] Submitted process > RNASEQ:ALIGN_STAR (SAMPLE_$line)"; done
  sleep 0.1
done
"""


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="of the crowd (default 600)")
    asked = parser.parse_args()
    with scene("local") as made:
        rows = list(_rows(made, asked.seconds))
    report = {"seconds": asked.seconds, "rows": [row.record() for row in rows]}
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench-crowd.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(HEADER, [row.cells() for row in rows]))
    return 0


def _rows(made: Scene, seconds: float) -> Iterator[Row]:
    pin(made.redis_pid, cores()[1])
    _talk(made)
    tokens = _tokens(made)
    polite = Kind("polite", 10, 1.0, _asks(tokens["polite"]))
    with _server(made, "unlimited", RATE_LIMITS="off") as server:
        _say("what one replica can do")
        every = Kind("all", 32, 0.0, _asks(tokens["greedy-0"]))
        told = _told(made, server, _CAPACITY_SECONDS, [every])
        capacity = sum(told.kinds["all"].statuses.values()) / _CAPACITY_SECONDS
    with _server(made, "ours") as server:
        _say(f"{capacity:.0f} requests a second; now what the polite ones wait for")
        operator = Kind("operator", 1, 3.0, _operating(tokens["operator"]))
        idle = _told(made, server, _IDLE_SECONDS, [polite, operator])
        wanted = _TIMES * capacity
        pause = _CALLERS * _EACH / wanted
        greedy = [Kind(f"greedy-{n}", _EACH, pause, _asks(tokens[f"greedy-{n}"])) for n in range(_CALLERS)]
        follows = {"stream": _request("GET", "/stream?run_id=*", tokens["follower"], accept="text/event-stream")}
        followers = Kind("followers", _FOLLOWERS, 20.0, follows, follows=True)
        _say(f"{wanted:.0f} requests a second, {_FOLLOWERS} followers, {seconds:g} s")
        told = _told(made, server, seconds, [polite, followers, operator, *greedy])
    yield from _judged(idle, told, greedy, wanted, seconds)
    for name, most in sorted(_most(told, greedy).items()):
        # The clients' minute is not quite the server's: what is on its way at its turn may count for the other.
        quota = int(str(Settings.read(made.environ).rate_limit(name)).partition("/")[0])
        yield Row(f"most {name} let in a minute, a caller", "", [most], [quota + _EACH], bound=1)
    errors = [line for log in made.directory.glob("*.log") for line in _errors(log)]
    for text in errors[:3]:
        _say(f"logged: {text}")
    yield Row("errors logged", "", [len(errors)], [0], bound=0, of="figure")


def _judged(idle: Told, told: Told, greedy: Sequence[Kind], wanted: float, seconds: float) -> Iterator[Row]:
    void = f"load took {told.cores['load']:.0%} of its core" if told.cores["load"] > _BUSY else ""
    kinds = [told.kinds[kind.name] for kind in greedy]
    answered = sum(sum(kind.statuses.values()) for kind in told.kinds.values()) / seconds
    yield Row("asked for, beside what was answered", "1/s", [wanted], [answered], void=void)
    middle, late = idle.kinds["polite"].ages_ms["all"]
    for name, those in (("polite", [told.kinds["polite"]]), ("greedy", kinds)):
        ages = [one.ages_ms["all"][0] for one in those], [one.ages_ms["all"][1] for one in those]
        yield Row(f"median of what is let in, {name}, beside idle", "ms", ages[0], [middle], void=void)
        yield Row(f"p99 of what is let in, {name}, beside idle", "ms", ages[1], [late], bound=5, void=void)
    third = told.memory_mb[len(told.memory_mb) // 3 :]
    tenth = max(1, len(third) // 10)
    yield Row("memory at the end, beside after a third", "MB", [mean(third[-tenth:])], [mean(third[:tenth])], bound=1.1)
    bad = [text for kind in told.kinds.values() for text in kind.bad]
    for text in bad:
        _say(f"never to be answered: {text}")
    yield Row("answers that nobody should get", "", [len(bad)], [0], bound=0, of="figure")
    for name, kind in told.kinds.items():
        _say(f"{name}: {dict(sorted(kind.statuses.items()))}, cut {kind.cut}, {kind.received_bytes / 1e6:.0f} MB")
        _say(f"{name}, ms: {kind.ages_ms}")
    _say(f"cores: {told.cores}; memory: {told.memory_mb[:: max(1, len(told.memory_mb) // 12)]}")


def _errors(log: Path) -> list[str]:
    """Lines of a server's log that are errors of its own, or are no records at all."""
    lines = log.read_text("utf-8").splitlines()
    return [line for line in lines if '"level":"ERROR"' in line or line.startswith(("Traceback", "Exception"))]


def _most(told: Told, greedy: Sequence[Kind]) -> dict[str, int]:
    kinds = [told.kinds[kind.name] for kind in greedy]
    names = {name for kind in kinds for name in kind.most}
    return {name: max(kind.most.get(name, 0) for kind in kinds) for name in names}


def _tokens(made: Scene) -> dict[str, str]:
    path = Settings.read(made.environ).token_path
    names = ("polite", "operator", "follower", *(f"greedy-{number}" for number in range(_CALLERS)))
    return {name: add(path, name, "run") for name in names}


_BODY = json.dumps({"pipeline": "tests/pipelines/sleeper.nf"})


def _asks(token: str) -> dict[str, str]:
    """What people ask, a bit of everything; by the function whose limit it counts for, where it can be let in."""
    return {
        "status": _request("GET", "/status", token),
        "active": _request("GET", "/active", token),
        "history": _request("GET", "/history?limit=20", token),
        "run": _request("POST", "/run", token, body=_BODY),
        "bad run": _request("POST", "/run", token, body='{"pipeline": 7}'),
        "not found": _request("GET", "/status?run_id=nobody-knows", token),
        "nobody": _request("GET", "/status", "not-a-token"),
        "stream": _request("GET", "/stream?follow=false&tail=20", token, accept="application/x-ndjson"),
    }


def _operating(token: str) -> dict[str, str]:
    return {"run": _request("POST", "/run", token, body=_BODY), "cancel": _request("DELETE", "/cancel", token)}


def _request(method: str, path: str, token: str, *, body: str = "", accept: str = "application/json") -> str:
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {token}", "accept": accept}
    if body:
        headers |= {"content-type": "application/json", "content-length": str(len(body))}
    lines = [f"{method} {API}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", body])


def _talk(made: Scene) -> None:
    """Have the scene's Nextflow say something."""
    Path(made.environ["NEXTFLOW"]).write_text(_STUB)
    toolchain.install(Path(made.environ["TOOLCHAIN_DIR"]), made.environ, lambda _: None)


@contextmanager
def _server(made: Scene, name: str, **settings: str) -> Iterator[Server]:
    environ = {**made.environ, **settings}
    with serving(made.directory, name, "functions.server", environ=environ) as server:
        pin(server.pid, cores()[0])
        yield server


def _told(made: Scene, server: Server, seconds: float, kinds: Sequence[Kind]) -> Told:
    plan = Plan(server.port, seconds, kinds, {"server": server.pid, "redis": made.redis_pid})
    command = [sys.executable, "-m", "tests.bench.crowd.clients"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pin(process.pid, cores()[1])
    said, _ = process.communicate(json.dumps(asdict(plan)))
    if process.returncode:
        raise RuntimeError("the crowd has failed")
    found = json.loads(said)
    return Told({name: Answers(**one) for name, one in found["kinds"].items()}, found["cores"], found["memory_mb"])


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
