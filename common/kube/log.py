"""A container's log as the API server sends it (`pods/log?timestamps=true`), as numbered lines.

What is sent is the runtime's current file: it is read again from its beginning after every cut, where
the same lines get the same ids and those that are known are dropped. A file that begins behind what is
known was begun anew meanwhile; what stood between is asked for elsewhere, and where nobody has it, a line
says so. The first file begins with what a head says before its Nextflow does, which is no line of the log.

The kubelet that is asked to go on does so with the file that it finds once it is told of a new one, and
is told of none that was begun before it had come to the end of the first: it may leave files out, or
wait for ever. So what the current file begins with is asked for now and then.
Source: kubernetes, pkg/kubelet/kuberuntime/logs/logs.go, ReadLogs and waitLogs.
"""

import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress

from common.errors import Unavailable
from common.events import GAP, ZERO, Line, LineId
from common.kube import objects, reading
from common.kube.archive import Kept
from common.kube.looks import ROTATION_SECONDS, Beginning, Looks
from common.kube.sent import NOTHING, Sent
from common.kube.transport import Api, Object
from common.metrics import LINES_LOST
from common.runner import Batches

_BATCH_LINES = 500
_SILENT_TICKS = 3  # half a second each; the kubelet reads on every second, come what may
_CLEARED = ("Evicted", "Preempting")
_OPENING = objects.OPENING.encode()
_CUT = b"The end of the log is not to be had: neither where it was written nor in the archive."
_HOLE = b"The runtime has begun its log file anew while nobody read it: lines may be missing here."

_QUERY = {"container": objects.CONTAINER, "timestamps": "true"}


