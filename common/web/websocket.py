"""Streams over WebSocket: one JSON event a message, sent by one task, in order.

1000 is the end of what there is to send (after `complete`: come no more), 1012 a server that is
stopping (come back with `after`). Nothing is to be sent here: a client that does so is closed with 1003.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from common.follow import followers
from common.frames import Farewell, Frame, Notice
from common.metrics import FOLLOWERS
from common.shutdown import end
from common.web.call import Call
from common.web.closing import Close, accept, close
from common.web.stream import StreamQuery, wants
from common.web.transports import messages

CLOSES = {
    "1000": "All is sent: after `complete`, or with nothing left to send. Do not come back.",
    "1003": "The client has sent something (1009: something long).",
    "1011": "The stream has failed; its last message says why if it is an `error`. Otherwise come back with `after`.",
    "1012": "The server is stopping: come back with `after`.",
    "4000 + status": "A problem, as GET would have answered it (4401, 4404, 4422, …); the reason says more.",
}

_TURN_MESSAGES = 50  # each is a system call and waits for nothing if the client is fast: then it is others' turn


async def respond(call: Call[StreamQuery, Any], socket: WebSocket) -> ASGIApp:
    """Answer a WebSocket that asks for a stream.

    Raises:
        Invalid: a parameter cannot be used.
        RunNotFound: there is no such run.
        Unavailable: it cannot be told.
    """
    wanted = wants(call, "websocket")
    following = followers(call.platform)
    run_id = await following.resolve(wanted)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if not await accept(socket):
            return
        ending: Close | None = Close(1000, "complete: there is nothing left to send")
        if run_id is not None:
            ending = await _follow(socket, following.follow(wanted, run_id))
        if ending is not None:
            await close(socket, ending)

    return serve


async def _follow(socket: WebSocket, frames: AsyncGenerator[Frame, None]) -> Close | None:
    """Send frames until there are no more, or until the client goes or speaks; how to end then."""
    FOLLOWERS.labels("websocket").inc()
    sending = asyncio.create_task(_send(socket, frames))
    listening = asyncio.create_task(_listen(socket))
    try:
        await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end((sending, listening))  # first of all: the close frame has to be the last that is sent
        FOLLOWERS.labels("websocket").dec()
    return (listening if sending.cancelled() else sending).result()


async def _send(socket: WebSocket, frames: AsyncGenerator[Frame, None]) -> Close | None:
    frame: Frame | None = None
    try:
        async with aclosing(frames):
            async for frame in frames:
                for count, message in enumerate(frame.encoded(messages), 1):
                    await socket.send_text(message)
                    if count % _TURN_MESSAGES == 0:
                        await asyncio.sleep(0)
    except WebSocketDisconnect:
        return None
    match frame:
        case Farewell():
            return Close(1012, f"the server is stopping; come back with after={frame.cursor}")
        case Notice(event={"type": "error"}):
            return Close(1011, "the stream has failed; its last message says why")
        case _:
            return Close(1000, "complete")


async def _listen(socket: WebSocket) -> Close | None:
    """Wait for the client to go, or to say something."""
    if (await socket.receive())["type"] == "websocket.disconnect":
        return None
    return Close(1003, "this WebSocket only sends")
