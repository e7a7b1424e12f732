"""What an endpoint is: a method of a path, what it takes, who may call it, what it answers.

The declaration is all that routing, checks and the OpenAPI document are made from.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from common.callers import Caller, Role
from common.platform import Platform


class Nothing(BaseModel):
    """A query string without parameters, or no body."""

    model_config = ConfigDict(extra="forbid")


Query = TypeVar("Query", bound=BaseModel)
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Query, Body]):
    """A request that was let in, with what it brought."""

    connection: HTTPConnection
    platform: Platform
    caller: Caller
    query: Query
    body: Body


Handler = Callable[[Call[Any, Any]], Awaitable[ASGIApp]]  # what it returns answers: mostly a Response


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint may answer.

    Attributes:
        content: a model by the media type it comes as, or None where the text itself is the answer; empty: no body.
            A media type that is a sequence of JSON documents (SSE, NDJSON) has the model of one of them.
        headers: what each header it carries means.
    """

    description: str
    content: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Header:
    """A request header that an endpoint reads; `pattern` is what its value has to match."""

    description: str
    pattern: str
    example: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path, and the function it belongs to.

    Attributes:
        role: whom it serves; None: everybody, without a limit (probes, and pages that tell nothing of a run).
        tickets: whether a ticket in the query serves for a token.
        answers: by status, what a call that succeeds is answered with.
        problems: by status, the refusals that are this endpoint's own.
        headers: the request headers that it reads.
        socket: serves the same path as a WebSocket.
        messages: what each message of the WebSocket is.
        closes: what the codes mean that the WebSocket is closed with.
        notes: what its users have to know beyond the handler's docstring (Markdown).
    """

    function: str
    method: str
    path: str
    handler: Handler
    role: Role | None = "read"
    query: type[BaseModel] = Nothing
    body: type[BaseModel] = Nothing
    tickets: bool = False
    answers: Mapping[int, Answer] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, Header] = field(default_factory=dict)
    socket: Handler | None = None
    messages: type[BaseModel] | None = None
    closes: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


def json(model: type[BaseModel], description: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that is a model as JSON."""
    return Answer(description, {"application/json": model}, headers or {})
