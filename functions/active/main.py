"""GET /active: is a run active, and which."""

from starlette.requests import Request
from starlette.responses import Response

from common import look
from common.models import ActiveRunStatus
from common.platform import Platform
from common.web.answer import answer
from common.web.endpoint import endpoint
from common.web.input import NoQuery, query


@endpoint("GET", "/active")
async def active(request: Request, platform: Platform) -> Response:
    """Always 200: that nothing is active is an answer too."""
    query(request, NoQuery)
    run = await look.active(platform)
    return answer(ActiveRunStatus(active=run is not None, run=run))
