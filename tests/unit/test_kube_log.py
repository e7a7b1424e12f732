"""A pod's log through cuts and files begun anew: every line once, and what nobody has is said."""

import asyncio
from collections.abc import Sequence

import pytest

from common.events import BEYOND, ZERO, LineId
from common.kube import head
from common.kube import log as logs
from common.kube.archive import Kept
from common.kube.sent import Sent
from common.kube.transport import Object
from common.recorder.kubernetes import OwnPod
from tests.unit.kubelets import (
    SILENCE,
    Kubelet,
    Rotating,
    at_once,
    raw,
    recorded,
    texts,
    told,
    twice,
)
from tests.unit.test_kube_objects import RECORD, RUN_ID, SETTINGS
from tests.unit.test_kube_reading import a_pod

__all__ = ["at_once"]  # a fixture


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


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        # It has not come to the new file, and it does not: it is left for that, of which nothing was missed.
        ([[raw(1, 2), b"begins 3", b"", *SILENCE, None], [raw(3, 4)]], texts(1, 2, 3, 4)),
        # Nor was anything if that is still empty; and it is not left again.
        ([[raw(1, 2), b"begins 0", b"", *SILENCE, None], [*SILENCE, *SILENCE, raw(3)]], texts(1, 2, 3)),
        # It has come there, though not to the end of the first line: there is no other.
        ([[raw(1, 2), raw(3)[:-5], b"begins 3", b"", *SILENCE, b"ne 3\n", raw(4)]], texts(1, 2, 3, 4)),
        # A line of which nobody knows whether it ends there is none: the rest may be on its way, and others behind it.
        ([[raw(1, 2)[:-5], b"begins 3", b"", *SILENCE, None], [raw(3)]], [*texts(1), "-", *texts(3)]),
        ([[raw(1, 2)[:-37], b"begins 0", b"", *SILENCE, None], [raw(3)]], [*texts(1), "-", *texts(3)]),
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
