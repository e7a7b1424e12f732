"""A pod's log through cuts and files begun anew: every line once, and what nobody has is said."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import pytest

from common.errors import Unavailable
from common.events import BEYOND, GAP, ZERO, Line, LineId, utc
from common.kube import head
from common.kube import log as logs
from common.kube.archive import ArchiveClient, Kept, Page
from common.kube.runner import KubernetesRunner
from common.kube.sent import Sent
from common.kube.transport import Api, Object
from common.recorder.kubernetes import OwnPod
from tests.unit.test_kube_objects import RECORD, RUN_ID, SETTINGS
from tests.unit.test_kube_reading import LAUNCH, a_job, a_pod, condition


def raw(*numbers: int) -> bytes:
    """The lines of these numbers, a second apart, as the API server sends them."""
    return b"".join(b"2030-01-02T03:04:%02d.000000001Z line %d\n" % (number, number) for number in numbers)


def told(lines: Sequence[Line]) -> list[str]:
    """Their texts; a gap is a dash."""
    return ["-" if line.stream == GAP else line.text.decode() for line in lines]


def texts(*numbers: int) -> list[str]:
    """What `raw` has."""
    return [f"line {number}" for number in numbers]


class Kubelet(Api):
    """An API server that shows one pod, and its log in the pieces of each reading; a reading of None is cut."""

    def __init__(self, *readings: tuple[str, Sequence[bytes | None]]) -> None:
        super().__init__()
        self._readings = list(readings)

    async def get(self, path: str, **query: str) -> Object:
        """The pod as it is at the next reading."""
        state: Object = {self._readings[0][0]: {}}
        return a_pod("head", "Running", **state)

    async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The next reading."""
        state, pieces = self._readings.pop(0)
        assert query.get("follow") == ("true" if state == "running" else None)
        for piece in pieces:
            if piece is None:
                raise Unavailable("runner", "cut")
            yield piece


class Told(Kubelet):
    """One whose pod says that it runs, though it does not any more: nobody follows its log."""

    async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The next reading."""
        assert "follow" not in query
        for piece in self._readings.pop(0)[1]:
            assert piece is not None
            yield piece


class Rotating(Kubelet):
    """One whose current file begins with the lines of the numbers that `begins N` among the pieces says; 0: with none.

    Who reads is stopped for a minute at `sleeps` among the pieces.
    """

    begins: Sequence[int] = (1,)
    now = 0.0

    def monotonic(self) -> float:
        """The reader's clock."""
        return self.now

    def time_ns(self) -> int:
        """What it says of what is over, whose pod does not say when."""
        return 0

    async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The next reading, or the beginning of the current file."""
        if "limitBytes" in query:
            yield raw(*filter(None, self.begins))[: int(query["limitBytes"])]
            return
        async for piece in super().stream(path, **query):
            await asyncio.sleep(0)  # a look comes to its answer
            if piece.startswith(b"begins"):
                self.begins = [int(number) for number in piece.split()[1:]]
            elif piece == b"sleeps":
                self.now += 60
            else:
                yield piece


RUNS, HAS_RUN = (pod | {"metadata": {"name": "x"}} for pod in (a_pod(running={}), a_pod(terminated={})))


async def recorded(kubelet: Kubelet, after: LineId = ZERO) -> list[Line]:
    """What a recorder reads of its own pod's log."""
    batches = OwnPod(kubelet, "/pods", "x", asyncio.Event()).lines(RUN_ID, 1, after)
    return [line async for batch in batches for line in batch]


