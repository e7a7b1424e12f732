"""GET /active: is a run active, and which."""

from starlette.responses import Response

from common import look
from common.models import ActiveRunStatus
from common.web.answer import answer
from common.web.call import Call, Nothing, json
from common.web.endpoint import endpoint


@endpoint("GET", "/active", answers={200: json(ActiveRunStatus, "Whether a run is active, and which.")})
async def active(call: Call[Nothing, Nothing]) -> Response:
    """Whether a run is active, and which.

    Always 200: that nothing is active is an answer too.
    """
    run = await look.active(call.platform)
    return answer(ActiveRunStatus(active=run is not None, run=run))
