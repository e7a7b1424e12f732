"""GET /status: the active or the most recent run, or any that is retained."""

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from common import look
from common.models import RunId, RunOverview
from common.web.answer import answer
from common.web.call import Call, Nothing, json
from common.web.endpoint import endpoint


class StatusQuery(BaseModel):
    """Query parameters of `GET /status`."""

    model_config = ConfigDict(extra="forbid")

    run_id: RunId | None = Field(None, description="A run; without it the active or latest one.")


@endpoint(
    "GET",
    "/status",
    query=StatusQuery,
    answers={200: json(RunOverview, "The run, with the progress of its tasks and the state of its streams.")},
    problems={404: "No run of this id is retained, or there is none yet."},
)
async def status(call: Call[StatusQuery, Nothing]) -> Response:
    """A run with the progress of its tasks and who follows it.

    Of the active or most recent run, or of any that is retained.
    """
    return answer(await look.overview(call.platform, call.query.run_id))
