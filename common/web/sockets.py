"""WebSocket as uvicorn speaks it, but for who answers no ping, who is told to stop, and messages that go together."""

from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from common.web.transports import TOGETHER


class Socket(WebSocketsSansIOProtocol):
    """A connection."""

    async def run_asgi(self) -> None:
        """Say that messages may be given together, as the bytes that they are on the wire."""
        self.scope["extensions"][TOGETHER] = {}
        await super().run_asgi()

    async def send(self, message: ASGISendEvent) -> None:
        """Write messages that come together at once: for a follower a batch is one system call, not one a line."""
        together = cast("dict[str, Any]", message).get(TOGETHER)
        if together is None:
            await super().send(message)
            if message["type"] == "websocket.accept":
                del self.request, self.response  # of no more use: 3 kB, as long as somebody follows
            return
        if not self.writable.is_set():
            await self.writable.wait()
        if self.disconnected or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        self.transport.write(together)

    def keepalive_timeout(self) -> None:
        """Cut it: closing alone would wait until the peer has read what was sent to it before, which may be never."""
        super().keepalive_timeout()
        self.transport.abort()

    def shutdown(self) -> None:
        """Leave it to the application, which knows the place to come back to; close it only if that takes too long."""
        if self.handshake_complete and not self.close_sent:
            self.loop.call_later((self.config.timeout_graceful_shutdown or 1) / 2, self._close)
        else:
            super().shutdown()

    def _close(self) -> None:
        if not self.disconnected:
            super().shutdown()
            self.transport.abort()  # as above
