"""How WebSockets end: a code and a reason, always.

A problem closes with 4000 and the status that GET would have been answered with: 4401, 4404, 4422…
It is told after the handshake, as browsers hide why one fails.
"""

from typing import NamedTuple

from starlette.websockets import WebSocket, WebSocketDisconnect

from common.web.problem import Problem

PROBLEM = 4000
_REASON_BYTES = 123  # RFC 6455, 5.5: a control frame holds 125 bytes, two of them are the code


class Close(NamedTuple):
    """The end of a WebSocket."""

    code: int
    reason: str


async def refuse(problem: Problem, socket: WebSocket) -> None:
    """Close a WebSocket that has not been accepted yet, for a problem."""
    if await accept(socket):
        await close(socket, Close(PROBLEM + problem.status_code, f"{problem.title}: {problem.detail}"))


async def accept(socket: WebSocket) -> bool:
    """Let a WebSocket in; False if its client has gone meanwhile."""
    try:
        await socket.accept()
    except OSError:  # an ASGI server's word for it, which Starlette translates after the handshake only
        return False
    return True


async def close(socket: WebSocket, ending: Close) -> None:
    """Close a WebSocket, unless its client was faster."""
    reason = ending.reason.encode()[:_REASON_BYTES].decode(errors="ignore")
    try:
        await socket.close(ending.code, reason)
    except (WebSocketDisconnect, RuntimeError):  # RuntimeError: an ASGI server's word for the same
        return
