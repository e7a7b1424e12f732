"""The recorder: everything is in the archive before Redis has it, and Redis has its end after everything else."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from common import archive
from common.errors import Unavailable
from common.models import Progress
from common.recorder import recorder
from common.recorder.recorder import Recorder, Trace
from tests.unit.logs import World, world
from tests.unit.test_follow import entries, hurry, texts

__all__ = ["hurry"]  # a fixture

HEAD = "task_id\thash\tprocess\tstatus\texit\tattempt\tsubmit\tstart\tcomplete\tname\n"
ROW = "1\tab/123456\tFOO\tCOMPLETED\t0\t1\t-\t-\t-\tFOO (a\rb \u2028)\n"


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world with one process."""
    async with world(redis_url) as made:
        made.process()
        yield made


def _recorder(given: World, run_id: str, directory: Path) -> Recorder:
    """What records a run of the world."""
    process, trace = given.processes[0], directory / "trace.txt"
    return Recorder(
        source=process.runner, streams=process.streams, run_id=run_id, attempt=1, directory=directory, trace=trace
    )


@pytest.mark.slow
async def test_a_run_is_recorded(given: World, tmp_path: Path) -> None:
    """Lines, end and last progress; a second recorder, as after a crash, adds nothing."""
    run_id = given.runner.start()
    given.runner.write(run_id, b"[ab/123456] Submitted process > FOO", *texts(30))
    (tmp_path / "trace.txt").write_text(HEAD + ROW, "utf-8")
    given.runner.end(run_id)
    lines = given.runner.runs[run_id].lines
    for _ in range(2):
        async with asyncio.timeout(20):
            await _recorder(given, run_id, tmp_path).run()
        assert list(archive.read(tmp_path / "archive" / "1")) == lines
        assert archive.whole(tmp_path / "archive" / "1")
        found = await entries(given, run_id)
        ids = [*(line.id for line in lines), lines[-1].id.next()]
        assert [entry_id for entry_id, _ in found] == [str(line_id).encode() for line_id in ids]
        progress = (await given.processes[0].streams.told(run_id)).progress
        assert progress is not None
        assert (progress.total.submitted, progress.total.succeeded, progress.total.running) == (1, 1, 0)


@pytest.mark.slow
async def test_an_archive_is_finished_after_the_last_progress(
    given: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on this machine ends with that mark, and who is told its end is told of all its tasks."""
    finish, counted = archive.Archive.finish, list[Progress]()

    def finished(self: archive.Archive) -> None:
        counted.append(Progress.model_validate_json((tmp_path / "progress.json").read_bytes()))
        finish(self)

    monkeypatch.setattr(archive.Archive, "finish", finished)
    run_id = given.runner.start()
    given.runner.write(run_id, b"[ab/123456] Submitted process > FOO")
    given.runner.end(run_id)
    (tmp_path / "trace.txt").write_text(HEAD, "utf-8")
    recording = _recorder(given, run_id, tmp_path)
    # The last row comes late: no line is behind it.
    monkeypatch.setattr(recording, "_read", _then(recording._read, lambda: _append(tmp_path / "trace.txt", ROW)))
    async with asyncio.timeout(20):
        await recording.run()
    (told,) = counted
    assert (told.total.running, told.total.succeeded) == (0, 1)


@pytest.mark.slow
async def test_a_recorder_outlives_a_runner_that_is_away(given: World, tmp_path: Path) -> None:
    """It reads again from the beginning, and takes nothing in twice."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(30))
    task = asyncio.create_task(_recorder(given, run_id, tmp_path).run())
    follower = given.follow()
    await follower.has(texts(30))
    given.runner.away = True
    given.runner.write(run_id, *texts(3, 30))
    with pytest.raises(Unavailable):
        await given.runner.job(run_id)
    await asyncio.sleep(0)
    given.runner.away = False
    given.runner.end(run_id)
    await follower.end()
    async with asyncio.timeout(20):
        await task
    assert follower.texts == texts(33)
    assert list(archive.read(tmp_path / "archive" / "1")) == given.runner.runs[run_id].lines


def _then(read: Callable[[], Awaitable[bool | None]], do: Callable[[], None]) -> Callable[[], Awaitable[bool | None]]:
    async def both() -> bool | None:
        final = await read()
        do()
        return final

    return both


def _append(path: Path, row: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(row)


def test_a_trace_is_read_row_by_row(tmp_path: Path) -> None:
    """A row that is not finished waits; what a tag holds breaks nothing."""
    path = tmp_path / "trace.txt"
    trace = Trace(path)
    assert trace.rows() == []
    path.write_text(HEAD + ROW + ROW[:10], "utf-8")
    (row,) = trace.rows()
    assert (row["hash"], row["name"]) == ("ab/123456", "FOO (a\rb \u2028)")
    assert trace.rows() == []
    path.write_text(HEAD + ROW + ROW, "utf-8")
    assert len(trace.rows()) == 1


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_in_a_trace_s_place_is_not_waited_for(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """A run may put anything there, and would otherwise keep its recorder from recording."""
    put(tmp_path / "trace.txt")
    assert Trace(tmp_path / "trace.txt").rows() == []


def test_a_long_trace_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so much of it is held at a time, and no row is lost."""
    monkeypatch.setattr(recorder, "_TRACE_BYTES", len(HEAD + ROW) + 3)
    (tmp_path / "trace.txt").write_text(HEAD + ROW * 3, "utf-8")
    trace = Trace(tmp_path / "trace.txt")
    assert [len(trace.rows()) for _ in range(3)] == [1, 2, 0]
