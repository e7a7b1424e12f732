"""What a pod's log ends with, and what others have kept of it: a gap is what nobody has, said once."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import pytest

from common.errors import Unavailable
from common.events import GAP, ZERO, LineId, utc
from common.kube import log as logs
from common.kube.archive import ArchiveClient, Kept, Page
from common.kube.runner import KubernetesRunner
from common.kube.transport import Api, Object
from common.recorder.kubernetes import OwnPod
from tests.unit.kubelets import (
    HAS_RUN,
    RUNS,
    SILENCE,
    Keeping,
    Kubelet,
    Rotating,
    Told,
    at,
    at_once,
    raw,
    recorded,
    texts,
    told,
)
from tests.unit.test_kube_objects import RUN_ID, SETTINGS
from tests.unit.test_kube_reading import LAUNCH, a_job, a_pod, condition

__all__ = ["at_once"]  # a fixture


@pytest.mark.parametrize(("kept", "expected"), [((3, 4), texts(3, 4, 5)), ((3,), [*texts(3), "-", *texts(5)])])
async def test_what_is_kept_elsewhere_fills_the_gap(kept: Sequence[int], expected: list[str]) -> None:
    """Up to the file's first line there is none; short of it there is."""
    file = raw(4, 5) if len(kept) > 1 else raw(5)
    kubelet, log = Kubelet(("terminated", [file]), ("terminated", [file])), logs.Log(at(2))
    pod = a_pod(terminated={}) | {"metadata": {"name": "x"}}
    batches = logs.read(kubelet, "/pods", pod, log, Kept(Keeping(1, 2, *kept), RUN_ID, 1))
    assert told([line async for batch in batches for line in batch]) == expected
    assert log.complete


@pytest.mark.parametrize(
    ("pieces", "file", "expected"),
    [
        # It was the last line of that file, and none came after it.
        ([raw(1, 2)], b"", texts(1, 2)),
        ([raw(1, 2), b"begins 0", b""], b"", texts(1, 2)),
        ([raw(1, 2)[:-1]], b"", texts(1, 2)),
        # Another file was seen, or may have come and gone, since the kubelet came to the end of this one.
        ([raw(1, 2), b"begins 3", b"", b""], b"", [*texts(1, 2), "-"]),
        ([raw(1, 2)[:-1], b"begins 3", b"", b""], b"", [*texts(1, 2), "-"]),
        ([raw(1, 2), b"sleeps"], b"", [*texts(1, 2), "-"]),
        ([raw(1, 2), b"sleeps"], raw(2), texts(1, 2)),
        # And not if that is there to be read.
        ([raw(1, 2), b"begins 3", b"", b""], raw(3), texts(1, 2, 3)),
        ([raw(1, 2)[:-5], b"begins 3", b"", b""], raw(3), [*texts(1), "li", *texts(3)]),
        ([raw(1, 2)[:-5]], raw(1, 2), texts(1, 2)),
        ([raw(1, 2), b"begins 3", b"", b"begins 5", b"", *SILENCE, None], raw(5), [*texts(1, 2), "-", *texts(5)]),
    ],
)
async def test_a_last_file_that_is_empty_is_not_the_end_of_what_was_before(
    pieces: list[bytes | None], file: bytes, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime begins a new one whenever one is full, be it right before the run ends."""
    monkeypatch.setattr("common.kube.looks._LOOK_SECONDS", 0)
    kubelet = Rotating(("running", pieces), ("terminated", [file]), ("terminated", [file]))
    for module in ("log", "looks"):
        monkeypatch.setattr(f"common.kube.{module}.time", kubelet)
    assert told(await recorded(kubelet)) == expected


async def test_who_was_stopped_asks_what_others_kept_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that went on has it all, and nothing is missing."""
    monkeypatch.setattr("common.kube.looks._LOOK_SECONDS", 0)
    kubelet, log = Rotating(("running", [raw(1, 2), b"sleeps", b"begins 5", raw(5, 6)])), logs.Log()
    for module in ("log", "looks"):
        monkeypatch.setattr(f"common.kube.{module}.time", kubelet)
    batches = logs.read(kubelet, "/pods", RUNS, log, Kept(Keeping(1, 2, 3, 4, 5), RUN_ID, 1))
    assert told([line async for batch in batches for line in batch]) == texts(1, 2, 3, 4, 5, 6)


async def test_an_archive_that_goes_away_half_way_is_not_taken_for_read() -> None:
    """It says with each page that it is whole; only who has come to its end has all of it."""

    class Cut(Keeping):
        async def page(self, run_id: str, attempt: int, after: LineId) -> Page:
            """The first page, and no other."""
            if after != ZERO:
                raise Unavailable("archive", "cut")
            return await super().page(run_id, attempt, after)

    log, kept = logs.Log(), Kept(Cut(1, 2, whole=True), RUN_ID, 1)
    assert told([line async for batch in logs.begin(log, kept) for line in batch]) == texts(1, 2)
    assert not kept.whole
    with pytest.raises(Unavailable):
        assert [line async for batch in logs.rest(log, kept) for line in batch]


@pytest.mark.parametrize(
    ("archive", "known", "expected"),
    [
        (Keeping(1, 2, 3, whole=True), 2, texts(3)),
        (Keeping(1, 2, whole=True), 2, []),
        (Keeping(1, 2, 3), 2, [*texts(3), "-"]),
        (Keeping(), 2, ["-"]),
        (None, 2, ["-"]),
    ],
)
async def test_an_end_that_nobody_has_is_a_gap(archive: ArchiveClient | None, known: int, expected: list[str]) -> None:
    """Where the pod is gone the archive has the rest, if it was finished: else there may have been more."""
    log = logs.Log(at(known))
    lines = [line async for batch in logs.rest(log, Kept(archive, RUN_ID, 1)) for line in batch]
    assert told(lines) == expected
    if expected[-1:] == ["-"]:  # and who goes on behind the gap is not told of another
        again = logs.rest(logs.Log(lines[-1].id), Kept(archive, RUN_ID, 1))
        assert [line async for batch in again for line in batch] == []


async def test_a_reading_that_was_cut_without_a_word_is_no_end() -> None:
    """The API server may end an answer half-way as if it were whole: two readings have to agree."""
    whole = raw(1, 2, 3)
    kubelet = Kubelet(*(("terminated", [piece]) for piece in (whole[:-20], whole[:-1], whole[:-1])))
    assert told(await recorded(kubelet)) == texts(1, 2, 3)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([("running", [raw(1, 2)])], texts(1, 2)),
        ([("running", [raw(1, 2)[:-1]])], texts(1, 2)),
        ([("running", [raw(1, 2), None])], [*texts(1, 2), "-"]),
        # Gone while it was read again: nothing was missing as far as that went, or there was more.
        ([("running", [raw(1, 2)]), ("terminated", [None])], texts(1, 2)),
        ([("running", [raw(1, 2)]), ("terminated", [raw(1, 2)]), ("terminated", [None])], texts(1, 2)),
        ([("running", [raw(1, 2)[:-1]]), ("terminated", [raw(1), None])], texts(1, 2)),
        ([("running", [raw(1, 2)]), ("terminated", [raw(1, 2, 3), None])], [*texts(1, 2, 3), "-"]),
    ],
)
async def test_a_log_that_was_followed_to_its_end_is_whole(
    readings: list[tuple[str, Sequence[bytes | None]]], expected: list[str]
) -> None:
    """Its pod may be gone right after that, as a cancelled run's is; one that was cut before it was gone is not."""
    log, nothing, kubelet = logs.Log(), Kept(None, RUN_ID, 1), Kubelet(*readings)
    batches = [logs.read(kubelet, "/pods", pod, log, nothing) for pod in (RUNS, HAS_RUN)[: len(readings)]]
    batches.append(logs.rest(log, nothing))
    assert told([line for some in batches async for batch in some for line in batch]) == expected


