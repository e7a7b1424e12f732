"""A run's log as its readers take it: lines with their ids, while the file grows."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from common import archive
from common.cri import Joiner, RawLine
from common.events import ZERO, Line, LineId, number
from common.local.state import GrowingFile
from common.runner import Batches

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


async def kept(directory: Path, after: LineId) -> Batches:
    """What the recorder of a run has kept of its log behind a line, which is looked for by its id."""
    reader = archive.Reader(archive.place(directory, 1), after)
    try:
        with suppress(archive.Damaged, OSError):  # the log has it, too
            while lines := await asyncio.to_thread(reader.read):
                yield lines
    finally:
        reader.close()
