"""How WebSockets end: a code and a reason, always.

A problem closes with 4000 and the status that GET would have been answered with: 4401, 4404, 4422…
It is told after the handshake, as browsers hide why one fails.
"""

from contextlib import suppress
from typing import NamedTuple

from starlette.types import Receive, Send

from common.web.problem import Problem

PROBLEM = 4000
_REASON_BYTES = 123  # RFC 6455, 5.5: a control frame holds 125 bytes, two of them are the code


class Close(NamedTuple):
    """The end of a WebSocket."""

    code: int
    reason: str


async def refuse(problem: Problem, receive: Receive, send: Send) -> None:
    """Close a WebSocket that has not been accepted yet, for a problem."""
    if await accept(receive, send):
        await close(send, Close(PROBLEM + problem.status_code, f"{problem.title}: {problem.detail}"))


async def accept(receive: Receive, send: Send) -> bool:
    """Let a WebSocket in; False if its client has gone meanwhile."""
    await receive()  # that it wants to connect
    try:
        await send({"type": "websocket.accept"})
    except OSError:  # an ASGI server's word for it
        return False
    return True


async def close(send: Send, ending: Close) -> None:
    """Close a WebSocket, unless its client was faster."""
    reason = ending.reason.encode()[:_REASON_BYTES].decode(errors="ignore")
    with suppress(OSError, RuntimeError):  # ASGI servers' words for it
        await send({"type": "websocket.close", "code": ending.code, "reason": reason})
