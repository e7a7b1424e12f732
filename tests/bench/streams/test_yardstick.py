"""The yardstick sends the very bytes that ours sends: else it would be compared with something else."""

import pytest

from common.events import Line
from common.frames import Lines
from common.web.transports import TEXTS, messages, ndjson, sse
from tests.bench.streams.writer import batch
from tests.bench.streams.yardstick import Entry, encoders

RUN_ID = "run-oedvwf6zevhtm6yp"
LINES = batch(3, 1_795_634_785_467_675_825)


def entry(line: Line) -> Entry:
    """A line as it comes from Redis."""
    return str(line.id).encode(), {b"p": b"0-0", b"b": b"0", b"t": line.text, b"s": b"o"}


def test_lines_are_of_their_own_times() -> None:
    """Their ids grow, and need no time besides."""
    assert [line.id for line in LINES] == sorted({line.id for line in LINES})
    assert all(line.id == line.id.of_time(line.at_ns) for line in LINES)


@pytest.mark.parametrize(("transport", "encoder"), [("sse", sse), ("ndjson", ndjson), ("text", TEXTS[False, False])])
def test_the_bytes_of_a_batch_are_ours(transport: str, encoder: object) -> None:
    """In one piece."""
    frame = Lines(RUN_ID, 1, LINES[0].id.before(), tuple(LINES))
    (message,) = encoders(RUN_ID, "1")[transport]([entry(line) for line in LINES])
    assert callable(encoder)
    assert message["body"] == frame.encoded(encoder)


def test_the_messages_of_a_batch_are_ours() -> None:
    """One a line."""
    frame = Lines(RUN_ID, 1, LINES[0].id.before(), tuple(LINES))
    said = encoders(RUN_ID, "1")["websocket"]([entry(line) for line in LINES])
    assert [message["text"] for message in said] == frame.encoded(messages)
