"""A container's log as the API server sends it (`pods/log?timestamps=true`), as numbered lines.

Nine-digit times, one a line; what does not end with a newline is the log's last line. What is sent is
the runtime's current file: it is read again from its beginning after every cut, where the same lines
get the same ids and those that are known are dropped. A file that begins behind what is known was
begun anew meanwhile; what stood between is asked for elsewhere, and where nobody has it, a line says so.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from common.cri import RawLine, parse_time
from common.events import GAP, ZERO, Line, LineId, number
from common.kube import objects, reading
from common.kube.transport import Api, Object
from common.metrics import LINES_LOST

_BATCH_LINES = 500
_HOLE = b"The runtime has begun its log file anew while nobody read it: lines may be missing here."

Batches = AsyncGenerator[Sequence[Line], None]


class Log:
    """One log, however often its file has to be read.

    Attributes:
        told: the newest line that has been given.
    """

    def __init__(self, after: LineId = ZERO) -> None:
        self.told = after
        self.begin()

    def begin(self) -> None:
        """From the first line of the file again."""
        self._last: LineId = ZERO
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that are whole with this chunk, known or not."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return self._number(whole)

    def rest(self) -> list[Line]:
        """The last line, if it never got its newline."""
        last, self._rest = self._rest, b""
        return self._number([last] if last else [])

    def fresh(self, lines: Sequence[Line]) -> list[Line]:
        """Those that have not been given yet; they are from now on."""
        found = [line for line in lines if line.id > self.told]
        if found:
            self.told = found[-1].id
        return found

    def gap(self) -> Line:
        """A line, behind what is known, that says that others are missing."""
        self.told = self.told.next()
        return Line(self.told, self.told.ms * 1_000_000 + self.told.seq // 1_000, GAP, _HOLE)

    def _number(self, raw: list[bytes]) -> list[Line]:
        numbered = list(number(filter(None, map(_raw, raw)), self._last))
        if numbered:
            self._last = numbered[-1].id
        return numbered


async def read(api: Api, pods: str, pod: Object, log: Log, elsewhere: Callable[[LineId], Batches] | None) -> Batches:
    """What is new in the log of a pod's Nextflow, from one reading of its file; an empty batch is a tick.

    Args:
        elsewhere: has what the runtime may have no more: the lines behind one.

    Raises:
        Unavailable: it is not to be had, or was cut.
    """
    query = {"container": objects.CONTAINER, "timestamps": "true"}
    if "running" in reading.container(pod).get("state", {}):
        query["follow"] = "true"
    log.begin()
    begun = False
    async for chunk in api.stream(f"{pods}/{pod['metadata']['name']}/log", **query):
        if not chunk:
            yield ()
        lines = log.feed(chunk)
        if lines and not begun:
            begun = True
            async for batch in _mended(log, lines[0].id, elsewhere):
                yield batch
        for batch in _batched(log.fresh(lines)):
            yield batch
    if "follow" not in query:
        for batch in _batched(log.fresh(log.rest())):
            yield batch


async def new(log: Log, batches: Batches) -> Batches:
    """What is new in what was kept of a log."""
    async for lines in batches:
        for batch in _batched(log.fresh(lines)):
            yield batch


async def _mended(log: Log, first: LineId, elsewhere: Callable[[LineId], Batches] | None) -> Batches:
    """What stood between what is known and the first line of the file."""
    if log.told == ZERO or first <= log.told:
        return
    if elsewhere is not None:
        async for batch in new(log, elsewhere(log.told)):
            yield batch
    if first > log.told:
        LINES_LOST.inc()
        yield [log.gap()]


def over(pod: Object) -> bool:
    """Whether a pod's Nextflow has ended, so that a reading of its log that began now has all of it."""
    return "terminated" in reading.container(pod).get("state", {})


def begun(pod: Object) -> bool:
    """Whether a pod's Nextflow has a log."""
    return bool({"running", "terminated"} & reading.container(pod).get("state", {}).keys())


def _batched(lines: list[Line]) -> Iterator[list[Line]]:
    """The lines in batches; none where there are none, as that would be a tick."""
    for start in range(0, len(lines), _BATCH_LINES):
        yield lines[start : start + _BATCH_LINES]


def _raw(line: bytes) -> RawLine | None:
    at, _, text = line.partition(b" ")
    try:
        return RawLine(parse_time(at), "stdout", text)  # the API does not tell stdout and stderr apart
    except ValueError:  # the kubelet's own words, or a line torn by a cut: it comes again
        return None
