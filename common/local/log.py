"""A run's log file as its supervisor writes it: the container runtimes' format, whole lines, each at its own time."""

import os
import time
from contextlib import suppress
from pathlib import Path

from common import cri

_ERROR = b"ERROR ~"  # how Nextflow begins what it gives as the reason of a failure
_COMPLAINT_BYTES = 300


class Log:
    """The run's log: bytes of two pipes in, whole lines out, each with a time of its own.

    What cannot be written (a full disk) is kept and tried again; meanwhile `blocked` says not to
    bring more, so the pipes fill up and the run waits for the disk: no line is lost.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._error = self._last_stderr = b""
        self._last_ns = 0
        self._open_lines: dict[str, bytes] = {}
        self._unwritten = b""

    @property
    def blocked(self) -> bool:
        return bool(self._unwritten)

    def take(self, stream: str, data: bytes) -> None:
        """Take in output as it came; a line is passed on once it is whole, or longer than a piece."""
        *lines, rest = (self._open_lines.get(stream, b"") + data).split(b"\n")
        self._unwritten += b"".join([cri.record(self._now(), stream, line) for line in lines])  # copied once
        for line in lines:
            self._listen(stream, line)
        whole = len(rest) - len(rest) % cri.PIECE_BYTES
        if whole:
            self._unwritten += cri.record(self._now(), stream, rest[:whole], ended=False)
        self._open_lines[stream] = rest[whole:]

    @property
    def complaint(self) -> str:
        """What Nextflow gave as the reason of a failure: its first error, else the last it said on standard error."""
        said = (self._error or self._last_stderr).removeprefix(_ERROR).strip()
        return said[:_COMPLAINT_BYTES].decode("utf-8", "replace")

    def _listen(self, stream: str, line: bytes) -> None:
        if line.startswith(_ERROR):
            self._error = self._error or line
        elif stream == "stderr" and line.strip():
            self._last_stderr = line

    def end(self, stream: str) -> None:
        """The stream has ended, perhaps without a last newline."""
        rest = self._open_lines.pop(stream, b"")
        if rest:
            self._unwritten += cri.record(self._now(), stream, rest, ended=False)

    def flush(self) -> None:
        """Write what is there with one call, so that a crash tears one record at most."""
        # A disk that fills up may take half a record; what is kept goes on exactly there.
        with suppress(OSError):
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def finish(self) -> bool:
        """Bring all that was taken in to the disk; whether that is done."""
        for stream in tuple(self._open_lines):
            self.end(stream)
        self.flush()
        try:
            os.fsync(self._file.fileno())
        except OSError:
            return False
        return not self.blocked

    def _now(self) -> int:
        # Never twice the same and never back, whatever the clock does: ids are made of it.
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return self._last_ns
