"""Answers a second, of a server that has a core to itself, beside the least that answers from Redis.

All servers stand beside each other, run one at a time and share one Redis. The other core asks, and
carries Redis: where that core is nearly busy it would be the thing measured, so the figure is void.
So it is where the server did not get its core for itself; such a turn is taken again first.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from tests.bench.load import Measured, Request
from tests.bench.report import Row
from tests.bench.scene import API, ROOT, Scene, Server, serving

_CONNECTIONS = 32
_SECONDS = 1.5
_BUSY = 0.8
_AGAIN = 2
_PLENTY = "999999999/minute"  # the limiter counts, and refuses nothing
_ALL, _UNLIMITED = "all defaults", "limiter off"
_BOUNDS = {_ALL: 0.4, _UNLIMITED: 0.6}
_PATHS = ("/active", "/status")


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    server: Server
    path: str


def rows(scene: Scene, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Ask every side so often, in turn."""
    found: dict[str, list[Measured]] = defaultdict(list)
    pin(scene.redis_pid, cores()[1])
    with ExitStack() as stack:
        sides = list(_sides(scene, stack))
        for number in range(rounds):
            say(f"throughput, round {number + 1} of {rounds}")
            for side in sides:
                found[side.name].append(_turn(scene, side))
    return [
        Row(
            f"GET {path}, {how}",
            "1/s",
            [one.rate for one in found[f"{path} {how}"]],
            [one.rate for one in found["bare"]],
            bound,
            at_most=False,
            void=_void([*found["bare"], *found[f"{path} {how}"]]),
        )
        for path in _PATHS
        for how, bound in _BOUNDS.items()
    ]


def _sides(scene: Scene, stack: ExitStack) -> Iterator[_Side]:
    bare = stack.enter_context(
        serving(scene.directory, "bare", "tests.bench.bare", scene.record, environ=scene.environ)
    )
    yield _Side("bare", _alone(bare), "/")
    for how, limits in ((_ALL, _PLENTY), (_UNLIMITED, "off")):
        environ = {**scene.environ, "RATE_LIMITS": limits}
        ours = stack.enter_context(serving(scene.directory, how, "functions.server", environ=environ))
        for path in _PATHS:
            yield _Side(f"{path} {how}", _alone(ours), API + path)


def _alone(server: Server) -> Server:
    pin(server.pid, cores()[0])
    return server


def _turn(scene: Scene, side: _Side) -> Measured:
    measured = _ask(scene, side)
    for _ in range(_AGAIN):
        if measured.cores["server"] > _BUSY:
            break
        measured = _ask(scene, side)
    return measured


def _ask(scene: Scene, side: _Side) -> Measured:
    pids = {"server": side.server.pid, "redis": scene.redis_pid}
    request = Request(side.server.port, side.path, scene.headers, _CONNECTIONS, _SECONDS, pids)
    command = [sys.executable, "-m", "tests.bench.load", json.dumps(asdict(request))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    pin(process.pid, cores()[1])
    said, _ = process.communicate()
    measured = Measured(**json.loads(said))
    if measured.refused or not measured.rate:
        raise RuntimeError(f"{side.name} answers {measured.rate:.0f}/s, and {measured.refused} times not with 200")
    return measured


def _void(measured: Sequence[Measured]) -> str:
    serving_core, asking_core = cores()
    if serving_core == asking_core:
        return "one core only"
    asking = median(one.cores["load"] + one.cores["redis"] for one in measured)
    if asking > _BUSY:
        return f"load and Redis took {asking:.0%} of their core"
    answering = median(one.cores["server"] for one in measured)
    return "" if answering > _BUSY else f"the server took {answering:.0%} of its core"


def cores() -> tuple[int, int]:
    """The core that answers and the one that asks; the same where there is no other, or none can be chosen."""
    if sys.platform != "linux":
        return 0, 0
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def pin(pid: int, core: int) -> None:
    if sys.platform == "linux":
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {core})