async def test_an_empty_file_that_was_followed_to_its_end_does_not_tell_what_was_before_it() -> None:
    """Who began with it does not know whether it is the next one: there may have been others."""
    log, nothing = logs.Log(at(2)), Kept(None, RUN_ID, 1)
    batches = [logs.read(Kubelet(("running", [b""])), "/pods", RUNS, log, nothing), logs.rest(log, nothing)]
    assert told([line for some in batches async for batch in some for line in batch]) == ["-"]


async def test_what_a_last_file_leaves_open_is_behind_what_others_have_read() -> None:
    """A recorder that came late knows less than Redis, where a gap behind what it knows would be nothing new."""
    log, nothing = logs.Log(at(2)), Kept(None, RUN_ID, 1)
    kubelet = Kubelet(("terminated", [b""]), ("terminated", [b""]))
    pod = a_pod(terminated={"finishedAt": utc(datetime.fromtimestamp(at(9).ms // 1000, UTC))}) | {
        "metadata": {"name": "x"}
    }
    batches = [logs.read(kubelet, "/pods", pod, log, nothing), logs.rest(log, nothing)]
    (gap,) = [line for some in batches async for batch in some for line in batch]
    assert gap.stream == GAP
    assert gap.id > at(9)
    assert [batch async for batch in logs.rest(log, nothing)] == [], "it is said once"


async def test_a_recorder_that_is_ended_takes_what_is_there_for_the_whole_log() -> None:
    """The kubelet ends it when Nextflow has ended: it need not wait until the pod says so, nor has it the time."""
    ending = asyncio.Event()
    ending.set()
    kubelet = Told(("running", [raw(1, 2)]), ("running", [raw(1, 2, 3)]), ("running", [raw(1, 2, 3)]), ("running", []))
    pod = OwnPod(kubelet, "/pods", "x", ending)
    assert told([line async for batch in pod.lines(RUN_ID, 1) for line in batch]) == texts(1, 2, 3)
    assert await pod.final(RUN_ID, 1) is True


PUT_OUT = a_pod("head", "Failed", terminated={"exitCode": 137})
PUT_OUT["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
PUT_OUT["metadata"]["name"] = "x"


@pytest.mark.parametrize(
    ("archive", "after", "expected"),
    [
        (Keeping(1, 2, 3, whole=True), ZERO, texts(1, 2, 3)),
        (Keeping(1, 2, 3, whole=True), at(2), texts(3)),
        (Keeping(1, 2, 3), ZERO, [*texts(1, 2, 3), "-"]),
        (Keeping(1, 2, 3), at(3), ["-"]),
        (None, at(2), ["-"]),
        (None, ZERO, []),
    ],
)
async def test_the_log_of_a_head_that_the_kubelet_put_out_comes_to_an_end(
    archive: ArchiveClient | None, after: LineId, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pod stays, and its log does not: nobody waits for it, and what the archive does not have is a gap."""
    monkeypatch.setattr("common.kube.runner._LOOK_SECONDS", 0)
    monkeypatch.setattr(ArchiveClient, "open", lambda settings: archive)

    class Cleared(Api):
        async def get(self, path: str, **query: str) -> Object | None:
            if "labelSelector" in query:
                return {"metadata": {}, "items": [PUT_OUT] if path.endswith("/pods") else []}
            return a_job(LAUNCH, failed=1, conditions=[condition("Failed")])

        async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
            raise Unavailable("runner", "no such container")
            yield b""

    runner = KubernetesRunner(SETTINGS, Cleared())
    async with asyncio.timeout(5):
        lines = [line async for batch in runner.lines(RUN_ID, 1, after) for line in batch]
    assert told(lines) == expected


class Deaf(Api):
    """A cluster that nobody may ask."""

    async def get(self, path: str, **query: str) -> Object | None:
        raise AssertionError(path)

    stream = get  # type: ignore[assignment] # neither


async def test_a_log_that_is_kept_is_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """From any line on, without the file, which would have to be read from its beginning."""
    monkeypatch.setattr(ArchiveClient, "open", lambda settings: Keeping(1, 2, 3, whole=True))
    runner = KubernetesRunner(SETTINGS, Deaf())
    for after, expected in ((ZERO, [1, 2, 3]), (LineId(0, 1), [1, 2, 3]), (at(2), [3]), (at(3), [])):
        batches = [batch async for batch in runner.lines(RUN_ID, 1, after)]
        assert told([line for batch in batches for line in batch]) == texts(*expected)
        assert () not in batches


async def test_an_archive_that_is_away_is_needed_only_for_what_the_file_does_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever knows a line of the file goes on behind it; where the file begins, it does not say."""

    class Away(ArchiveClient):
        async def page(self, run_id: str, attempt: int, after: LineId) -> Page:
            raise Unavailable("archive", "It is away.")

    class Ended(Api):
        async def get(self, path: str, **query: str) -> Object | None:
            if "labelSelector" in query:
                pod = a_pod(terminated={"exitCode": 0})
                pod["metadata"]["name"] = "x"
                return {"metadata": {}, "items": [pod] if path.endswith("/pods") else []}
            return a_job(LAUNCH, succeeded=1, conditions=[condition("Complete")])

        async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
            yield raw(2, 3)

    monkeypatch.setattr("common.kube.runner._LOOK_SECONDS", 0)
    monkeypatch.setattr(ArchiveClient, "open", lambda settings: Away("", ""))
    runner = KubernetesRunner(SETTINGS, Ended())
    async with asyncio.timeout(5):
        assert told([line async for batch in runner.lines(RUN_ID, 1, at(2)) for line in batch]) == texts(3)
        with pytest.raises(Unavailable, match="away"):
            await anext(runner.lines(RUN_ID, 1))


@pytest.mark.parametrize("slept", [False, True])
async def test_a_second_look_at_a_file_that_is_empty_is_no_loss(slept: bool) -> None:
    """Followed to its end before the pod says that it has one, and read again: the first look counts for a while."""

    class Emptied(Api):
        contents = iter([[raw(1, 2)], [], [], []])

        async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
            if "limitBytes" not in query:
                for chunk in next(self.contents):
                    yield chunk

    api, log, kept, found = Emptied(), logs.Log(), Kept(None, RUN_ID, 1), []
    states: list[Object] = [{"running": {}}, {"running": {}}, {"terminated": {"exitCode": 0}}]
    for state in states:
        pod = a_pod(**state)
        pod["metadata"]["name"] = "x"
        found += [line async for batch in logs.read(api, "/pods", pod, log, kept) for line in batch]
        log.seen -= 3600 * slept  # seconds
    assert log.complete
    found += [line async for batch in logs.rest(log, kept) for line in batch]
    assert told(found) == [*texts(1, 2), *["-"] * slept]
