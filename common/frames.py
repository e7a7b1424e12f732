"""What followers are sent: frames that all of them share, each encoded once a transport."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from common.events import Cursor, Line, LineId, event, log_event
from common.models import RunStatus

_T = TypeVar("_T")


@dataclass(eq=False, slots=True)
class Frame:
    """Something to send. `encoded` remembers what each transport made of it."""

    _encoded: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def encoded(self, encode: "Callable[[Any], _T]") -> _T:
        """What `encode` makes of the frame, made at the first call."""
        if encode not in self._encoded:
            self._encoded[encode] = encode(self)
        found: _T = self._encoded[encode]
        return found

    def events(self) -> list[dict[str, Any]]:
        """The events that the frame tells."""
        return []


@dataclass(eq=False, slots=True)
class Lines(Frame):
    """Consecutive lines of a log.

    Attributes:
        gap: set where there are none to send: the ids between which lines are gone for good.
    """

    run_id: str
    attempt: int
    lines: Sequence[Line]
    gap: tuple[LineId, LineId] | None = None

    @property
    def last(self) -> LineId:
        """The id behind which to go on."""
        return self.gap[1] if self.gap else self.lines[-1].id

    @property
    def size(self) -> int:
        """Bytes of text."""
        return sum(len(line.text) for line in self.lines)

    def after(self, cursor: LineId) -> "Lines":
        """The part behind `cursor`; the frame itself where that is all of it."""
        if self.lines[0].id > cursor:
            return self
        return Lines(self.run_id, self.attempt, tuple(line for line in self.lines if line.id > cursor))

    def events(self) -> list[dict[str, Any]]:
        """One event a line."""
        if self.gap is not None:
            lost = {
                "after": str(self.gap[0]),
                "until": str(self.gap[1]),
                "reason": "Neither Redis nor the run's log holds them.",
            }
            return [event("gap", Cursor(self.run_id, self.attempt, self.gap[1]), lost)]
        return [log_event(self.run_id, self.attempt, line) for line in self.lines]


@dataclass(eq=False, slots=True)
class Notice(Frame):
    """One event that is no line: status, progress, gap, complete or error."""

    event: dict[str, Any]

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
