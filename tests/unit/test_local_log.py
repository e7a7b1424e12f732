"""A local run's log is looked for by id in what its recorder has kept; what that has not is read from the log file."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from common import archive, cri
from common.events import ZERO, Line, LineId, number
from common.local.runner import LocalRunner
from common.local.state import GrowingFile
from tests.unit.samples import RUN_ID

SEGMENT_BYTES = 2_000


class Log:
    """A run's directory, of which the first lines are kept."""

    def __init__(self, state_dir: Path, count: int, kept: int) -> None:
        self.runner = LocalRunner(state_dir, None, {})
        directory = self.runner._state.run(RUN_ID)
        raw = [cri.RawLine(1_900_000_000_000_000_000 + at * 1_000, "stdout", b"line %d" % at) for at in range(count)]
        self.lines: Sequence[Line] = list(number(raw))
        self.kept = archive.place(directory, 1)
        written = archive.Archive(self.kept, segment_bytes=SEGMENT_BYTES)
        for line in self.lines[:kept]:
            written.append([line])
        written.close()
        (directory / "log").write_bytes(b"".join(cri.record(one.at_ns, one.stream, one.text) for one in raw))

    async def read(self, after: LineId) -> list[Line]:
        """All behind a line."""
        async with aclosing(self.runner.lines(RUN_ID, 1, after)) as batches:
            return [line async for batch in batches for line in batch]

    async def begin(self, after: LineId) -> Sequence[Line]:
        """The first batch behind a line."""
        async with aclosing(self.runner.lines(RUN_ID, 1, after)) as batches:
            return await anext(batches)


@pytest.mark.parametrize("kept", [0, 1, 200, 500])
async def test_a_log_is_the_same_wherever_it_is_read(tmp_path: Path, kept: int) -> None:
    """With a recorder that died, or never lived."""
    log = Log(tmp_path, 500, kept)
    for at in (0, 100, kept - 1, kept, 499, 500):
        after = log.lines[at - 1].id if at > 0 else ZERO
        assert await log.read(after) == log.lines[max(at, 0) :]


async def test_what_is_kept_is_not_looked_for_in_the_log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would be read from its first line."""
    log = Log(tmp_path, 500, 400)

    def read(self: GrowingFile, size: int) -> bytes:
        raise AssertionError("the log file is read")

    monkeypatch.setattr(GrowingFile, "read", read)
    for at in range(0, 400, 50):
        after = log.lines[at - 1].id if at else ZERO
        assert (await log.begin(after))[0] == log.lines[at]


async def test_what_is_kept_and_damaged_is_read_from_the_log_file(tmp_path: Path) -> None:
    """From where it can be read no further."""
    log = Log(tmp_path, 500, 500)
    segments = sorted(log.kept.glob("*.gz"))
    segments[2].write_bytes(segments[2].read_bytes()[:50])
    for after in (ZERO, log.lines[300].id):
        assert await log.read(after) == [line for line in log.lines if line.id > after]
