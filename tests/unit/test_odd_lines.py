"""Lines that are hard to carry, through both log formats and over every transport: each as functions/stream says."""

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from common.cri import LINE_BYTES, Joiner, RawLine, format_time, record
from common.events import Cursor, Line, LineId, number
from common.follow import Followers
from common.frames import Idle, Lines
from common.kube.log import Log
from common.kube.sent import Sent
from common.local.log import Log as Writer
from common.local.tail import Tail
from common.web.transports import TEXTS, ndjson, sse
from tests.simulation import virtual
from tests.unit.logs import LogRunner, World, asks, platform
from tests.unit.serving import FIXTURES, NDJSON, SSE, Served, given, served
from tests.unit.test_follow import hurry

__all__ = ["given", "hurry", "served"]  # fixtures

ODD = [
    b"x" * 1_000_000,
    b"latin caf\xe9, \xff\xfe, half of a pair \xed\xa0\x80, cut \xe2\x82",
    "a replacement character that was written: \ufffd".encode(),
    b"dos\r",
    b"10%\r20%\r100%",
    b"a\x00b",
    b"\x1b[32mgreen\x1b[0m and \x1b]0;a title\x07",
    b"",
    b" ",
    "\u2028 and \u0085 end no line, nor \x0b \x0c \x1c".encode(),
    b"event: complete",
    b"data: {}",
    b": still here",
    b'# gap: {"reason":"made up"}',
    b'{"id":"run-aaaaaaaaaaaaaaaa.1.end","type":"complete"}',
    b"2026-11-24T01:35:33.349849122Z stdout F a line of a log in a line",
    b"the last, without a newline",
]
SECOND = 1_795_500_000_000_000_000


def by_cri(chunks: Iterable[bytes], tmp_path: Path) -> list[Line]:
    """The lines of a runtime's log file, that comes in these chunks."""
    file = tmp_path / "log"
    tail, lines = Tail(file), []
    with file.open("wb", buffering=0) as growing:
        for chunk in chunks:
            growing.write(chunk)
            lines += tail.read()
    while tail.grew:
        lines += tail.read()
    return [*lines, *tail.rest()]


def by_api(chunks: Iterable[bytes], tmp_path: Path) -> list[Line]:
    """The lines of a log as the API server sends it."""
    log = Sent()
    return [*(line for chunk in chunks for line in log.feed(chunk)), *log.rest()]


def cut(content: bytes, size: int) -> list[bytes]:
    """The same in chunks."""
    return [content[start : start + size] for start in range(0, len(content), size)]


def written(texts: Sequence[bytes], path: Path) -> bytes:
    """The file of a run on this machine that has said this, the last without a newline."""
    writer = Writer(path)
    for chunk in cut(b"\n".join(texts), 60_000):
        writer.take("stdout", chunk)
    assert writer.finish()
    writer._file.close()
    return path.read_bytes()


def sent(texts: Sequence[bytes]) -> bytes:
    """The same as the API server sends it, a microsecond apart."""
    stamped = (b"%b %b" % (format_time(SECOND + 1_000 * at).encode(), text) for at, text in enumerate(texts))
    return b"\n".join(stamped)


def odd_cri(tmp_path: Path) -> list[Line]:
    """Those lines by a runtime's file."""
    return by_cri(cut(written(ODD, tmp_path / "written"), 70_001), tmp_path)


def odd_api(tmp_path: Path) -> list[Line]:
    """And by the API server."""
    return by_api(cut(sent(ODD), 9_999), tmp_path)


def clock(name: str, read: Callable[[Iterable[bytes], Path], list[Line]], tmp_path: Path) -> list[Line]:
    """The recorded log of a node whose clock was set back."""
    return read(cut((FIXTURES / name).read_bytes(), 50), tmp_path)


SOURCES: dict[str, Callable[[Path], list[Line]]] = {
    "a runtime's file": odd_cri,
    "the API server": odd_api,
    "a file of a clock that was set back": partial(clock, "clock-back.cri", by_cri),
    "the API server's of that clock": partial(clock, "clock-back.api", by_api),
}


@pytest.mark.parametrize("source", [odd_cri, odd_api])
def test_odd_lines_come_through_the_log_formats(source: Callable[[Path], list[Line]], tmp_path: Path) -> None:
    """To the byte; only a newline ends a line."""
    assert [line.text for line in source(tmp_path)] == ODD


def is_text(text: bytes) -> bool:
    """Whether it is UTF-8."""
    return text.decode("utf-8", "replace").encode() == text


def exact(event: dict[str, Any]) -> bytes:
    """The bytes of an event's line."""
    data = event["data"]
    if "base64" not in data:
        return str(data["line"]).encode()
    found = base64.b64decode(data["base64"], validate=True)
    assert not is_text(found)
    assert data["line"] == found.decode("utf-8", "replace")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
