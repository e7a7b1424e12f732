"""What a follower that reads slowly holds: a frame, of little where Redis has more, and nothing in its socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from common import follow, pages, reader
from common.errors import Unavailable
from common.events import ZERO, Line, LineId, Place
from common.frames import FRAME_BYTES, Lines
from common.pages import End, Pages
from common.pump import Pump
from common.streams import Chunk
from functions.server import _UNSENT_BYTES, _listen
from tests.unit import samples
from tests.unit.logs import Follower, World, world
from tests.unit.serving import small_socket
from tests.unit.test_follow import hurry, texts

__all__ = ["hurry"]  # a fixture

pytestmark = pytest.mark.slow

_FEW = pages._FEW_BYTES // 200  # lines, without their texts


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process()
        yield made


@pytest.fixture
def asked(given: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines Redis was asked for at a time."""
    counts: list[int] = []
    read = given.processes[0].streams.read

    async def counting(run_id: str, attempt: int, after: LineId, count: int, *, block_ms: int = 0) -> Chunk:
        if not block_ms:
            counts.append(count)
        return await read(run_id, attempt, after, count, block_ms=block_ms)

    monkeypatch.setattr(given.processes[0].streams, "read", counting)
    return counts


async def ended(given: World, *said: bytes, **bounds: int) -> str:
    """A run that has said this; Redis holds what it has room for."""
    run_id = given.runner.start()
    given.runner.write(run_id, *said)
    given.runner.end(run_id)
    process = given.process(**bounds) if bounds else given.processes[0]
    await Pump(given.runner, process.streams, run_id, 1, who="recorder", lasting=True).run()
    return run_id


def sizes(follower: Follower) -> list[int]:
    """How many lines came at a time."""
    return [len(frame.lines) for frame in follower.frames if isinstance(frame, Lines)]


def every_line(frames: list[Lines]) -> Iterator[tuple[LineId, Line]]:
    """Each line, and the one before it."""
    for frame in frames:
        yield from zip((frame.behind, *(line.id for line in frame.lines)), frame.lines, strict=False)


@pytest.mark.parametrize("most", [1, 200, 460, 461, 700, 10_000])
def test_pieces_are_the_whole(most: int) -> None:
    """Each line once, in order and behind the one before it; a piece is a line, or no larger than it may be."""
    lines = [Line(LineId(n, 0), n, "stdout", b"x" * (n * 37 % 90)) for n in range(2, 40)]
    whole = Lines(samples.RUN_ID, 3, LineId(1, 0), lines)
    pieces = whole.cut(most)
    assert list(every_line(pieces)) == list(every_line([whole]))
    assert {(piece.run_id, piece.attempt) for piece in pieces} == {(samples.RUN_ID, 3)}
    assert all(piece.lines for piece in pieces)
    room = [most - sum(200 + len(line.text) for line in piece.lines) for piece in pieces]
    assert all(left >= 0 or len(piece.lines) == 1 for left, piece in zip(room, pieces, strict=True))
    following = [200 + len(piece.lines[0].text) for piece in pieces[1:]]
    assert all(left < wanted for left, wanted in zip(room, following, strict=False)), "no more pieces than it takes"


def test_what_is_small_is_not_cut() -> None:
    """It is the same frame, with what was made of it."""
    lines = [Line(LineId(n, 0), n, "stdout", b"x" * 50) for n in range(2, 4)]
    whole = Lines(samples.RUN_ID, 1, LineId(1, 0), lines)
    assert whole.cut(500) == [whole]
    assert len(whole.cut(499)) == 2


async def test_a_frame_is_small_however_long_lines_are(given: World) -> None:
    """In the window of those who keep up, and in a page; one line may be longer."""
    run_id = given.runner.start()
    given.runner.batch = 500
    near = given.follow()
    await near.until(lambda follower: bool(follower.events))
    said = [*texts(5), *(b"%d " % number + b"x" * 40_000 for number in range(40)), b"y" * 2 * FRAME_BYTES, *texts(5)]
    given.runner.write(run_id, *said)
    given.runner.end(run_id)
    await near.end()
    far = given.follow()
    await far.end()
    for follower in (near, far):
        assert follower.texts == said
        assert len(sizes(follower)) > 10
        frames = [frame for frame in follower.frames if isinstance(frame, Lines)]
        assert all(frame.size <= FRAME_BYTES or len(frame.lines) == 1 for frame in frames)


