"""Streams over HTTP: what a follower may ask, and frames as the bytes of its transport.

A transport is a function from a frame to bytes. Frames remember its result, so that an event is
encoded once however many follow; that is why the functions below are module constants.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from common.errors import Invalid
from common.events import Cursor, encode
from common.follow import Followers, Query
from common.frames import Farewell, Frame, Lines, Notice
from common.names import RUN_ID
from common.observe import FOLLOWERS
from common.settings import Settings
from common.web import problem
from common.web.input import Refused, query

TYPES = ("log", "status", "progress")
_SSE, _TEXT = "text/event-stream", "text/plain"

Encoder = Callable[[Frame], bytes]


class StreamQuery(BaseModel):
    """Query parameters of `GET /stream`."""

    model_config = ConfigDict(extra="forbid")

    run_id: Annotated[str, StringConstraints(pattern=rf"^({RUN_ID.pattern}|\*)$")] | None = Field(
        None, description="A run; without it the active or latest one; `*`: that one and each that comes after it."
    )
    after: str | None = Field(None, max_length=128, description="An event's id: go on behind it.")
    tail: int | None = Field(None, ge=0, le=100_000, description="Begin with this many lines before the newest.")
    types: str | None = Field(None, description="Kinds of events, comma separated: log, status, progress.")
    follow: bool = Field(True, description="Stay until the run ends; `false`: end with what there is.")
    timestamps: bool = Field(False, description="text/plain: each line begins with its id.")


async def respond(request: Request, followers: Followers, settings: Settings) -> Response:
    """Answer a request for a stream.

    Raises:
        Invalid, Refused: a parameter cannot be used.
        RunNotFound: there is no such run.
        Unavailable: it cannot be told.
    """
    asked = query(request, StreamQuery)
    kind = _transport(request)
    wanted = Query(
        run_id=asked.run_id,
        after=_after(request, asked),
        tail=asked.tail,
        types=_types(asked.types, kind),
        follow=asked.follow,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    run_id = await followers.resolve(wanted)
    if run_id is None:
        return Response(status_code=204)  # tells an EventSource not to come back
    media_type = _SSE if kind == "sse" else _TEXT
    if request.method == "HEAD":
        return Response(headers=_HEADERS, media_type=media_type)
    frames = followers.follow(wanted, run_id)
    if kind == "sse":
        return _Stream(_bytes(frames, sse, kind, b"retry: 1000\n\n"), media_type)
    notices = asked.types is not None and wanted.types != {"log"}
    return _Stream(_bytes(frames, _TEXTS[asked.timestamps, notices], kind), media_type)


# Proxies must neither keep, nor collect, nor compress what is meant to arrive at once.
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}


class _Stream(StreamingResponse):
    """A stream that lets go of its run as soon as its client has gone, not when memory is tidied up."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(chunks, headers=_HEADERS, media_type=media_type)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await super().__call__(scope, receive, send)


async def _bytes(
    frames: AsyncGenerator[Frame, None], encoder: Encoder, kind: str, first: bytes = b""
) -> AsyncGenerator[bytes, None]:
    FOLLOWERS.labels(kind).inc()
    try:
        if first:
            yield first
        async with aclosing(frames):
            async for frame in frames:
                if data := frame.encoded(encoder):
                    yield data
    finally:
        FOLLOWERS.labels(kind).dec()


def sse(frame: Frame) -> bytes:
    """A frame as Server-Sent Events (WHATWG HTML, 9.2)."""
    match frame:
        case Lines():
            return b"".join(_event(found) for found in frame.events())
        case Notice():
            return _event(frame.event)
        case Farewell():
            return b": the server is stopping; come back with Last-Event-ID\n\n"
        case _:
            return b": still here\n\n"


def _event(found: dict[str, object]) -> bytes:
    from sse_starlette import ServerSentEvent

    data, kind, place = encode(found).decode(), str(found["type"]), str(found["id"])
    return ServerSentEvent(data, event=kind, id=place, sep="\n").encode()


def _text(stamped: bool, notices: bool) -> Encoder:
    """The log as it is, a line a line; what is no line begins with `#`."""

    def text(frame: Frame) -> bytes:
        match frame:
            case Lines(gap=None) if stamped:
                return b"".join(
                    b"%b %b\n" % (str(Cursor(frame.run_id, frame.attempt, line.id)).encode(), line.text)
                    for line in frame.lines
                )
            case Lines(gap=None):
                return b"".join(line.text + b"\n" for line in frame.lines)
            case Lines():
                return b"".join(b"# gap: %b\n" % encode(found["data"]) for found in frame.events())
            case Notice() if notices or frame.event["type"] in ("gap", "error"):
                return b"# %b: %b\n" % (frame.event["type"].encode(), encode(frame.event["data"]))
            case Farewell():
                return b"# the server is stopping; go on with after=%b\n" % str(frame.cursor).encode()
            case _:
                return b""

    return text


_TEXTS = {(stamped, notices): _text(stamped, notices) for stamped in (False, True) for notices in (False, True)}


def _transport(request: Request) -> Literal["sse", "text"]:
    """The transport that the Accept header prefers; plain text where it does not mind (curl)."""
    best: tuple[float, int, Literal["sse", "text"]] | None = None
    for at, item in enumerate(request.headers.get("accept", "*/*").lower().split(",")):
        kind, *parameters = (part.strip() for part in item.split(";"))
        found: Literal["sse", "text"] | None = None
        if kind == _SSE:
            found = "sse"
        elif kind in (_TEXT, "text/*", "*/*"):
            found = "text"
        quality = _quality(parameters)
        if found and quality > 0 and (best is None or quality > best[0]):
            best = (quality, at, found)
    if best is None:
        raise Refused(
            problem.problem(
                406, "not-acceptable", "No such transport", f"A stream comes as {_SSE} or {_TEXT}; name one in Accept."
            )
        )
    return best[2]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _after(request: Request, asked: StreamQuery) -> Cursor | None:
    # A browser's EventSource keeps its first URL for ever, so what it has seen last comes first.
    if seen := request.headers.get("last-event-id"):
        return Cursor.parse(seen, "Last-Event-ID")
    return Cursor.parse(asked.after, "after") if asked.after else None


def _types(asked: str | None, kind: str) -> frozenset[str]:
    if asked is None:
        return frozenset({"log"} if kind == "text" else TYPES)
    types = frozenset(part.strip() for part in asked.split(","))
    if not types <= set(TYPES):
        raise Invalid("types", f"use some of {', '.join(TYPES)}, separated by commas")
    return types
