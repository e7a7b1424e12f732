"""Events of a run, their ids, and the cursors that name a place in its log.

A line's id comes from the container runtime's own time for it, so everybody who reads the same
log gives the same ids: `<milliseconds>-<nanosecond within it, times 1000, plus a tie>`, forced
above its predecessor's. It is a Redis Stream id as it stands. The thousand leaves room for lines
of the same nanosecond; a forced id is one that does not agree with its line's own time.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from pydantic_core import to_json

from common.cri import RawLine, format_time
from common.errors import Invalid
from common.names import RUN_ID

_TIES = 1_000
_MAX_SEQ = 1_000_000 * _TIES  # of one millisecond; what a forced id may run over
_MS, _SEQ = r"[01]?[0-9]{1,14}", r"[0-9]{1,19}"  # to the year 8307: what is beyond 9999 would be no time
NANOSECONDS = re.compile(rb"[0-9]{1,20}")  # to the year 5138: what is beyond 9999 would be no time
_LINE_ID = re.compile(rf"({_MS})-({_SEQ})")


class LineId(NamedTuple):
    """The id of a line; ids of one attempt grow from line to line."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that `text` spells.

        Raises:
            ValueError: it does not spell one.
        """
        found = _LINE_ID.fullmatch(text)
        if found is None:
            raise ValueError(f"not a line id: {text!r}")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_time(cls, at_ns: int) -> Self:
        """The id of the first line at this time."""
        ms, ns = divmod(at_ns, 1_000_000)
        return cls(ms, ns * _TIES)

    def next(self) -> "LineId":
        """The smallest id above this one."""
        return LineId(self.ms, self.seq + 1) if self.seq < _MAX_SEQ - 1 else LineId(self.ms + 1, 0)

    def before(self) -> "LineId":
        """The largest id below this one."""
        return LineId(self.ms, self.seq - 1) if self.seq else LineId(self.ms - 1, _MAX_SEQ - 1)

    def closing(self) -> "LineId":
        """The largest id of this one's millisecond: of what is said behind a log's last line, whoever says it."""
        return LineId(self.ms, _MAX_SEQ - 1)


ZERO = LineId(0, 0)
BEYOND = LineId(2 * 10**14, 10**19)  # in either part: no line's id
GAP = "gap"  # as the stream of a line: it says why others are missing
LETTERS = {"stdout": "o", "stderr": "e", GAP: "g"}  # the streams as they are stored
_STREAMS = {letter.encode(): stream for stream, letter in LETTERS.items()}


class Line(NamedTuple):
    """A line of a run's log; `text` is what the container wrote, without its newline.

    One of the stream `gap` stands where nobody could read what there was; its text says why, in words.
    """

    id: LineId
    at_ns: int
    stream: str
    text: bytes

    @property
    def letter(self) -> str:
        """The stream as it is stored."""
        return LETTERS[self.stream]


def stream_of(letter: bytes) -> str:
    """The stream that is stored as this letter; standard output where it is none."""
    return _STREAMS.get(letter, "stdout")


def number(lines: Iterable[RawLine], last: LineId = ZERO) -> Iterator[Line]:
    """Give ids to the lines that follow the one with the id `last`."""
    for raw in lines:
        last = max(LineId.of_time(raw.at_ns), last.next())
        yield Line(last, raw.at_ns, raw.stream, raw.text)


class Place(NamedTuple):
    """A place in a run's log, behind a line of an attempt; places grow from line to line and attempt to attempt."""

    attempt: int
    line: LineId


CURSOR = re.compile(rf"({RUN_ID.pattern})\.([1-9][0-9]{{0,5}})\.({_MS}-{_SEQ}|end)")
NO_CURSOR = "not a cursor; pass the id of an event exactly as it was received"


class Cursor(NamedTuple):
    """A place in a run's events: behind the line `line` of an attempt, or behind everything (`line` None)."""

    run_id: str
    attempt: int
    line: LineId | None

    def __str__(self) -> str:
        return f"{self.run_id}.{self.attempt}.{'end' if self.line is None else self.line}"

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """The cursor that `text` spells.

        Raises:
            Invalid: it does not spell one; `where` says which parameter it was.
        """
        found = CURSOR.fullmatch(text)
        if found is None:
            raise Invalid(where, NO_CURSOR)
        run_id, attempt, line = found.groups()
        return cls(run_id, int(attempt), None if line == "end" else LineId.parse(line))


