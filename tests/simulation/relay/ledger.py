"""Everything that was ever said, and who held it until when: what followers are told is held against this."""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

from common.cri import RawLine
from common.events import ZERO, Line, LineId, number


@dataclass(slots=True)
class Said:
    """One line.

    Attributes:
        at: when it was said, by the world's clock.
        file: in which of the files.
        archived: when it came to be in the archive.
    """

    line: Line
    at: float
    file: int
    archived: float | None = None


@dataclass
class Attempt:
    """What one attempt has said.

    Attributes:
        opened: what its head said before its Nextflow did, which is no line of its log.
        cut: of each file, when it stopped being readable.
        over: when it had said its last.
    """

    opened: LineId = ZERO
    lines: list[Said] = field(default_factory=list)
    ids: list[LineId] = field(default_factory=list)
    cut: list[float] = field(default_factory=lambda: [float("inf")])
    over: float | None = None

    def say(self, raw: RawLine, at: float) -> None:
        """Take in the next line."""
        last = self.ids[-1] if self.ids else self.opened
        (line,) = number([raw], last)
        self.lines.append(Said(line, at, len(self.cut) - 1))
        self.ids.append(line.id)

    def rotate(self, at: float) -> None:
        """The next line will be in a new file."""
        self.cut[-1] = at
        self.cut.append(float("inf"))

    def remove(self, at: float) -> None:
        """What there is of it can be read no more."""
        self.cut[-1] = at

    def behind(self, line_id: LineId) -> int:
        """How many lines are not behind this place."""
        return bisect_right(self.ids, line_id)

    def begins_a_file(self, index: int) -> bool:
        """Whether a line, or what would come as the next one, is the first of its file, and not of the first file."""
        before = self.lines[index - 1].file if index else 0
        file = self.lines[index].file if index < len(self.lines) else len(self.cut) - 1
        return file > before


class Ledger:
    """All runs'.

    Attributes:
        order: the runs, in the order of their beginnings.
        gaps: when a gap of this id was first found, by whoever was the first.
    """

    def __init__(self) -> None:
        self.order: list[str] = []
        self.runs: dict[str, list[Attempt]] = {}
        self.over: dict[str, float] = {}
        self.gaps: dict[LineId, float] = {}

    def begin(self, run_id: str) -> None:
        """A run begins."""
        self.order.append(run_id)
        self.runs[run_id] = []

    def attempt(self, run_id: str) -> Attempt:
        """One more head of it begins."""
        self.runs[run_id].append(Attempt())
        return self.runs[run_id][-1]

    def archive(self, run_id: str, attempt: int, lines: list[LineId], at: float) -> None:
        """These lines are in the archive."""
        said = self.runs[run_id][attempt - 1]
        for line_id in lines:
            index = said.behind(line_id) - 1
            if index >= 0 and said.ids[index] == line_id and said.lines[index].archived is None:
                said.lines[index].archived = at

    def grows(self) -> bool:
        """Whether all ids are in order: what everything else rests on."""
        return all(a < b for run in self.runs.values() for said in run for a, b in pairwise(said.ids))

    def behind(self, run_id: str, attempt: int, line_id: LineId) -> int:
        """How many lines of an attempt are not behind a place; none of one that is asked for and has not begun."""
        said = self.runs[run_id][attempt - 1 : attempt]
        return said[0].behind(line_id) if said else 0

    def left(self, run_id: str, attempt: int, index: int) -> int:
        """How many lines a run has from a place on, so far."""
        return sum(len(said.lines) for said in self.runs[run_id][attempt - 1 :]) - index
