"""Line ids are the same for all who read the same log, and grow; cursors and times are read as they were written."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cri import RawLine
from common.errors import Invalid
from common.events import ZERO, Cursor, Line, LineId, encode, line_event, line_time, number
from tests.unit.samples import RUN_ID

TIMES = st.one_of(st.integers(0, 4_000_000_000_000_000_000), st.integers(1_000_000, 1_000_010))
LOGS = st.lists(TIMES, max_size=60).map(lambda times: [RawLine(at_ns, "stdout", b"x") for at_ns in times])
IDS = st.builds(LineId, st.integers(0, 199_999_999_999_999), st.integers(0, 10**9 - 1))


@given(LOGS)
def test_ids_grow_whatever_the_clock_does(log: list[RawLine]) -> None:
    """Ties and a clock that steps back are forced above the line before."""
    ids = [line.id for line in number(log)]
    assert ids == sorted(set(ids))
    assert all(0 <= line.seq < 10**9 for line in ids)


@given(LOGS, st.data())
def test_ids_are_the_same_from_any_chunking(log: list[RawLine], data: st.DataObject) -> None:
    """Whoever goes on behind a line gives the ids that whoever read all gives."""
    at = data.draw(st.integers(0, len(log)))
    first = list(number(log[:at]))
    assert first + list(number(log[at:], first[-1].id if first else ZERO)) == list(number(log))


@given(TIMES.filter(lambda at_ns: at_ns > 0))
def test_natural_ids_tell_their_time(at_ns: int) -> None:
    """So a stream need not carry it."""
    (line,) = number([RawLine(at_ns, "stdout", b"")])
    assert line.id.ms * 1_000_000 + line.id.seq // 1_000 == at_ns


@given(IDS, IDS)
def test_ids_are_ordered_as_redis_orders_them(one: LineId, other: LineId) -> None:
    """By milliseconds, then by number; the next one is the smallest above."""
    assert (one < other) == ((one.ms, one.seq) < (other.ms, other.seq))
    assert one < one.next()
    assert not one < other < one.next()


@given(st.builds(Cursor, st.just(RUN_ID), st.integers(1, 999_999), st.one_of(st.none(), IDS)))
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    """On every transport it is one word."""
    assert Cursor.parse(str(cursor), "after") == cursor
    assert str(cursor).isascii()
    assert " " not in str(cursor)


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "1-1\n", "²-1", "200000000000000-1", "1-99999999999999999999"])
def test_what_is_no_line_id_is_refused(text: str) -> None:
    """Nor one whose time no event could tell: as in a cursor."""
    with pytest.raises(ValueError, match="not a line id"):
        LineId.parse(text)


def test_the_last_line_id_has_a_time() -> None:
    """Every id that is read can be told, in an event and in a cursor."""
    last = LineId.parse("199999999999999-9999999999999999999")
    line = Line(last, last.ms * 1_000_000 + last.seq // 1_000, "stdout", b"x")
    assert line_event(RUN_ID, 1, line, ZERO)["timestamp"] == "8308-01-25T13:19:59.998999999Z"
    assert Cursor.parse(str(Cursor(RUN_ID, 1, last)), "after").line == last


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0-0",
        RUN_ID,
        f"{RUN_ID}.1",
        f"{RUN_ID}.0.1-1",
        f"{RUN_ID}.1.1",
        f"{RUN_ID}.1.-1-1",
        f"{RUN_ID}.1.1-1\n",
        f"{RUN_ID}.1.END",
        f"{RUN_ID}.1.²-1",
        f"{RUN_ID}.1.999999999999999-1",
        f"{RUN_ID}.1.1-99999999999999999999",
        f"../{RUN_ID}.1.1-1",
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """And where it stood is named."""
    with pytest.raises(Invalid) as caught:
        Cursor.parse(text, "Last-Event-ID")
    assert caught.value.pointer == "Last-Event-ID"


@given(st.text(max_size=40))
def test_no_text_breaks_the_parsers(text: str) -> None:
    """They refuse, they do not fail."""
    with suppress(Invalid):
        assert str(Cursor.parse(text, "after")) == text
    line_time(text.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2026-11-24T01:02:03Z go", "2026-11-24T01:02:03.000000Z"),
        (b"2026-11-24t01:02:03z go", "2026-11-24T01:02:03.000000Z"),
        (b"2026-11-24 01:02:03,5 INFO", "2026-11-24T01:02:03.500000Z"),
        (b"2026-11-24 01:02 INFO", "2026-11-24T01:02:00.000000Z"),
        (b"[2026-11-24T01:02:03.123456789+02:00] x", "2026-11-23T23:02:03.123456Z"),
        (b"(2026-11-24T01:02:03.1234567891234Z)", "2026-11-24T01:02:03.123456Z"),
        (b"2026-11-24T01:02:03-0530", "2026-11-24T06:32:03.000000Z"),
        (b"2026-11-24T01:02:03-05", "2026-11-24T06:02:03.000000Z"),
        (b"2026-11-24 01:02:03 +0100 x", "2026-11-24T00:02:03.000000Z"),
        (b"2026-11-24 01:02:03 -5 items", "2026-11-24T01:02:03.000000Z"),
        (b"2026-11-24 01:02:03 -10 items", "2026-11-24T01:02:03.000000Z"),
        (b"2026-11-24T01:02:03Zebra", None),
        (b"0999-01-01 00:00", "0999-01-01T00:00:00.000000Z"),
        (b"0000-01-01 00:00", None),
        (b"0001-01-01 00:00+05:00", None),
        (b"9999-12-31 23:59:59-01:00", None),
        (b"2026-13-24T01:02:03Z", None),
        (b"2026-02-30T01:02:03Z", None),
        (b"2026-11-24T25:02:03Z", None),
        (b"2026-11-24T01:02:03+99:99", None),
        (b"2026-11-24T01:02:03:04", None),
        (b"2026-11-24", None),
        (b"-2026-11-24T01:02:03Z", None),
        (b" 2026-11-24T01:02:03Z", None),
        (b"[[2026-11-24T01:02:03Z]]", None),
        (b"at 2026-11-24T01:02:03Z", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_a_time_at_the_beginning_of_a_line(text: bytes, expected: str | None) -> None:
    """ISO 8601 as programs write it, in UTC; anything else is none."""
    assert line_time(text) == expected


def test_a_line_is_told_with_its_own_time_or_the_runtimes() -> None:
    """Text that is not UTF-8 can be had exactly; a replacement character that was written is none of ours."""
    line = Line(LineId(1, 2_000), 1_000_002, "stderr", b"2026-11-24T01:02:03Z \xff")
    assert line_event(RUN_ID, 1, line, ZERO) == {
        "id": f"{RUN_ID}.1.1-2000",
        "type": "log",
        "run_id": RUN_ID,
        "timestamp": "2026-11-24T01:02:03.000000Z",
        "data": {
            "line": "2026-11-24T01:02:03Z \ufffd",
            "stream": "stderr",
            "timestamp_source": "line",
            "base64": "MjAyNi0xMS0yNFQwMTowMjowM1og/w==",
        },
    }
    plain = line_event(RUN_ID, 1, Line(LineId(1, 0), 1_000_000, "stdout", "\ufffd\u2028\r".encode()), ZERO)
    assert (plain["timestamp"], plain["data"]) == (
        "1970-01-01T00:00:00.001000000Z",
        {"line": "\ufffd\u2028\r", "stream": "stdout", "timestamp_source": "runtime"},
    )
    assert b"\n" not in encode(plain)
    assert b"\r" not in encode(plain)
