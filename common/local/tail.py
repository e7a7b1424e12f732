"""A run's log as its readers take it: lines with their ids, while the file grows."""

from collections.abc import Iterable
from pathlib import Path

from common.cri import Joiner, RawLine
from common.events import ZERO, Line, number
from common.local.state import GrowingFile

_CHUNK_BYTES = 256 * 1024


class Tail:
    """A run's log, read line by line from its first."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._joiner = Joiner()
        self._last = ZERO
        self.grew = False  # whether the last read found anything, whole lines or not

    def read(self) -> list[Line]:
        """The lines that are whole with the next chunk of the file."""
        chunk = self._file.read(_CHUNK_BYTES)
        self.grew = bool(chunk)
        return self._number(self._joiner.feed(chunk))

    def rest(self) -> list[Line]:
        """The lines that never got their newline, once nothing more will come."""
        return self._number(self._joiner.close())

    def _number(self, lines: Iterable[RawLine]) -> list[Line]:
        numbered = list(number(lines, self._last))
        if numbered:
            self._last = numbered[-1].id
        return numbered
