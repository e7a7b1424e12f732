"""Followers on the wire: sockets whose bytes are counted, with the least done for each.

All of them read into one buffer, whose content nobody looks at once the answer has begun. A few are looked at: they
know how many lines came in how many bytes, and how old each was.
"""

import asyncio
import re
import socket
import time
from collections.abc import Mapping
from typing import cast

_BUFFER = memoryview(bytearray(1 << 20))
_STAMP = re.compile(rb"@(\d{19}) ")
_STAMP_BYTES = 21
_STATUS = (b"200", b"101")
_ACCEPTED = {"sse": "text/event-stream", "text": "text/plain", "ndjson": "application/x-ndjson"}
_UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def question(path: str, headers: Mapping[str, str], transport: str) -> bytes:
    """The request of a follower."""
    kind = _UPGRADE if transport == "websocket" else {"accept": _ACCEPTED[transport]}
    lines = [f"GET {path} HTTP/1.1", "host: 127.0.0.1", *(f"{n}: {v}" for n, v in {**headers, **kind}.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Follower(asyncio.BufferedProtocol):
    """One that counts bytes.

    Attributes:
        accepted: the answer has begun; fails if it is a refusal.
        cut: the server has ended it.
    """

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self._head = b""
        self.transport: asyncio.WriteTransport | None = None
        self.accepted = asyncio.get_running_loop().create_future()
        self.bytes = 0
        self.cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)
        self.transport.write(self._asked)

    def connection_lost(self, error: Exception | None) -> None:
        self.cut = True
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionError(f"cut before its answer: {error}"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes += nbytes
        if self._asked:
            self._begin(bytes(_BUFFER[:nbytes]))

    def _begin(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._asked = b""
            if self._head[9:12] in _STATUS:
                self.accepted.set_result(None)
            else:
                self.accepted.set_exception(ConnectionError(self._head.decode("latin-1")))


class Sample(Follower):
    """One that looks at what comes.

    Attributes:
        ages: nanoseconds from a line's making to its arrival.
    """

    def __init__(self, asked: bytes) -> None:
        super().__init__(asked)
        self._left = b""
        self.ages: list[int] = []

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        now, data = time.monotonic_ns(), self._left + bytes(_BUFFER[:nbytes])
        end = 0
        for found in _STAMP.finditer(data):
            self.ages.append(now - int(found[1]))
            end = found.end()
        self._left = data[max(end, len(data) - _STAMP_BYTES) :]


class Slow:
    """One that reads a little every second, and whose system buffers as little as it lets us have.

    Attributes:
        port: its own.
        cut: the server has ended it.
    """

    _BUFFERED = 4096
    _READ = 1024

    def __init__(self, asked: bytes, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._BUFFERED)
        self._socket.connect(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._socket.sendall(asked)
        self._socket.setblocking(False)
        self.cut = False

    def read(self) -> None:
        """Read that little."""
        try:
            self.cut |= not self._socket.recv(self._READ)
        except BlockingIOError:
            return
        except ConnectionError:
            self.cut = True

    def close(self) -> None:
        self._socket.close()
