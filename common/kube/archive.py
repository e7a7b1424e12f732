"""The way to what recorders have kept: the `archive` function, which has the work volume of the runs' namespace."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from common.errors import Unavailable
from common.settings import Settings

if TYPE_CHECKING:
    import aiohttp

    from common.events import Line, LineId
    from common.models import Progress
    from common.runner import Batches

WHOLE = "Archive-Whole"  # a header of a page: `true` where what is kept is the whole log
_CALL_SECONDS = 10
_MOST_BYTES = 64 * 1024 * 1024  # of a page, and its last line


class Page(NamedTuple):
    """Lines in order; with none behind them, `whole` says whether that was the whole log."""

    lines: "Sequence[Line]"
    whole: bool


class ArchiveClient:
    """A client of the `archive` function."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1/pipeline/archive"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def open(cls, settings: Settings) -> "ArchiveClient | None":
        """The archive that settings name, if they do; nothing is sent yet."""
        if settings.archive_url is None or settings.archive_token is None:
            return None
        return cls(settings.archive_url.rstrip("/"), settings.archive_token.get_secret_value())

    async def page(self, run_id: str, attempt: int, after: "LineId") -> "Page":
        """What is kept of an attempt's log behind `after`: the next lines.

        Raises:
            Unavailable: the archive does not answer, or with something that is none.
        """
        from common.archive import unpacked

        query = {"run_id": run_id, "attempt": str(attempt), "after": str(after)}
        answer = await self._get("", query)
        if answer is None:
            return Page((), whole=False)
        raw, headers = answer
        with _understood():
            lines = [unpacked(line) for line in raw.split(b"\n") if line]
            ids = [after, *(line.id for line in lines)]
            if ids != sorted(set(ids)):
                raise ValueError("its lines are in no order")
        return Page(lines, whole=headers.get(WHOLE) == "true")

    async def progress(self, run_id: str) -> "Progress | None":
        """What was last written down of a run's tasks.

        Raises:
            Unavailable: the archive does not answer.
        """
        from common.models import Progress

        answer = await self._get("/progress", {"run_id": run_id})
        if answer is None:
            return None
        with _understood():
            return Progress.model_validate_json(answer[0])

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, path: str, query: dict[str, str]) -> "tuple[bytes, Mapping[str, str]] | None":
        import aiohttp

        if self._session is None:
            limit = aiohttp.ClientTimeout(total=_CALL_SECONDS)
            self._session = aiohttp.ClientSession(timeout=limit, headers=self._headers)
        try:
            async with self._session.get(self._url + path, params=query) as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise Unavailable("archive", f"The archive says {answer.status}.")
                # Who answers is in the runs' namespace: it is not believed to keep to any bound.
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise Unavailable("archive", "The archive's answer is too long.")
                return bytes(body), answer.headers
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable("archive", f"The archive cannot be reached: {reason}") from error


class Kept:
    """What a recorder has kept of an attempt's log; nothing where there is no archive.

    Attributes:
        whole: what was read to its end was all of the log.
    """

    def __init__(self, archive: ArchiveClient | None, run_id: str, attempt: int) -> None:
        self._archive = archive
        self._run_id = run_id
        self._attempt = attempt
        self.whole = False

    async def lines(self, after: "LineId") -> "Batches":
        """What is kept behind a line.

        Raises:
            Unavailable: the archive does not answer.
        """
        while self._archive is not None:
            page = await self._archive.page(self._run_id, self._attempt, after)
            if not page.lines:
                self.whole = page.whole  # not before: who is cut off from the archive on the way has not read it
                return
            yield page.lines
            after = page.lines[-1].id


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Unavailable("archive", f"The archive's answer is none: {error}") from error
