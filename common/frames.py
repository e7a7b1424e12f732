"""What followers are sent: frames that all of them share, each encoded once a transport."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from common.events import GAP, Cursor, Line, LineId, event, line_event
from common.models import RunStatus

_T = TypeVar("_T")

FRAME_BYTES = 160 * 1024  # of events: who reads slowly holds a frame or two for as long as that takes
_EVENT_BYTES = 200  # of a line's event, besides its text


@dataclass(eq=False, slots=True)
class Frame:
    """Something to send. `encoded` remembers what each transport made of it."""

    _encoded: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def encoded(self, encode: "Callable[[Any], _T]") -> _T:
        """What `encode` makes of the frame, made at the first call."""
        try:
            found: _T = self._encoded[encode]
        except KeyError:
            found = self._encoded[encode] = encode(self)
        return found

    def events(self) -> list[dict[str, Any]]:
        """The events that the frame tells."""
        return []


@dataclass(eq=False, slots=True)
class Lines(Frame):
    """Consecutive lines of a log, at least one.

    Attributes:
        behind: the line before the first (0-0: there is none).
    """

    run_id: str
    attempt: int
    behind: LineId
    lines: Sequence[Line]

    @property
    def last(self) -> LineId:
        """The id behind which to go on."""
        return self.lines[-1].id

    @property
    def size(self) -> int:
        """Bytes of text."""
        return sum(len(line.text) for line in self.lines)

    def cut(self, most: int) -> "list[Lines]":
        """The same lines in pieces whose events have about so many bytes at most, or are a single one."""
        if self.size + _EVENT_BYTES * len(self.lines) <= most:
            return [self]
        starts, size = [0], 0
        for at, line in enumerate(self.lines):
            added = _EVENT_BYTES + len(line.text)
            size += added
            if at and size > most:
                starts.append(at)
                size = added
        return [self._part(start, end) for start, end in pairwise([*starts, len(self.lines)])]

    def after(self, cursor: LineId) -> "Lines":
        """The part behind `cursor`; the frame itself where that is all of it."""
        start = bisect_right(self.lines, cursor, key=lambda line: line.id)
        return self._part(start, len(self.lines)) if start else self

    def gaps(self) -> "list[Lines]":
        """What is no line but a gap, each alone."""
        return [self._part(at, at + 1) for at, line in enumerate(self.lines) if line.stream == GAP]

    def _part(self, start: int, end: int) -> "Lines":
        behind = self.lines[start - 1].id if start else self.behind
        return Lines(self.run_id, self.attempt, behind, self.lines[start:end])

    def events(self) -> list[dict[str, Any]]:
        """One event a line."""
        before = (self.behind, *(line.id for line in self.lines))
        return [line_event(self.run_id, self.attempt, *found) for found in zip(self.lines, before, strict=False)]


@dataclass(eq=False, slots=True)
class Notice(Frame):
    """One event that is no line: status, progress, gap, restarted, complete or error."""

    event: dict[str, Any]

    @property
    def cursor(self) -> Cursor:
        """Where to go on."""
        return Cursor.parse(self.event["id"], "id")

    def events(self) -> list[dict[str, Any]]:
        """That one."""
        return [self.event]


@dataclass(eq=False, slots=True)
class Idle(Frame):
    """Nothing to say: keeps a connection from being cut."""


IDLE = Idle()


@dataclass(eq=False, slots=True)
class Farewell(Frame):
    """The server is about to stop: where to go on."""

    cursor: Cursor


def status_notice(status: RunStatus, cursor: Cursor) -> Notice:
    """The run as it is now."""
    return Notice(event("status", cursor, status.model_dump(mode="json")))


def progress_notice(status: RunStatus, cursor: Cursor) -> Notice:
    """How far the run's tasks are."""
    return Notice(event("progress", cursor, status.progress.model_dump(mode="json") if status.progress else {}))


def gap(cursor: Cursor, reason: str) -> Notice:
    """What came behind `cursor` is gone, nobody knows how much."""
    return Notice(event("gap", cursor, {"reason": reason}))