async def test_odd_lines_come_over_every_transport(given: World, served: Served, source: str, tmp_path: Path) -> None:
    """Text brings the bytes; an event is one object on one line, its text exact, in `base64` where it is not UTF-8."""
    lines = SOURCES[source](tmp_path)
    run_id = given.runner.start()
    given.runner.runs[run_id].logs[-1].lines = lines
    given.runner.end(run_id)
    texts, ids = [line.text for line in lines], [str(Cursor(run_id, 1, line.id)) for line in lines]

    plain = await served.http.get("/stream")
    assert plain.content == b"".join(text + b"\n" for text in texts)
    stamped = await served.http.get("/stream?timestamps=true")
    assert stamped.content == b"".join(b"%b %b\n" % (id.encode(), text) for id, text in zip(ids, texts, strict=True))

    as_sse = (await served.http.get("/stream", headers=SSE)).content
    as_ndjson = (await served.http.get("/stream", headers=NDJSON)).content
    assert b"\r" not in as_sse + as_ndjson  # which an EventSource takes for the end of a line
    blocks = [block.split(b"\n") for block in as_sse.removeprefix(b"retry: 1000\n").split(b"\n\n")[:-1]]
    assert {tuple(line.partition(b": ")[0] for line in block) for block in blocks} == {(b"id", b"event", b"data")}
    told = {
        "sse": [json.loads(block[2].partition(b": ")[2]) for block in blocks],
        "ndjson": [json.loads(line) for line in as_ndjson.split(b"\n")[:-1]],
        "websocket": (await served.told()).events,
    }
    for transport, events in told.items():
        assert [event["type"] for event in events] == ["status", *["log"] * len(lines), "complete"], transport
        assert [event["id"] for event in events[1:-1]] == ids
        assert [exact(event) for event in events[1:-1]] == texts


# Long lines.


def parts(text: bytes, most: int, *, newline: bool = True) -> list[bytes]:
    """What a line is told as."""
    found = [text[start : start + most] for start in range(0, len(text), most)]
    return [*found, b""] if newline and len(text) % most == 0 else found


LONG = [b"a" * LINE_BYTES, b"between", b"b" * (2 * LINE_BYTES + 5), b"c" * (LINE_BYTES - 1), b"d" * 3 * LINE_BYTES]


@pytest.mark.parametrize("size", [1_000, 65_536, 7_000_000])
@pytest.mark.parametrize("form", ["cri", "api"])
def test_a_line_that_is_too_long_goes_on_in_others(form: str, size: int, tmp_path: Path) -> None:
    """All at its own time, each but the last of the full length; an end that never came adds no empty one."""
    content = written(LONG, tmp_path / "written") if form == "cri" else sent(LONG)
    lines = (by_cri if form == "cri" else by_api)(cut(content, size), tmp_path)
    expected = [parts(text, LINE_BYTES, newline=text is not LONG[-1]) for text in LONG]
    assert [line.text for line in lines] == list(itertools.chain(*expected))
    times = [line.at_ns for line in lines]
    assert [len(list(group)) for _, group in itertools.groupby(times)] == [len(texts) for texts in expected]
    assert [line.id for line in lines] == sorted({line.id for line in lines})


def test_a_runtime_may_be_told_to_write_long_lines_whole(tmp_path: Path) -> None:
    """They are cut at the same places."""
    head = f"{format_time(SECOND)} stdout F ".encode()
    content = b"".join(b"%b%b\n" % (head, text) for text in LONG)
    assert [line.text for line in by_cri([content], tmp_path)] == [
        part for text in LONG for part in parts(text, LINE_BYTES)
    ]


def test_no_more_is_held_of_a_line_than_is_given_at_once() -> None:
    """Though its newline may never come: neither of its text nor of what has not even a time."""
    log, joiner = Sent(), Joiner()
    for form in (log.feed, joiner.feed):
        given = 0
        for at in range(40):
            chunk = b"y" * 100_000
            if form == log.feed:
                raw: Iterable[Any] = log.feed(sent([chunk]) if at == 0 else chunk)
            else:
                raw = joiner.feed(record(SECOND, "stdout", chunk, ended=False))
            given += sum(len(line.text) for line in raw)
            assert 0 <= 100_000 * (at + 1) - given < LINE_BYTES
    torn = Sent()
    for _ in range(40):
        assert torn.feed(b"unable" * 20_000) == []
        assert len(torn._unended._head) <= 130_000
    assert [line.text for line in torn.feed(b"\n" + sent([b"on", b""]))] == [b"on"]


TEXTS_ = st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=8)


@drawn(TEXTS_, st.lists(st.integers(1, 60), min_size=1), st.booleans())
@settings(deadline=None)
def test_a_line_is_cut_at_the_same_places_whoever_reads_it(texts: list[bytes], sizes: list[int], ended: bool) -> None:
    """In whatever chunks it comes, so that ids are the same."""
    content = sent(texts) + (b"\n" if texts and ended else b"")
    chunks, start = [], 0
    for size in itertools.cycle(sizes):
        chunks.append(content[start : start + size])
        start += size
        if start >= len(content):
            break
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.cri.LINE_BYTES", 8)
        patch.setattr("common.kube.sent.LINE_BYTES", 8)
        lines = by_api(chunks, Path())
    expected = [
        RawLine(SECOND + 1_000 * at, "stdout", part)
        for at, text in enumerate(texts)
        for part in parts(text, 8, newline=ended or at < len(texts) - 1) or [b""]
    ]
    assert lines == list(number(expected))


