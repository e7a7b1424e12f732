"""DELETE /cancel: cancel the active run, leaving nothing behind."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from common.cancel import cancel as cancel_run
from common.models import CancelResponse
from common.names import RUN_ID
from common.phases import State
from common.platform import Platform
from common.web.answer import answer
from common.web.endpoint import endpoint
from common.web.input import query


class CancelQuery(BaseModel):
    """Query parameters of `DELETE /cancel`."""

    model_config = ConfigDict(extra="forbid")

    run_id: Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")] | None = Field(
        None, description="Cancel only if this run is the active one."
    )


@endpoint("DELETE", "/cancel")
async def cancel(request: Request, platform: Platform) -> Response:
    """200 when the run is gone or had ended before, 202 while it is being ended, 404 with nothing active."""
    run_id = query(request, CancelQuery).run_id
    done = await cancel_run(platform, by="anonymous", run_id=run_id)
    status = done.run.status
    return answer(
        CancelResponse(run_id=done.run.run_id, status=status, cancelled=status is State.CANCELLED, detail=done.detail),
        202 if status is State.CANCELLING else 200,
    )
