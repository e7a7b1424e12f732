"""The local server with failpoints: `python -m tests.chaos.broken` in place of `python -m functions.server`.

A request whose header `x-fail-at` says `7 kill` or `7 stop` has this process kill or stop itself at its 7th step (see
`tests.chaos.failpoints`); `0 kill` only counts. The answer names the steps that were taken until it was given.
"""

import json
import os
import sys
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from common.web.app import App
from functions import server
from tests.chaos.failpoints import HEADER, Plan, steps

STEPS = "x-steps"


class Broken(App):
    """The functions, of which a request may break the process."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as far as its plan lets it come."""
        plan = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        if plan is None:
            return await super().__call__(scope, receive, send)

        async def told(message: Message) -> None:
            steps.take("answer")
            if message["type"] == "http.response.start":
                said = (STEPS.encode(), json.dumps(steps.taken).encode())
                message = {**message, "headers": [*message["headers"], said]}
            await send(message)

        steps.arm(Plan.parse(plan))
        await super().__call__(scope, receive, told)
        steps.disarm()


if __name__ == "__main__":
    steps.watch_servers()
    steps.watch_files(Path(os.environ["STATE_DIR"]))
    setattr(server, "App", Broken)  # noqa: B010  # mypy holds a class for final
    sys.exit(server.main([]))
