"""The archive function, and the client that the others have of it: what was kept is read, page by page."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from common import archive as archives
from common.archive import Archive
from common.callers import add
from common.cri import RawLine
from common.errors import Unavailable
from common.events import GAP, ZERO, Line, LineId, number
from common.kube import beside
from common.kube.archive import ArchiveClient, Kept
from common.models import ProcessProgress, Progress
from tests.functions.test_server import served
from tests.integration.server import API
from tests.unit.samples import run_id

pytestmark = pytest.mark.slow

RUN_ID = run_id(1)
LINES = list(number(RawLine(10**18 + n, "stdout", b"\xff\r %d " % n + b"x" * 5_000) for n in range(600)))
LINES[300] = Line(LINES[300].id, LINES[300].at_ns, GAP, b"nobody has them")
PROGRESS = Progress(total=ProcessProgress(submitted=3))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work volume with what is kept of one run."""
    root = tmp_path_factory.mktemp("work")
    kept = Path(beside.kept(str(root), RUN_ID))
    for attempt in (1, 2):
        writer = Archive(archives.place(kept, attempt))
        writer.append(LINES[: 600 // attempt])
        writer.close()
    (kept / "progress.json").write_text(PROGRESS.model_dump_json())
    return root


@pytest.fixture
async def archive(place: Path) -> AsyncIterator[ArchiveClient]:
    """A client of the function, which is served alone: neither Redis nor a cluster is there."""
    token = add(place / "tokens", "stream", "read")
    environ = {"PATH": os.environ["PATH"], "WORK_PATH": str(place), "TOKENS_FILE": str(place / "tokens")}
    with served("archive", {**environ, "RUNNER": "kubernetes", "RATE_LIMITS": "off"}) as (address, _):
        client = ArchiveClient(f"http://{address}", token)
        yield client
        await client.close()


async def read(archive: ArchiveClient, attempt: int = 1, after: LineId = ZERO, run: str = RUN_ID) -> list[Line]:
    """All that is kept behind a line."""
    return [line async for batch in Kept(archive, run, attempt).lines(after) for line in batch]


async def test_what_is_kept_is_read(archive: ArchiveClient) -> None:
    """From its beginning and behind any line, of each attempt; nothing of what there is not."""
    assert await read(archive) == LINES
    assert await read(archive, 2) == LINES[:300]
    for at in (0, 299, 300, 598, 599):
        assert await read(archive, after=LINES[at].id) == LINES[at + 1 :]
    assert await read(archive, 3) == await read(archive, run=run_id(2)) == []
    assert await archive.progress(RUN_ID) == PROGRESS
    assert await archive.progress(run_id(2)) is None


@pytest.mark.parametrize(
    "query",
    [
        "",
        f"run_id={RUN_ID}",
        f"run_id={RUN_ID}&attempt=0",
        f"run_id={RUN_ID}&attempt=1&after=x",
        "run_id=../x&attempt=1",
    ],
)
async def test_what_names_no_place_is_refused(archive: ArchiveClient, query: str) -> None:
    """No path comes out of a query."""
    answer = await asyncio.to_thread(httpx.get, f"{archive._url}?{query}", headers=archive._headers)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_nobody_reads_it_without_a_token(archive: ArchiveClient) -> None:
    """Who has none is told so; the client calls it away, as it is no use to wait for anything else."""
    answer = await asyncio.to_thread(httpx.get, f"{archive._url}/progress?run_id={RUN_ID}")
    assert answer.status_code == 401
    stranger = ArchiveClient(archive._url.removesuffix(f"{API}/archive"), "nfc_stranger")
    with pytest.raises(Unavailable, match="401"):
        await read(stranger)
    await stranger.close()


async def test_an_archive_that_is_away() -> None:
    """Is a dependency that is."""
    nowhere = ArchiveClient("http://127.0.0.1:1", "x")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await read(nowhere)
    await nowhere.close()
