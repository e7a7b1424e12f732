"""Failpoints: a process that kills or stops itself at its nth step.

A step is any effect that a process has outside of itself: each command sent to Redis and each answer of it, each call
to the API server and each answer, each file that is made, emptied, moved or removed, each lock that is taken or let go
of, each process that is started. They are counted at the seams where all of them come by (the clients' lowest methods,
Python's audit events), so the product knows nothing of this, and a step that it gets anew is tried without a change
here.
"""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = "x-fail-at"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EFFECTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "fcntl.flock", "subprocess.Popen", "os.fork"}
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen at which step (counted from 1); as text `7 kill`, and `0 kill` only counts."""

    at: int
    how: str

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The plan that the text says."""
        at, how = text.split()
        return cls(int(at), how)

    def __str__(self) -> str:
        return f"{self.at} {self.how}"


class Steps:
    """The steps that are taken from `arm` to `disarm`."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self._plan: Plan | None = None
        self._shared: Path | None = None

    def arm(self, plan: Plan, shared: Path | None = None) -> None:
        """Count from here on, and keep to the plan; with the processes that this one forks, by files in `shared`."""
        self.taken = []
        self._shared = shared
        self._plan = plan

    def disarm(self) -> None:
        """Count no more."""
        self._plan = None

    def take(self, name: str) -> None:
        """Come by a step; it may be this process' last."""
        if self._plan is None:
            return
        self.taken.append(name)
        if self._number() == self._plan.at:
            # To this thread: the signal of a process may be taken by another, with this one going on for a moment.
            signal.pthread_kill(threading.get_ident(), _SIGNALS[self._plan.how])

    def _number(self) -> int:
        if self._shared is None:
            return len(self.taken)
        for number in itertools.count(1):
            with suppress(FileExistsError):
                os.close(os.open(self._shared / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return number
        raise AssertionError

    def watch_servers(self) -> None:
        """Have the ways to Redis and to the API server tell of their steps."""
        from redis.asyncio.connection import AbstractConnection

        from common.kube.transport import Api

        _around(AbstractConnection, "send_packed_command", _of_redis, None)
        _around(AbstractConnection, "read_response", None, lambda *_: "an answer of Redis")
        _around(Api, "_call", _of_api, lambda *call: f"the answer to {_of_api(*call)}")

    def watch_files(self, below: Path) -> None:
        """Have all that is done to the files in a directory be told of, and all processes that are started."""
        sys.addaudithook(lambda event, arguments: self._audited(event, arguments, str(below)))

    def _audited(self, event: str, arguments: tuple[Any, ...], below: str) -> None:
        if self._plan is None:
            return
        if event == "open":
            path, _, flags = arguments
            if str(path).startswith(below) and flags & _WRITES and (flags & os.O_TRUNC or not os.path.exists(path)):
                self.take(f"open {Path(path).name}")
        elif event in _EFFECTS and not (event == "os.mkdir" and os.path.exists(arguments[0])):
            self.take(event)


def _of_redis(_connection: Any, command: Any, *_: Any) -> str:
    packed = command if isinstance(command, bytes) else b"".join(command)
    return "Redis " + packed.split(b"\r\n")[2].decode("ascii", "replace")


def _of_api(_api: Any, method: str, path: str, *_: Any) -> str:
    return f"{method} {path.rpartition('/namespaces/')[2].partition('/')[2].split('/')[0]}"


def _around(owner: type, name: str, before: Callable[..., str] | None, after: Callable[..., str] | None) -> None:
    real = getattr(owner, name)

    async def stepping(*arguments: Any, **options: Any) -> Any:
        if before is not None:
            steps.take(before(*arguments))
        answer = await real(*arguments, **options)
        if after is not None:
            steps.take(after(*arguments))
        return answer

    setattr(owner, name, stepping)


steps = Steps()
