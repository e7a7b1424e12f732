"""Serves functions: all of them behind one port on this machine, or one alone, as the image does.

    python -m functions.server             the local server, with its own Redis and runner
    python -m functions.server status      one function; Redis and the cluster are where settings say

The functions are the very same; only what they are mounted in differs. Runs do not depend on this
process: they go on when it ends, and the next one finds them.
"""

import asyncio
import gc
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Any

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from common.callers import add
from common.errors import ControllerError
from common.observe import configure_logging
from common.settings import Settings
from common.tasks import end
from common.web.app import App
from common.web.endpoint import PREFIX
from common.web.http1 import Http1
from common.web.sockets import Socket

log = logging.getLogger(__name__)

FUNCTIONS = ("run", "status", "active", "cancel", "history", "stream", "docs")
BESIDE = ("archive",)  # served one by one only: for the other functions
# So many more than before, and a collection looks at them. A page of a log is thousands, none of them in a circle: with
# Python's 700 a fifth of a replay's time goes into that.
_COLLECTED_OBJECTS = 5_000
# What a client does not take waits in the log, not in its socket: Linux would keep up to 4 MB for each that is slow,
# and charge the pod for it. What is on its way to a fast one is not counted, however long that way is.
_UNSENT_BYTES = 24 * 1024
_WEBSOCKET_BYTES = 1024  # the longest message that is read: a follower has nothing to say


def function(name: str) -> App:
    """One function as an application; nothing of its siblings is imported."""
    app: App = getattr(importlib.import_module(f"functions.{name}.main"), name).app
    return app


def application() -> App:
    """All functions as one application."""
    return App(*(endpoint for name in FUNCTIONS for endpoint in function(name).endpoints))


def configuration(app: App, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves functions, here and wherever they are deployed one by one."""
    return uvicorn.Config(
        app,
        http=Http1,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # common.web believes the proxies that settings name
        server_header=False,
        timeout_graceful_shutdown=ceil(settings.shutdown_grace_seconds),
        ws=Socket,
        ws_max_size=_WEBSOCKET_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.heartbeat_seconds,
        ws_ping_timeout=settings.heartbeat_seconds,
    )


async def serve_one(name: str, settings: Settings) -> None:
    """Serve one function until told to stop.

    Raises:
        ControllerError: the port cannot be had.
    """
    configure_logging(settings.log_level)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    log.info("listening", extra={"function": name, "host": host, "port": port})
    await _until_stopped(function(name), settings, listener)


async def serve(settings: Settings) -> None:
    """Serve all functions until told to stop.

    Raises:
        ControllerError: something that is needed is not there; the text says what to do.
    """
    from common.local import toolchain

    token = _token(settings)  # before anybody can connect, who would have to show it
    listener = _listen(settings.host, settings.port)
    async with _redis(settings) as redis:
        port = listener.getsockname()[1]
        tools = toolchain.find(toolchain.default_cache(os.environ), os.environ)
        _say(f"nextflow  {tools.source if tools else 'none yet: `make toolchain` finds or installs one'}")
        _say(f"redis     {redis}")
        _say(f"state     {settings.state_dir.absolute()}")
        _say(f"token     {token}")
        _say(f"docs      http://{settings.host}:{port}/docs")
        _say(f"page      http://{settings.host}:{port}/follow")
        _say(f"listening on http://{settings.host}:{port}{PREFIX}/active  (Ctrl-C stops the server, not a run)")
        await _until_stopped(application(), settings, listener)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run in the event loop that uvicorn chooses where it runs the loop itself: uvloop, which sends for less."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(work)


async def _until_stopped(app: App, settings: Settings, listener: socket.socket) -> None:
    # uvicorn ends on SIGTERM and then raises it again, which would end this process before its Redis has, and a
    # container with the exit code of a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    gc.set_threshold(_COLLECTED_OBJECTS)
    try:
        await uvicorn.Server(configuration(app, settings)).serve(sockets=[listener])
    finally:  # a Runner cancels what is left once, and waits for ever for who has missed it
        await end(asyncio.all_tasks() - {asyncio.current_task()})


@asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[str]:
    """Redis, for as long as the server runs; yields what it is."""
    if settings.redis_url is not None:
        yield "REDIS_URL"
        return
    from common.local.redis_server import EmbeddedRedis

    embedded = EmbeddedRedis(settings.redis_socket)
    await embedded.start()
    try:
        yield f"embedded, redis-server {embedded.source}"
    finally:
        await embedded.stop()


def _token(settings: Settings) -> str:
    """Where the token for this machine's own use is; made with the first start."""
    if settings.auth == "off":
        return "none is asked for (AUTH=off): whoever reaches this port may start and cancel runs"
    kept = settings.state_dir / "token"
    if settings.tokens_file is None and not settings.token_path.exists():
        token = add(settings.token_path, "local", "run")
        with open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(token + "\n")
    if not kept.exists():
        return f"callers are named in {settings.token_path}; `make token` adds one"
    return f'export TOKEN=$(cat {kept}); curl -H "Authorization: Bearer $TOKEN" ...'


def _listen(host: str, port: int) -> socket.socket:
    # With its protocol named, or the event loop would not switch Nagle off: answers would wait for the client's ACK.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with suppress(OSError):  # not every sandbox knows it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)  # each connection inherits it
    try:
        listener.bind((host, port))
        listener.listen(2048)  # now, so that what is said below is true at once
    except OSError as error:
        listener.close()
        raise ControllerError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another: PORT={port + 1} make run"
        ) from None
    return listener


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    """Serve what is asked for as the environment says."""
    try:
        match arguments:
            case []:
                _run_locally()
            case [name] if name in FUNCTIONS + BESIDE:
                run(serve_one(name, Settings.read(os.environ)))
            case _:
                print(f"usage: python -m functions.server [{' | '.join(FUNCTIONS + BESIDE)}]", file=sys.stderr)
                return 2
    except ControllerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run_locally() -> None:
    settings = Settings.read(os.environ)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    # Functions, supervisors and recorders read the same settings, wherever they are started.
    os.environ["STATE_DIR"] = str(settings.state_dir.absolute())
    run(serve(settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
