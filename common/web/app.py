"""The ASGI application around endpoints: routing, request id, errors as problems, access log, metrics.

Plain ASGI and a dictionary of exact paths: nothing stands between a stream and its client, and an
application is made of its routes alone, so siblings can be mounted beside each other by joining them.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from common.errors import ControllerError, Unavailable
from common.observe import REQUEST_SECONDS, REQUESTS, configure_logging, request_id
from common.platform import Platform, platform
from common.web import health, problem
from common.web.input import Refused

log = logging.getLogger("access")

Handler = Callable[[Request, Platform], Awaitable[Response]]

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path, and the function it belongs to."""

    function: str
    method: str
    path: str
    handler: Handler


class App:
    """Endpoints as an ASGI application; `open_platform` is called when the first request needs it."""

    def __init__(self, *endpoints: Endpoint, open_platform: Callable[[], Platform] = platform) -> None:
        self.endpoints = endpoints
        self._open_platform = open_platform
        self._begun = False
        self._routes: dict[str, dict[str, Endpoint]] = {}
        for endpoint in (
            *endpoints,
            *(Endpoint("health", "GET", path, answer) for path, answer in health.ROUTES.items()),
        ):
            self._routes.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's life span."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "no WebSocket here"})
        else:
            await _Exchange(self, scope, receive, send).serve()

    async def answer(self, request: Request) -> tuple[str, Response]:
        """The function that a request is for, and its answer; errors become problems."""
        methods = self._routes.get(request.url.path)
        if methods is None:
            known = ", ".join(sorted(endpoint.path for endpoint in self.endpoints))
            detail = f"There is nothing at {request.url.path[:200]}. Here are: {known}."
            return "none", problem.problem(404, "not-found", "No such path", detail)
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            allow = ", ".join(sorted(methods))
            detail = f"{request.url.path} takes {allow}, not {request.method[:20]}."
            return "none", problem.problem(405, "method", "Method not allowed", detail, headers={"allow": allow})
        try:
            parts = self._open_platform()
            self._begin(parts)
            return endpoint.function, await endpoint.handler(request, parts)
        except Refused as refused:
            return endpoint.function, refused.response
        except ControllerError as error:
            response = problem.of_error(error)
            if isinstance(error, Unavailable):
                log.warning("unavailable", extra={"dependency": error.dependency, "cause": str(error)})
            elif response.status_code == 500:
                log.exception("unexpected")
            return endpoint.function, response
        except ValidationError as error:
            log.exception("something stored does not fit its model")
            return endpoint.function, problem.of_error(ControllerError(str(error)))

    def _begin(self, parts: Platform) -> None:
        """With the first request: functions-framework has no life span events."""
        if not self._begun:
            self._begun = True
            configure_logging(parts.settings.log_level)
            parts.shutdown.listen()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
                continue
            if self._begun:
                await self._open_platform().close()
            return await send({"type": "lifespan.shutdown.complete"})


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self._status = 0
        self._id = _given_id(scope) or secrets.token_hex(8)

    async def serve(self) -> None:
        began, function = time.perf_counter(), "none"
        token = request_id.set(self._id)
        try:
            function, response = await self._app.answer(Request(self._scope, self._receive))
            await response(self._scope, self._receive, self._noted)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("unexpected")
            if not self._status:  # else the headers are out: all that is left is to cut the connection
                await problem.of_error(ControllerError())(self._scope, self._receive, self._noted)
            else:
                raise
        finally:
            seconds = time.perf_counter() - began
            method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
            REQUESTS.labels(function, method, str(self._status or 499)).inc()
            if not self._streamed:
                REQUEST_SECONDS.labels(function).observe(seconds)
            log.info(
                "answered",
                extra={
                    "function": function,
                    "method": self._scope["method"],
                    "path": self._scope["path"],
                    "status": self._status or None,
                    "milliseconds": round(seconds * 1000, 1),
                },
            )
            request_id.reset(token)

    _streamed = False

    async def _noted(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self._id.encode())]}
        elif message.get("more_body"):
            self._streamed = True
        await self._send(message)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _given_id(scope: Scope) -> str | None:
    """The caller's own id for this request, if it is fit to be logged."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _REQUEST_ID.fullmatch(given) else None
    return None
