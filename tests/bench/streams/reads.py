"""Reads against what there is: status, active and a page of the history beside 10 to 100,000 runs; a log's tail.

One server for each size stands beside the others, with keys of its own in the same Redis; they are asked in turn.
What is compared is ours with ours, the larger with the smallest: that stands in the column of the bare one. Answers are
counted for a second of the server's core, which others may want as well.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from statistics import median

from tests.bench.load import Measured, Request
from tests.bench.report import Row
from tests.bench.scene import API, Server
from tests.bench.streams.fanout import BUSY, Say
from tests.bench.streams.stage import Stage, alone, beside, serve

SMALL, LARGER = 10, (1_000, 100_000)
_SIZES = (SMALL, *LARGER)
_LINES = {10: 1_000, 1_000: 10_000, 100_000: 100_000}  # of the log beside so many runs
_PATHS = ("/status", "/active", "/history?limit=5")  # a page is full, and has a next one, beside the fewest runs, too
_FLAT = 0.9
_CONNECTIONS, _SECONDS = 16, 1.5
_TAIL, _TIMES = 10, 20
_SHELVES = "tests.bench.streams.shelves"


def rows(stage: Stage, rounds: int, say: Say) -> Iterator[Row]:
    """Answers of a CPU second and milliseconds an answer, the larger beside the smallest."""
    rates: dict[tuple[str, int], list[Measured]] = {(path, runs): [] for path in _PATHS for runs in _SIZES}
    tails: dict[int, list[float]] = {runs: [] for runs in _SIZES}
    with ExitStack() as stack:
        servers: dict[int, Server] = {}
        for runs in _SIZES:
            environ = {**stage.environ, "REDIS_PREFIX": f"runs{runs}", "HISTORY_MAX_RUNS": str(_SIZES[-1])}
            say(f"reads: putting {runs:,} runs and {_LINES[runs]:,} lines into Redis")
            alone(stage, _SHELVES, "fill", stage.run_id, str(runs), str(_LINES[runs]), environ=environ)
            servers[runs] = stack.enter_context(serve(stage.scene.directory, f"runs{runs}", "ours", environ, stage.key))
        for number in range(rounds):
            for (path, runs), found in rates.items():
                found.append(_rate(stage, servers[runs], path))
                say(f"reads, {number + 1} of {rounds}, GET {path} of {runs:,} runs: {found[-1].rate:,.0f}/s")
            for runs, times in tails.items():
                times.append(_tail(stage, servers[runs], runs))
    yield from _rate_rows(rates)
    for runs in LARGER:
        what = f"GET /stream?tail={_TAIL}, {_LINES[runs]:,} lines beside {_LINES[SMALL]:,}"
        yield Row(what, "ms", tails[runs], tails[SMALL])


def _rate_rows(rates: Mapping[tuple[str, int], Sequence[Measured]]) -> Iterator[Row]:
    for path in _PATHS:
        for runs in LARGER:
            some, few = ([one.rate / one.cores["server"] for one in rates[path, size]] for size in (runs, SMALL))
            what = f"GET {path}, {runs:,} runs beside {SMALL}"
            void = _void([*rates[path, runs], *rates[path, SMALL]])
            yield Row(what, "1/CPU s", some, few, _FLAT, at_most=False, void=void)


def _void(measured: Sequence[Measured]) -> str:
    busy = median(one.cores["load"] + one.cores["redis"] for one in measured)
    return f"load and Redis took {busy:.0%} of their core" if busy > BUSY else ""


def _rate(stage: Stage, server: Server, path: str) -> Measured:
    pids = {"server": server.pid, "redis": stage.scene.redis_pid}
    request = Request(server.port, API + path, stage.scene.headers, _CONNECTIONS, _SECONDS, pids)
    measured = Measured(**json.loads(beside(stage, "tests.bench.load", json.dumps(asdict(request)))))
    if measured.refused or not measured.rate:
        raise RuntimeError(f"{path} answers {measured.rate:.0f}/s, and {measured.refused} times not with 200")
    return measured


def _tail(stage: Stage, server: Server, runs: int) -> float:
    asked = {
        "port": server.port,
        "path": f"{API}/stream?run_id={stage.run_id}&tail={_TAIL}&follow=false",
        "headers": {**stage.scene.headers, "connection": "close"},
        "run_id": stage.run_id,
        "lines": _TAIL,
    }
    environ = {**stage.environ, "REDIS_PREFIX": f"runs{runs}"}
    times: list[float] = json.loads(beside(stage, _SHELVES, "tail", json.dumps(asked), str(_TIMES), environ=environ))
    return median(times)
