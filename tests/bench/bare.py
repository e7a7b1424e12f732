"""The least that a server with Redis can do: one Starlette route, one GET; served exactly as the local server is.

python -m tests.bench.bare KEY       says which port it listens on
"""

import os
import socket
import sys
from typing import cast

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from common.settings import Settings
from common.web.app import App
from functions.server import configuration, run


def application(client: Redis, key: str) -> Starlette:
    """What is at `key` in Redis, for whoever asks."""

    async def give(request: Request) -> Response:
        return Response(await client.get(key), media_type="application/json")

    return Starlette(routes=[Route("/", give)])


async def main(key: str) -> None:
    """Serve until told to stop."""
    settings = Settings.read(os.environ)
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # named, or nobody switches Nagle off: 40 ms an answer
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    app = application(Redis.from_url(str(settings.redis_url)), key)
    await uvicorn.Server(configuration(cast("App", app), settings)).serve(sockets=[listener])


if __name__ == "__main__":
    run(main(sys.argv[1]))
