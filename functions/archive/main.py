"""GET /archive: what the recorders have kept of runs, for the functions that follow them.

The one function beside the work volume, in the runs' namespace: the others cannot mount it. It reads
files, and needs neither Redis nor the cluster.
"""

import asyncio
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import Response

from common import archive as archives
from common.errors import RunNotFound, Unavailable
from common.events import ZERO, LineId
from common.kube import beside
from common.kube.archive import WHOLE
from common.models import Progress, RunId, Says
from common.web.answer import answer
from common.web.call import Answer, Call, Nothing, json
from common.web.endpoint import endpoint

_PROGRESS_BYTES = 16 * 1024 * 1024
_LineId = Annotated[str, AfterValidator(lambda text: str(LineId.parse(text))), Says("use a line's id: 1795503679204-0")]


class ProgressQuery(BaseModel):
    """Query parameters of `GET /archive/progress`."""

    model_config = ConfigDict(extra="forbid")

    run_id: RunId


class ArchiveQuery(ProgressQuery):
    """Query parameters of `GET /archive`."""

    attempt: int = Field(ge=1, le=999_999)
    after: _LineId = str(ZERO)


@endpoint(
    "GET",
    "/archive/progress",
    query=ProgressQuery,
    answers={200: json(Progress, "The tasks, as they were last written down.")},
    problems={404: "Nothing is kept of the run's tasks."},
)
async def progress(call: Call[ProgressQuery, Nothing]) -> Response:
    """How far a run's tasks are, as its recorder has last written it down."""
    try:
        return answer(await asyncio.to_thread(_progress, _kept(call) / "progress.json"))
    except (OSError, ValueError):  # none, or none that a recorder has written
        raise RunNotFound(call.query.run_id) from None


@endpoint(
    "GET",
    "/archive",
    query=ArchiveQuery,
    answers={200: Answer("Lines as the archive holds them (common.archive), a page of them.", {"text/plain": None})},
    beside=progress,
)
async def archive(call: Call[ArchiveQuery, Nothing]) -> Response:
    """The next page of an attempt's log behind a line; empty where there is none."""
    directory = archives.place(_kept(call), call.query.attempt)
    try:
        lines, whole = await asyncio.to_thread(archives.page, directory, LineId.parse(call.query.after))
    except OSError as error:
        raise Unavailable("volume", f"The work volume cannot be read: {error.strerror}.") from error
    headers = {"cache-control": "no-store", WHOLE: str(whole).lower()}
    return Response(b"".join(map(archives.packed, lines)), headers=headers, media_type="text/plain")


def _progress(path: Path) -> Progress:
    with archives.regular(path) as file:
        return Progress.model_validate_json(file.read(_PROGRESS_BYTES))


def _kept(call: Call[ProgressQuery, Nothing] | Call[ArchiveQuery, Nothing]) -> Path:
    return Path(beside.kept(call.platform.settings.work_path, call.query.run_id))
