"""The paths every function answers for whoever operates it.

`/healthz` and `/health` say that the process serves, and nothing about anything else. `/readyz` names
each dependency: with the runner away a function cannot tell the truth and is not ready (503); with
Redis away it goes on from the cluster, so it stays in service and says that it is degraded.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from common.errors import Unavailable
from common.platform import Platform
from common.web.answer import answer


async def alive(request: Request, platform: Platform) -> Response:
    """The process serves requests."""
    return answer({"status": "alive"})


async def ready(request: Request, platform: Platform) -> Response:
    """What the function depends on, part by part."""
    redis = await _state(platform.connection.check)
    runner = await _state(platform.runner.check)
    status = "ready" if redis == runner == "ok" else "degraded" if runner == "ok" else "unavailable"
    body = {"status": status, "redis": redis, "runner": runner}
    return answer(body) if runner == "ok" else answer(body, 503, {"retry-after": "1"})


async def metrics(request: Request, platform: Platform) -> Response:
    """This process' metrics for Prometheus."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _state(check: Callable[[], Awaitable[None]]) -> str:
    try:
        await check()
    except Unavailable as away:
        return str(away)
    return "ok"


ROUTES = {"/healthz": alive, "/health": alive, "/readyz": ready, "/metrics": metrics}
