"""The archive of an attempt's log: segments on disk that outlive Redis and the runtime's own file.

A segment is named after the id of its first line and holds one line of the log a line:
`<id> <nanoseconds> <stream> <text>`. The open one is plain, so that every line is on disk as soon as it
was written; a full one is compressed. A line torn by a crash is cut off when the archive is opened
again, and the reader of the log brings it once more. Streams are `o`ut, `e`rr and `g`, a gap.
"""

import errno
import gzip
import logging
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from common.events import NANOSECONDS, ZERO, Line, LineId, stream_of

log = logging.getLogger(__name__)

SEGMENT_BYTES = 4 * 1024 * 1024
_BATCH_LINES = 500
_PAGE_LINES = 20_000  # each page is looked for from the beginning of a segment
_BATCH_BYTES = 1024 * 1024
_LINE_BYTES = 32 * 1024 * 1024  # what a few bytes would unpack to beyond it is not taken in
_END = "end"
_NO_FILES = (errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO)  # what somebody has put in a file's place


def place(kept: Path, attempt: int) -> Path:
    """Where an attempt's archive is, in the directory of what is kept of its run."""
    return kept / "archive" / str(attempt)


class Damaged(Exception):
    """What is in an archive is not what a recorder writes."""


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
        self._open.write(b"".join(map(packed, fresh)))
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
        if newest is None:
            return ZERO
        with _opened(newest) as file:
            return max((unpacked(raw).id for raw in file), default=ZERO)


class Reader:
    """Reads an attempt's segments in order, from the line behind `after` on, while more may be written to them."""

    def __init__(self, directory: Path, after: LineId = ZERO) -> None:
        self._directory = directory
        self._after = after
        self._segment = ""  # the stem of the one that is open, or was last
        self._file: BinaryIO | None = None
        self._damage: Damaged | None = None

    def read(self, most: int = _BATCH_LINES) -> list[Line]:
        """The next lines, as many as are there, up to `most`, or some bytes.

        Raises:
            Damaged: what comes next is no archive.
            OSError: it cannot be read now.
        """
        lines: list[Line] = []
        try:
            self._read(lines, most)
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            self._damage = Damaged(str(error))
        except OSError as error:
            if error.errno not in _NO_FILES:
                raise
            self._damage = Damaged(str(error))
        if self._damage is not None and not lines:
            raise self._damage
        return lines

    def _read(self, lines: list[Line], most: int) -> None:
        while self._damage is None and (self._file is not None or self._next()):
            over = self._stems()[-1:] > [self._segment]  # asked for before its end is read: it gets no more lines
            if not self._read_segment(lines, most) or not over:
                break
            self.close()

    def close(self) -> None:
        """Let go of the segment that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_segment(self, lines: list[Line], most: int) -> bool:
        """Read on in the open segment; whether to its end, and there is room for more."""
        size = sum(len(line.text) for line in lines)
        while self._file is not None and len(lines) < most and size < _BATCH_BYTES:
            raw = self._file.readline(_LINE_BYTES)
            if len(raw) == _LINE_BYTES:
                raise ValueError(f"a line of more than {_LINE_BYTES} bytes")
            if not raw.endswith(b"\n"):
                self._file.seek(-len(raw), os.SEEK_CUR)  # being written just now
                return True
            if (line := unpacked(raw)).id > self._after:
                lines.append(line)
                size += len(line.text)
                self._after = line.id
        return False

    def _next(self) -> bool:
        """Open the segment after the last; first of all the one in which `after` would be."""
        stems = self._stems()
        begin = max((stem for stem in stems if not self._segment and stem <= _name(self._after)), default="")
        following = next((stem for stem in stems if stem > self._segment and stem >= begin), None)
        if following is None:
            return False
        self._segment, self._file = following, _opened(self._directory / f"{following}.log")
        return True

    def _stems(self) -> list[str]:
        try:
            names = os.listdir(self._directory)  # for each batch of lines, so not by way of Path
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({name.partition(".")[0] for name in names if name.endswith((".log", ".log.gz"))})


def read(directory: Path, after: LineId = ZERO) -> Iterator[Line]:
    """The archived lines behind `after`, in order; only the segments that may hold them are opened."""
    reader = Reader(directory, after)
    try:
        while lines := reader.read():
            yield from lines
    finally:
        reader.close()


def page(directory: Path, after: LineId) -> tuple[Sequence[Line], bool]:
    """The next archived lines behind `after`, and whether with them, or where there are none, the log is whole.

    What is damaged ends what can be read, and is not whole.

    Raises:
        OSError: it cannot be read now.
    """
    all_there = whole(directory)  # before anything is read: what is added from here on is not missed
    reader = Reader(directory, after)
    try:
        return reader.read(_PAGE_LINES), all_there
    except Damaged as damage:
        log.warning("an archive is damaged", extra={"directory": str(directory), "cause": str(damage)})
        return (), False
    finally:
        reader.close()


def whole(directory: Path) -> bool:
    """Whether the archive holds the log to its end."""
    return (directory / _END).exists()


def _name(first: LineId) -> str:
    return f"{first.ms:015d}-{first.seq:010d}"


def packed(line: Line) -> bytes:
    """A line as the archive holds it."""
    return b"%b %d %b %b\n" % (str(line.id).encode(), line.at_ns, line.letter.encode(), line.text)


def unpacked(raw: bytes) -> Line:
    """The line that was packed.

    Raises:
        ValueError: it is none.
    """
    line_id, at_ns, letter, text = raw.removesuffix(b"\n").split(b" ", 3)
    if not NANOSECONDS.fullmatch(at_ns):
        raise ValueError(f"not a time: {at_ns[:40]!r}")
    return Line(LineId.parse(line_id.decode()), int(at_ns), stream_of(letter), text)


class _Unpacking(gzip.GzipFile):
    """A compressed file that closes what it reads."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._raw = raw

    def close(self) -> None:
        super().close()
        self._raw.close()


def _opened(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        with suppress(FileNotFoundError):  # compressed since it was listed
            return regular(path)
        path = path.with_suffix(".log.gz")
    return cast("BinaryIO", _Unpacking(regular(path)))


def regular(path: Path) -> BinaryIO:
    """A file opened to be read, which is one: tasks can write to the volume, too, and put a link or a pipe there.

    Raises:
        OSError: there is none.
    """
    file = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")  # noqa: SIM115  # it is the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _compress(plain: Path) -> None:
    compressed, temporary = plain.with_suffix(".log.gz"), plain.with_suffix(".log.tmp")
    with plain.open("rb") as source, temporary.open("wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0) as target:
            while block := source.read(1 << 20):
                target.write(block)
        raw.flush()
        os.fsync(raw.fileno())
    temporary.replace(compressed)
    plain.unlink()


def _cut_torn_line(plain: Path) -> int:
    """Cut off a last line without its end; how many bytes are left."""
    with plain.open("rb+") as file:
        content = file.read()
        return file.truncate(content.rfind(b"\n") + 1)
