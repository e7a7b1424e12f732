"""Frames as the bytes and messages of each transport.

A transport is a function from a frame to what is sent. Frames remember its result, so that an event
is encoded once however many follow; that is why the functions below are module constants. The JSON
of an event is made once for all transports.
"""

from collections.abc import Callable
from typing import Any

from common.events import GAP, Cursor, Encoded, Line, encode, encode_lines
from common.frames import Farewell, Frame, Lines, Notice

Encoder = Callable[[Frame], bytes]
TOGETHER = "nextflow_controller.frames"  # our server's extension of ASGI: WebSocket messages as one, see `framed`


def _events(frame: Frame) -> list[Encoded]:
    if isinstance(frame, Lines):
        return encode_lines(frame.run_id, frame.attempt, frame.lines, frame.behind)
    return [Encoded(event["id"], event["type"], encode(event)) for event in frame.events()]


def messages(frame: Frame) -> list[str]:
    """A frame as WebSocket messages: each one event."""
    return [event.json.decode() for event in frame.encoded(_events)]


def framed(frame: Frame) -> bytes:
    """The same as they go over the wire: unmasked and uncompressed (RFC 6455, 5.1), they are so for every client."""
    from websockets.frames import Frame as Message
    from websockets.frames import Opcode

    return b"".join(Message(Opcode.TEXT, event.json).serialize(mask=False) for event in frame.encoded(_events))


def ndjson(frame: Frame) -> bytes:
    """A frame as newline-delimited JSON; silence is an empty line."""
    match frame:
        case Lines() | Notice():
            return b"".join(event.json + b"\n" for event in frame.encoded(_events))
        case Farewell():
            return b""
        case _:
            return b"\n"


def sse(frame: Frame) -> bytes:
    """A frame as Server-Sent Events (WHATWG HTML, 9.2).

    Blank lines stand behind events alone: elsewhere the standard ignores them, and httpx-sse tells an empty event.
    """
    match frame:
        case Lines() | Notice():
            return b"".join(_server_sent(event) for event in frame.encoded(_events))
        case Farewell():
            return b": the server is stopping; come back with Last-Event-ID\n"
        case _:
            return b": still here\n"


def _server_sent(event: Encoded) -> bytes:
    if event.type == "log":  # the bytes that are made below, for a twentieth of the work
        return b"id: %b\nevent: log\ndata: %b\n\n" % (event.id.encode(), event.json)
    from sse_starlette import ServerSentEvent

    return ServerSentEvent(event.json.decode(), event=event.type, id=event.id, sep="\n").encode()


def _text(stamped: bool, notices: bool) -> Encoder:
    """The log as it is, a line a line; what is no line begins with `#`."""

    def text(frame: Frame) -> bytes:
        match frame:
            case Lines():
                return _lines(frame, stamped)
            case Notice() if notices or frame.event["type"] in ("gap", "restarted", "error"):
                return _remark(frame.event)
            case Farewell():
                return b"# the server is stopping; go on with after=%b\n" % str(frame.cursor).encode()
            case _:
                return b""

    return text


def _lines(frame: Lines, stamped: bool) -> bytes:
    gaps = iter(frame.gaps())

    def said(line: Line) -> bytes:
        if line.stream == GAP:
            return _remark(next(gaps).events()[0])
        return (
            b"%b %b\n" % (str(Cursor(frame.run_id, frame.attempt, line.id)).encode(), line.text)
            if stamped
            else line.text + b"\n"
        )

    return b"".join(map(said, frame.lines))


def _remark(event: dict[str, Any]) -> bytes:
    return b"# %b: %b\n" % (event["type"].encode(), encode(event["data"]))


TEXTS = {(stamped, notices): _text(stamped, notices) for stamped in (False, True) for notices in (False, True)}
