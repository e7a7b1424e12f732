"""The archive holds each line once, through crashes, and is read from any place."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from common import archive
from common.archive import Archive
from common.cri import RawLine
from common.events import ZERO, Line, number


def _lines(count: int) -> list[Line]:
    texts = [b"", b"plain", b"\x00\xff\r", b"a b  c ", b"x" * 5000]
    return list(number(RawLine(10**18 + 7 * n, ("stdout", "stderr")[n % 2], texts[n % 5]) for n in range(count)))


LINES = _lines(100)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the archive lies."""
    return tmp_path / "archive" / "1"


def _filled(directory: Path, count: int) -> Archive:
    made = Archive(directory, segment_bytes=20_000)
    for start in range(0, count, 3):
        made.append(LINES[start : min(start + 3, count)])
    return made


def test_what_is_written_is_read(directory: Path) -> None:
    """From the beginning and behind any line, while it is written and when it is whole."""
    made = _filled(directory, 100)
    assert not archive.whole(directory)
    for _ in range(2):
        for at in range(0, 100, 7):
            assert list(archive.read(directory, LINES[at].id)) == LINES[at + 1 :]
        assert list(archive.read(directory)) == LINES
        made.finish()
    assert archive.whole(directory)
    assert {path.suffix for path in directory.glob("*.log*")} == {".gz"}
    assert len(list(directory.glob("*.log.gz"))) > 4


def test_only_the_segments_that_may_hold_it_are_opened(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the end of a long log costs one segment."""
    _filled(directory, 100).finish()
    opened: list[Path] = []
    real = archive._opened

    def noted(path: Path) -> BinaryIO:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(archive, "_opened", noted)
    assert list(archive.read(directory, LINES[-2].id)) == [LINES[-1]]
    assert len(opened) == 1


@pytest.mark.parametrize("torn", [b"", b"1-1 5", b"99999999999999-0 1 o half a li"])
@pytest.mark.parametrize("count", [0, 1, 30, 60, 100])
def test_after_a_crash_every_line_is_there_once(directory: Path, count: int, torn: bytes) -> None:
    """A torn line is cut off, and a segment that held nothing else does not hide the ones before it."""
    made = _filled(directory, count)
    made.close()
    plain = max(directory.glob("*.log"), default=directory / f"{archive._name(LINES[min(count, 99)].id)}.log")
    with plain.open("ab") as file:
        file.write(torn)
    again = Archive(directory, segment_bytes=20_000)
    assert again.top == (LINES[count - 1].id if count else ZERO)
    again.append(LINES)  # the log is read from its beginning
    again.finish()
    assert list(archive.read(directory)) == LINES


def test_a_crash_in_compressing_loses_nothing(directory: Path) -> None:
    """With both files there the compressed one counts; a half-written one does not."""
    made = _filled(directory, 10)
    made.close()
    (plain,) = directory.glob("*.log")
    (directory / "1.log.tmp").write_bytes(b"half")
    plain.with_suffix(".log.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert list(archive.read(directory)) == LINES[:10]
    again = Archive(directory)
    assert again.top == LINES[9].id
    again.append(LINES)
    assert list(archive.read(directory)) == LINES
    assert list(directory.glob("*.tmp")) == []
    again.close()


def test_a_segment_that_is_compressed_while_it_is_read(directory: Path) -> None:
    """The reader goes on in the compressed one."""
    made = _filled(directory, 9)
    (plain,) = directory.glob("*.log")
    begun, late = archive.Reader(directory), archive.Reader(directory)
    assert begun.read(4) == LINES[:4]
    made.finish()
    assert begun.read() == LINES[4:9]
    assert late.read() == LINES[:9]
    begun.close()
    late.close()
    with archive._opened(plain) as file:  # which was listed just before
        assert file.readline() == archive.packed(LINES[0])


def test_a_reader_follows_what_is_written(directory: Path) -> None:
    """Line by line, over the ends of segments, whatever a writer has not finished."""
    made, reader, read = Archive(directory, segment_bytes=20_000), archive.Reader(directory, LINES[1].id), []
    for line in LINES:
        made.append([line])
        read += reader.read()
    assert read == LINES[2:]
    with max(directory.glob("*.log"), default=directory / "9.log").open("ab") as file:
        file.write(b"99999999999999-0 1 o half a li")
        file.flush()
        assert reader.read() == []
        file.write(b"ne\n")
    (last,) = reader.read()
    assert last.text == b"half a line"
    reader.close()


def paged(directory: Path) -> tuple[list[Line], bool]:
    """All pages, and whether that is the whole log."""
    lines: list[Line] = []
    while True:
        found, whole = archive.page(directory, lines[-1].id if lines else ZERO)
        if not found:
            return lines, whole
        lines += found


def test_what_is_damaged_ends_what_can_be_read(directory: Path, tmp_path: Path) -> None:
    """Tasks can write to the volume, too: nothing that they put there is followed, waited for, or breaks a reader."""
    _filled(directory, 100).finish()
    segments = sorted(directory.glob("*.log.gz"))
    assert paged(directory) == (LINES, True)
    (tmp_path / "elsewhere").write_bytes(segments[1].read_bytes())
    half = segments[1].read_bytes()[:-20]

    def linked() -> None:
        segments[1].symlink_to(tmp_path / "elsewhere")

    def damaged(content: bytes) -> Callable[[], object]:
        return lambda: segments[1].write_bytes(content)

    harms = [
        linked,
        lambda: os.mkfifo(segments[1]),
        segments[1].mkdir,
        damaged(b"not compressed"),
        damaged(half),
        damaged(gzip.compress(b"no line\n")),
        damaged(gzip.compress(b"1" * 40_000_000)),
        damaged(gzip.compress(b"99999999999999999999-0 1 o x\n")),
        *(damaged(gzip.compress(b"1900000000000-0 %b o x\n" % time)) for time in (b"9" * 21, b"-1", b"1_0", b"")),
    ]
    for harm in harms:
        segments[1].unlink()
        harm()
        found, whole = paged(directory)
        assert LINES[: len(found)] == found
        assert 0 < len(found) < len(LINES)
        assert not whole
        if segments[1].is_dir():
            segments[1].rmdir()
            segments[1].touch()
