"""A container's log as a kubelet keeps and sends it: files that are begun anew, of which only the current one is read.

Who follows is sent the file to its end, and is told of a new one only if that was begun after he had come there:
files that came and went before that are left out, or he waits for ever. As in kubernetes,
pkg/kubelet/kuberuntime/logs/logs.go, ReadLogs and waitLogs; common/kube/log.py says what it makes of that.
"""

import asyncio
from collections.abc import Callable

from common.cri import format_time

FORCED_SECONDS = 1.0  # after which the kubelet looks whether the container still runs, come what may


class Container:
    """What one attempt's Nextflow says, and what is left of it.

    Attributes:
        running: it may say more.
        gone: its log was removed.
        first: the number of the line with which the current file begins.
    """

    def __init__(self) -> None:
        self.running = True
        self.gone = False
        self.first = 0
        self._file = bytearray()
        self._files = 0
        self._news = asyncio.Event()

    def write(self, at_ns: int, text: bytes, *, newline: bool = True) -> None:
        """Say a line."""
        self._file += b"%b %b%b" % (format_time(at_ns).encode(), text, b"\n" if newline else b"")
        self._tell()

    def rotate(self, first: int) -> None:
        """Begin a new file, of which the line of this number will be the first."""
        self._file = bytearray()
        self._files += 1
        self.first = first
        self._tell()

    def end(self) -> None:
        """Say nothing more."""
        self.running = False
        self._tell()

    def remove(self) -> None:
        """Have its log removed: who follows it comes to its end."""
        self.running, self.gone = False, True
        self._tell()

    def content(self, limit: int | None = None) -> bytes:
        """The current file."""
        return bytes(self._file[:limit])

    def follow(self) -> "Following":
        """A reading of it that goes on."""
        return Following(self)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Following:
    """One reading of a container's log that goes on, as the kubelet sends it."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._open()
        self._watches = False
        self._known = container._files  # of which new files it has been told

    def _open(self) -> None:
        self._file = self._container._file
        self._sent = 0

    async def next(self, most: Callable[[int], int]) -> bytes:
        """What comes next, of so many bytes that are there as `most` says; none at the end."""
        container = self._container
        while True:
            news = container._news
            if there := len(self._file) - self._sent:
                piece = bytes(self._file[self._sent : self._sent + most(there)])
                self._sent += len(piece)
                return piece
            if not self._watches:
                self._watches, self._known = True, container._files
            if self._known != container._files:
                self._known = container._files
                self._open()
            elif not container.running:
                return b""
            else:
                try:
                    async with asyncio.timeout(FORCED_SECONDS):
                        await news.wait()
                except TimeoutError:
                    continue
