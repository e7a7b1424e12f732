"""The processes of a run: how they are marked, found and ended.

A head's descendants leave its group, its session and their parents as they like, and may clear
their environment. Two marks are inherited through all of that: an environment variable, and on
Linux a resource limit that limits nothing, which no exec, setsid or `env -i` takes away. So a run's
processes can be told even when everything that watched them is dead. While the supervisor lives it
also adopts their orphans (a subreaper), and a process without children has no descendants.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import psutil
from psutil import Process

from common.errors import Conflict, OutcomeUnknown, Unavailable
from common.local.state import Orders

if sys.platform == "linux":
    import resource

COOKIE = "NEXTFLOW_CONTROLLER_RUN"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02
_LAUNCH_SECONDS = 15.0  # for a supervisor's answer: much more than it takes on a machine that is overloaded
_ROOT = Path(__file__).resolve().parents[2]  # where `common` is found, installed or not
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if _LINUX else None


def start_supervisor(orders: Orders) -> str:
    """Have a supervisor started; its answer, empty if it died without one.

    Raises:
        Conflict: the Job's directory is gone.
        OutcomeUnknown: it does not answer.
        Unavailable: it could not be started.
    """
    try:
        with (orders.directory / "supervisor.err").open("ab") as errors:
            return subprocess.run(
                (sys.executable, "-m", "common.local.supervisor", orders.run_id),
                input=json.dumps(asdict(orders)),
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                start_new_session=True,
                timeout=_LAUNCH_SECONDS,
                check=False,
                text=True,
            ).stdout.strip()
    except subprocess.TimeoutExpired:
        raise OutcomeUnknown("runner", "The run's supervisor does not answer.", run_id=orders.run_id) from None
    except OSError as error:
        if not orders.directory.exists():
            raise Conflict("The Job is gone.") from error
        raise Unavailable("runner", f"No supervisor can be started: {error.strerror}.") from error


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start_head(orders: Orders, inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a run's head: marked, in a group of its own, and asked to end when this process dies."""
    supervisor = os.getpid()

    def join_run() -> None:
        _tag(orders.run_id)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before the line above
            os._exit(128 + signal.SIGTERM)

    return subprocess.Popen(
        orders.command,
        env=orders.environ | {COOKIE: orders.run_id},
        cwd=orders.state.launch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=inherited,
        process_group=0,
        preexec_fn=join_run,  # noqa: PLW1509 (unsafe where there are threads; the supervisor has none)
    )


def start_recorder(orders: Orders) -> subprocess.Popen[bytes] | None:
    """Start the recorder, in a session of its own. That it cannot be started is only noted.

    Whoever waits for its end with `os.wait` keeps what this returns: let go of, it may take that end for itself.
    """
    if not orders.recorder:
        return None
    try:
        with (orders.directory / "recorder.err").open("ab") as errors:
            return subprocess.Popen(
                orders.recorder,
                env=orders.recorder_environ,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
    except OSError:
        traceback.print_exc()
        return None


def go_background(directory: Path) -> None:
    """Leave standard input and output to whoever else has them, and the directory this was started in."""
    os.chdir(directory)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, sys.stdin.fileno())
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def marked(run_id: str) -> set[Process]:
    """All living processes that carry the run's marks."""
    tag = _tag_of(run_id)
    return {process for process in psutil.process_iter() if _carries(process, run_id, tag) and _lives(process)}


def family(run_id: str, but: int | None = None) -> set[Process]:
    """All living processes of the run, as its supervisor sees them: the marked ones and its descendants but one."""
    descendants = psutil.Process().children(recursive=True)
    return marked(run_id) | {child for child in descendants if child.pid != but and _lives(child)}


class Ending:
    """Ends processes: each is asked once (SIGTERM), and forced (SIGKILL) after the grace."""

    def __init__(self, find: Callable[[], set[Process]], grace_seconds: float) -> None:
        self._find = find
        self._force_at = time.monotonic() + grace_seconds
        self._asked: set[Process] = set()

    def step(self) -> int:
        """Signal what is there now; how many that was. New ones may be born meanwhile: repeat until none is."""
        force = time.monotonic() >= self._force_at
        found = self._find()
        for process in found if force else found - self._asked:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL if force else signal.SIGTERM)
        self._asked |= found
        return len(found)


def end(find: Callable[[], set[Process]], grace_seconds: float, wait_seconds: float = float("inf")) -> int:
    """End what `find` finds; how many are left after the wait, which is counted from the grace's end."""
    ending = Ending(find, grace_seconds)
    give_up_at = time.monotonic() + grace_seconds + wait_seconds
    while left := ending.step():
        if time.monotonic() >= give_up_at:
            return left
        time.sleep(_POLL_SECONDS)
    return 0


def _tag(run_id: str) -> None:
    if sys.platform == "linux":
        # Refused only where a lower limit was inherited; the variable is left then.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_RTTIME, (_tag_of(run_id), _tag_of(run_id)))


def _tag_of(run_id: str) -> int:
    """A limit on the microseconds of real-time scheduling: more than 100,000 years, so it never bites.

    The end of a run id is 35 random bits.
    """
    return 2**62 + int.from_bytes(run_id.encode()[-7:], "big")


def _carries(process: Process, run_id: str, tag: int) -> bool:
    if process.pid == os.getpid():
        return False
    if sys.platform == "linux":
        with suppress(OSError):
            if resource.prlimit(process.pid, resource.RLIMIT_RTTIME)[0] == tag:
                return True
    try:
        return process.environ().get(COOKIE) == run_id
    except (psutil.Error, OSError):  # gone, or another user's
        return False


def _lives(process: Process) -> bool:
    # A zombie is dead; where the init process reaps nobody it stays in the table for ever.
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)
