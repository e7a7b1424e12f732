"""What recorders keep, in real files, and the way to it: the client of the `archive` function, and its answers."""

import random
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from common import archive
from common.errors import Unavailable
from common.events import LineId
from common.kube.archive import WHOLE, ArchiveClient
from tests.simulation.relay.ledger import Ledger
from tests.simulation.relay.steps import Process, Steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from common.events import Line

_TORN = b"1893456000000-1000000 1893456000"  # the beginning of a line, as a crash leaves it


class Volume:
    """The work volume.

    Attributes:
        unsettled: when somebody last got no answer from the archive.
    """

    def __init__(self, directory: Path, ledger: Ledger, steps: Steps, rng: random.Random, away: float) -> None:
        self._directory = directory
        self._ledger, self._steps, self._rng, self._chance = ledger, steps, rng, away
        self.away = False
        self.unsettled = -1e9

    def kept(self, run_id: str) -> Path:
        """Where all of a run is kept."""
        return self._directory / run_id

    def calm(self) -> None:
        """From now on it answers."""
        self._chance, self.away = 0.0, False

    def tear(self, run_id: str, attempt: int) -> None:
        """A recorder was killed while it wrote: its last line is there in part."""
        for segment in archive.place(self.kept(run_id), attempt).glob("*.log"):
            with segment.open("ab") as file:
                file.write(_TORN)

    @contextmanager
    def watched(self) -> "Iterator[None]":
        """While this holds, what is archived is in the ledger."""
        real = archive.Archive.append

        def append(kept: archive.Archive, lines: "Sequence[Line]") -> None:
            real(kept, lines)
            place = kept._directory
            run_id, attempt = place.parent.parent.name, int(place.name)
            self._ledger.archive(run_id, attempt, [line.id for line in lines], self._steps.time)

        with patch.object(archive.Archive, "append", append):
            yield

    async def answer(self, process: Process, query: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """One page."""
        await self._steps.pause(process)
        if self.away or self._rng.random() < self._chance:
            self.unsettled = self._steps.time
            self._steps.note(process.name, "the archive does not answer")
            raise Unavailable("archive", "the model archive is away")
        directory = archive.place(self.kept(query["run_id"]), int(query["attempt"]))
        lines, whole = archive.page(directory, LineId.parse(query["after"]))
        await self._steps.pause(process)
        return b"".join(map(archive.packed, lines)), {WHOLE: str(whole).lower()}


class RelayArchive(ArchiveClient):
    """The library's own client, with a process' way to the model in place of a session."""

    def __init__(self, volume: Volume, process: Process) -> None:
        super().__init__("", "")
        self._volume, self._process = volume, process

    async def _get(self, path: str, query: dict[str, str]) -> tuple[bytes, Mapping[str, str]] | None:
        if path:
            return None  # nothing is written down of tasks here
        with suppress(FileNotFoundError):
            return await self._volume.answer(self._process, query)
        return None
