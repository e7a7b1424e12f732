"""The README stays true: its commands are run, and what it shows is what they print."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.server import ROOT, LocalServer, belongings, poll, processes

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def plain(text: str) -> list[str]:
    """Lines of a demo with what differs from run to run taken out."""
    text = re.sub(r"run-[a-z2-7]{16}", "RUN", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"\[[0-9a-f]{2}/[0-9a-f]{6}\]", "[HASH]", text)
    return text.splitlines()


def demo(state_dir: Path, port: int, *arguments: str) -> "subprocess.Popen[str]":
    """Start `make demo`'s command."""
    environ = {**os.environ, "STATE_DIR": str(state_dir), "PORT": str(port)}
    command = [sys.executable, "examples/demo.py", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_first_block_is_what_is_tested_here() -> None:
    """README begins with two commands: the demo, run below, and the tests, which CI runs as they stand."""
    assert BLOCKS[0] == ("sh", "make demo\nmake test\n")
    assert (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1] == "make test"
    command = ["make", "--no-print-directory", "-n", "demo"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert recipe.splitlines()[-1].endswith("python examples/demo.py")


def test_the_demo_ends_well_and_a_second_one_attaches(state_dir: Path) -> None:
    """`make demo` shows the pipeline's lines and ends 0; one started meanwhile sees the same run."""
    port = free_port()
    first = demo(state_dir, port)
    for _ in poll("the first demo's Nextflow"):
        assert first.poll() is None, first.communicate()
        if processes("nextflow", "-name", str(state_dir)):
            break
    second = demo(state_dir, port)
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    shown = [output.splitlines() for output in outputs]
    own = [[line for line in lines if not line.startswith(("--", " ", "{", "}"))] for lines in shown]
    assert own[0] == own[1]
    assert len(own[0]) > 10
    assert any(re.match(r"-- started run-\w+: examples/simple-pipeline$", line) for line in shown[0])
    assert any(re.match(r"-- attached to run-\w+, started by demo \(\w+\): ", line) for line in shown[1])
    assert any(re.match(r"-- tasks: \d+ of \d+ done", line) for line in shown[0])
    assert re.match(r"-- run-\w+ succeeded in [\d.]+ s$", shown[0][-1])
    for _ in poll("everything to be gone with the demo"):
        if not belongings(state_dir):
            break


def test_a_failing_demo_ends_with_one(state_dir: Path) -> None:
    """The exit code is the run's outcome."""
    process = demo(state_dir, free_port(), "examples/simple-pipeline", '{"fail": true, "delay_seconds": 0}')
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert "failed in" in output.splitlines()[-1]


def test_what_the_readme_shows_is_what_the_demo_prints(state_dir: Path) -> None:
    """Every line of the README's sample is a line of a real demo, but for what differs from run to run."""
    process = demo(state_dir, free_port())
    printed = set(plain(process.communicate(timeout=120)[0]))
    sample = plain(BLOCKS[1][1])
    # Ports, places and durations differ, and how far tasks are when somebody looks.
    differs = r"\.\.\.|tasks: [^1]|server\.log|in a (browser|terminal)| in [\d.]+ s"
    fixed = [line for line in sample if not re.search(differs, line)]
    assert len(fixed) > 8
    assert [line for line in fixed if line not in printed] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's calls are curl commands, and there is no curl")
def test_the_readmes_calls_work(server: LocalServer) -> None:
    """Each curl command is run against a server and answered with success."""
    commands = [
        line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.startswith("curl")
    ]
    commands += re.findall(r"`(curl -H [^`]+)`", README)
    assert len(commands) == 8
    assert "export TOKEN=$(cat .state/token)\n" in README
    token = (server.state_dir / "token").read_text("ascii").strip()
    for command in commands:
        arguments = shlex.split(command.replace("http://127.0.0.1:8000", server.url).replace("$TOKEN", token))
        extra = ["--no-progress-meter", "--fail-with-body", "--max-time", "60"]
        if "/stream" in command:  # follow it for as long as it takes to see something
            arguments[-1] += "?follow=false"
        done = subprocess.run([*arguments, *extra], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done)