def event(kind: str, cursor: Cursor, data: dict[str, Any], timestamp: str | None = None) -> dict[str, Any]:
    """One event as every transport carries it; `timestamp` is now where none is given."""
    return {
        "id": str(cursor),
        "type": kind,
        "run_id": cursor.run_id,
        "timestamp": timestamp or utc(datetime.now(UTC)),
        "data": data,
    }


def line_event(run_id: str, attempt: int, line: Line, before: LineId) -> dict[str, Any]:
    """The event of one line; `before` is the line before it (0-0: there is none).

    Its `timestamp` is the one the line itself begins with, if it does; `timestamp_source` says which.
    Text that is not UTF-8 is told twice: readable, with replacement characters, and exact, in `base64`.
    """
    cursor = Cursor(run_id, attempt, line.id)
    if line.stream == GAP:
        after = {} if before == ZERO else {"after": str(before)}
        lost = {"reason": line.text.decode("utf-8", "replace"), **after, "until": str(line.id)}
        return event("gap", cursor, lost, format_time(line.at_ns))
    data: dict[str, Any] = {"line": line.text.decode("utf-8", "replace"), "stream": line.stream}
    own = line_time(line.text)
    data["timestamp_source"] = "runtime" if own is None else "line"
    if "�" in data["line"] and _utf8(line.text) is None:
        data["base64"] = base64.b64encode(line.text).decode("ascii")
    return event("log", cursor, data, own or format_time(line.at_ns))


def encode(value: dict[str, Any]) -> bytes:
    """An event as JSON, on one line."""
    return to_json(value)


Encoded = tuple[str, str, str]  # an event's id, its type, and all of it as JSON


def encode_lines(run_id: str, attempt: int, lines: Sequence[Line], behind: LineId) -> list[Encoded]:
    """The events of consecutive lines: what `encode` makes of each `line_event`, for a part of the work."""
    place = f"{run_id}.{attempt}."
    middle = f'","type":"log","run_id":"{run_id}","timestamp":"'
    found: list[Encoded] = []
    second, moment = -1, ""
    for line, text in zip(lines, _strings([line.text for line in lines]), strict=True):
        (ms, seq), at_ns, stream, raw = line
        if text is None or stream == GAP:
            told = line_event(run_id, attempt, line, behind)
            found.append((told["id"], told["type"], encode(told).decode()))
        else:
            cursor, timestamp, source = f"{place}{ms}-{seq}", line_time(raw), "line"
            if timestamp is None:
                seconds, fraction = divmod(at_ns, 1_000_000_000)
                if seconds != second:  # thousands of lines are of one
                    second, moment = seconds, format_time(at_ns)[:-10]
                timestamp, source = f"{moment}{fraction:09d}Z", "runtime"
            json = (
                f'{{"id":"{cursor}{middle}{timestamp}","data":'
                f'{{"line":"{text}","stream":"{stream}","timestamp_source":"{source}"}}}}'
            )
            found.append((cursor, "log", json))
        behind = line.id
    return found


def _strings(texts: list[bytes]) -> list[str] | list[str | None]:
    """Texts without newlines as JSON strings without their quotes; None for what is no UTF-8."""
    whole = _utf8(b"\n".join(texts))
    if whole is None:
        return [None if (text := _utf8(raw)) is None else to_json(text).decode()[1:-1] for raw in texts]
    # Within a string each quote has a backslash before it: this stands between two strings only.
    return to_json(whole.split("\n")).decode()[2:-2].split('","')


_ISO = re.compile(
    rb"[\[(<{]?(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)"
    rb"([Zz]|[+-]\d\d(?::?\d\d)?| [Zz]| [+-]\d\d:?\d\d)?(?![\w:])"  # `10:00 -5` is no zone, `10:00-05` is
)


def line_time(text: bytes) -> str | None:
    """The ISO 8601 time a line begins with (bare or in one bracket), in UTC; None if it has none.

    A time without a zone is taken as UTC: containers run in it.
    """
    found = _ISO.match(text)
    if found is None:
        return None
    moment, zone = (part.decode("ascii").strip().upper() if part else "" for part in found.groups())
    moment, _, fraction = moment.replace(",", ".").partition(".")
    try:
        parsed = datetime.fromisoformat(moment + ("+00:00" if zone in ("", "Z") else zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return utc(parsed + timedelta(microseconds=int(fraction[:6].ljust(6, "0")) if fraction else 0))


def utc(moment: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _utf8(text: bytes) -> str | None:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return None
