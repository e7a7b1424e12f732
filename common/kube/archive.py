"""The way to what recorders have kept: the `archive` function, which has the work volume of the runs' namespace."""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from common.errors import Unavailable
from common.settings import Settings

if TYPE_CHECKING:
    import aiohttp

    from common.events import Line, LineId
    from common.models import Progress

_CALL_SECONDS = 10


class Archive:
    """A client of the `archive` function."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1/pipeline/archive"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def open(cls, settings: Settings) -> "Archive | None":
        """The archive that settings name, if they do; nothing is sent yet."""
        if settings.archive_url is None or settings.archive_token is None:
            return None
        return cls(settings.archive_url.rstrip("/"), settings.archive_token.get_secret_value())

    async def lines(self, run_id: str, attempt: int, after: "LineId") -> "AsyncGenerator[Sequence[Line], None]":
        """What is kept of an attempt's log behind `after`, in order.

        Raises:
            Unavailable: the archive does not answer.
        """
        from common.archive import unpacked

        while True:
            query = {"run_id": run_id, "attempt": str(attempt), "after": str(after)}
            found = await self._get("", query)
            lines = [unpacked(raw) for raw in (found or b"").split(b"\n") if raw]
            if not lines:
                return
            yield lines
            after = lines[-1].id

    async def progress(self, run_id: str) -> "Progress | None":
        """What was last written down of a run's tasks.

        Raises:
            Unavailable: the archive does not answer.
        """
        from common.models import Progress

        found = await self._get("/progress", {"run_id": run_id})
        return Progress.model_validate_json(found) if found is not None else None

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, path: str, query: dict[str, str]) -> bytes | None:
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
                return await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable("archive", f"The archive cannot be reached: {reason}") from error
