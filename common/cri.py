"""The log format of Kubernetes' container runtimes: `<RFC3339Nano> <stream> <P|F> <text>`.

A line of more than 16 KiB lies in pieces tagged P with a last one tagged F; a last line without a
newline is a P that nothing follows. LocalRunner writes this format so that one reader serves both.

No reader holds more of a line than `LINE_BYTES`: what is longer goes on as lines of exactly that length,
all at the time of the first, until one that is shorter ends it. So every reader cuts at the same places,
gives the same ids, and nothing is lost; a line of exactly that length is followed by an empty one.
Source: the CRI logging format, kubernetes/design-proposals-archive, node/kubelet-cri-logging.md.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

PIECE_BYTES = 16 * 1024
LINE_BYTES = 1024 * 1024

_YEAR_10000 = 253_402_300_800
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_RECORD = re.compile(
    _TIME.pattern + rb" (stdout|stderr) ([PF])(?::\S*)? ?(.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as the container wrote it.

    Attributes:
        at_ns: the runtime's time of its first piece, nanoseconds since 1970.
        stream: `stdout` or `stderr`.
        text: the bytes without the newline.
    """

    at_ns: int
    stream: str
    text: bytes


class Growing:
    """A line whose end has not come yet, at the time of its beginning."""

    def __init__(self, at_ns: int, stream: str) -> None:
        self._at_ns = at_ns
        self._stream = stream
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, text: bytes) -> list[RawLine]:
        """Take in what comes next of it; what is given of it already, as it is too long to be held."""
        self._pieces.append(text)
        self._size += len(text)
        if self._size < LINE_BYTES:
            return []
        held = b"".join(self._pieces)
        self._size %= LINE_BYTES
        whole = len(held) - self._size
        self._pieces = [held[whole:]] if self._size else []
        return [self._line(held[start : start + LINE_BYTES]) for start in range(0, whole, LINE_BYTES)]

    def end(self, *, newline: bool) -> list[RawLine]:
        """The rest of it; only a newline ends what is a line of the full length so far with an empty one."""
        return [self._line(b"".join(self._pieces))] if newline or self._pieces else []

    def _line(self, text: bytes) -> RawLine:
        return RawLine(self._at_ns, self._stream, text)


class Joiner:
    """Turns the bytes of a runtime's log file, cut anywhere, into lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._growing: dict[bytes, Growing] = {}
        self.malformed = 0

    def feed(self, data: bytes) -> Iterator[RawLine]:
        """The lines that are whole with `data`, in order."""
        *records, self._rest = (self._rest + data).split(b"\n")
        for record in records:
            yield from self._record(record)

    def close(self) -> Iterator[RawLine]:
        """What is left once the file is final: last lines without a newline."""
        for line in self._growing.values():
            yield from line.end(newline=False)
        self._growing = {}

    def _record(self, record: bytes) -> Iterable[RawLine]:
        found = _RECORD.fullmatch(record)
        if found is None:  # a write torn by a crash: nothing of it can be told
            self.malformed += 1
            return ()
        *time, stream, tag, text = found.groups()
        line = self._growing.get(stream) if self._growing else None
        if line is None:
            try:
                at_ns = _nanoseconds(*time)
            except ValueError:  # digits that are no time
                self.malformed += 1
                return ()
            if tag == b"F" and len(text) < LINE_BYTES:
                return (RawLine(at_ns, stream.decode(), text),)
            line = self._growing[stream] = Growing(at_ns, stream.decode())
        given = line.add(text)
        if tag == b"F":
            del self._growing[stream]
            given += line.end(newline=True)
        return given


def record(at_ns: int, stream: str, text: bytes, *, ended: bool = True) -> bytes:
    """The bytes of one line in this format; `ended=False` for one that had no newline."""
    head = f"{format_time(at_ns)} {stream} ".encode("ascii")
    pieces = [text[start : start + PIECE_BYTES] for start in range(0, len(text), PIECE_BYTES)] or [b""]
    tags = [b"P "] * (len(pieces) - 1) + [b"F " if ended else b"P "]
    return b"".join(b"%b%b%b\n" % (head, tag, piece) for tag, piece in zip(tags, pieces, strict=True))


def format_time(at_ns: int) -> str:
    """RFC 3339 in UTC with nine digits, as the runtimes write it."""
    seconds, fraction = divmod(at_ns, 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=64)  # thousands of lines are of one second
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_time(text: bytes) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time.

    Raises:
        ValueError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    return _nanoseconds(*found.groups())


def _nanoseconds(second: bytes, fraction: bytes | None, zone: bytes) -> int:
    suffix = "+00:00" if zone == b"Z" else zone.decode("ascii")
    seconds = int(datetime.fromisoformat(second.decode("ascii") + suffix).timestamp())
    if not 0 <= seconds < _YEAR_10000:  # the zone may have led there
        raise ValueError("a time that cannot be told again")
    return seconds * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
