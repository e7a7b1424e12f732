"""A log's bytes, wherever they lie: the runtime's file, the API server's answer, a Redis Stream, the archive."""

import itertools
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hypothesis import strategies as st

from common.archive import Damaged, Reader, packed
from common.cri import Joiner, RawLine, record
from common.errors import Unavailable
from common.events import ZERO, Line, LineId, number
from common.frames import Lines
from common.kube.sent import Sent
from common.streams import _chunk
from common.web.transports import TEXTS, messages, ndjson, sse
from tests.fuzz import fuzz
from tests.unit.samples import RUN_ID

TIMES = st.one_of(
    st.sampled_from(
        [b"2030-01-02T03:04:05Z", b"2030-13-45T99:99:99.5Z", b"0000-00-00T00:00:00Z", b"9999-12-31T23:59:59.9Z"]
    ),
    st.from_regex(
        rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})?",
        fullmatch=True,
    ),
    st.binary(max_size=30),
)
RECORDS = st.tuples(
    TIMES,
    st.sampled_from([b" stdout", b" stderr", b" x", b""]),
    st.sampled_from([b" F", b" P", b" F:a", b""]),
    st.binary(),
).map(b"".join)
FILES = st.lists(RECORDS, max_size=8).map(b"\n".join)
CUTS = st.lists(st.integers(0, 600), max_size=6)


def pieces(file: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The file, cut there."""
    places = [0, *sorted(min(cut, len(file)) for cut in cuts), len(file)]
    return [file[begin:end] for begin, end in itertools.pairwise(places)]


def assert_told(lines: Sequence[Line]) -> None:
    """Ids grow, and each transport tells each line, on a line of its own, under its id."""
    ids = [line.id for line in lines]
    assert ids == sorted(set(ids))
    if not lines:
        return
    frame = Lines(RUN_ID, 1, ZERO, lines)
    events = [json.loads(message) for message in messages(frame)]
    assert [event["id"] for event in events] == [f"{RUN_ID}.1.{line.id}" for line in lines]
    assert [json.loads(raw) for raw in ndjson(frame).splitlines()] == events
    blocks = sse(frame).decode().split("\n\n")
    assert [json.loads(block.partition("data: ")[2]) for block in blocks if block] == events
    if all(line.stream != "gap" and b"\n" not in line.text for line in lines):
        assert TEXTS[False, False](frame) == b"".join(line.text + b"\n" for line in lines)


@fuzz(FILES, CUTS)
def test_the_runtimes_file(file: bytes, cuts: list[int]) -> None:
    """Cut anywhere the lines are the same, and what is no record is counted."""

    def joined(chunks: Sequence[bytes]) -> tuple[list[RawLine], int]:
        joiner = Joiner()
        lines = [line for chunk in chunks for line in joiner.feed(chunk)]
        return [*lines, *joiner.close()], joiner.malformed

    lines, malformed = joined([file])
    assert joined(pieces(file, cuts)) == (lines, malformed)
    assert len(lines) + malformed <= file.count(b"\n") + 1
    assert_told(list(number(lines)))


@fuzz(st.binary(max_size=40_000), st.booleans())
def test_what_is_written_is_read(text: bytes, ended: bool) -> None:  # what Hypothesis gives
    """Whatever a line has but a newline: it comes back as it was, in pieces or at once, in either format."""
    text = text.replace(b"\n", b"")
    file = record(1_900_000_000_000_000_001, "stderr", text, ended=ended)
    joiner = Joiner()
    assert [*joiner.feed(file), *joiner.close()] == [RawLine(1_900_000_000_000_000_001, "stderr", text)]
    log = Sent()
    assert [line.text for line in [*log.feed(file.partition(b" ")[0] + b" " + text + b"\n"), *log.rest()]] == [text]


@fuzz(FILES, CUTS)
def test_the_api_servers_answer(file: bytes, cuts: list[int]) -> None:
    """Cut anywhere the lines are the same."""
    whole, cut = Sent(), Sent()
    lines = [*whole.feed(file), *whole.rest()]
    assert [line for chunk in pieces(file, cuts) for line in cut.feed(chunk)] + cut.rest() == lines
    assert_told(lines)


IDS = st.one_of(
    st.tuples(st.integers(0, 2**64), st.integers(0, 2**64)).map(lambda parts: b"%d-%d" % parts), st.just(b"0-0")
)
NAMES = st.sampled_from([b"t", b"s", b"n", b"p", b"b", b"end", b"x", b""])
VALUES = st.one_of(st.binary(max_size=50), st.integers().map(b"%d".__mod__), IDS)
USUAL = st.tuples(*(st.tuples(st.just(name), VALUES) for name in (b"p", b"b", b"t", b"s")))
FIELDS = st.one_of(st.lists(st.tuples(NAMES, VALUES), max_size=6), USUAL).map(lambda said: [*itertools.chain(*said)])


@fuzz(st.lists(st.tuples(IDS, FIELDS), max_size=6), st.booleans())
def test_a_stream_that_somebody_has_written_to(entries: list[tuple[bytes, list[bytes]]], first: bool) -> None:
    """A recorder's user may append what it likes, under ids that grow."""
    entries.sort(key=lambda entry: tuple(map(int, entry[0].split(b"-"))))
    unique = list({entry_id: (entry_id, fields) for entry_id, fields in entries if entry_id != b"0-0"}.values())
    if first and unique:
        unique[0][1][:2] = [b"p", b"0-0"]
    with suppress(Unavailable):
        assert_told(_chunk(unique, ZERO).lines)


LINES = st.lists(
    st.builds(
        RawLine,
        st.integers(0, 4_000_000_000_000_000_000),
        st.sampled_from(["stdout", "stderr", "gap"]),
        st.binary(max_size=60).map(lambda text: text.replace(b"\n", b"")),
    ),
    max_size=8,
)
CHANGES = st.lists(st.tuples(st.integers(0, 800), st.integers(0, 255)), max_size=4)


@fuzz(LINES, CHANGES, st.booleans(), st.one_of(st.none(), st.integers(0, 800)))
def test_an_archive_that_somebody_has_written_to(
    raw: list[RawLine],
    changes: list[tuple[int, int]],
    zipped: bool,
    cut: int | None,  # what Hypothesis gives
) -> None:
    """What lies on the volume may be changed by any task: it is damaged, or lines in order."""
    import gzip

    lines = list(number(raw))
    plain = b"".join(map(packed, lines))
    segment = bytearray(gzip.compress(plain) if zipped else plain)
    for at, byte in changes:
        if at < len(segment):
            segment[at] = byte
    with tempfile.TemporaryDirectory() as directory:
        name = f"{0:015d}-{0:010d}.log{'.gz' if zipped else ''}"
        (Path(directory) / name).write_bytes(segment[:cut])
        reader = Reader(Path(directory))
        found: list[Line] = []
        try:
            with suppress(Damaged):
                while more := reader.read():
                    found += more
        finally:
            reader.close()
    assert_told(found)
    if not changes and cut is None:
        assert found == lines


@fuzz(st.text(max_size=40))
def test_ids(text: str) -> None:
    """What is no id is none, and what is one is spelled like that again but for zeros before it."""
    with suppress(ValueError):
        found = LineId.parse(text)
        assert LineId.parse(str(found)) == found