# A node's clock that is set back.


def test_a_clock_that_was_set_back_changes_no_order(tmp_path: Path) -> None:
    """Both formats give the same lines the same ids, which grow; their times are the ones that the runtime wrote."""
    lines = SOURCES["a file of a clock that was set back"](tmp_path)
    assert lines == SOURCES["the API server's of that clock"](tmp_path)
    assert [line.id for line in lines] == sorted({line.id for line in lines})
    raw = [row.split(" ", 1) for row in (FIXTURES / "clock-back.api").read_text().splitlines()]
    assert [(format_time(line.at_ns), line.text.decode()) for line in lines] == [(at, text) for at, text in raw]
    assert sum(line.id != LineId.of_time(line.at_ns) for line in lines) == 6


def test_going_on_behind_a_line_whose_clock_was_set_back() -> None:
    """The file is read from its beginning: from each line on comes exactly what is behind it."""
    content = (FIXTURES / "clock-back.api").read_bytes()
    lines = Sent().feed(content)
    for at, line in enumerate(lines):
        log = Log(after=line.id)
        assert log.fresh(Sent().feed(content)) == lines[at + 1 :]


@pytest.mark.slow
async def test_a_follower_goes_on_behind_a_line_whose_clock_was_set_back(given: World, tmp_path: Path) -> None:
    """Though its id tells another time than the line."""
    lines = SOURCES["a file of a clock that was set back"](tmp_path)
    run_id = given.runner.start()
    given.runner.runs[run_id].logs[-1].lines = lines
    given.runner.end(run_id)
    for at, line in enumerate(lines):
        follower = given.follow(after=Cursor(run_id, 1, line.id))
        await follower.end()
        assert follower.lines == lines[at + 1 :]


# Many at once, and none for long.


@pytest.mark.slow
async def test_a_hundred_thousand_lines_in_a_second(given: World, served: Served) -> None:
    """Each once, in order, over every transport; though half of them have one and the same nanosecond."""
    texts = [b"line %d" % at for at in range(100_000)]
    run_id = given.runner.start()
    given.runner.batch = 500
    given.runner.runs[run_id].logs[-1].lines = list(
        number(RawLine(SECOND + 10_000 * min(at, 50_000), "stdout", text) for at, text in enumerate(texts))
    )
    given.runner.end(run_id)
    plain, as_sse, as_ndjson, told = await asyncio.gather(
        served.http.get("/stream", timeout=60),
        served.http.get("/stream?types=log", headers=SSE, timeout=60),
        served.http.get("/stream?types=log", headers=NDJSON, timeout=60),
        served.told("types=log"),
    )
    assert plain.content == b"".join(text + b"\n" for text in texts)
    data = [line[6:] for line in as_sse.content.split(b"\n") if line.startswith(b"data: ")][1:-1]
    assert data == as_ndjson.content.split(b"\n")[1:-2] == [message.encode() for message in told.messages][1:-1]
    events = [json.loads(event) for event in data]
    assert [event["data"]["line"].encode() for event in events] == texts
    assert len({event["id"] for event in events}) == len(texts)


def test_an_hour_of_silence() -> None:
    """Nothing is silent for longer than a heartbeat but text, where nothing can be said; then a line comes at once."""
    sent_at: dict[Any, list[float]] = {sse: [], ndjson: [], TEXTS[False, False]: []}

    async def silence() -> None:
        loop = asyncio.get_running_loop()
        runner = LogRunner()
        parts = platform("unix:///nonexistent/redis", runner)  # a real one would answer in real time
        run_id = runner.start()
        loop.call_later(3600, partial(runner.write, run_id, b"line"))
        loop.call_later(3600, partial(runner.end, run_id))
        async for frame in Followers(parts).follow(asks(), run_id):
            for encode, times in sent_at.items():
                if frame.encoded(encode):
                    times.append(loop.time())
            if isinstance(frame, Lines):
                assert loop.time() == pytest.approx(3600)
            if not isinstance(frame, Idle):
                kinds.append(type(frame).__name__)
        await parts.close()

    kinds: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.feed._WATCH_SECONDS", 60)
        patch.setattr("tests.unit.logs._TICK_SECONDS", 60)
        patch.setattr(time, "monotonic", lambda: asyncio.get_running_loop().time())
        virtual.run(silence())
    assert kinds == ["Notice", "Lines", "Notice", "Notice"]
    for encode in (sse, ndjson):
        assert max(after - before for before, after in itertools.pairwise(sent_at[encode])) == pytest.approx(15)
    assert sent_at[TEXTS[False, False]] == [pytest.approx(3600)]
