"""The recorder: runs beside a run and keeps what it says, whether or not anybody follows.

    python -m common.recorder RUN_ID DIRECTORY

It archives the log in DIRECTORY, relays it to Redis behind the archive, and writes down the
progress of the tasks. It ends when the log is final and all of it is in both, or, with Redis away,
a bounded time after it is in the archive: any stream function fills Redis from there. It never
decides anything about the run itself.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.archive import Archive
from common.errors import Unavailable
from common.events import ZERO, Line, LineId
from common.observe import configure_logging
from common.platform import Platform, platform
from common.progress import Fold
from common.pump import Pump, reading
from common.shutdown import end

log = logging.getLogger(__name__)

_ATTEMPT = 1
_DRAIN_SECONDS = 60.0
_RETRY_SECONDS = 0.5
_PROGRESS_SECONDS = 0.25


class Trace:
    """Nextflow's trace file, read row by row as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._columns: list[str] = []

    def rows(self) -> list[dict[str, str]]:
        """The rows that were finished since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        table = [row.split("\t") for row in data.decode("utf-8", "replace").split("\n")[:-1]]
        if table and not self._columns:
            self._columns, *table = table
        return [dict(zip(self._columns, row, strict=False)) for row in table]


class Recorder:
    """One run's recorder."""

    def __init__(self, parts: Platform, run_id: str, directory: Path) -> None:
        self._parts = parts
        self._run_id = run_id
        self._progress_file = directory / "progress.json"
        self._archive = Archive(directory / "archive" / str(_ATTEMPT))
        self._archived = asyncio.Condition()
        self._read_to = ZERO
        self._kept = False  # the archive is whole, and the last progress written down
        self._trace = Trace(directory / "trace.txt")
        self._fold = Fold()
        self._changed = False
        self._written = 0.0

    async def run(self) -> None:
        """Record until there is nothing more to record."""
        pump = Pump(
            self._parts.runner,
            self._parts.streams,
            self._run_id,
            _ATTEMPT,
            who="recorder",
            lasting=True,
            gate=self._reached,
        )
        relaying = asyncio.create_task(pump.run())
        try:
            await self._keep()
            done, _ = await asyncio.wait([relaying], timeout=_DRAIN_SECONDS)
            if not done:
                log.warning("Redis did not take the whole log; it is in the archive", extra={"run_id": self._run_id})
        finally:
            await end([relaying])
            self._archive.close()
        if self._changed:  # Redis was away when the last of it was written, and would go on telling what was before
            await self._write_progress(at_once=True)

    async def _keep(self) -> None:
        while not await self._read():
            await asyncio.sleep(_RETRY_SECONDS)
        self._archive.finish()
        self._take_rows()
        self._changed |= self._fold.close()
        await self._write_progress(at_once=True)
        async with self._archived:
            self._kept = True
            self._archived.notify_all()

    async def _read(self) -> bool:
        """Read the log from its beginning; whether to its end."""
        try:
            async with reading(self._parts.runner, self._run_id, _ATTEMPT) as batches:
                async for batch in batches:
                    await self._take([line for line in batch if line.id > self._read_to])
            return True
        except Unavailable as away:
            log.warning("the log cannot be read", extra={"run_id": self._run_id, "cause": str(away)})
            return False

    async def _take(self, lines: Sequence[Line]) -> None:
        self._archive.append(lines)
        for line in lines:
            self._read_to = line.id
            self._changed |= self._fold.line(line.text)
        async with self._archived:
            self._archived.notify_all()
        await self._write_progress()

    async def _reached(self, last: LineId | None) -> None:
        async with self._archived:
            await self._archived.wait_for(lambda: self._kept or (last is not None and self._archive.top >= last))

    def _take_rows(self) -> None:
        for row in self._trace.rows():
            self._changed |= self._fold.row(row)

    async def _write_progress(self, *, at_once: bool = False) -> None:
        """Write down the tasks' progress if it changed, to the run's directory and to Redis."""
        self._take_rows()
        if not self._changed or (time.monotonic() - self._written < _PROGRESS_SECONDS and not at_once):
            return
        progress = self._fold.progress()
        temporary = self._progress_file.with_suffix(".tmp")
        temporary.write_text(progress.model_dump_json(), "utf-8")
        temporary.replace(self._progress_file)
        self._changed, self._written = False, time.monotonic()
        try:
            await self._parts.streams.write_progress(self._run_id, progress)
        except Unavailable:
            self._changed = True  # once more with the next tick


async def _main(run_id: str, directory: Path) -> None:
    parts = platform()
    configure_logging(parts.settings.log_level)
    try:
        await Recorder(parts, run_id, directory).run()
    finally:
        await parts.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.nice(5)  # the run comes first
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
