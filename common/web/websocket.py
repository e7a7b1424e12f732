"""Streams over WebSocket: one JSON event a message, sent by one task, in order.

1000 is the end of what there is to send (after `complete`: come no more), 1012 a server that is
stopping (come back with `after`). Nothing is to be sent here: a client that does so is closed with 1003.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from common.follow import followers
from common.frames import Farewell, Frame, Lines, Notice
from common.metrics import FOLLOWERS
from common.tasks import first_of
from common.web.call import Call
from common.web.closing import Close, accept, close
from common.web.stream import StreamQuery, wants
from common.web.transports import TOGETHER, framed, messages

CLOSES = {
    "1000": "All is sent: after `complete`, or with nothing left to send. Do not come back.",
    "1003": "The client has sent something (1009: something long).",
    "1011": "The stream has failed; its last message says why if it is an `error`. Otherwise come back with `after`.",
    "1012": "The server is stopping: come back with `after`.",
    "4000 + status": "A problem, as GET would have answered it (4401, 4404, 4422, …); the reason says more.",
}


_COMPLETE = Close(1000, "complete")


async def respond(call: Call[StreamQuery, Any]) -> ASGIApp:
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
        if not await accept(receive, send):
            return
        ending: Close | None = Close(1000, "complete: there is nothing left to send")
        if run_id is not None:
            ending = await _follow(scope, receive, send, following.follow(wanted, run_id))
        if ending is not None:
            await close(send, ending)

    return serve


async def _follow(scope: Scope, receive: Receive, send: Send, frames: AsyncGenerator[Frame, None]) -> Close | None:
    """Send frames until there are no more, or until the client goes or speaks; how to end then."""
    followers = FOLLOWERS.labels("websocket")
    followers.inc()
    try:
        return await first_of(_heard(receive), _told(scope, send, frames))
    except OSError:  # an ASGI server's word for a client that has gone
        return None
    finally:
        followers.dec()


async def _told(scope: Scope, send: Send, frames: AsyncGenerator[Frame, None]) -> Close:
    together = TOGETHER in scope.get("extensions", {})
    ending = _COMPLETE
    async with aclosing(frames):
        async for frame in frames:
            if together:
                if data := frame.encoded(framed):
                    await send({"type": "websocket.send", TOGETHER: data})
                    del data
            else:
                for text in frame.encoded(messages):
                    await send({"type": "websocket.send", "text": text})
                    await asyncio.sleep(0)  # a fast client never makes us wait: others have their turn
            if not isinstance(frame, Lines):
                ending = _ending(frame)
            del frame  # what is not shared is not to be kept until the next comes
    return ending


def _ending(last: Frame) -> Close:
    """How a WebSocket ends whose last frame this is."""
    match last:
        case Farewell():
            return Close(1012, f"the server is stopping; come back with after={last.cursor}")
        case Notice(event={"type": "error"}):
            return Close(1011, "the stream has failed; its last message says why")
        case _:
            return _COMPLETE


async def _heard(receive: Receive) -> Close | None:
    """Wait for the client to go, or to say something."""
    if (await receive())["type"] == "websocket.disconnect":
        return None
    return Close(1003, "this WebSocket only sends")
