"""Turns a handler into a function: an ASGI application, and a target for functions-framework.

    @endpoint("GET", "/active")
    async def active(request: Request, platform: Platform) -> Response: ...

`active.app` is the application, for uvicorn and for the local server. `active` itself is what
`functions-framework --target active` calls with a request: it hands the whole request over to the
application, so both ways run the same code.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.web.app import App, Endpoint, Handler

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


def endpoint(method: str, path: str) -> Callable[[Handler], Function]:
    """Make a handler the function that answers `method` at `path` below the common prefix."""

    def decorate(handler: Handler) -> Function:
        app = App(Endpoint(handler.__name__, method, PREFIX + path, handler))

        # functions-framework takes nothing but a plain function for a target.
        async def target(request: Request) -> Response:
            return _HandedOver(app)

        target.__name__, target.__doc__ = handler.__name__, handler.__doc__
        function = cast("Function", target)
        function.app = app
        return function

    return decorate
