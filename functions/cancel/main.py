"""DELETE /cancel: cancel the active run, leaving nothing behind."""

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from common.cancel import cancel as cancel_run
from common.models import CancelResponse, RunId
from common.phases import State
from common.web.answer import answer
from common.web.call import Call, Nothing, json
from common.web.endpoint import endpoint


class CancelQuery(BaseModel):
    """Query parameters of `DELETE /cancel`."""

    model_config = ConfigDict(extra="forbid")

    run_id: RunId | None = Field(None, description="Cancel only if this run is the active one.")


@endpoint(
    "DELETE",
    "/cancel",
    role="run",
    query=CancelQuery,
    answers={
        200: json(CancelResponse, "The run is gone, or had ended before."),
        202: json(CancelResponse, "The run is being ended; call again to wait for it."),
    },
    problems={404: "Nothing is active, or no run of this id is retained."},
)
async def cancel(call: Call[CancelQuery, Nothing]) -> Response:
    """End the active run, leaving nothing behind.

    200 when the run is gone or had ended before, 202 while it is being ended, 404 with nothing active.
    """
    done = await cancel_run(call.platform, by=call.caller.name, run_id=call.query.run_id)
    status = done.run.status
    return answer(
        CancelResponse(run_id=done.run.run_id, status=status, cancelled=status is State.CANCELLED, detail=done.detail),
        202 if status is State.CANCELLING else 200,
    )
