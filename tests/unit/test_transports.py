"""What is written by hand for speed has the very bytes of what is made by models and libraries."""

from hypothesis import given
from hypothesis import strategies as st
from sse_starlette import ServerSentEvent
from websockets.frames import Frame as Message
from websockets.frames import Opcode

from common.cri import RawLine
from common.events import ZERO, Line, LineId, encode, encode_lines, number
from common.frames import Lines
from common.web.transports import framed, messages, ndjson, sse
from tests.unit.samples import RUN_ID

TEXTS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"2026-11-24T01:02:03Z begins", b"[2026-11-24 01:02:03,5] x", b"\xef\xbf\xbd", b'"\\\x00\x1b\r\xe2\x80\xa8']
    ),
).map(lambda text: text.replace(b"\n", b" "))
RAW = st.builds(RawLine, st.integers(0, 4_000_000_000_000_000_000), st.sampled_from(["stdout", "stderr", "gap"]), TEXTS)


@st.composite
def batches(draw: st.DrawFn) -> Lines:
    """Consecutive lines, gaps among them."""
    lines: list[Line] = list(number(draw(st.lists(RAW, min_size=1, max_size=8))))
    behind = draw(st.sampled_from([ZERO, LineId(0, 1)]))
    return Lines(RUN_ID, draw(st.integers(1, 30)), behind, lines)


@given(batches())
def test_lines_are_encoded_as_their_events_are(batch: Lines) -> None:
    """Whatever they hold; each knows which line is before it."""
    expected = [(event["id"], event["type"], encode(event).decode()) for event in batch.events()]
    assert encode_lines(batch.run_id, batch.attempt, batch.lines, batch.behind) == expected


@given(batches())
def test_transports_are_what_libraries_make_of_them(batch: Lines) -> None:
    """Server-Sent Events by sse-starlette, frames by websockets; NDJSON is a line an event."""
    events = [(event["id"], event["type"], encode(event)) for event in batch.events()]
    assert sse(batch) == b"".join(
        ServerSentEvent(json.decode(), event=kind, id=cursor, sep="\n").encode() for cursor, kind, json in events
    )
    assert ndjson(batch) == b"".join(json + b"\n" for _, _, json in events)
    assert [text.encode() for text in messages(batch)] == [json for _, _, json in events]
    assert framed(batch) == b"".join(Message(Opcode.TEXT, json).serialize(mask=False) for _, _, json in events)
