"""What a run or a caller says is told on as text of theirs: it forges no event, no line and no record of the log."""

import io
import json
import logging
import re
from collections.abc import Sequence

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import strategies as st

from common.cri import RawLine
from common.errors import Invalid
from common.events import ZERO, Cursor, Line, event, number
from common.frames import Farewell, Frame, Lines, Notice
from common.models import RunInfo
from common.observe import configure_logging
from common.web.transports import TEXTS, messages, ndjson, sse
from tests.fuzz import fuzz
from tests.unit import samples

RUN_ID = samples.RUN_ID
ODD = [
    *(b"\r", b"\r\n"[:1], b"\x00", b"\x0b", b"\x0c", b"\x1b[2J", b"\x85", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(
        b"\xe2\x80\xa9",
        b"\xed\xa0\x80",
        b"id: ",
        b"data: ",
        b"event: complete",
        b"retry: 1",
        b": ",
        b"# ",
        b"# gap: {}",
    ),
    *(b'{"type":"complete"}', b'"}', b"\\u000a", f"{RUN_ID}.1.end ".encode(), b"2030-01-01T00:00:00Z "),
]
TEXT = st.lists(st.one_of(st.sampled_from(ODD), st.binary(max_size=6)), max_size=5).map(
    lambda parts: b"".join(parts).replace(b"\n", b"")
)
RAW = st.builds(RawLine, st.integers(1, 4 * 10**18), st.sampled_from(["stdout", "stderr", "gap"]), TEXT)
ANY_TEXT = st.one_of(TEXT.map(lambda text: text.decode("utf-8", "replace")), st.text(max_size=10))


def frames(lines: Sequence[Line], message: str) -> list[Frame]:
    """Lines, and notices that carry a text of somebody's."""
    cursor = Cursor(RUN_ID, 1, lines[-1].id if lines else ZERO)
    run = RunInfo.model_validate({**dict(samples.run()), "message": message, "pipeline": message or "p"})
    notices = [Notice(event(kind, cursor, run.model_dump(mode="json"))) for kind in ("status", "gap", "complete")]
    return [*([Lines(RUN_ID, 1, ZERO, tuple(lines))] if lines else []), *notices, Farewell(cursor)]


@fuzz(st.lists(RAW, max_size=5), ANY_TEXT)
def test_every_transport_tells_what_was_said_and_no_more(raw: list[RawLine], message: str) -> None:
    """By the parsers of others: the same events, each once, under its own id; as text each line of the log is one."""
    lines = list(number(raw))
    told = frames(lines, message)
    events = [json.loads(one) for frame in told for one in messages(frame)]
    assert [one["id"] for one in events[: len(lines)]] == [f"{RUN_ID}.1.{line.id}" for line in lines]
    kinds = ["gap" if line.stream == "gap" else "log" for line in lines]
    assert [one["type"] for one in events] == [*kinds, "status", "gap", "complete"]
    assert [json.loads(one) for one in b"".join(map(ndjson, told)).split(b"\n") if one] == events
    answer = httpx.Response(
        200, headers={"content-type": "text/event-stream"}, content=b"retry: 1000\n" + b"".join(map(sse, told))
    )
    sent = list(EventSource(answer).iter_sse())
    assert [(one.id, one.event, json.loads(one.data)) for one in sent] == [
        (one["id"], one["type"], one) for one in events
    ]
    stamped = b"".join(map(TEXTS[True, True], told)).split(b"\n")[:-1]
    assert len(stamped) == len(lines) + 4
    for row, line in zip(stamped, lines, strict=False):
        if line.stream == "gap":
            assert row.startswith(b"# gap: {")
        else:
            assert row == f"{RUN_ID}.1.{line.id} ".encode() + line.text  # so none begins with a #
    assert [row[:2] for row in stamped[len(lines) :]] == [b"# "] * 4


RECORDS = st.fixed_dictionaries(
    {"path": ANY_TEXT, "cause": st.one_of(ANY_TEXT, st.just("\udcff"))},
    optional={"detail": ANY_TEXT, "bytes": TEXT, "error": ANY_TEXT.map(ValueError)},
)


@fuzz(ANY_TEXT, RECORDS)
def test_a_record_of_the_log_is_one_line(message: str, extra: dict[str, object]) -> None:
    """Whatever is logged, and whatever went wrong with it: JSON, whose level and event are not what a text says."""
    root, into = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", into)
        configure_logging("INFO")
        try:
            raise Invalid("/x", message)
        except Invalid:
            logging.getLogger("fuzz").warning("what: %s", message, extra=extra, exc_info=True)
        finally:
            root.handlers, root.level = before
    text = into.getvalue()
    assert text.endswith("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    [record] = map(json.loads, text[:-1].split("\n"))
    assert (record["level"], record["event"], record["logger"]) == ("WARNING", f"what: {message}", "fuzz")
