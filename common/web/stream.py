"""Streams over HTTP: what a follower may ask, and the answer in the transport that it prefers."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.events import CURSOR, NO_CURSOR, Cursor
from common.follow import Query, followers
from common.frames import Frame
from common.metrics import FOLLOWERS
from common.models import Says
from common.names import RUN_ID
from common.presence import Transport
from common.tasks import first_of
from common.web import problem
from common.web.call import Call
from common.web.input import header
from common.web.problem import Refused
from common.web.transports import TEXTS, Encoder, ndjson, sse

Headers = list[tuple[bytes, bytes]]

TYPES = ("log", "status", "progress")
SSE, TEXT, NDJSON = "text/event-stream", "text/plain", "application/x-ndjson"
_UNASKED = (frozenset(TYPES), frozenset({"log"}))  # what is sent where nothing is asked for, and as text
_RETRY = b"retry: 1000\n"  # an EventSource comes back after a second; a part of the first event, see `sse`


_Run = Annotated[
    str,
    StringConstraints(pattern=rf"^({RUN_ID.pattern}|\*)$"),
    Says("use a run's id as it was received (run- and 16 of the characters a-z and 2-7), or *"),
]
_After = Annotated[str, StringConstraints(pattern=rf"^{CURSOR.pattern}$"), Says(NO_CURSOR)]
_TYPE = f"({'|'.join(TYPES)})"
_Types = Annotated[
    str,
    StringConstraints(pattern=rf"^{_TYPE}(,{_TYPE})*$"),
    Says(f"use some of {', '.join(TYPES)}, separated by commas without spaces"),
]


class StreamQuery(BaseModel):
    """Query parameters of `GET /stream`."""

    model_config = ConfigDict(extra="forbid")

    run_id: _Run | None = Field(
        None, description="A run; without it the active or latest one; `*`: that one and each that comes after it."
    )
    after: _After | None = Field(None, description="An event's id: go on behind it. `Last-Event-ID` goes before it.")
    tail: int | None = Field(None, ge=0, le=100_000, description="Begin with this many lines before the newest.")
    types: _Types | None = Field(None, description="Kinds of events, comma separated: log, status, progress.")
    follow: bool = Field(True, description="Stay until the run ends; `false`: end with what there is.")
    timestamps: bool = Field(False, description="text/plain: each line begins with its id.")
    ticket: str | None = Field(
        None, max_length=128, description="In place of a token, where headers cannot be set (`POST /stream/ticket`)."
    )


async def respond(call: Call[StreamQuery, Any]) -> ASGIApp:
    """Answer a request for a stream.

    Raises:
        Invalid, Refused: a parameter cannot be used.
        RunNotFound: there is no such run.
        Unavailable: it cannot be told.
    """
    transport = _transport(call.connection)
    wanted = wants(call, transport)
    following = followers(call.platform)
    run_id = await following.resolve(wanted)
    if run_id is None:
        return Response(status_code=204, headers=_UNSTORED)  # tells an EventSource not to come back
    media_type = {"sse": SSE, "text": TEXT, "ndjson": NDJSON}[transport]
    if call.connection.scope["method"] == "HEAD":
        head = Response()
        head.raw_headers = list(_RAW_HEADERS[media_type])
        return head
    encoder: Encoder = {
        "sse": sse,
        "ndjson": ndjson,
        "text": TEXTS[call.query.timestamps, call.query.types is not None and wanted.types != {"log"}],
    }[transport]
    first = _RETRY if transport == "sse" else b""
    return _Stream(following.follow(wanted, run_id), encoder, transport, first, _RAW_HEADERS[media_type])


def wants(call: Call[StreamQuery, Any], transport: Transport) -> Query:
    """What the call asks to follow; as text the log alone where it does not say more.

    Raises:
        Invalid: a parameter cannot be used.
    """
    asked = call.query
    return Query(
        run_id=asked.run_id,
        after=_after(call.connection, asked),
        tail=asked.tail,
        types=frozenset(asked.types.split(",")) if asked.types else _UNASKED[transport == "text"],
        transport=transport,
        follow=asked.follow,
    )


# Proxies must neither keep, nor collect, nor compress what is meant to arrive at once.
_UNSTORED = {"cache-control": "no-store"}
_HEADERS = {**_UNSTORED, "x-accel-buffering": "no", "x-content-type-options": "nosniff"}


def _raw_headers(media_type: str) -> Headers:
    """A stream's headers; it has no length, and HEAD may not tell another than GET."""
    made = Response(headers=_HEADERS, media_type=media_type)
    del made.headers["content-length"]
    return made.raw_headers


_RAW_HEADERS = {media_type: _raw_headers(media_type) for media_type in (SSE, TEXT, NDJSON)}


class _Stream:
    """A stream: frames as one transport's bytes, for as long as the client is there."""

    __slots__ = ("_encoder", "_first", "_frames", "_headers", "_transport")

    def __init__(
        self,
        frames: AsyncGenerator[Frame, None],
        encoder: Encoder,
        transport: Transport,
        first: bytes,
        headers: Headers,
    ) -> None:
        self._frames, self._encoder, self._transport = frames, encoder, transport
        self._first, self._headers = first, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        followers = FOLLOWERS.labels(self._transport)
        followers.inc()
        try:
            await first_of(_gone(receive), self._told(send))
        except OSError:  # an ASGI server's word for it
            raise ClientDisconnect from None
        finally:
            followers.dec()

    async def _told(self, send: Send) -> None:
        encoder, frames = self._encoder, self._frames
        try:
            if self._first:
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for frame in frames:
                if data := frame.encoded(encoder):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                del frame, data  # what is not shared is not to be kept until the next comes
        finally:
            await frames.aclose()  # lets go of its run now, not when memory is tidied up
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_TRANSPORTS: dict[str, Transport] = {
    SSE: "sse",
    NDJSON: "ndjson",
    "application/ndjson": "ndjson",
    TEXT: "text",
    "text/*": "text",
    "*/*": "text",
}


def _transport(connection: HTTPConnection) -> Transport:
    """The transport that the Accept header prefers; plain text where it does not mind (curl)."""
    best: tuple[float, Transport] | None = None
    for item in connection.headers.get("accept", "*/*").lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        found, quality = _TRANSPORTS.get(kind), _quality(parameters)
        if found and quality > 0 and (best is None or quality > best[0]):
            best = (quality, found)
    if best is None:
        detail = f"A stream comes as {SSE}, {NDJSON} or {TEXT}, or as a WebSocket; name one in Accept."
        raise Refused(problem.problem(406, "not-acceptable", "No such transport", detail))
    return best[1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _after(connection: HTTPConnection, asked: StreamQuery) -> Cursor | None:
    # A browser's EventSource keeps its first URL for ever, so what it has seen last comes first.
    if (seen := header(connection, "Last-Event-ID")) is not None:
        return Cursor.parse(seen, "Last-Event-ID")
    return Cursor.parse(asked.after, "after") if asked.after else None
