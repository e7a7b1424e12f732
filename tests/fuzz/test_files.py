"""Files that a task may have written, as it has the same user or the same volume: state, traces, progress, tokens."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import strategies as st
from starlette.responses import Response

from common.callers import Callers
from common.errors import ControllerError, RunNotFound, Unavailable
from common.events import Line
from common.jobs import Holder, info
from common.local.runner import LocalRunner
from common.local.state import End, JobFile, LeaseFile
from common.models import Progress, RunInfo
from common.nextflow import History
from common.progress import TRACE_FIELDS, Fold
from common.recorder.recorder import Trace
from functions.archive.main import ArchiveQuery, ProgressQuery, archive, progress
from tests.fuzz import fuzz
from tests.fuzz.values import DEEP, JSON, changed, members, text_of
from tests.unit import samples

RUN_ID = samples.RUN_ID
JOB = JobFile("uid-1", samples.record().model_dump(mode="json"), started_at="2030-01-01T12:00:02+00:00")
END = asdict(End("Failed", "2030-01-01T12:00:05+00:00", 1, "message"))
BYTES = st.binary(max_size=40)


def encoded(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """As bytes, with halves of surrogate pairs as they are."""
    return texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


JOBS = encoded(
    st.one_of(
        members(asdict(JOB)),
        members({**asdict(JOB), "launched": True, "end": END}),
        members({**asdict(JOB), "sealed": True, "mark": samples.MARK.model_dump(mode="json")}),
        members(END).map(lambda end: json.dumps(asdict(JOB))[:-1].replace('"end": null', f'"end": {end}') + "}"),
        changed(samples.record()).map(
            lambda record: json.dumps({**asdict(JOB), "record": 0}).replace('"record": 0', '"record": ' + record)
        ),
        JSON.map(text_of),
        DEEP,
    )
)
LEASES = encoded(st.one_of(members(asdict(LeaseFile(3, RUN_ID, "uid-1"))), JSON.map(text_of), DEEP))


@contextmanager
def runner() -> Iterator[tuple[LocalRunner, Path]]:
    """A runner with a state directory of its own."""
    with tempfile.TemporaryDirectory() as name:
        made = LocalRunner(Path(name), None, {})
        (Path(name) / "runs" / RUN_ID).mkdir(parents=True)
        yield made, Path(name)
        asyncio.run(made.close())


@fuzz(st.one_of(JOBS, BYTES), st.one_of(LEASES, BYTES), st.one_of(encoded(changed(Progress())), BYTES), share=2)
def test_a_state_directory_that_a_task_has_written_to(
    loop: asyncio.Runner,
    job: bytes,
    lease: bytes,
    done: bytes,  # what Hypothesis gives
) -> None:
    """It is told what is there, or that it cannot be; what is told can be told on."""

    async def play(place: LocalRunner) -> None:
        with suppress(ControllerError):
            seen = await place.lease()
            assert seen.holder is None or isinstance(seen.holder.run_id, str)
            with suppress(ControllerError):
                await place.job(seen.holder.run_id if seen.holder else "")
            await place.write_lease(seen, Holder(RUN_ID, "uid-1"))
        with suppress(ControllerError):
            found = await place.job(RUN_ID)
            for one in [found] if found else []:
                RunInfo.model_validate_json(info(one).model_dump_json())
        for one in await place.jobs():
            info(one).model_dump_json()
        told = await place.progress(RUN_ID)
        assert told is None or told.model_dump_json()

    with runner() as (made, root):
        (root / "lease.json").write_bytes(lease)
        (root / "runs" / RUN_ID / "job.json").write_bytes(job)
        (root / "runs" / RUN_ID / "progress.json").write_bytes(done)
        loop.run(play(made))


CELLS = st.one_of(
    st.sampled_from(["ab/123456", "COMPLETED", "FAILED", "CACHED", "1", "-", "", "P", "\u2028", "\r"]),
    st.text(max_size=6),
)
ROWS = st.lists(st.lists(CELLS, max_size=12).map("\t".join), max_size=6).map("\n".join)
TRACES = st.one_of(
    ROWS.map(lambda rows: "\t".join(TRACE_FIELDS) + "\n" + rows + "\n").map(str.encode), ROWS.map(str.encode), BYTES
)
SAID = st.lists(
    st.one_of(
        st.builds(
            lambda hash_, verb, name: f"[{hash_}] {verb} process > {name}".encode(),
            st.sampled_from(["ab/123456", "cd/000000", "ab/12345"]),
            st.sampled_from(["Submitted", "Re-submitted", "Cached", "NOTE: x -- Execution is retried"]),
            st.text(max_size=8),
        ),
        BYTES,
    ),
    max_size=6,
)


@fuzz(TRACES, SAID)
def test_a_trace_and_a_log_that_are_not_nextflows(rows: bytes, said: list[bytes]) -> None:
    """Any order of any rows and lines counts to something that can be told, and the parts make the whole."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "trace.txt"
        path.write_bytes(rows)
        fold = Fold()
        for row in Trace(path).rows():
            fold.row(row)
        for line in said:
            fold.line(line)
        for told in (fold.progress(), _closed(fold)):
            assert Progress.model_validate_json(told.model_dump_json()) == told
            assert told.total.submitted == sum(one.submitted for one in told.processes.values())
        assert _closed(fold).total.running == 0
        History.parse(rows.decode("utf-8", "replace"))


