"""The cluster of KUBECONFIG as its tests use it: its tools, a namespace of one's own, and the images."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

IMAGES = {
    "functions": os.environ.get("TEST_IMAGE", "localhost/nextflow-controller:1"),
    "head": os.environ.get("TEST_HEAD_IMAGE", "localhost/nfc-test-head:1"),
    "git": os.environ.get("TEST_GIT_IMAGE", "localhost/nfc-test-git:1"),
    "valkey": os.environ.get("TEST_VALKEY_IMAGE", "localhost/nfc-test-valkey:1"),
}

NODE = ("apiserver", "containerd", "etcd", "kubelet")


def command(*arguments: str, stdin: str | None = None, **environ: str) -> str:
    """What a command prints; it succeeds."""
    done = subprocess.run(
        arguments, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, **environ}
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints."""
    return command("kubectl", *arguments, stdin=stdin)


def kill9(*what: str) -> None:
    """Kill a process of the cluster's node: one of NODE, which is started again, or `process PATTERN`.

    `stop NAME` has one of NODE stand still, and `cont NAME` go on.

    How that is done is known by the command that TEST_KILL9 names; without one the test is skipped.
    """
    if "TEST_KILL9" not in os.environ:
        pytest.skip("TEST_KILL9 names no command that kills the node's processes")
    command(os.environ["TEST_KILL9"], *what)


@contextmanager
def namespace(what: str) -> Iterator[str]:
    """An empty namespace in which pods can be made."""
    name = f"nfc-{what}-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    try:
        kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}")
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
