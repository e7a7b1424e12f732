"""The paths every function answers for whoever operates it.

`/healthz` and `/health` say that the process serves, and nothing about anything else. `/readyz` names
each dependency: with the runner away a function cannot tell the truth and is not ready (503); with
Redis away it goes on from the cluster, so it stays in service and says that it is degraded.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import Response

from common.errors import Unavailable
from common.web.answer import answer
from common.web.call import Answer, Call, Endpoint, Handler, json


class Alive(BaseModel):
    """The process serves."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """What the function depends on, part by part: `ok`, or what is wrong with it."""

    status: Literal["ready", "degraded", "unavailable"]
    redis: str
    runner: str


async def alive(call: Call[Any, Any]) -> Response:
    """The process serves requests."""
    return answer(Alive())


async def ready(call: Call[Any, Any]) -> Response:
    """What the function depends on, part by part."""
    redis = await _state(call.platform.connection.check)
    runner = await _state(call.platform.runner.check)
    status: Literal["ready", "degraded"] = "ready" if redis == "ok" else "degraded"
    body = Ready(status=status if runner == "ok" else "unavailable", redis=redis, runner=runner)
    return answer(body) if runner == "ok" else answer(body, 503, {"retry-after": "1"})


async def metrics(call: Call[Any, Any]) -> Response:
    """This process' metrics for Prometheus."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    import common.metrics  # noqa: F401  # a process that has answered nothing yet shows them too

    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _state(check: Callable[[], Awaitable[None]]) -> str:
    try:
        await check()
    except Unavailable as away:
        return str(away)
    return "ok"


def _open(path: str, handler: Handler, *answers: tuple[int, Answer]) -> Endpoint:
    return Endpoint("health", "GET", path, handler, role=None, answers=dict(answers))


_ALIVE = json(Alive, "It serves.")
ENDPOINTS = (
    _open("/healthz", alive, (200, _ALIVE)),
    _open("/health", alive, (200, _ALIVE)),
    _open(
        "/readyz",
        ready,
        (200, json(Ready, "It answers truthfully; `degraded`: without Redis, from the runner alone.")),
        (503, json(Ready, "It cannot tell the truth.", {"Retry-After": "Seconds after which to ask again."})),
    ),
    _open("/metrics", metrics, (200, Answer("Metrics for Prometheus.", {"text/plain": None}))),
)
PATHS = frozenset(endpoint.path for endpoint in ENDPOINTS)
