"""GET /stream: the live log, status and progress of a run, for any number of followers."""

from starlette.requests import Request
from starlette.responses import Response

from common.follow import followers
from common.platform import Platform
from common.web.endpoint import endpoint
from common.web.stream import respond


@endpoint("GET", "/stream")
async def stream(request: Request, platform: Platform) -> Response:
    """Server-Sent Events or plain text, by Accept; 204 where the follower has seen it all."""
    return await respond(request, followers(platform), platform.settings)
