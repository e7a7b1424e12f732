"""Asks a server as fast as it answers, over connections that stay open; a process of its own, on a core of its own.

    python -m tests.bench.load REQUEST   with a `Request` as JSON; prints a `Measured` as JSON

It takes the least of an answer that still shows it to be the right one, so that one core asks more
than a server on another can answer. How busy that core was is part of the result.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

import psutil
import uvloop

_LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)
_WARM_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask, and how.

    Attributes:
        pids: processes whose use of a core is measured too, by name.
    """

    port: int
    path: str
    headers: Mapping[str, str]
    connections: int
    seconds: float
    pids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it.

    Attributes:
        cores: share of a core that each process used, this one as `load`.
    """

    rate: float
    refused: int
    cores: Mapping[str, float]


class _Client(asyncio.Protocol):
    """One connection: an answer in, the next question out."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self._answer = b""
        self._transport: asyncio.WriteTransport | None = None
        self.answers = self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        answer = self._answer + data if self._answer else data
        head = answer.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(answer, 0, head)
        if head < 4 or length is None or len(answer) < head + int(length[1]):
            self._answer = answer
            return
        self._answer = b""
        self.answers += 1
        self.refused += answer[9:12] != b"200"
        if self._transport is not None:
            self._transport.write(self._question)


class Clock:
    """Time since it was made, and what of it processes have spent on a core."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes
        self._began, self._spent = time.perf_counter(), self._cpu()

    def _cpu(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: spent.user + spent.system for name, spent in times.items()}

    def read(self) -> tuple[float, dict[str, float]]:
        seconds = time.perf_counter() - self._began
        return seconds, {name: (spent - self._spent[name]) / seconds for name, spent in self._cpu().items()}


async def measure(request: Request) -> Measured:
    """Ask for so long; what comes in the first moments is not counted."""
    lines = [f"GET {request.path} HTTP/1.1", "host: 127.0.0.1", *(f"{n}: {v}" for n, v in request.headers.items())]
    question = "\r\n".join([*lines, "", ""]).encode()
    loop = asyncio.get_running_loop()
    clients = [_Client(question) for _ in range(request.connections)]
    opened = [await loop.create_connection(lambda c=client: c, "127.0.0.1", request.port) for client in clients]  # type: ignore[misc]
    await asyncio.sleep(_WARM_SECONDS)
    clock = Clock({"load": psutil.Process(), **{name: psutil.Process(pid) for name, pid in request.pids.items()}})
    before = sum(client.answers for client in clients)
    await asyncio.sleep(request.seconds)
    seconds, cores = clock.read()
    answers = sum(client.answers for client in clients) - before
    for transport, _ in opened:
        transport.close()
    return Measured(answers / seconds, sum(client.refused for client in clients), cores)


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(measure(Request(**json.loads(sys.argv[1])))))))
