"""The log format: what is written comes back, cut wherever; and the local runner's log, which writes it."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cri import PIECE_BYTES, Joiner, RawLine, format_time, parse_time, record
from common.local.log import Log

# Real ones: containerd 1.7, and CRI-O with an offset.
CONTAINERD = b"""\
2026-11-24T01:35:33.349849122Z stdout F N E X T F L O W  ~  version 24.10.0
2026-11-24T01:35:33.5Z stderr F 
2026-11-24T01:35:33Z stdout P first 
2026-11-24T01:35:33.600000001Z stderr F between
2026-11-24T01:35:34.1Z stdout P second 
2026-11-24T01:35:35.2Z stdout F third
2026-11-24T02:35:36.000000001+01:00 stdout F offset
2026-11-24T01:35:37Z stdout F:tag tagged
"""  # noqa: W291 (texts end with spaces)
SECOND = int(datetime(2026, 11, 24, 1, 35, 33, tzinfo=UTC).timestamp()) * 10**9

STREAMS = st.sampled_from(["stdout", "stderr"])
TIMES = st.integers(0, 253_402_300_799 * 10**9 + 999_999_999)  # to the end of year 9999
TEXTS = st.binary(max_size=60).map(lambda text: text.replace(b"\n", b""))


def joined(*chunks: bytes) -> list[RawLine]:
    """The lines of a whole file that is read in these chunks."""
    joiner = Joiner()
    lines = [line for chunk in chunks for line in joiner.feed(chunk)]
    return [*lines, *joiner.close()]


def test_a_runtime_file_is_read_as_it_was_meant() -> None:
    """Pieces are joined under the first one's time, streams kept apart, offsets and tags understood."""
    assert joined(CONTAINERD) == [
        RawLine(SECOND + 349_849_122, "stdout", b"N E X T F L O W  ~  version 24.10.0"),
        RawLine(SECOND + 500_000_000, "stderr", b""),
        RawLine(SECOND + 600_000_001, "stderr", b"between"),
        RawLine(SECOND, "stdout", b"first second third"),
        RawLine(SECOND + 3 * 10**9 + 1, "stdout", b"offset"),
        RawLine(SECOND + 4 * 10**9, "stdout", b"tagged"),
    ]


