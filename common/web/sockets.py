"""WebSocket as uvicorn speaks it, but for two things: who answers no ping, and who is to be told of a shutdown."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class Socket(WebSocketsSansIOProtocol):
    """A connection."""

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
