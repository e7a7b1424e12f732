"""What stands in a stream beside the log: gaps in the log itself, and where the next attempt begins."""

from typing import Any

import pytest

from common import feed, reader
from common.events import GAP, ZERO, Cursor, Line, LineId, line_event
from common.frames import Lines
from tests.unit import samples
from tests.unit.logs import World
from tests.unit.serving import Served, given, served, unstamped
from tests.unit.test_follow import entries, flush, hurry, texts
from tests.unit.test_stream_followers import over_ndjson, over_sse, over_websocket

__all__ = ["given", "hurry", "served"]  # fixtures

STATUS_ALONE = frozenset({"status"})


def frame(*letters: str) -> Lines:
    """Lines of these streams behind a line that is known, each named after its place."""
    streams = {"o": "stdout", "g": GAP}
    lines = [Line(LineId(n, 0), n * 1_000_000, streams[x], b"%d" % n) for n, x in enumerate(letters, 2)]
    return Lines(samples.RUN_ID, 1, LineId(1, 0), lines)


def test_a_gap_names_the_line_before_it() -> None:
    """Whatever part of the log it is sent with; where it is the first that is known, none."""
    whole = frame("o", "g", "o", "g")
    [first, second] = [event for event in whole.events() if event["type"] == "gap"]
    assert first == {
        "id": f"{samples.RUN_ID}.1.3-0",
        "type": "gap",
        "run_id": samples.RUN_ID,
        "timestamp": "1970-01-01T00:00:00.003000000Z",
        "data": {"reason": "3", "after": "2-0", "until": "3-0"},
    }
    assert [event for part in whole.gaps() for event in part.events()] == [first, second]
    for start in range(2, 5):
        assert whole.after(LineId(start, 0)).events() == whole.events()[start - 1 :]
    assert frame("g").events()[0]["data"]["after"] == "1-0"
    assert line_event(samples.RUN_ID, 1, whole.lines[1], ZERO)["data"] == {"reason": "3", "until": "3-0"}


@pytest.mark.slow
async def test_every_transport_tells_boundaries(given: World, served: Served) -> None:
    """The same objects under the same ids over three of them; in text, remarks where they stand among the lines."""
    run_id = given.runner.start()
    given.runner.write(run_id, b"one")
    given.runner.skip(run_id, b"It is gone.")
    given.runner.write(run_id, b"two")
    given.runner.restart(run_id)
    given.runner.write(run_id, b"three")
    given.runner.end(run_id)
    sse, ndjson, websocket = (
        unstamped(events)
        for events in (await over_sse(served), await over_ndjson(served), await over_websocket(served))
    )
    assert sse == ndjson == websocket
    assert [event["type"] for event in sse] == ["status", "log", "gap", "log", "restarted", "log", "complete"]
    first, second = given.runner.runs[run_id].logs
    one, gone, two = (line.id for line in first.lines)
    [three] = (line.id for line in second.lines)
    assert [(event["id"], event["data"]) for event in sse if event["type"] in ("gap", "restarted")] == [
        (f"{run_id}.1.{gone}", {"reason": "It is gone.", "after": str(one), "until": str(gone)}),
        (f"{run_id}.2.0-0", {"attempt": 2, "reason": feed._RESTARTED}),
    ]
    remarks = (
        b'# gap: {"reason":"It is gone.","after":"%b","until":"%b"}' % (str(one).encode(), str(gone).encode()),
        b'# restarted: {"attempt":2,"reason":"%b"}' % feed._RESTARTED.encode(),
    )
    text = await served.http.get("/stream")
    assert text.content.splitlines() == [b"one", remarks[0], b"two", remarks[1], b"three"]
    stamped = await served.http.get("/stream?timestamps=true")
    assert stamped.content.splitlines() == [
        b"%b one" % str(Cursor(run_id, 1, one)).encode(),
        remarks[0],
        b"%b two" % str(Cursor(run_id, 1, two)).encode(),
        remarks[1],
        b"%b three" % str(Cursor(run_id, 2, three)).encode(),
    ]
    states = await served.http.get("/stream?types=status")
    assert [line.partition(b":")[0] for line in states.content.splitlines()] == [
        *(b"# status", b"# restarted", b"# complete"),
    ]


@pytest.mark.slow
async def test_gaps_come_to_those_who_read_no_log(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that comes while they follow, once; those that have fallen out of the window are the past."""
    monkeypatch.setattr(reader, "_WINDOW_LINES", 50)
    run_id = given.runner.start()
    lines, states = given.follow(), given.follow(types=STATUS_ALONE)
    await states.until(lambda self: bool(self.frames))
    told: list[dict[str, Any]] = []
    for round_ in range(3):
        given.runner.write(run_id, *texts(40, 40 * round_))
        given.runner.skip(run_id, b"%d" % round_)
        await states.until(lambda self, count=round_ + 1: self.kinds.count("gap") == count)  # type: ignore[misc]
    await lines.has(texts(120))
    late = given.follow(types=STATUS_ALONE)
    await late.until(lambda self: bool(self.frames))
    given.runner.end(run_id)
    for follower in (lines, states):
        await follower.end()
        found = [event for frame in follower.frames for event in frame.events() if event["type"] == "gap"]
        told = told or found
        assert found == told
        assert [event["data"]["reason"] for event in found] == ["0", "1", "2"]
    assert states.texts == []
    await late.end()
    assert 1 <= late.kinds.count("gap") <= 2


@pytest.mark.slow
async def test_a_gap_is_the_same_from_redis_and_from_the_runner(given: World) -> None:
    """It is kept under its letter and read as it was; a letter that is none is standard output."""
    run_id = given.runner.start()
    given.runner.write(run_id, b"one", b"oops!")
    given.runner.skip(run_id, b"It is gone.")
    lines = given.runner.runs[run_id].lines
    streams = given.processes[0].streams
    await streams.append(run_id, 1, ZERO, lines)
    assert [fields[b"s"] for _, fields in await entries(given, run_id)] == [b"o", b"e", b"g"]
    async with given.processes[0].connection.use() as client:
        await client.xadd(
            f"nfc:log:{run_id}:1", {"p": str(lines[-1].id), "t": "?", "s": "x"}, id=str(lines[-1].id.next())
        )
    *found, strange = (await streams.read(run_id, 1, ZERO, 9)).lines
    assert (found, strange.stream) == (lines, "stdout")
    await flush(given)
    given.process(redis_url="redis://127.0.0.1:1/0")
    for process in given.processes:
        follower = given.follow(process)
        await follower.until(lambda self: "gap" in self.kinds)
        [gap] = [event for frame in follower.frames for event in frame.events() if event["type"] == "gap"]
        assert gap["data"] == {"reason": "It is gone.", "after": str(lines[1].id), "until": str(lines[2].id)}
        assert follower.texts == [b"one", b"oops!"]
