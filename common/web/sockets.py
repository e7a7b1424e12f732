"""WebSocket as uvicorn speaks it, but for clients that are not as they should be, and messages that go together.

Who answers no ping is cut, who asks for more pongs than it reads gets none; that the server stops is told by who knows
the place to come back to.
"""

from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from common.web.transports import TOGETHER


class Socket(WebSocketsSansIOProtocol):
    """A connection."""

    _pong = b""  # that waits until it can be sent

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

    def handle_ping(self) -> None:
        """Answer, once answers do not pile up: only the newest ping has to be answered (RFC 6455, 5.5.3)."""
        self._pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self._answer()

    def resume_writing(self) -> None:
        """Answer before anything else is sent: who pings may go unless he is answered soon."""
        super().resume_writing()
        self._answer()

    def _answer(self) -> None:
        pong, self._pong = self._pong, b""
        if pong:
            self.transport.write(pong)

    def send_receive_event_to_app(self) -> None:
        """Hand a message on; a text that is none ends the connection, and is no error of ours to be logged."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.conn.send_close(1007)
                return self.handle_parser_exception()
        super().send_receive_event_to_app()

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
