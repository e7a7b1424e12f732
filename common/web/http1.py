"""HTTP/1.1 as uvicorn speaks it, but for what it leaves to a proxy: who is refused before a request is there.

What is no HTTP is answered with a problem, too. A request has to come whole, within a time and with a bounded head:
neither who sends a byte now and then, nor who sends headers without an end, is to hold a connection or memory.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from common.web.problem import Problem, problem
from common.web.sockets import Socket

HEAD_BYTES = 64 * 1024  # the request line and headers; others allow 8 KiB (nginx, gunicorn) to 1 MiB (Go)
_WHOLE_SECONDS = 30.0  # from a request's first byte to its last, and from connecting to the first
_LINGER_SECONDS = 2.0
_UNTAKEN_BYTES = 4 * 1024  # more than that left over of what was sent, and what comes next waits; asyncio has 64 KiB


class Http1(HttpToolsProtocol):
    """A connection."""

    # Five attributes more would be too many for a dictionary that shares its keys: 1.2 kB, of each follower.
    __slots__ = ("_head_bytes", "_in_head", "_last", "_late", "_refused")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._late: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._last: Problem | None = None  # said once all is answered that was asked before it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Await a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(_UNTAKEN_BYTES)
        self._await()

    def connection_lost(self, exc: Exception | None) -> None:
        """Await nothing more."""
        self._await_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless a head grows beyond all bounds: the parser would keep it all."""
        if self._refused:
            return
        if self._late is None:
            self._await()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse_head()

    def handle_websocket_upgrade(self) -> None:
        """The request is whole, and what comes now is no HTTP."""
        self._await_no_more()
        if self.pipeline or self._answering():
            detail = "A WebSocket cannot begin before all is answered that was asked over this connection."
            return self._refuse(problem(400, "http", "Not HTTP", detail))
        super().handle_websocket_upgrade()
        if not cast("Socket", self.transport.get_protocol()).handshake_initiated:  # and would never say why
            detail = "This cannot begin a WebSocket: it has a body, or lines that are too long."
            self._refuse(problem(400, "http", "Not HTTP", detail))

    def on_headers_complete(self) -> None:
        """Hand on a head that is not too long; it may have come in one piece."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refuse_head()
            raise ValueError("the head is too long")  # ends the parser
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_head, self._head_bytes = True, 0
        self._await_no_more()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with what was asked next, or with its refusal."""
        over = not self.pipeline
        super().on_response_complete()
        if over and self._last is not None and not self.transport.is_closing():
            self._say_last(self._last)

    def send_400_response(self, msg: str) -> None:
        """Refuse what came, and close: nobody can tell where the next request would begin."""
        detail = "A header, the request line, or the length of the body is not as RFC 9112 has it."
        self._refuse(problem(400, "http", "Not HTTP", detail))

    def _await(self) -> None:
        self._late = self.loop.call_later(_WHOLE_SECONDS, self._is_late)

    def _await_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_late(self) -> None:
        if (cycle := self._answering()) and not cycle.more_body:
            return self._await()  # what came is of a next request, which has to wait all the same
        detail = f"A request has to be here whole within {_WHOLE_SECONDS:g} seconds. Send it again, in one go."
        self._refuse(problem(408, "too-slow", "Too slow", detail))

    def _refuse_head(self) -> None:
        detail = f"The request line and headers together may have {HEAD_BYTES} bytes. Send less of them."
        self._refuse(problem(431, "head-too-long", "Head too long", detail))

    def _answering(self) -> RequestResponseCycle | None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def _refuse(self, answer: Problem) -> None:
        if self._refused or self.transport.is_closing():
            return
        cycle = self._answering()
        if cycle and cycle.response_started:  # a refusal would be read as a part of that answer
            return self.transport.abort()
        self._refused = True
        self._await_no_more()
        if cycle and cycle.more_body:  # it is this request that cannot be used
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
                self._last = answer
                return
        elif cycle:
            self._last = answer
            return
        self._say_last(answer)

    def _say_last(self, answer: Problem) -> None:
        self._unset_keepalive_if_required()
        answer.headers["connection"] = "close"
        headers = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[answer.status_code] + headers + b"\r\n" + bytes(answer.body))
        # To close while more is coming would reset the connection, and the client might never see the answer.
        self.transport.write_eof()
        self._late = self.loop.call_later(_LINGER_SECONDS, self.transport.close)