async def test_pages_of_long_lines_have_fewer(given: World, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit in, by those before them; and as many as ever once they are short again."""
    monkeypatch.setattr(pages, "_PAGE_BYTES", 1_000)
    monkeypatch.setattr(pages, "PAGE_LINES", 10)
    run_id = await ended(given, *texts(10), *[b"x" * 250] * 22, *texts(60))
    reading, place = Pages(given.processes[0], run_id), ZERO
    found: list[Line] = []
    del asked[:]
    while isinstance(frame := await reading.after(Place(1, place), None), Lines):
        found += frame.lines
        place = frame.last
    assert found == given.runner.runs[run_id].lines
    assert asked[:3] == [10, 10, 4]
    assert asked[-1] == 10
    await reading.close()


async def test_who_reads_slowly_is_given_little(
    given: World, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page at first, as who is fast; then as few lines as a small frame holds."""
    monkeypatch.setattr(follow, "_SLOW_SECONDS", -1.0)  # everybody is
    run_id = await ended(given, *texts(1_000), *[b"x" * 9_000] * 10)
    del asked[:]
    follower = given.follow(run_id=run_id)
    await follower.end()
    assert follower.lines == given.runner.runs[run_id].lines
    first, *rest = sizes(follower)
    assert first == 500
    assert max(rest) <= _FEW
    assert rest[-10:] == [1] * 10
    assert set(asked) == {pages.PAGE_LINES, pages._FEW_LINES}


async def test_who_reads_slowly_is_given_little_of_a_page_that_is_there(given: World) -> None:
    """It would hold it when all others have long been elsewhere."""
    run_id = await ended(given, *texts(500))
    lines = given.runner.runs[run_id].lines
    reading = Pages(given.processes[0], run_id)
    await reading.after(Place(1, ZERO), None)
    little = await reading.after(Place(1, ZERO), None, few=True)
    assert isinstance(little, Lines)
    assert 1 < len(little.lines) <= _FEW
    assert list(little.lines) == lines[: len(little.lines)]
    await reading.close()


async def test_who_is_slow_together_is_given_the_same(given: World, asked: list[int]) -> None:
    """Where it is the server that is late, all of its followers are slow: they share what they did before."""
    run_id = await ended(given, *texts(500))
    reading, place = Pages(given.processes[0], run_id), Place(1, given.runner.runs[run_id].lines[99].id)
    del asked[:]
    found = await asyncio.gather(*(reading.after(place, None, few=True) for _ in range(5)))
    assert all(frame is found[0] for frame in found)
    assert asked == [pages._FEW_LINES]
    await reading.close()


async def test_who_reads_fast_is_given_pages(given: World, asked: list[int]) -> None:
    """Nobody is slow who has just come, or takes what there is."""
    run_id = await ended(given, *texts(1_200))
    del asked[:]
    follower = given.follow(run_id=run_id)
    await follower.end()
    assert sizes(follower) == [500, 500, 200]
    assert set(asked) == {pages.PAGE_LINES}


async def test_what_redis_has_trimmed_is_given_by_frames(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look it up takes so much that slow ones share the page, too; they hold a frame of it."""
    monkeypatch.setattr(follow, "_SLOW_SECONDS", -1.0)
    run_id = await ended(given, *texts(5_000), redis_log_lines=100)
    looks = 0
    batches = Pages._batches

    def counting(self: Pages, attempt: int, behind: LineId) -> object:
        nonlocal looks
        looks += 1
        return batches(self, attempt, behind)

    monkeypatch.setattr(Pages, "_batches", counting)
    followers = [given.follow(run_id=run_id) for _ in range(3)]
    for follower in followers:
        await follower.end()
        assert follower.lines == given.runner.runs[run_id].lines
        assert max(sizes(follower)) < 900
    assert looks == 1


async def test_a_page_that_could_not_be_read_is_in_nobodys_way(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is an end: what is known is looked for among the pages that are there."""
    run_id = await ended(given, *texts(700))
    lines = given.runner.runs[run_id].lines
    reading = Pages(given.processes[0], run_id)
    assert isinstance(await reading.after(Place(1, lines[-1].id), None), End)
    with monkeypatch.context() as away:
        away.setattr(Pages, "_from_runner", _away)
        away.setattr(Pages, "_read", _away)
        with pytest.raises(Unavailable):
            await reading.after(Place(1, ZERO), None)
    for at, place in ((100, lines[99].id), (0, ZERO)):
        found = await reading.after(Place(1, place), None)
        assert isinstance(found, Lines)
        assert list(found.lines) == lines[at : at + 500]
    await reading.close()


async def _away(*_: object, **__: object) -> None:
    raise Unavailable("runner", "It is away.")


async def test_a_window_has_no_hole_where_batches_are_cut(given: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in its middle is given what goes on from there."""
    monkeypatch.setattr(reader, "FRAME_BYTES", 450)
    run_id = given.runner.start()
    given.runner.batch = 500
    first = given.follow()
    given.runner.write(run_id, *texts(50))
    await first.has(texts(50))
    window = given.followers()._feeds._feeds[run_id]._reader.window
    assert [len(batch.lines) for batch in window.batches] == [2] * 25
    lines = given.runner.runs[run_id].lines
    assert [line for _, line in every_line(window.batches)] == lines
    assert [list(window.after(line.id).lines) for line in lines[:4]] == [lines[1:2], lines[2:4], lines[3:4], lines[4:6]]


def test_a_socket_takes_little_that_its_client_does_not() -> None:
    """The kernel would let a buffer grow to megabytes, of which a container is charged for each."""
    with _listen("127.0.0.1", 0) as listener, small_socket(listener.getsockname()[1]):
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            taken = 0
            with suppress(BlockingIOError):
                while taken < 64 * _UNSENT_BYTES:
                    taken += server.send(b"x" * 1024)
            assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == _UNSENT_BYTES
            assert taken < 4 * _UNSENT_BYTES
