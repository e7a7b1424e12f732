"""The recorder: runs beside a run and keeps what it says, whether or not anybody follows.

It archives the log, relays it to Redis from the archive, and writes down the progress of the tasks; its archive is
finished once all of that is on disk. It ends when the log is final and all of it is in both, or, with Redis away,
a bounded time after it is in the archive: any stream function fills Redis from there. It never
decides anything about the run itself.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.archive import Archive, Reader, place, read, regular
from common.errors import Unavailable
from common.events import ZERO, Line, LineId
from common.models import Progress
from common.progress import Fold
from common.pump import Pump, reading
from common.runner import Batches, LogSource
from common.streams import Streams
from common.tasks import end

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 60.0
_RETRY_SECONDS = 0.5
_TICK_SECONDS = 0.5
_PROGRESS_SECONDS = 0.25
_TRACE_BYTES = 16 * 1024 * 1024  # at a time


class Trace:
    """Nextflow's trace file, read row by row as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._columns: list[str] = []

    def rows(self) -> list[dict[str, str]]:
        """The rows that were finished since the last call."""
        try:
            with regular(self._path) as file:  # Nextflow's side may have put anything in its place
                file.seek(self._read)
                data = file.read(_TRACE_BYTES)
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        table = [row.split("\t") for row in data.decode("utf-8", "replace").split("\n")[:-1]]
        if table and not self._columns:
            self._columns, *table = table
        return [dict(zip(self._columns, row, strict=False)) for row in table]


class _Kept:
    """The archive as a source of the log: what goes on to Redis is read from where it is safe already."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._news = asyncio.Event()
        self._whole = False

    def grown(self, *, whole: bool = False) -> None:
        """Say that there is more to read, or that it is all there is."""
        self._whole = whole
        self._news.set()
        self._news = asyncio.Event()

    async def lines(self, run_id: str, attempt: int, after: LineId = ZERO) -> Batches:
        reader = Reader(self._directory, after)
        try:
            while True:
                news, whole = self._news, self._whole  # before anything is read: what comes from here on is seen
                if lines := reader.read():
                    yield lines
                    continue
                if whole:
                    yield ()  # it is there, be it that it is empty
                    return
                yield ()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_SECONDS):
                        await news.wait()
        finally:
            reader.close()

    async def final(self, run_id: str, attempt: int) -> bool | None:
        return True


class Recorder:
    """What records one attempt of a run.

    Args:
        source: where the attempt's log is read.
        directory: where all that is kept of the run is written.
        trace: Nextflow's trace file.
        drain_seconds: how long Redis is waited for once everything is archived.
    """

    def __init__(
        self,
        *,
        source: LogSource,
        streams: Streams,
        run_id: str,
        attempt: int,
        directory: Path,
        trace: Path,
        drain_seconds: float = _DRAIN_SECONDS,
    ) -> None:
        self._source = source
        self._streams = streams
        self._run_id = run_id
        self._attempt = attempt
        self._drain_seconds = drain_seconds
        self._progress_file = directory / "progress.json"
        self._archived = place(directory, attempt)
        self._archive = Archive(self._archived)
        self._kept = _Kept(self._archived)
        self._trace = Trace(trace)
        self._fold = Fold()
        self._changed = False
        self._looked = 0.0  # at the trace

    async def run(self) -> None:
        """Record until there is nothing more to record."""
        pump = Pump(self._kept, self._streams, self._run_id, self._attempt, who="recorder", lasting=True)
        relaying, keeping = asyncio.create_task(pump.run()), asyncio.create_task(self._keep())
        try:
            await asyncio.wait([relaying, keeping], return_when=asyncio.FIRST_COMPLETED)
            if relaying.done():
                relaying.result()  # what has gone wrong there is not to be waited for
            await keeping
            done, _ = await asyncio.wait([relaying], timeout=self._drain_seconds)
            if done:
                relaying.result()
            else:
                log.warning("Redis did not take the whole log; it is in the archive", extra={"run_id": self._run_id})
        finally:
            await end([relaying, keeping])
            self._archive.close()
        if self._changed:  # Redis was away when the last of it was written, and would go on telling what was before
            await self._write_progress(at_once=True)

    async def _keep(self) -> None:
        for line in read(self._archived):  # what a recorder before this one has kept
            self._changed |= self._fold.line(line.text)
        while not (final := await self._read()):
            if final is None:  # whatever it says from here on, nobody can read it here
                log.warning("the log's end is not to be had", extra={"run_id": self._run_id})
                self._kept.grown(whole=True)
                return
            await asyncio.sleep(_RETRY_SECONDS)
        self._take_rows()
        self._changed |= self._fold.close()
        progress = self._keep_progress() if self._changed else None
        self._archive.finish()  # behind the progress: with this mark all is kept, which a run's end waits for
        if progress:
            await self._tell(progress)
        self._kept.grown(whole=True)

    async def _read(self) -> bool | None:
        """Read the log from where the archive ends; whether to its end, None where that cannot be had."""
        try:
            async with reading(self._source, self._run_id, self._attempt, self._archive.top) as batches:
                async for batch in batches:
                    await self._take([line for line in batch if line.id > self._archive.top])
            return await self._source.final(self._run_id, self._attempt)
        except Unavailable as away:
            log.warning("the log cannot be read", extra={"run_id": self._run_id, "cause": str(away)})
            return False

    async def _take(self, lines: Sequence[Line]) -> None:
        if lines:
            self._archive.append(lines)
            self._kept.grown()
        for line in lines:
            self._changed |= self._fold.line(line.text)
        await self._write_progress()

    def _take_rows(self) -> None:
        while rows := self._trace.rows():
            for row in rows:
                self._changed |= self._fold.row(row)

    async def _write_progress(self, *, at_once: bool = False) -> None:
        """Write down the tasks' progress if it changed, to the run's directory and to Redis."""
        now = time.monotonic()
        if now - self._looked < _PROGRESS_SECONDS and not at_once:
            return
        self._looked = now
        self._take_rows()
        if self._changed:
            await self._tell(self._keep_progress())

    def _keep_progress(self) -> Progress:
        progress = self._fold.progress()
        temporary = self._progress_file.with_suffix(".tmp")
        temporary.write_text(progress.model_dump_json(), "utf-8")
        temporary.replace(self._progress_file)
        self._changed = False
        return progress

    async def _tell(self, progress: Progress) -> None:
        try:
            await self._streams.write_progress(self._run_id, progress)
        except Unavailable:
            self._changed = True  # once more with the next tick
