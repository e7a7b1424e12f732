"""Where streams are measured: one active run, our server and the yardstick beside each other, a core for each server.

The other core carries all the rest: Redis, who writes, who follows. One side is measured at a time; the other then has
no followers, and does nothing.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import httpx
import redis

from common.settings import Settings
from tests.bench.scene import API, ROOT, Scene, Server, scene, serving
from tests.bench.streams.followers import Asked, Turn
from tests.bench.streams.writer import Pace
from tests.bench.throughput import cores, pin

Side = Literal["ours", "bare"]
SIDES: tuple[Side, Side] = ("ours", "bare")
TRANSPORTS = ("sse", "text", "ndjson", "websocket")

_FILES = 16_384
_SETTINGS = {
    "RATE_LIMITS": "999999999/minute",  # the limiter counts, and refuses nothing
    "HEARTBEAT_SECONDS": "600",  # a follower here answers no ping: it is not to be cut while it is measured
}
_PATIENCE_SECONDS = 150.0


@dataclass(frozen=True)
class Stage:
    """An active run whose log nobody but the bench writes.

    Attributes:
        servers: one of each side, that stand all the time.
    """

    scene: Scene
    environ: Mapping[str, str]
    run_id: str
    key: str
    servers: Mapping[Side, Server]

    @contextmanager
    def fresh(self, side: Side) -> Iterator[Server]:
        """A server that has served nobody yet."""
        with serve(self.scene.directory, f"{side}-fresh", side, self.environ, self.key) as server:
            yield server

    def top(self) -> str:
        """The id of the log's newest line."""
        with redis.Redis.from_url(self.environ["REDIS_URL"]) as client:
            newest = client.xrevrange(self.key, count=1)
        return newest[0][0].decode() if newest else "0-0"

    def length(self) -> int:
        """How many lines the log has."""
        with redis.Redis.from_url(self.environ["REDIS_URL"]) as client:
            return int(client.xlen(self.key))

    def turn(
        self,
        server: Server,
        transport: str,
        followers: int,
        pace: tuple[int, float],
        *,
        seconds: float,
        slow: int = 0,
        idle_seconds: float = 0.5,
        warm_seconds: float = 1.0,
    ) -> Turn:
        """Follow, from the log's end on, and measure for as many whole batches as come in so many seconds."""
        lines, every = pace
        path = f"{API}/stream?run_id={self.run_id}&after={self.run_id}.1.{self.top()}"
        asked = Asked(
            server.port,
            path,
            self.scene.headers,
            transport,
            followers,
            slow,
            asdict(Pace(self.run_id, lines, every)),
            idle_seconds,
            warm_seconds=max(warm_seconds, 2 * every),
            seconds=max(1, round(seconds / every)) * every,
            pids={"server": server.pid, "redis": self.scene.redis_pid},
        )
        return Turn(**json.loads(beside(self, "tests.bench.streams.followers", json.dumps(asdict(asked)))))


def alone(stage: Stage, module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """What a module of the bench says that has the servers' core."""
    return _said([module, *arguments], environ or stage.environ, cores()[0])


def beside(stage: Stage, module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """What a module of the bench says that has the other core."""
    return _said([module, *arguments], environ or stage.environ, cores()[1])


def _said(command: Sequence[str], environ: Mapping[str, str], core: int) -> str:
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=dict(environ),
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the bench, which ends it
        text=True,
    )
    try:
        pin(process.pid, core)
        said, _ = process.communicate(timeout=_PATIENCE_SECONDS)
    finally:
        process.kill()  # a writer of its own ends with it
        process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} has failed")
    return said


@contextmanager
def serve(directory: Path, name: str, side: Side, environ: Mapping[str, str], key: str) -> Iterator[Server]:
    """A server of one side, alone on its core."""
    module = ("functions.server",) if side == "ours" else ("tests.bench.streams.yardstick", key)
    with serving(directory, name, *module, environ=environ) as server:
        pin(server.pid, cores()[0])
        yield server


@contextmanager
def stage(**settings: str) -> Iterator[Stage]:
    """A stage, with these settings besides the defaults, and nothing left of it afterwards."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))  # what is started inherits it
    with scene("local") as made:
        pin(made.redis_pid, cores()[1])
        environ = {**made.environ, **_SETTINGS, **settings}
        active = httpx.get(f"{made.url}{API}/active", headers=dict(made.headers)).raise_for_status().json()
        run_id = active["run"]["run_id"]
        key = f"{Settings.read(environ).redis_prefix}:log:{run_id}:1"
        with (
            serve(made.directory, "ours", "ours", environ, key) as ours,
            serve(made.directory, "bare", "bare", environ, key) as bare,
        ):
            yield Stage(made, environ, run_id, key, {"ours": ours, "bare": bare})


def load_average() -> float:
    """How many processes wanted a core, over the last minute."""
    return os.getloadavg()[0]
