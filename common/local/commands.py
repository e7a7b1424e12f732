"""Runs a command of somebody else's to its end, with an end to the patience.

The commands here (a launcher that downloads, pip, Maven) hang where the network swallows packets, and leave children
behind when they are only killed themselves: each gets a session of its own, which goes as a whole.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_TURN_SECONDS = 0.5
_REPORT_SECONDS = 15.0
_STALLED_SECONDS = 15.0  # a host that swallows packets never refuses


class CommandError(Exception):
    """It could not be started, failed, or took too long; `str()` is its own complaint where it made one."""


def run(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    *,
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
    growing: Path | None = None,
) -> str:
    """What a command wrote to both outputs.

    Args:
        say: told now and then that it goes on.
        growing: the directory to run in, which has to grow all the while: so a download that stalls is given up long
            before one that is only slow.

    Raises:
        CommandError: see there; none of its processes is left.
    """
    # A file, not a pipe: a grandchild that keeps a pipe open could not be waited for.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                env=environ,
                cwd=growing,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(error.strerror or str(error)) from None
        try:
            code = _wait(process, seconds, say, growing)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if code:
        raise CommandError(_complaint(text))
    return text


def _wait(process: subprocess.Popen[bytes], seconds: float, say: Callable[[str], None], growing: Path | None) -> int:
    began = moved = reported = time.monotonic()
    size = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_TURN_SECONDS)
        now = time.monotonic()
        if growing and size != (size := _size(growing)):
            moved = now
        if now - began > seconds or (growing and now - moved > _STALLED_SECONDS):
            raise CommandError(f"no answer within {now - began:.0f} s")
        if now - reported > _REPORT_SECONDS:
            reported = now
            say(f"still at it ({now - began:.0f} s)")


def _size(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size
    return size


def _complaint(output: str) -> str:
    """The one line of a failed command's output that is worth repeating."""
    plain = re.sub(r"\x1b[\[(][0-9;]*[A-Za-z]", "", output)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines[-1:] or ["it failed without a word"])[0][:300]