class Log:
    """One log, however often its file has to be read.

    Attributes:
        sent: the reading of it that goes on, or was the last.
        told: the newest line that has been given, or what the head said first.
        opens: its first file begins with what a head says first.
        opening: where that stands, once it was read.
        over: where a line would be that is said when the head has ended.
        complete: the file was read to its end, and gets no more lines.
        ended: a reading went on until the file came to its end, no other was left out, and none has found more since.
        tail: the last line of that reading, or of one that was left, if it never got its newline.
        ahead: what files begin with that were seen and that the reading has not come to, in order: the first line's
            place, and the second's once that was seen.
        doubted: up to there files may have come and gone since the last look, as that is longer ago than one lasts.
        following: what the next reading begins with, if that misses nothing; ZERO: with whatever it does.
        seen: when that was seen, by the monotonic clock.
        joins: this reading misses nothing, whatever its file begins with.
    """

    def __init__(self, after: LineId = ZERO) -> None:
        self.told = after
        self.opens = False
        self.opening = ZERO
        self.over = ZERO
        self.complete = False
        self.ended = False
        self.tail: Sequence[Line] = ()
        self.ahead: dict[LineId, LineId | None] = {}
        self.following: LineId | None = None
        self.seen = 0.0
        self.joins = False
        self.begin()

    def begin(self) -> None:
        """From the first line of the file again."""
        self.doubted: LineId | None = None
        self.sent = Sent()

    def rest(self) -> list[Line]:
        """The last line, if it never got its newline."""
        is_alone, lines = self.sent.end[0] == ZERO, self.sent.rest()
        if is_alone and lines and self.is_opening(lines[0].id, lines[0].text, whole=False):
            return []
        return lines

    def alone(self, tail: Sequence[Line]) -> tuple[LineId, bytes] | None:
        """The file's only line, if that has no newline (yet); `tail` is the one before this reading."""
        if self.tail is not tail:  # the reading has come to its end
            return (self.tail[0].id, self.tail[0].text) if self.tail else None
        return self.sent.unended

    def is_opening(self, first: LineId, text: bytes, *, whole: bool = True) -> bool:
        """Whether what a file begins with tells that it is the first; behind what is known, Nextflow has said it."""
        is_it = text == _OPENING if whole else _OPENING.startswith(text)
        return self.opens and is_it and (not self.told.ms or first <= self.told)

    def sees(self, begins: Beginning) -> bool:
        """Take in what the current file begins with; whether that is another one than this reading's."""
        first, second, late = begins
        if first <= self.told if first != ZERO else self.sent.end == NOTHING:
            return False
        if late:
            self.doubted = first if first != ZERO else self.told.next()
        if (unended := self.sent.unended) is not None and unended[0] == first:  # its first line is on its way
            return False
        if first != ZERO:
            self.ahead[first] = second
        return True

    def follow_ended(self, looked: float) -> None:
        """The file was followed to its end; nobody may be able to read it once more.

        What is known of others is as of when it was `looked` for them.
        """
        seen = self.doubted is None and time.monotonic() - looked <= ROTATION_SECONDS  # no other came and went
        left_out = self.left_out()
        self.ended, self.tail = seen and self.is_known and not left_out, self.rest()
        if seen and len(left_out) == 1:
            (self.following,) = left_out
        elif self.ended:  # the pod may not say yet that it has: whoever reads once more goes on from here
            self.following, self.seen = ZERO, looked

    def joined(self, following: LineId | None) -> LineId | None:
        """What is still to follow; None once this process has slept: a file that was empty may have come and gone."""
        return None if following == ZERO and time.monotonic() - self.seen > ROTATION_SECONDS else following

    def left_out(self) -> list[LineId]:
        """What the files begin with that were seen and that no reading has come to, in order."""
        return [first for first in self.ahead if first > self.told]

    def fresh(self, lines: Sequence[Line]) -> list[Line]:
        """Those that have not been given yet; they are from now on."""
        found = [line for line in lines if line.id > self.told]
        if found:
            self.told = found[-1].id
            self.ended = False
        return found

    @property
    def is_known(self) -> bool:
        """Whether this reading is known to miss nothing: what a file goes on from is not to be seen without a line."""
        return self.joins or (self.told == ZERO and not self.opens) or self.sent.end != NOTHING

    def gap(self, at: LineId, why: bytes) -> Line:
        """A line, behind what is known, that says why others are missing."""
        self.told = at
        return Line(self.told, self.told.ms * 1_000_000 + self.told.seq // 1_000, GAP, why)


async def begin(log: Log, kept: Kept) -> Batches:
    """What is kept of a log, an empty batch if that is all of it and nothing.

    It is found by its id, where the runtime's file has to be read from its beginning.

    Raises:
        Unavailable: it is not to be had, and the file may begin behind what is kept.
    """
    try:
        async for batch in new(log, kept.lines(log.told)):
            yield batch
    except Unavailable:
        if log.told == ZERO:
            raise
    if kept.whole and log.told == ZERO:
        yield ()


async def read(api: Api, pods: str, pod: Object, log: Log, kept: Kept, *, over: bool = False) -> Batches:
    """What is new in the log of a pod's Nextflow, from its file as long as it goes on; an empty batch is a tick.

    What has ended is read until two readings agree on where: that one was cut is not told to who reads. Where the file
    is not to be had now, what is kept of the log has to do.

    Args:
        over: Nextflow has ended, whatever the pod says as yet.
    """
    path = f"{pods}/{pod['metadata']['name']}/log"
    log.opens, ended = reading.opens(pod), None
    try:
        if "running" in reading.container(pod).get("state", {}) and not over:
            async for batch in _followed(api, path, log, kept):
                yield batch
            return
        while not log.complete:
            async for batch in _reading(api.stream(path, **_QUERY), log, kept):
                yield batch
            log.complete, ended = ended == log.sent.end, log.sent.end
        log.over = LineId.of_time(_behind(pod))
        for batch in _batched(log.fresh(log.rest())):
            yield batch
    except Unavailable:
        with suppress(Unavailable):
            async for batch in new(log, kept.lines(log.told)):
                yield batch


def _behind(pod: Object) -> int:
    """A time behind all that a head has said, in ns."""
    ended = reading.ended_at(pod)  # whole seconds; who does not know it yet comes later, and puts it no further back
    return (time.time_ns() // 1_000_000_000 + 1 if ended is None else round(ended.timestamp()) + 1) * 1_000_000_000


async def rest(log: Log, kept: Kept) -> Batches:
    """What is left of a log that nothing is added to any more, and whose file may be gone."""
    if log.complete and log.sent.end != NOTHING:
        if log.sent.end == (log.opening, 0):
            yield ()  # it is there, be it that its Nextflow never said anything
        return
    async for batch in new(log, kept.lines(log.told)):
        yield batch
    if kept.whole or log.ended or (log.complete and log.told == ZERO and not log.opens):
        yield log.fresh(log.tail)  # it is there, be it that it is empty
        return
    # As far on as can be where the last file is empty: others may know more of what was before it.
    end = max(log.over, log.told)
    if end != ZERO and end.closing() > log.told:  # said once, however often it is read from there
        LINES_LOST.inc()
        yield [*log.fresh(log.tail), log.gap(end.closing(), _CUT)]


async def _followed(api: Api, path: str, log: Log, kept: Kept) -> Batches:
    """What is new in the file as it goes on, and in those after it, as far as the kubelet comes to them."""
    async with aclosing(_reading(_watched(api, path, log), log, kept)) as batches:
        async for batch in batches:
            yield batch


async def _watched(api: Api, path: str, log: Log) -> AsyncGenerator[bytes, None]:
    """What comes of the file and of those after it, until the kubelet sits on another one than the current."""
    before, ticks, looks = None, 0, Looks(api, path, _QUERY)
    try:
        async with aclosing(api.stream(path, **_QUERY, follow="true")) as chunks:
            async for chunk in chunks:
                ticks = 0 if chunk else ticks + 1
                came = time.monotonic()
                while (begins := await looks.news(came)) is not None:
                    found = (begins.first, log.sent.end)
                    # Told by ticks, as time may pass while nobody takes what has come.
                    if log.sees(begins) and before == found and ticks >= _SILENT_TICKS:
                        # A line whose end has not come is not told: that may be on its way, and others with it.
                        whole = log.doubted is None and log.is_known and not log.sent.end[1]
                        joins = whole and log.left_out() in ([], [begins.first])
                        log.following, log.seen, log.tail = begins.first if joins else None, looks.at, []
                        return
                    if found != before:
                        before, ticks = found, 0
                yield chunk
        if (begins := await looks.last()) is not None:
            log.sees(begins)
        log.follow_ended(looks.at)
    finally:
        await looks.close()


async def _reading(chunks: AsyncGenerator[bytes, None], log: Log, kept: Kept) -> Batches:
    """What is new in one reading of the file."""
    log.begin()
    opened = begun = False
    following, log.following = log.joined(log.following), None  # of this reading only
    tail, log.joins = log.tail, following == ZERO
    async for chunk in chunks:
        if not opened:
            opened, following = True, log.joined(following)
            log.joins = following == ZERO
        if log.doubted is not None:
            doubted, log.doubted = log.doubted, None
            async for batch in _mended(log, doubted, kept, reached=False):
                yield batch
        if not chunk:
            yield ()
        lines = log.sent.feed(chunk)
        if lines and not begun:
            begun, opening = True, log.is_opening(lines[0].id, lines[0].text)
            async for batch in _before(log, lines[0].id, following, tail, kept, opening=opening):
                yield batch
            if opening:
                log.opening, lines = lines[0].id, lines[1:]
                log.told = max(log.told, log.opening)
        async for batch in _with_holes(log, lines, kept):
            yield batch
    if not begun and (alone := log.alone(tail)) is not None:  # what is told of it comes later, and is no beginning then
        first, text = alone
        opening = log.is_opening(first, text, whole=False)
        async for batch in _before(log, first, following, tail, kept, opening=opening):
            yield batch


async def _before(
    log: Log, first: LineId, following: LineId | None, tail: Sequence[Line], kept: Kept, *, opening: bool
) -> Batches:
    """What is to be told before the first line of a reading's file; nothing is before the `opening`."""
    if tail and first > tail[-1].id:  # of a file before this one: its line was torn between them
        yield log.fresh(tail)
    if following not in (first, ZERO) and not opening:
        async for batch in _mended(log, first, kept):
            yield batch
    log.ahead = {other: second for other, second in log.ahead.items() if other > first}  # the others are told of


async def new(log: Log, batches: Batches) -> Batches:
    """What is new in what was kept of a log."""
    async for lines in batches:
        for batch in _batched(log.fresh(lines)):
            yield batch


async def _with_holes(log: Log, lines: Sequence[Line], kept: Kept) -> Batches:
    """What is new in the next lines of a reading, of which the kubelet may have left files out."""
    for first, second in list(log.ahead.items()):
        if not lines or first > lines[-1].id:
            break
        before, lines = _split(lines, first)
        for batch in _batched(log.fresh(before)):
            yield batch
        # The end of a line that was torn between two files never comes by itself, as the kubelet joins it.
        if LineId.of_time(lines[0].at_ns) not in (first, second):  # the kubelet has left that file out
            async for batch in _mended(log, lines[0].id, kept):
                yield batch
        del log.ahead[first]  # not before: who is given the batches looks whether it is there
    for batch in _batched(log.fresh(lines)):
        yield batch


async def _mended(log: Log, first: LineId, kept: Kept, *, reached: bool = True) -> Batches:
    """What stood between what is known and the first line of the file, which the reading has reached or not yet."""
    until = first.before() if reached else first  # a gap that was told may end right before it
    known = log.told != ZERO or (reached and log.opens)  # of a head that does not say so, any file may be the first
    if not known or until <= log.told:
        return
    async for batch in new(log, kept.lines(log.told)):
        yield batch
    if until > log.told:
        LINES_LOST.inc()
        # As far on as can be: right behind what is known here it would be nothing new to a follower who knows more.
        yield [log.gap(max(log.told.next(), until) if reached else log.told.next(), _HOLE)]


def is_there(pod: Object) -> bool:
    """Whether a pod's Nextflow has a log."""
    return bool({"running", "terminated"} & reading.container(pod).get("state", {}).keys())


def is_cleared(pod: Object) -> bool:
    """Whether the kubelet has put the pod out: it removes what is left of its containers, their logs too."""
    return pod["status"].get("reason") in _CLEARED


def _batched(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """The lines in batches; none where there are none, as that would be a tick."""
    for start in range(0, len(lines), _BATCH_LINES):
        yield lines[start : start + _BATCH_LINES]


def _split(lines: Sequence[Line], first: LineId) -> tuple[Sequence[Line], Sequence[Line]]:
    """The lines before an id, and those from there on."""
    at = bisect_left(lines, first, key=lambda line: line.id)
    return lines[:at], lines[at:]
