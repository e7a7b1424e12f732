"""One request or WebSocket and its answer, as operators see it: request id, access log, metrics."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import ControllerError
from common.observe import request_id
from common.web import problem
from common.web.closing import PROBLEM, refuse

log = logging.getLogger("access")

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})
_SCOPE_KEY = "nextflow_controller.exchange"


class Exchange:
    """Passes a request on, and what is answered back.

    Attributes:
        function: the function it is for, once that is known.
        caller: its name, once it is known.
        headers: what is added to the answer's.
    """

    __slots__ = (
        "_id",
        "_method",
        "_receive",
        "_scope",
        "_send",
        "_status",
        "_streamed",
        "caller",
        "function",
        "headers",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._method: str = scope.get("method", "WS")
        self._status = 0
        self._streamed = False
        self._id = _given_id(scope) or secrets.token_hex(8)
        self.function = "none"
        self.caller: str | None = None
        self.headers: dict[str, str] = {"x-request-id": self._id}

    @staticmethod
    def of(scope: Scope) -> "Exchange":
        """The exchange that a scope belongs to."""
        found: Exchange = scope[_SCOPE_KEY]
        return found

    async def serve(self, app: ASGIApp) -> None:
        """Have `app` answer; what it fails with becomes a problem as long as nothing was sent."""
        began = time.perf_counter()
        request_id.set(self._id)
        self._scope[_SCOPE_KEY] = self  # no copy: nobody is outside of us whom it could mislead
        try:
            await app(self._scope, self._receive, self._noted)
        except ClientDisconnect:
            self._status = self._status or 499
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("unexpected")
            if self._scope["type"] == "websocket":
                await self._give_up()
            elif self._status:  # the headers are out: all that is left is to cut the connection
                raise
            else:
                await problem.of_error(ControllerError())(self._scope, self._receive, self._noted)
        finally:
            del self._scope[_SCOPE_KEY]  # or each would hold the other, until somebody collects garbage
            self._write_down(time.perf_counter() - began)
            request_id.set(None)

    async def _give_up(self) -> None:
        """Close a WebSocket whose serving has failed."""
        if not self._status:
            return await refuse(problem.of_error(ControllerError()), self._receive, self._noted)
        reason = "something is wrong on our side; go on behind your last id"
        with suppress(OSError, RuntimeError):  # it is closed already
            await self._noted({"type": "websocket.close", "code": 1011, "reason": reason})

    def _write_down(self, seconds: float) -> None:
        from common.metrics import REQUEST_SECONDS, REQUESTS

        known = self._method if self._method in _METHODS else "other"
        REQUESTS.labels(self.function, known, str(self._status or 499)).inc()
        if not self._streamed:
            REQUEST_SECONDS.labels(self.function).observe(seconds)
        # The path alone: queries may hold tickets.
        facts: dict[str, Any] = {
            "function": self.function,
            "method": self._method,
            "path": self._scope["path"],
            "status": self._status or None,
            "milliseconds": round(seconds * 1000, 1),
            "caller": self.caller,
            "client": self._scope["client"][0] if self._scope.get("client") else None,
        }
        log.info("answered", extra=facts)

    def _noted(self, message: Message) -> Awaitable[None]:
        """Note what is answered, and send it; no coroutine of its own, as each follower's each batch comes by here."""
        match message["type"]:
            case "http.response.body":
                if not self._streamed:
                    self._streamed = message.get("more_body", False)
            case "websocket.send":
                pass
            case "http.response.start":
                self._status = message["status"]
                message = self._headed(message)
            case "websocket.accept":
                return self._accepted(message)
            case "websocket.close" if message["code"] > PROBLEM:
                self._status = message["code"] - PROBLEM
        return self._send(message)

    async def _accepted(self, message: Message) -> None:
        await self._send(self._headed(message))
        self._status, self._streamed = 101, True

    def _headed(self, message: Message) -> Message:
        added = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        self.headers = {}  # sent, and not to be kept for as long as somebody follows
        return {**message, "headers": [*message.get("headers", ()), *added]}


def _given_id(scope: Scope) -> str | None:
    """The caller's own id for this request, if it is fit to be logged."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _REQUEST_ID.fullmatch(given) else None
    return None
