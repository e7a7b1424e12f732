"""An application of a few endpoints without a server, and clients of it: settings in, answers out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from common.callers import Role
from common.connection import Connection
from common.models import RunRequest
from common.platform import Platform
from common.runner import Runner
from common.settings import Settings
from common.web.answer import answer
from common.web.app import App
from common.web.call import Call, Endpoint, Nothing
from common.web.input import idempotency_key

CLIENT = ("192.0.2.1", 4711)
JSON = {"content-type": "application/json"}
PROBLEM = "urn:nextflow-controller:problem:"


class Asked(BaseModel):
    """Query parameters of `GET /give` and `GET /hear`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = 1
    ticket: str | None = None


async def take(call: Call[Nothing, RunRequest]) -> Response:
    """Echo a RunRequest."""
    return answer({"pipeline": call.body.pipeline, "key": idempotency_key(call.connection)})


async def give(call: Call[Asked, Nothing]) -> Response:
    """Tell who asked for what."""
    return answer({"caller": call.caller.name, "role": call.caller.role, "limit": call.query.limit})


async def hear(call: Call[Asked, Nothing]) -> ASGIApp:
    """Say who listens."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text(call.caller.name)
        await socket.close()

    return serve


def endpoints(role: Role | None = "run") -> tuple[Endpoint, ...]:
    """One of each kind, `role` being that of the one that changes something."""
    return (
        Endpoint("take", "POST", "/take", take, role=role, body=RunRequest),
        Endpoint("give", "GET", "/give", give, query=Asked),
        Endpoint("hear", "GET", "/hear", give, query=Asked, tickets=True, socket=hear),
    )


def settings(**changes: Any) -> Settings:
    """Settings that let everybody in, unless told otherwise."""
    return Settings(**{"auth": "off", "allowed_hosts": ("test",), "rate_limits": ("off",), **changes})


def application(made: Settings, *served: Endpoint, connection: Connection | None = None) -> App:
    """An application of these endpoints, of one of each kind where none is named."""
    parts = Platform.assemble(made, lambda: cast("Runner", object()), connection or Connection.open(made))
    return App(*(served or endpoints()), open_platform=lambda: parts)


@asynccontextmanager
async def asking(app: App, client: tuple[str, int] | None = CLIENT, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application, which leaves the test's logging and signal handlers alone."""
    transport = httpx.ASGITransport(app, client=cast("tuple[str, int]", client))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.web.app.configure_logging", lambda level: None)
        patch.setattr("common.shutdown.Shutdown.listen", lambda self: None)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", **options) as made:
            yield made


async def shaken(app: App, headers: dict[str, str], path: str = "/hear", query: str = "") -> list[Message]:
    """What an application sends to a WebSocket that is opened and only listens."""
    sent: list[Message] = []
    scope: Scope = {
        "type": "websocket",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": CLIENT,
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async with asking(app):
        await app(scope, receive, send)
    return sent


def told(response: httpx.Response) -> dict[str, Any]:
    """A problem document, without the request id, which must be the header's."""
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    assert document.pop("request_id") == response.headers["x-request-id"]
    assert document["status"] == response.status_code
    return document


def kind(response: httpx.Response) -> tuple[int, str]:
    """Status and kind of a problem."""
    document = told(response)
    return document["status"], document["type"].removeprefix(PROBLEM)
