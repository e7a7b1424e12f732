"""The lines of a container's log file, out of what the API server sends of it (`pods/log?timestamps=true`).

Nine-digit times, one a line; what does not end with a newline is the file's last line.
"""

from common.cri import LINE_BYTES, Growing, RawLine, parse_time
from common.events import ZERO, Line, LineId, number

_TIME_BYTES = 40  # a line's time, and no more than a few of its text
NOTHING = (ZERO, 0)  # the end of a file without a line
_STREAM = "stdout"  # the API does not tell it and stderr apart


class _Unended:
    """A line whose newline has not come yet: its time, and what there is of its text."""

    def __init__(self) -> None:
        self._head = b""
        self._line: Growing | None = None
        self._torn = False
        self.size = 0
        self.id: LineId | None = None  # where it is the first of its file; not before its time is known

    def add(self, part: bytes) -> list[RawLine]:
        """Take in what comes next; what is given of the line already, as it is too long to be held."""
        self.size += len(part)
        if self._line is None and not self._torn:
            self._head += part
            at, begun, part = self._head.partition(b" ")
            if begun or len(self._head) > _TIME_BYTES:
                self._head = b""
                try:
                    at_ns = parse_time(at)
                    self._line, self.id = Growing(at_ns, _STREAM), LineId.of_time(at_ns)
                except ValueError:
                    self._torn = True
        return self._line.add(part) if self._line is not None else []

    @property
    def text(self) -> bytes:
        """What there is of it; of one that is too long to be held, what is not given yet."""
        return b"".join(line.text for line in self.end(newline=False))

    def end(self, *, newline: bool) -> list[RawLine]:
        """The rest of it."""
        if self._line is not None:
            return self._line.end(newline=newline)
        return [line] if (line := raw_line(self._head)) is not None else []


class Sent:
    """One reading of a file from its beginning, cut anywhere, as numbered lines."""

    def __init__(self) -> None:
        self._last = ZERO
        self._unended = _Unended()

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that are whole with this chunk."""
        *ends, rest = chunk.split(b"\n")
        whole: list[RawLine] = []
        for end in ends:
            if self._unended.size or len(end) >= LINE_BYTES:
                whole += self._unended.add(end) + self._unended.end(newline=True)
                self._unended = _Unended()
            elif (line := raw_line(end)) is not None:
                whole.append(line)
        return self._number(whole + self._unended.add(rest))

    def rest(self) -> list[Line]:
        """The last line, if it never got its newline."""
        last, self._unended = self._unended, _Unended()
        return self._number(last.end(newline=False))

    @property
    def unended(self) -> tuple[LineId, bytes] | None:
        """The line that has no newline (yet), once its time is known: where it is if it is the first, and its text."""
        return (self._unended.id, self._unended.text) if self._unended.id is not None else None

    @property
    def end(self) -> tuple[LineId, int]:
        """Where the file ends, as far as it was sent: the last line, and how much there is of one more."""
        return self._last, self._unended.size

    def _number(self, raw: list[RawLine]) -> list[Line]:
        numbered = list(number(raw, self._last))
        if numbered:
            self._last = numbered[-1].id
        return numbered


def raw_line(line: bytes) -> RawLine | None:
    """A line that has its end; None where that is none of the container's."""
    at, _, text = line.partition(b" ")
    try:
        return RawLine(parse_time(at), _STREAM, text)
    except ValueError:  # the kubelet's own words, or a line torn by a cut: it comes again
        return None