@given(st.lists(st.tuples(TIMES, STREAMS, TEXTS)), st.lists(st.integers(0, 5000)))
def test_lines_come_back_however_the_file_is_cut(lines: list[tuple[int, str, bytes]], cuts: list[int]) -> None:
    """To the nanosecond and the byte."""
    file = b"".join(record(*line) for line in lines)
    edges = [0, *sorted(cut % (len(file) + 1) for cut in cuts), len(file)]
    chunks = [file[start:end] for start, end in itertools.pairwise(edges)]
    assert joined(*chunks) == [RawLine(*line) for line in lines]


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 100_000])
@pytest.mark.parametrize("whole", [True, False])
def test_long_lines_lie_in_pieces(size: int, whole: bool) -> None:
    """None is longer than the runtimes make them, and the last says whether there was a newline."""
    text = bytes(number % 251 + 1 for number in range(size)).replace(b"\n", b" ")
    written = record(SECOND, "stdout", text, ended=whole)
    *pieces, none = written.split(b"\n")
    assert none == b""
    assert len(pieces) == max(1, -(-size // PIECE_BYTES))
    head = f"{format_time(SECOND)} stdout ".encode()
    tags = {piece[len(head) : len(head) + 2] for piece in pieces[:-1]}
    assert tags <= {b"P "}
    assert pieces[-1].startswith(head + (b"F " if whole else b"P "))
    assert joined(written) == [RawLine(SECOND, "stdout", text)]


def test_a_line_without_a_newline_waits_for_the_end_of_the_file() -> None:
    """It might still go on; the end says that it does not."""
    joiner = Joiner()
    assert list(joiner.feed(record(1, "stdout", b"a", ended=False) + record(2, "stderr", b"b"))) == [
        RawLine(2, "stderr", b"b")
    ]
    assert list(joiner.close()) == [RawLine(1, "stdout", b"a")]
    assert list(joiner.close()) == []


@given(st.lists(st.tuples(TIMES, STREAMS, TEXTS), min_size=1), st.data())
def test_a_crash_tears_one_record_at_most(lines: list[tuple[int, str, bytes]], data: st.DataObject) -> None:
    """Of a file that ends anywhere, all records that are whole are told, and of the torn one nothing."""
    records = [record(*line) for line in lines]
    size = data.draw(st.integers(0, sum(map(len, records))))
    whole, left = 0, size
    while whole < len(records) and left >= len(records[whole]):
        left -= len(records[whole])
        whole += 1
    assert joined(b"".join(records)[:size]) == [RawLine(*line) for line in lines[:whole]]


def test_what_is_no_record_is_counted_and_left_out() -> None:
    """It hides nothing of what follows."""
    joiner = Joiner()
    junk = b"\n2026-13-01 stdout F x\n2026-11-24T01:35:33Z stdin F x\n2026-11-24T01:35:33Z stdout X x\n\xff\n"
    assert list(joiner.feed(junk + record(7, "stdout", b"on"))) == [RawLine(7, "stdout", b"on")]
    assert joiner.malformed == 5


@pytest.mark.parametrize("time", ["1969-12-31T23:59:59.9Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_cannot_be_told_again_is_none(time: str) -> None:
    """Not by its zone, either: whoever follows would be told of it in UTC."""
    joiner = Joiner()
    assert list(joiner.feed(time.encode() + b" stdout F x\n" + record(7, "stdout", b"on"))) == [
        RawLine(7, "stdout", b"on")
    ]
    with pytest.raises(ValueError, match="time"):
        parse_time(time.encode())


@given(
    st.lists(st.tuples(STREAMS, st.binary(max_size=40) | st.just(b"x\n" * 500) | st.just(b"y" * 20_000)), max_size=20),
    st.lists(st.integers(1, 30_000), min_size=1),
)
def test_output_cut_anywhere_makes_the_same_lines(output: list[tuple[str, bytes]], sizes: list[int]) -> None:
    """However the pipes were read: each stream's bytes come back, and times grow from record to record."""
    writer = _log()
    reads = itertools.cycle(sizes)
    for stream, data in output:
        start = 0
        while start < len(data):
            end = start + max(next(reads), len(data) // 50)
            writer.take(stream, data[start:end])
            writer.flush()
            start = end
    assert not writer.blocked
    for stream in ("stdout", "stderr"):
        writer.end(stream)
    writer.flush()
    lines = joined(_written(writer))
    for stream in ("stdout", "stderr"):
        sent = b"".join(data for name, data in output if name == stream)
        expected = sent.split(b"\n")[: -1 if sent.endswith(b"\n") or not sent else None]
        assert [line.text for line in lines if line.stream == stream] == expected
    times = [line.at_ns for line in lines]
    assert len(set(times)) == len(times)


class _Disk:
    """A file on a disk with so much room, that takes what fits."""

    def __init__(self) -> None:
        self.written = b""
        self.room = 1 << 30

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        self.written += taken
        return len(taken)


def _log(kind: type[Log] = Log) -> Log:
    writer = kind(Path("/dev/null"))
    writer._file.close()
    writer._file = _Disk()  # type: ignore[assignment] # all that is asked of a file here
    return writer


def _written(writer: Log) -> bytes:
    disk: Any = writer._file
    return bytes(disk.written)


def test_a_full_disk_loses_no_line() -> None:
    """What does not fit waits, says so, and goes on in the middle of a record when there is room."""
    writer = _log()
    disk: Any = writer._file
    disk.room = 70
    writer.take("stdout", b"one\ntwo\nthree\n")
    writer.flush()
    assert writer.blocked
    disk.room = 1000
    writer.flush()
    assert not writer.blocked
    assert [line.text for line in joined(disk.written)] == [b"one", b"two", b"three"]


def test_a_pipe_full_of_empty_lines_is_taken_in_at_once() -> None:
    """Meanwhile nobody heeds a cancel: what waits for the disk is copied once, not once a line."""
    copies = []

    class Counted(Log):
        def __setattr__(self, name: str, value: object) -> None:
            copies.extend([name] * (name == "_unwritten"))
            super().__setattr__(name, value)

    writer = _log(Counted)
    copies.clear()
    writer.take("stdout", b"\n" * 65_536)
    assert len(copies) == 1
    writer.flush()
    assert len(joined(_written(writer))) == 65_536


def test_times_grow_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still or steps back: ids are made of these times."""
    clock: Iterator[int] = iter([5_000_000_000, 5_000_000_000, 3_000_000_000, 5_000_000_009])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    writer = _log()
    writer.take("stdout", b"a\nb\nc\nd\n")
    writer.flush()
    assert [line.at_ns - 5_000_000_000 for line in joined(_written(writer))] == [0, 1, 2, 9]
