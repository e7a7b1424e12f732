"""What one follower was told, over all its connections, held against the ledger frame by frame.

Its lines are those that were said, from where it began, in order, each once. What is missing has a gap in its
place, and then nobody held it any more. The allowances are those of the README's limits, each with its reason.
"""

from dataclasses import dataclass
from typing import NoReturn

from common.events import GAP, ZERO, Cursor, Line, LineId
from common.follow import Query
from common.frames import Farewell, Frame, Lines, Notice
from tests.simulation.relay.ledger import Attempt, Said
from tests.simulation.relay.world import World

_LISTED_SECONDS = 60.0  # those of common.store, and what a slow follower takes
SLACK_SECONDS = 20.0  # longer than any answer that was asked for before something became readable


@dataclass
class Gap:
    """A gap that was told, and which of the lines from there on somebody held then."""

    made: float
    held: dict[int, str]


class Broken(AssertionError):
    """A follower was told something else than what was said."""


class Told:
    """One follower.

    Attributes:
        run_id, attempt, next: the line that it is to be told next, by its number; None: it is not known yet.
        cursor: where it would go on.
        complete: the runs whose end it was told.
        gaps: how many it was told.
        failed: the last that it was told is that something went wrong.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self._world = world
        self.run_id = ""
        self.attempt = 1
        self.next: int | None = None
        self.cursor: Cursor | None = None
        self.complete: list[str] = []
        self.gaps = 0
        self.failed = False
        self.lines = 0
        self._gap: Gap | None = None
        self._opened = False
        self._tail: tuple[int, int] | None = None
        self._log = True

    @property
    def is_at_the_end(self) -> bool:
        """Whether its run has no more lines for it."""
        said = self._world.ledger.runs[self.run_id]
        return self.attempt == len(said) and self.next == len(said[-1].lines)

    # Connections.

    def connects(self, query: Query, run_id: str) -> None:
        """It has been let in to a run."""
        self._opened = False
        self._log = "log" in query.types
        self._tail = None
        ledger = self._world.ledger
        after = query.after
        known = after is not None and after.run_id == run_id and after.attempt <= len(ledger.runs[run_id])
        if after is not None and after.line is not None and known:
            index = ledger.behind(run_id, after.attempt, after.line)
            if self.next is None or self._is_new(run_id):
                self._go_behind(run_id, after.attempt, after.line)
            elif (run_id, after.attempt, index) != (self.run_id, self.attempt, self.next):
                self._break(f"its cursor {after} is not where it was: {self.attempt}, {self.next}")
        elif query.tail is not None:
            self.run_id, self.next = run_id, None
            self._tail = (query.tail, ledger.left(run_id, 1, 0))
        elif self._is_new(run_id) or self.next is None:
            self._go(run_id, 1, 0)

    def _is_new(self, run_id: str) -> bool:
        return run_id != self.run_id

    def _go(self, run_id: str, attempt: int, index: int) -> None:
        self.run_id, self.attempt, self.next = run_id, attempt, index
        self._gap = None

    def _go_behind(self, run_id: str, attempt: int, line: LineId) -> None:
        ledger = self._world.ledger
        self._go(run_id, attempt, ledger.behind(run_id, attempt, line))
        if line in ledger.gaps:  # it stands for lines whose ids may be above its own: they are not told behind it
            self._gap = Gap(ledger.gaps[line], {})

    # Frames.

    def take(self, frame: Frame) -> None:
        """Take in what comes next."""
        self.failed = False
        match frame:
            case Lines():
                if (frame.run_id, frame.attempt) != (self.run_id, self.attempt):
                    self._break(f"lines of {frame.run_id}.{frame.attempt} while at {self.run_id}.{self.attempt}")
                for line in frame.lines:
                    if line.stream == GAP:
                        self._lost(line)
                    else:
                        self._line(line)
                self.cursor = Cursor(frame.run_id, frame.attempt, frame.last)
            case Notice():
                self._notice(str(frame.event["type"]), frame)
                self.cursor = frame.cursor
                if not self._log:
                    self._passes(frame.cursor)
            case Farewell():
                self.cursor = frame.cursor

    def fails(self, notice: Notice) -> None:
        """It is told that something is away: it is where it was, be it in another run than it has asked for."""
        self.failed, self.cursor = True, notice.cursor

    def _line(self, line: Line) -> None:
        said = self._world.ledger.runs[self.run_id][self.attempt - 1]
        index = said.behind(line.id) - 1
        if index < 0 or said.lines[index].line != line:
            self._break(f"nobody said {line}")
        if self.next is None or index < self.next:
            self._break(f"line {index} again, or too late: {self.next} is next")
        if index > self.next:
            self._missing(self.next, index)
        self.next, self._gap = index + 1, None
        self.lines += 1

    def _lost(self, line: Line) -> None:
        """A gap where a line would stand: what is not behind it is missing."""
        said = self._world.ledger.runs[self.run_id][self.attempt - 1]
        self._tell_gap(self._world.ledger.gaps.get(line.id, self._world.time))
        index = said.behind(line.id)
        if self.next is not None and index > self.next:
            self._missing(self.next, index)
            self.next = index

    def _passes(self, cursor: Cursor) -> None:
        """Who is told no lines is put behind them by what else it is told; never back."""
        if cursor.line is None or cursor.run_id != self.run_id:
            return
        index = self._world.ledger.behind(self.run_id, cursor.attempt, cursor.line)
        if cursor.attempt != self.attempt or index < (self.next or 0):
            self._break(f"it is put back to {cursor}")
        self.next = index

    def _notice(self, kind: str, notice: Notice) -> None:
        cursor = notice.cursor
        if not self._opened:
            self._opened = True
            if kind != "status":
                self._break(f"{kind} comes first")
            self._place(cursor)
        match kind:
            case "gap":
                self._tell_gap(self._world.time)
            case "restarted":
                self._ends()
                if (cursor.run_id, cursor.attempt, cursor.line) != (self.run_id, self.attempt + 1, ZERO):
                    self._break(f"restarted at {cursor} while at attempt {self.attempt}")
                self._go(self.run_id, self.attempt + 1, 0)
            case "complete":
                self._completes(notice)

    def _place(self, cursor: Cursor) -> None:
        """The first event says where it is: where it should be, or where its tail begins."""
        ledger = self._world.ledger
        if cursor.run_id != self.run_id:  # the next one's of `*`
            self._follows(cursor.run_id)
        assert cursor.line is not None
        index = ledger.behind(self.run_id, cursor.attempt, cursor.line)
        if self._tail is not None:
            self._go_behind(self.run_id, cursor.attempt, cursor.line)
            count, _ = self._tail
            # It may hold more than was asked for, where what it was counted from was behind; never less.
            left = ledger.left(self.run_id, cursor.attempt, index)
            if left < min(count, ledger.left(self.run_id, 1, 0)) and not self._anything_lost():
                self._break(f"{count} lines were asked for, {left} are told")
            self._tail = None
        elif (cursor.attempt, index) != (self.attempt, self.next):
            self._break(f"it is put at {cursor}, line {index}, and was at {self.attempt}, {self.next}")

    def _anything_lost(self) -> bool:
        """Whether a gap may have been counted for a line."""
        return bool(self._world.ledger.gaps)

    def _follows(self, run_id: str) -> None:
        order = self._world.ledger.order
        steps = order.index(run_id) - order.index(self.run_id)
        # A Redis that was away, or is set back, may lack a run, and says for some time that it knows them all: the
        # history is compared with the Jobs only now and then (common.look).
        lacks = self._world.time - self._world.redis.unsettled < _LISTED_SECONDS
        if self.run_id not in self.complete or steps < 1 or (steps > 1 and not lacks):
            self._break(f"{run_id} comes after {self.run_id}")
        self._go(run_id, 1, 0)

    def next_run(self, run_id: str) -> None:
        """The frames of the next run begin."""
        self._follows(run_id)
        self._opened = False

    def _completes(self, notice: Notice) -> None:
        ledger = self._world.ledger
        self._ends()
        if notice.cursor.run_id != self.run_id or self.run_id in self.complete:
            self._break(f"the end of {notice.cursor.run_id} is told, again or of another run")
        if self.attempt != len(ledger.runs[self.run_id]) or self.run_id not in ledger.over:
            self._break(f"it ends with attempt {self.attempt}")
        if notice.event["data"]["status"] != "succeeded":
            self._break(f"it ends as {notice.event['data']['status']}")
        self.complete.append(self.run_id)

    def _ends(self) -> None:
        """Its attempt has no more lines."""
        said = self._world.ledger.runs[self.run_id][self.attempt - 1]
        if said.over is None:
            self._break(f"attempt {self.attempt} ends and goes on")
        if self._log and self.next is not None and self.next < len(said.lines):
            self._missing(self.next, len(said.lines))

    # What is missing.

    def _tell_gap(self, made: float) -> None:
        self.gaps += 1
        self._world.steps.note(self.name, f"gap at {self.attempt}, {self.next}, made {made:.3f}")
        held = {} if self.next is None else self._held(self.next, made)
        self._gap = Gap(made, held)

    def _held(self, first: int, made: float) -> dict[int, str]:
        """Who held each line from there on, long enough before a gap was found, and holds it still."""
        world, since = self._world, made - SLACK_SECONDS
        said = (world.ledger.runs[self.run_id] or [Attempt()])[self.attempt - 1]
        key = f"{world.settings.redis_prefix}:log:{self.run_id}:{self.attempt}"
        redis: set[LineId] = set()
        if world.redis.unsettled < since and not world.redis.away:
            redis = {LineId.parse(entry_id.decode()) for entry_id, _ in world.redis.store.xrange(key)}
        found: dict[int, str] = {}
        for index in range(first, len(said.lines)):
            line = said.lines[index]
            if line.at >= since:
                break
            if self._is_archived(line, since):
                found[index] = "the archive"
            elif line.line.id in redis:
                found[index] = "Redis"
            elif said.cut[line.file] > world.time and world.cluster.unsettled < since:
                found[index] = "the file"
        return found

    def _is_archived(self, line: Said, since: float) -> bool:
        world = self._world
        if not world.weather.archive or line.archived is None or line.archived >= since:
            return False
        return world.volume.unsettled < since

    def _missing(self, first: int, end: int) -> None:
        """Lines are passed over."""
        if not self._log:
            return
        if self._gap is None:
            if self._were_stalled(first, end):
                return
            self._break(f"lines {first} to {end - 1} are missing, and no gap says so")
        elif held := {index: who for index, who in self._gap.held.items() if first <= index < end}:
            self._break(f"lines {first} to {end - 1} are said to be gone, and were held: {held}")

    def _were_stalled(self, first: int, end: int) -> bool:
        """A limit that is not mended: what was on its way for longer than a kubelet is waited for counts as never sent.

        A reader who sees another file, and hears nothing of this one for some ticks, leaves it; what is still on its
        way then, as one connection stands still and another does not, is missing without a word (common/kube/log.py).
        """
        said = self._world.ledger.runs[self.run_id][self.attempt - 1]
        stalls, is_cut = self._world.cluster.stalls, said.begins_a_file(end)
        return is_cut and all(
            any(begun - 1 <= line.at <= ended for begun, ended in stalls) for line in said.lines[first:end]
        )

    def _break(self, what: str) -> NoReturn:
        raise Broken(f"{self.name} at {self.run_id}.{self.attempt}, line {self.next}: {what}")
