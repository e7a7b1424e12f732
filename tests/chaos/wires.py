"""A network of a process' own, of which a wire can be cut: nothing that is sent arrives, and nobody is told so."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest


class Wire:
    """A pair of devices: one here, one in the namespace, each with an address."""

    def __init__(self, namespace: str, number: int) -> None:
        self._name = f"{namespace}-{number}"
        inside = f"{self._name}i"
        third, fourth = secrets.randbelow(256), 4 * secrets.randbelow(64)
        # Of the addresses that are meant for tests of networks.
        self.here, self.there = (f"198.18.{third}.{fourth + host}" for host in (1, 2))
        _ip("link", "add", self._name, "type", "veth", "peer", "name", inside, "netns", namespace)
        _ip("address", "add", f"{self.here}/30", "dev", self._name)
        _ip("-netns", namespace, "address", "add", f"{self.there}/30", "dev", inside)
        _ip("-netns", namespace, "link", "set", inside, "up")
        self.join()

    def join(self) -> None:
        """Let everything through."""
        _ip("link", "set", self._name, "up")

    def cut(self) -> None:
        """Let nothing through: seen from the namespace, what is sent is sent."""
        _ip("link", "set", self._name, "down")

    def remove(self) -> None:
        """Take both devices away."""
        _ip("link", "delete", self._name)


class Network:
    """A network namespace with two wires to here: over one its server is called, over the other it calls."""

    def __init__(self, name: str) -> None:
        _ip("netns", "add", name)
        self.enter = ("ip", "netns", "exec", name)
        _ip("-netns", name, "link", "set", "lo", "up")
        self.inward, self.outward = Wire(name, 0), Wire(name, 1)


@contextmanager
def network() -> Iterator[Network]:
    """An own network; the test is skipped where none can be made."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("only root makes network namespaces, with `ip`")
    name = f"nfc{secrets.token_hex(3)}"
    try:
        try:
            made = Network(name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made: {error.stderr}")
        yield made
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", name)  # and with it the wires


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
