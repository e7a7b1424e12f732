"""The ASGI application around endpoints: routing, who may come in, errors as problems.

Plain ASGI and a dictionary of exact paths: nothing stands between a stream and its client, and an
application is made of its routes alone, so siblings can be mounted beside each other by joining them.
"""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from common.callers import ANYBODY, Caller
from common.errors import ControllerError, Unavailable
from common.observe import configure_logging
from common.platform import Platform, platform
from common.web import health, problem
from common.web.call import Call, Endpoint, Nothing
from common.web.closing import refuse
from common.web.exchange import Exchange
from common.web.gate import SAFE, Gate, address
from common.web.input import body, query, read
from common.web.limits import Limiter
from common.web.problem import Refused, TooMany
from common.web.room import Place, Room

log = logging.getLogger("access")

_CORS_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id")
_CORS_SHOWN = ("Location", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id")
_CORS_SECONDS = 600
_STANDS_SECONDS, _STANDS_FOLLOWED_SECONDS = 1.0, 10.0


class App:
    """Endpoints as an ASGI application; `open_platform` is called when the first request needs it."""

    def __init__(self, *endpoints: Endpoint, open_platform: Callable[[], Platform] = platform) -> None:
        self.endpoints = endpoints
        self._open_platform = open_platform
        self._inside: _Inside | None = None
        self._routes: dict[str, dict[str, Endpoint]] = {}
        for endpoint in (*endpoints, *health.ENDPOINTS):
            self._routes.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the server's life span."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        try:
            if self._inside is None:
                self._inside = _Inside(self, self._open_platform())
        except ControllerError as error:  # settings that cannot be used: nothing can be served
            return await Exchange(scope, receive, send).serve(_refusal(error))
        await self._inside.entry(scope, receive, send)

    def find(self, connection: HTTPConnection) -> Endpoint:
        """The endpoint that a request or WebSocket is for.

        Raises:
            Refused: there is none.
        """
        path, method = connection.scope["path"], connection.scope.get("method", "GET")
        methods = self._routes.get(path)
        if methods is None:
            known = {endpoint.path for endpoint in self.endpoints if endpoint.role} or set(self._routes)
            detail = f"There is nothing at {path[:200]}. Here are: {', '.join(sorted(known))}."
            raise Refused(problem.problem(404, "not-found", "No such path", detail))
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allow = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
            detail = f"{path} takes {allow}, not {method[:20]}."
            raise Refused(problem.problem(405, "method", "Method not allowed", detail, headers={"allow": allow}))
        if connection.scope["type"] == "websocket" and endpoint.socket is None:
            raise Refused(problem.problem(404, "not-found", "No such path", f"{path} is no WebSocket."))
        return endpoint

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
                continue
            if self._inside is not None:
                await self._inside.parts.close()
            return await send({"type": "lifespan.shutdown.complete"})


class _Inside:
    """What is made with the first request (functions-framework has no life span events): checks around the routes.

    Attributes:
        entry: the application, from the outside in: proxies, exchange, host and origin, CORS, caller, limit, endpoint.
    """

    def __init__(self, app: App, parts: Platform) -> None:
        settings = parts.settings
        configure_logging(settings.log_level)
        parts.shutdown.listen()
        self._app, self.parts = app, parts
        self._gate = Gate(settings, parts.connection)
        self._limiter = Limiter(settings, parts.connection)
        # Who follows, or wants a ticket for it, has a line of his own: the followers of a server that is gone come to
        # another all at once, and a browser's EventSource that is refused does not come back (WHATWG HTML, 9.2.3).
        self._followed = {endpoint.function for endpoint in app.endpoints if endpoint.socket is not None}
        self._asking, self._following = Room(_STANDS_SECONDS), Room(_STANDS_FOLLOWED_SECONDS)
        self._answering: ASGIApp = self._answer
        if settings.cors_origins:
            from starlette.middleware.cors import CORSMiddleware

            self._answering = CORSMiddleware(
                self._answer,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "HEAD", "POST", "DELETE"),
                allow_headers=_CORS_HEADERS,
                expose_headers=_CORS_SHOWN,
                max_age=_CORS_SECONDS,
            )
        self.entry: ASGIApp = self._exchange
        if settings.trusted_proxies:
            from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

            self.entry = ProxyHeadersMiddleware(self._exchange, list(settings.trusted_proxies))  # type: ignore[arg-type, assignment] # its own ASGI types

    # The next two only hand on: as coroutines they would be kept, and gone through, for as long as somebody follows.

    def _exchange(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return Exchange(scope, receive, send).serve(self._checked)

    def _checked(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        try:
            if scope["path"] not in health.PATHS:  # probes call a pod by its address
                self._gate.place(HTTPConnection(scope))
        except Refused as refused:
            return _refusal(refused)(scope, receive, send)
        return self._answering(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            endpoint = self._app.find(HTTPConnection(scope))
            if endpoint.role is None:  # a probe is never in the way, nor are pages
                answer = await self._made(endpoint, scope, receive)
            else:
                async with Place(self._following if endpoint.function in self._followed else self._asking):
                    answer = await self._made(endpoint, scope, receive)
        except ClientDisconnect:
            raise
        except Exception as error:  # here rather than further out: pages of other origins may read this answer, too
            if isinstance(error, TooMany):
                await self._asking.late()
            answer = _refusal(error)
        await answer(scope, receive, send)

    async def _made(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> ASGIApp:
        if scope["type"] == "websocket" and endpoint.socket is not None:
            return await endpoint.socket(await self._call(endpoint, HTTPConnection(scope)))
        return await endpoint.handler(await self._call(endpoint, Request(scope, receive)))

    async def _call(self, endpoint: Endpoint, connection: HTTPConnection) -> Call[Any, Any]:
        """The call, once its caller, its role and its input are found good."""
        exchange = Exchange.of(connection.scope)
        exchange.function = endpoint.function
        caller = ANYBODY
        if endpoint.role is not None:
            caller = await self._caller(endpoint, connection, exchange)
        asked = query(connection, endpoint.query)
        brought: BaseModel = Nothing()
        if isinstance(connection, Request) and endpoint.body is not Nothing:
            brought = await body(connection, endpoint.body, self.parts.settings.max_body_bytes)
        elif isinstance(connection, Request) and endpoint.method not in SAFE:  # not before it is here whole
            await read(connection, self.parts.settings.max_body_bytes)
        return Call(connection, self.parts, caller, asked, brought)

    async def _caller(self, endpoint: Endpoint, connection: HTTPConnection, exchange: Exchange) -> Caller:
        try:
            caller = await self._gate.caller(connection, endpoint)
        except Refused:  # guessing is limited, too
            await self._limiter.count(endpoint.function, address(connection))
            raise
        exchange.caller = caller.name
        who = address(connection) if caller is ANYBODY else caller.name
        allowance = await self._limiter.count(endpoint.function, who)
        if allowance is not None:
            exchange.headers |= allowance.headers
        self._gate.role(caller, endpoint)
        return caller


def _refusal(error: Exception) -> ASGIApp:
    """The answer that an error is, to a request or a WebSocket; made when it is told, with the request's id."""

    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem.of_error(error)
        if isinstance(error, Unavailable):
            log.warning("unavailable", extra={"dependency": error.dependency, "cause": str(error)})
        elif answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("unexpected", exc_info=error)
        if scope["type"] == "websocket":
            await refuse(answer, receive, send)
        else:
            await answer(scope, receive, send)

    return tell