def twice(*numbers: int) -> list[tuple[str, Sequence[bytes | None]]]:
    """The readings of a file that gets no more lines: it is read until two agree."""
    return [("terminated", [raw(*numbers)])] * 2


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod is looked at again at once."""
    monkeypatch.setattr("common.recorder.kubernetes._LOOK_SECONDS", 0)


async def test_through_cuts_every_line_comes_once() -> None:
    """In the middle of a line too; the last line needs no newline."""
    whole = raw(1, 2, 3, 4)
    cut: list[tuple[str, Sequence[bytes | None]]] = [
        ("running", [whole[:70], None]),
        ("running", [whole[:90]]),
        ("running", [None]),
    ]
    kubelet = Kubelet(*cut, *[("terminated", [whole[:-1]])] * 2)
    assert told(await recorded(kubelet)) == texts(1, 2, 3, 4)


async def test_a_file_begun_anew_while_nobody_read_it_is_a_gap() -> None:
    """Said once, right before what follows: it is news to a follower who has seen more of what was between, too."""
    kubelet = Kubelet(("running", [raw(1, 2), None]), ("running", [raw(5), None]), *twice(5, 6))
    lines = await recorded(kubelet)
    assert told(lines) == [*texts(1, 2), "-", *texts(5, 6)]
    assert lines[2].id.next() == lines[3].id


BEGUN, ENDED = "2030-01-02T03:04:00Z", "2030-01-02T03:04:09Z"
OPENING = b"2030-01-02T03:04:00.5Z nextflow-controller: the log begins here\n"


class Opening(Kubelet):
    """One whose head says OPENING first, as its command shows."""

    begun, says_so = BEGUN, True

    async def get(self, path: str, **query: str) -> Object:
        """The pod as it is at the next reading."""
        state = self._readings[0][0]
        times = {"startedAt": self.begun} | ({"finishedAt": ENDED} if state == "terminated" else {})
        spec = head.job(RECORD, SETTINGS, "owner/name")["spec"]["template"]["spec"]
        if not self.says_so:
            spec["containers"][0]["command"] = ["nextflow", "run"]
        return a_pod("head", "Running", **{state: times}) | {"spec": spec}


@pytest.mark.parametrize("cut", [1, 20, 30, 31, 50, len(OPENING) - 1, len(OPENING), len(OPENING) + 10])
@pytest.mark.parametrize("after", [ZERO, LineId(0, 1)])
async def test_the_first_file_begins_with_what_the_head_says(cut: int, after: LineId) -> None:
    """That is no line of the log, and nothing is missing before it, wherever a reading is cut."""
    file = OPENING + raw(1, 2)
    readings: list[tuple[str, Sequence[bytes | None]]] = [
        ("running", [file[:cut]]),
        ("running", [file[:cut], None]),
        *[("terminated", [file])] * 2,
    ]
    assert told(await recorded(Opening(*readings), after)) == texts(1, 2)


@pytest.mark.parametrize("state", ["running", "terminated"])
@pytest.mark.parametrize("file", [raw(5, 6), raw(5)[:-1], raw(5) + OPENING.replace(b":00.5", b":06.5")])
async def test_a_first_file_that_nobody_has_read_is_a_gap(state: str, file: bytes) -> None:
    """What is there begins otherwise than a log does."""
    lines = await recorded(Opening((state, [file]), *[("terminated", [file])] * 2))
    assert told(lines)[:2] == ["-", "line 5"]
    assert lines[0].id.next() == lines[1].id
    assert len(lines) == 1 + len(file.splitlines())


async def test_a_first_file_that_nobody_has_read_is_a_gap_behind_a_reading_without_a_line() -> None:
    """Of that nothing is known to come next."""
    kubelet = Opening(("running", []), *[("terminated", [raw(5)])] * 2)
    assert told(await recorded(kubelet)) == ["-", *texts(5)]


async def test_of_a_head_that_does_not_say_so_any_file_may_be_the_first() -> None:
    """It is of an older release."""
    kubelet = Opening(*twice(5, 6))
    kubelet.says_so = False
    assert told(await recorded(kubelet)) == texts(5, 6)


async def test_what_the_head_says_is_known_once_it_is_read() -> None:
    """A file that begins with it is the one that is read, and not another; and it is a log, though without a line."""
    kubelet, log = Opening(*[("terminated", [OPENING])] * 2), logs.Log()
    pod = await kubelet.get("") | {"metadata": {"name": "x"}}
    assert [batch async for batch in logs.read(kubelet, "/pods", pod, log, Kept(None, RUN_ID, 1))] == []
    assert str(log.told) == "1893553440500-0"
    assert [batch async for batch in logs.rest(log, Kept(None, RUN_ID, 1))] == [()]


@pytest.mark.parametrize(("after", "expected"), [(ZERO, 2), (LineId(0, 1), 2), (BEYOND, 0)])
async def test_a_log_with_lines_says_nothing_else(after: LineId, expected: int) -> None:
    """No tick, whether or not there is anything behind a place."""
    source = OwnPod(Opening(*[("terminated", [OPENING + raw(1, 2)])] * 2), "/pods", "x", asyncio.Event())
    assert [len(batch) async for batch in source.lines(RUN_ID, 1, after)] == [expected] * bool(expected)


@pytest.mark.parametrize(
    ("begun", "file", "expected"),
    [(BEGUN, b"", ["-"]), (BEGUN, OPENING, []), (BEGUN, OPENING[:-1], []), ("1970-01-01T00:00:00Z", b"", [])],
)
async def test_a_log_without_a_line(begun: str, file: bytes, expected: list[str]) -> None:
    """The head has said nothing more, or its container was never started; or all of it went with files before."""
    kubelet = Opening(*[("terminated", [file])] * 2)
    kubelet.begun = begun
    lines = await recorded(kubelet)
    assert told(lines) == expected
    if expected:  # behind all that was said, whoever says so
        assert lines[0].id > Sent().feed(ENDED.encode()[:-1] + b".999Z the last one\n")[0].id
        assert await recorded(Opening(*[("terminated", [b""])] * 2), lines[0].id) == []


async def test_what_a_pipeline_says_is_its_log() -> None:
    """Be it what the head says first, and where a file begins."""
    again = OPENING.replace(b":00.5", b":03.5")
    kubelet = Opening(("running", [OPENING + raw(1, 2), None]), *[("terminated", [again + raw(4)])] * 2)
    assert told(await recorded(kubelet)) == [*texts(1, 2), "-", "nextflow-controller: the log begins here", *texts(4)]


@pytest.mark.parametrize("state", ["running", "terminated"])
async def test_a_last_line_that_is_alone_in_its_file_does_not_hide_what_is_missing_before_it(state: str) -> None:
    """It has no newline, so that it is told once the file has come to its end; the gap comes before it, once."""
    last: Sequence[bytes | None] = [raw(5)[:-1]]
    kubelet = Kubelet(("running", [raw(1, 2), None]), (state, last), *[("terminated", last)] * 2)
    lines = await recorded(kubelet)
    assert told(lines) == [*texts(1, 2), "-", *texts(5)]
    assert lines[2].id.next() == lines[3].id


async def test_a_file_begun_anew_while_it_was_read_is_none() -> None:
    """The last line that is known is in it, or it goes on within one reading."""
    kubelet = Kubelet(("running", [raw(1, 2), raw(3), None]), *twice(3, 4))
    assert told(await recorded(kubelet)) == texts(1, 2, 3, 4)


async def test_going_on_behind_a_line() -> None:
    """What is before it is not told again; where it is not there any more something may be missing."""
    (second,) = Sent().feed(raw(2))
    assert told(await recorded(Kubelet(*twice(1, 2, 3)), second.id)) == texts(3)
    assert told(await recorded(Kubelet(*twice(4)), second.id)) == ["-", *texts(4)]
    assert told(await recorded(Kubelet(*twice(4)), LineId(0, 1))) == ["-", *texts(4)]  # it is known that there was one


SILENCE = [b""] * 4  # a look's answer is known by the next piece


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        # It has not come to the new file, and it does not: it is left for that, of which nothing was missed.
        ([[raw(1, 2), b"begins 3", b"", *SILENCE, None], [raw(3, 4)]], texts(1, 2, 3, 4)),
        # Nor was anything if that is still empty; and it is not left again.
        ([[raw(1, 2), b"begins 0", b"", *SILENCE, None], [*SILENCE, *SILENCE, raw(3)]], texts(1, 2, 3)),
        # What the old one ends with, and the runtime has torn, is told.
        ([[raw(1, 2)[:-5], b"begins 3", b"", *SILENCE, None], [raw(3)]], [*texts(1), "li", *texts(3)]),
        # But then it is, if it was cut before it said anything.
        ([[raw(1, 2), b"begins 0", b"", *SILENCE, None], [b"", None], [raw(3)]], [*texts(1, 2), "-", *texts(3)]),
        # It was silent from its beginning: that may be in any file.
        ([[raw(1, 2), None], [b"begins 4", b"", *SILENCE, None], [raw(4)]], [*texts(1, 2), "-", *texts(4)]),
        # Another one was begun before that was read.
        ([[raw(1, 2), b"begins 3", b"", *SILENCE, None], [b"begins 5", raw(5)]], [*texts(1, 2), "-", *texts(5)]),
        # It is only late: what comes is taken as it comes.
        ([[raw(1), b"begins 3", b"", *SILENCE[1:], raw(2), b"", *SILENCE[1:], raw(3, 4)]], texts(1, 2, 3, 4)),
        # It has left a file out, within what it sent at once or between.
        ([[raw(1), b"begins 3", b"", raw(2, 5)]], [*texts(1, 2), "-", *texts(5)]),
        ([[raw(1), b"begins 3", b"", raw(2), raw(5)]], [*texts(1, 2), "-", *texts(5)]),
        # Line 2 goes on in the next file, as 3: it was torn, and comes as one; also if the file's second came later.
        ([[raw(1), b"begins 3 4", b"", raw(2), raw(4, 5)]], texts(1, 2, 4, 5)),
        ([[raw(1), b"begins 3", b"", b"begins 3 4", b"", raw(2, 4, 5)]], texts(1, 2, 4, 5)),
        # But not where a file that was begun before that one was left out, or that one was.
        ([[raw(1), b"begins 3 4", b"", b"begins 5 6", b"", raw(2, 6)]], [*texts(1, 2), "-", *texts(6)]),
        ([[raw(1), b"begins 3 4", b"", b"begins 6 7", b"", raw(2, 6)]], [*texts(1, 2), "-", *texts(6)]),
        ([[raw(1), b"begins 3 4", b"", raw(2), raw(5)]], [*texts(1, 2), "-", *texts(5)]),
        # One that begins with what is known is no other.
        ([[raw(1, 2), b"begins 2", b"", *SILENCE, *SILENCE, raw(3)]], texts(1, 2, 3)),
        # Who was stopped does not know whether it went on with the next file or with the one after that.
        ([[raw(1, 2), b"sleeps", b"begins 5", raw(5)]], [*texts(1, 2), "-", *texts(5)]),
        ([[raw(1, 2), b"sleeps", b"begins 7", raw(5), raw(7)]], [*texts(1, 2), "-", *texts(5, 7)]),
        ([[raw(1, 2), b"sleeps", b"begins 0", b"", raw(5)]], [*texts(1, 2), "-", *texts(5)]),
        ([[raw(1, 2), b"begins 0", b"", *SILENCE, None], [b"sleeps", b"", raw(5)]], [*texts(1, 2), "-", *texts(5)]),
        # But that there is no other file than the one that it was stopped in.
        ([[raw(1, 2), b"sleeps", raw(3)]], texts(1, 2, 3)),
        ([[raw(1, 2), b"begins 2", b"sleeps", raw(3)]], texts(1, 2, 3)),
    ],
)
async def test_a_kubelet_that_does_not_come_to_the_next_file(
    readings: list[Sequence[bytes | None]], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current file is looked at; what is there and was not sent is read, or said to be missing."""
    monkeypatch.setattr("common.kube.looks._LOOK_SECONDS", 0)
    last = readings[-1][-1]
    assert last is not None
    kubelet = Rotating(*(("running", pieces) for pieces in readings), ("terminated", [last]), ("terminated", [last]))
    for module in ("log", "looks"):
        monkeypatch.setattr(f"common.kube.{module}.time", kubelet)
    assert told(await recorded(kubelet)) == expected


class Keeping(ArchiveClient):
    """An archive that has these lines."""

    def __init__(self, *numbers: int, whole: bool = False) -> None:
        super().__init__("", "")
        self._numbers, self._whole = numbers, whole

    async def page(self, run_id: str, attempt: int, after: LineId) -> Page:
        """What is behind a line."""
        return Page([line for line in Sent().feed(raw(*self._numbers)) if line.id > after], self._whole)


def at(number: int) -> LineId:
    """A line's id."""
    return Sent().feed(raw(number))[0].id


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
