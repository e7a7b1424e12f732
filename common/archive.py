"""The archive of an attempt's log: segments on disk that outlive Redis and the runtime's own file.

A segment is named after the id of its first line and holds one line of the log a line:
`<id> <nanoseconds> <o|e> <text>`. The open one is plain, so that every line is on disk as soon as it
was written; a full one is compressed. A line torn by a crash is cut off when the archive is opened
again, and the reader of the log brings it once more.
"""

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from common.events import ZERO, Line, LineId

SEGMENT_BYTES = 4 * 1024 * 1024
_END = "end"


class Archive:
    """Writes one attempt's segments; there is one writer, its recorder."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._open: BinaryIO | None = None
        self.top = self._recover()

    def append(self, lines: Sequence[Line]) -> None:
        """Write the lines that are not in yet, through to the operating system."""
        fresh = [line for line in lines if line.id > self.top]
        if not fresh:
            return
        if self._open is None:
            self._open = (self._directory / f"{_name(fresh[0].id)}.log").open("ab")
        self._open.write(b"".join(map(_packed, fresh)))
        self._open.flush()
        self.top = fresh[-1].id
        if self._open.tell() >= self._segment_bytes:
            self._roll()

    def finish(self) -> None:
        """Close the archive for good: the log is whole."""
        self._roll()
        (self._directory / _END).touch()

    def close(self) -> None:
        """Let go of the open segment; it can be gone on with."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _roll(self) -> None:
        if self._open is None:
            return
        os.fsync(self._open.fileno())
        self._open.close()
        _compress(Path(self._open.name))
        self._open = None

    def _recover(self) -> LineId:
        """Tidy up after a crash, and find the newest line."""
        for left in self._directory.glob("*.tmp"):
            left.unlink()
        for plain in sorted(self._directory.glob("*.log")):
            if plain.with_suffix(".log.gz").exists():
                plain.unlink()  # compressed already; the crash came before this
                continue
            if _cut_torn_line(plain):
                self._open = plain.open("ab")
            else:
                plain.unlink()  # its name promised a line that is not there
        newest = max(self._directory.glob("*.log*"), default=None)
        last = ZERO
        if newest is not None:
            for line in _lines(newest):
                last = line.id
        return last


def read(directory: Path, after: LineId = ZERO) -> Iterator[Line]:
    """The archived lines behind `after`, in order; only the segments that may hold them are opened."""
    segments = sorted(directory.glob("*.log*"))
    first = max((n for n, path in enumerate(segments) if path.name <= f"{_name(after)}.zzz"), default=0)
    for path in segments[first:]:
        if path.suffix == ".tmp" or (path.suffix == ".log" and path.with_suffix(".log.gz").exists()):
            continue
        yield from (line for line in _lines(path) if line.id > after)


def whole(directory: Path) -> bool:
    """Whether the archive holds the log to its end."""
    return (directory / _END).exists()


def _name(first: LineId) -> str:
    return f"{first.ms:015d}-{first.seq:010d}"


def _packed(line: Line) -> bytes:
    return b"%b %d %b %b\n" % (str(line.id).encode(), line.at_ns, line.stream[3:4].encode(), line.text)


def _lines(path: Path) -> Iterator[Line]:
    with _opened(path) as file:
        for packed in file:
            if not packed.endswith(b"\n"):
                return  # being written just now
            line_id, at_ns, stream, text = packed[:-1].split(b" ", 3)
            yield Line(LineId.parse(line_id.decode()), int(at_ns), "stdout" if stream == b"o" else "stderr", text)


def _opened(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        with suppress(FileNotFoundError):  # compressed since it was listed
            return path.open("rb")
        path = path.with_suffix(".log.gz")
    return cast("BinaryIO", gzip.open(path))


def _compress(plain: Path) -> None:
    packed, temporary = plain.with_suffix(".log.gz"), plain.with_suffix(".log.tmp")
    with plain.open("rb") as source, temporary.open("wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0) as target:
            while block := source.read(1 << 20):
                target.write(block)
        raw.flush()
        os.fsync(raw.fileno())
    temporary.replace(packed)
    plain.unlink()


def _cut_torn_line(plain: Path) -> int:
    """Cut off a last line without its end; how many bytes are left."""
    with plain.open("rb+") as file:
        content = file.read()
        return file.truncate(content.rfind(b"\n") + 1)
