"""A real Redis that belongs to a test."""

import subprocess
import time
from pathlib import Path

import redis

from common.local.redis_server import EmbeddedRedis


class OwnRedis:
    """A Redis of the test's own, to be stopped and started."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.url = f"unix://{directory}/r.sock"
        executable = EmbeddedRedis(directory / "r.sock").executable
        self._command = [executable, "--port", "0", "--unixsocket", "r.sock", "--dir", str(directory)]
        self._command += ["--appendonly", "yes", "--logfile", "redis.log"]
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, cwd=self._directory)
        deadline = time.monotonic() + 30
        while True:
            try:
                with redis.Redis(unix_socket_path=str(self._directory / "r.sock")) as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, (self._directory / "redis.log").read_text()
                time.sleep(0.01)

    def stop(self) -> None:
        """Stop it for good."""
        self._process.terminate()
        self._process.wait()
