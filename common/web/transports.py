"""Frames as the bytes and messages of each transport.

A transport is a function from a frame to what is sent. Frames remember its result, so that an event
is encoded once however many follow; that is why the functions below are module constants. The JSON
of an event is made once for all transports.
"""

from collections.abc import Callable
from typing import Any

from common.events import Cursor, Encoded, Line, encode, encode_lines
from common.frames import Farewell, Frame, Lines, Notice

Encoder = Callable[[Frame], bytes]
TOGETHER = "nextflow_controller.frames"  # our server's extension of ASGI: WebSocket messages as one, see `framed`


def _events(frame: Frame) -> list[Encoded]:
    if isinstance(frame, Lines):
        return encode_lines(frame.run_id, frame.attempt, frame.lines, frame.behind)
    return [(event["id"], event["type"], encode(event).decode()) for event in frame.events()]


def messages(frame: Frame) -> list[str]:
    """A frame as WebSocket messages: each one event."""
    return [json for _, _, json in frame.encoded(_events)]


def framed(frame: Frame) -> bytes:
    """The same as they go over the wire: unmasked and uncompressed (RFC 6455, 5.2), they are so for every client."""
    return b"".join([_text_frame(json.encode()) for _, _, json in frame.encoded(_events)])


def _text_frame(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 65_536:
        return b"\x81\x7e%b%b" % (length.to_bytes(2), payload)
    return b"\x81\x7f%b%b" % (length.to_bytes(8), payload)


def ndjson(frame: Frame) -> bytes:
    """A frame as newline-delimited JSON; silence is an empty line."""
    match frame:
        case Lines() | Notice():
            return "".join([f"{json}\n" for _, _, json in frame.encoded(_events)]).encode()
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
            # A line is most of what there is: the characters that are made below, for a twentieth of the work.
            return "".join(
                [
                    f"id: {cursor}\nevent: log\ndata: {json}\n\n" if kind == "log" else _server_sent(cursor, kind, json)
                    for cursor, kind, json in frame.encoded(_events)
                ]
            ).encode()
        case Farewell():
            return b": the server is stopping; come back with Last-Event-ID\n"
        case _:
            return b": still here\n"


def _server_sent(cursor: str, kind: str, json: str) -> str:
    from sse_starlette import ServerSentEvent

    return ServerSentEvent(json, event=kind, id=cursor, sep="\n").encode().decode()


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
    gaps = {gap.last: _remark(gap.events()[0]) for gap in frame.gaps()}
    if not stamped and not gaps:
        return b"\n".join([*(line.text for line in frame.lines), b""])

    def said(line: Line) -> bytes:
        if line.id in gaps:
            return gaps[line.id]
        return (
            b"%b %b\n" % (str(Cursor(frame.run_id, frame.attempt, line.id)).encode(), line.text)
            if stamped
            else line.text + b"\n"
        )

    return b"".join(map(said, frame.lines))


def _remark(event: dict[str, Any]) -> bytes:
    return b"# %b: %b\n" % (event["type"].encode(), encode(event["data"]))


TEXTS = {(stamped, notices): _text(stamped, notices) for stamped in (False, True) for notices in (False, True)}
