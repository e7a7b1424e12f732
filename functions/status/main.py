"""GET /status: the active or the most recent run, or any that is retained."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from common import look
from common.names import RUN_ID
from common.platform import Platform
from common.web.answer import answer
from common.web.endpoint import endpoint
from common.web.input import query


class StatusQuery(BaseModel):
    """Query parameters of `GET /status`."""

    model_config = ConfigDict(extra="forbid")

    run_id: Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")] | None = None


@endpoint("GET", "/status")
async def status(request: Request, platform: Platform) -> Response:
    """How the run is, with the progress of its tasks; 404 where there is none."""
    return answer(await look.status(platform, query(request, StatusQuery).run_id))
