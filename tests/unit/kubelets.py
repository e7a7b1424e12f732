"""Kubelets that show a log in pieces, as they are read, and an archive beside them. Lines are named by seconds."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from common.errors import Unavailable
from common.events import GAP, ZERO, Line, LineId
from common.kube.archive import ArchiveClient, Page
from common.kube.sent import Sent
from common.kube.transport import Api, Object
from common.recorder.kubernetes import OwnPod
from tests.unit.test_kube_objects import RUN_ID
from tests.unit.test_kube_reading import a_pod


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


SILENCE = [b""] * 4  # a look's answer is known by the next piece


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


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod is looked at again at once."""
    monkeypatch.setattr("common.recorder.kubernetes._LOOK_SECONDS", 0)
