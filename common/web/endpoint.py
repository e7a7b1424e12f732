"""Turns a handler into a function: an ASGI application, and a target for functions-framework.

    @endpoint("GET", "/active", answers={200: json(ActiveRunStatus, "…")})
    async def active(call: Call[Nothing, Nothing]) -> Response: ...

`active.app` is the application, for uvicorn and for the local server. `active` itself is what
`functions-framework --target active` calls with a request: it hands the whole request over to the
application, so both ways run the same code.
"""

import gc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol, cast

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.callers import Role
from common.web.app import App
from common.web.call import Answer, Endpoint, Handler, Header, Nothing

PREFIX = "/api/v1/pipeline"


class Function(Protocol):
    """A deployable function."""

    app: App

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Answer a request that a functions framework has received."""


class _HandedOver(Response):
    """A response that is an application: it gets the request, untouched."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def endpoint(  # noqa: PLR0913  # by keyword only: they are the fields of an Endpoint
    method: str,
    path: str,
    *,
    prefix: str = PREFIX,
    role: Role | None = "read",
    query: type[BaseModel] = Nothing,
    body: type[BaseModel] = Nothing,
    tickets: bool = False,
    answers: Mapping[int, Answer],
    problems: Mapping[int, str] | None = None,
    headers: Mapping[str, Header] | None = None,
    socket: Handler | None = None,
    messages: type[BaseModel] | None = None,
    closes: Mapping[str, str] | None = None,
    notes: str = "",
    beside: Function | None = None,
) -> Callable[[Handler], Function]:
    """Make a handler the function that answers `method` at `path` below the prefix.

    Args:
        beside: more endpoints of the same function, which serves them too.
    """

    def decorate(handler: Handler) -> Function:
        name = handler.__name__
        own = Endpoint(
            name,
            method,
            prefix + path,
            handler,
            role=role,
            query=query,
            body=body,
            tickets=tickets,
            answers=answers,
            problems=problems or {},
            headers=headers or {},
            socket=socket,
            messages=messages,
            closes=closes or {},
            notes=notes,
        )
        # What was imported stays, so no collection need look at it; a cold start has many (a tenth of its time).
        gc.freeze()
        app = App(own, *(replace(other, function=name) for other in (beside.app.endpoints if beside else ())))

        # functions-framework takes nothing but a plain function for a target.
        async def target(request: Request) -> Response:
            return _HandedOver(app)

        target.__name__, target.__doc__ = name, handler.__doc__
        function = cast("Function", target)
        function.app = app
        return function

    return decorate
