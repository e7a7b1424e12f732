"""A container's log as the API server sends it (`pods/log?timestamps=true`), as numbered lines.

Nine-digit times, one a line; what does not end with a newline is the log's last line. Read again from
its beginning after every cut: the same lines get the same ids, and those that are known are dropped.
"""

from collections.abc import Iterator

from common.cri import RawLine, parse_time
from common.events import ZERO, Line, LineId, number

_BATCH_LINES = 500


class Log:
    """One log, however often it has to be read."""

    def __init__(self) -> None:
        self._told: LineId = ZERO
        self.begin()

    def begin(self) -> None:
        """From the first line again."""
        self._last: LineId = ZERO
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[list[Line]]:
        """The new lines that are whole with this chunk, in batches; one empty batch where there are none."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        lines = self._number(whole)
        for start in range(0, len(lines) or 1, _BATCH_LINES):
            yield lines[start : start + _BATCH_LINES]

    def rest(self) -> list[Line]:
        """The last line, if it never got its newline."""
        last, self._rest = self._rest, b""
        return self._number([last] if last else [])

    def _number(self, raw: list[bytes]) -> list[Line]:
        numbered = list(number(filter(None, map(_raw, raw)), self._last))
        if numbered:
            self._last = numbered[-1].id
        fresh = [line for line in numbered if line.id > self._told]
        if fresh:
            self._told = fresh[-1].id
        return fresh


def _raw(line: bytes) -> RawLine | None:
    at, _, text = line.partition(b" ")
    try:
        return RawLine(parse_time(at), "stdout", text)  # the API does not tell stdout and stderr apart
    except ValueError:  # the kubelet's own words, or a line torn by a cut: it comes again
        return None