@fuzz(st.one_of(st.text(max_size=200).map(str.encode), BYTES))
def test_a_token_file_that_is_none(content: bytes) -> None:
    """Whoever calls is nobody, or it cannot be told."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "tokens").write_bytes(content)
        with suppress(Unavailable):
            assert Callers(Path(name) / "tokens").of_token("token") is None


def _closed(fold: Fold) -> Progress:
    fold.close()
    return fold.progress()


NAMES = st.sampled_from(
    ["1", "1/000001900000000-0000000000.log", "1/000001900000000-0000000000.log.gz", "1/x.log", "1/end", "1/.log.tmp"]
)
KINDS = st.one_of(
    st.sampled_from(["directory", "link", "fifo"]),
    BYTES,
    st.lists(
        st.builds(
            lambda ms, at, letter, text: b"%d-0 %b %b %b\n" % (ms, at, letter, text),
            st.integers(0, 2 * 10**15),
            st.one_of(st.integers(-(10**30), 10**30).map(lambda at: b"%d" % at), st.binary(max_size=5)),
            st.sampled_from([b"o", b"e", b"g", b"x", b""]),
            BYTES,
        ),
        max_size=4,
    ).map(b"".join),
)


@fuzz(
    st.dictionaries(NAMES, KINDS, max_size=4),
    st.one_of(encoded(changed(Progress())), BYTES),
    st.integers(0, 3),
    share=2,
)
def test_the_archive_function_on_a_volume_that_tasks_have_written_to(
    loop: asyncio.Runner,
    files: dict[str, Any],
    done: bytes,
    attempt: int,  # what Hypothesis gives
) -> None:
    """A page of lines, a problem, or nothing; no file outside of the archive."""
    import os

    async def play(work: Path) -> None:
        platform = SimpleNamespace(settings=SimpleNamespace(work_path=str(work)))
        with suppress(ControllerError):
            query = ArchiveQuery(run_id=RUN_ID, attempt=attempt + 1)
            found = await _handler(archive)(SimpleNamespace(query=query, platform=platform))
            assert b"outside" not in found.body
            lines = [_unpacked(raw) for raw in found.body.split(b"\n") if raw]
            assert [line.id for line in lines] == sorted({line.id for line in lines})
        with suppress(RunNotFound):
            await _handler(progress)(SimpleNamespace(query=ProgressQuery(run_id=RUN_ID), platform=platform))

    with tempfile.TemporaryDirectory() as name:
        work, kept = Path(name), Path(name) / ".nextflow-controller" / RUN_ID
        (work / "outside").write_bytes(b"1900000000000-0 0 o outside\n")
        (kept / "archive").mkdir(parents=True)
        (kept / "progress.json").write_bytes(done)
        for path, kind in sorted(files.items()):
            with suppress(OSError):
                place = kept / "archive" / path
                place.parent.mkdir(exist_ok=True)
                match kind:
                    case "directory":
                        place.mkdir()
                    case "link":
                        place.symlink_to(work / "outside")
                    case "fifo":
                        os.mkfifo(place)
                    case _:
                        place.write_bytes(kind)
        loop.run(play(work))


def _handler(function: Any) -> Any:
    async def call(asked: SimpleNamespace) -> Response:
        return cast("Response", await function.app.endpoints[0].handler(asked))

    return call


def _unpacked(raw: bytes) -> Line:
    from common.archive import unpacked
    from common.events import ZERO, encode_lines

    line = unpacked(raw)
    encode_lines(RUN_ID, 1, [line], ZERO)
    return line
