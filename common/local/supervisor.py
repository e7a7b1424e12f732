"""The supervisor: owns one run from its launch to its end, whatever becomes of the server.

    python -m common.local.supervisor < ORDERS

It answers with one line on standard output (`launched VERSION`, `refused WHY`, `unavailable WHY`)
and goes on in the background. Under the mutex it takes the locks, compares the Job and the Lease
with what its launcher read and marks the Job launched: that is the conditional write of a launch,
made by who will live up to it, so no Job is launched without a supervisor.

It runs as two processes. The inner one, `Supervisor`, starts Nextflow, writes its output to the log
and ends what it leaves behind; only when no process is left and the log is final does it write the
Job's end. The outer one, `_guard`, only waits for it: if it is killed or broken, it ends the
run and writes that down. If both are killed, the kernel asks Nextflow to end and frees the locks,
and readers tell "lost" from a Job that is launched, has no end, and is not alive.

Files in the run's directory: `log` (the format of `common.cri`), those of the orders,
`supervisor.err` and `recorder.err`. Only the standard library and pure modules are imported here,
psutil when there is something to end: this process stays as long as the run, and its start is waited for.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Literal

from common import cri
from common.errors import Conflict, Unavailable
from common.local import processes
from common.local.state import End, Files, JobFile, Lock, State, check_unchanged

LOST = "Its supervisor was lost; how it ended is not known."

_TURN_SECONDS = 0.1  # the longest time until a cancel mark or an exit is noticed
_ENDING_TURN_SECONDS = 0.02
_READ_BYTES = 64 * 1024  # what a pipe holds
_LEFT_BEHIND_GRACE_SECONDS = 2.0  # for processes that outlive the head, from SIGTERM to SIGKILL
_DRAIN_SECONDS = 2.0  # for a pipe that somebody outside the run keeps open
_RETRY_SECONDS = 0.5  # while the state directory cannot be written


@dataclass(frozen=True, slots=True)
class Orders:
    """What a launcher asks for.

    Attributes:
        uid, version: of the inert Job that the launcher read.
        command, environ: of the head.
        files: written to the run's directory before the head starts.
        notes: lines for the log, before the head's own.
        recorder, recorder_environ, recorder_directory: of the process beside the head; no command, no process.
    """

    state_dir: str
    run_id: str
    uid: str
    version: str
    command: list[str]
    environ: dict[str, str]
    grace_seconds: float
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    recorder: list[str] = field(default_factory=list)
    recorder_environ: dict[str, str] = field(default_factory=dict)
    recorder_directory: str = "."

    @property
    def state(self) -> State:
        return State(Path(self.state_dir))

    @property
    def directory(self) -> Path:
        return self.state.run(self.run_id)


@dataclass(frozen=True, slots=True)
class Locks:
    """What says that the run is alive; the first two are inherited by its head."""

    slot: Lock
    alive: Lock
    supervised: Lock

    @property
    def of_head(self) -> tuple[int, int]:
        return self.slot.descriptor, self.alive.descriptor

    def release(self) -> None:
        for lock in (self.alive, self.supervised, self.slot):
            lock.release()


class Log:
    """The run's log: bytes of two pipes in, whole lines out, each with a time of its own.

    What cannot be written (a full disk) is kept and tried again; meanwhile `blocked` says not to
    bring more, so the pipes fill up and the run waits for the disk. No line is lost.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._last_ns = 0
        self._open_line: dict[str, bytes] = {}
        self._unwritten = b""

    @property
    def blocked(self) -> bool:
        return bool(self._unwritten)

    def take(self, stream: str, data: bytes) -> None:
        """Take in output as it came; a line is written once it is whole, or longer than a piece."""
        *lines, rest = (self._open_line.get(stream, b"") + data).split(b"\n")
        self._unwritten += b"".join([cri.record(self._now(), stream, line) for line in lines])
        if len(rest) > cri.PIECE_BYTES:
            whole = len(rest) - len(rest) % cri.PIECE_BYTES
            self._unwritten += cri.record(self._now(), stream, rest[:whole], ended=False)
            rest = rest[whole:]
        self._open_line[stream] = rest

    def end(self, stream: str) -> None:
        """The stream has ended, perhaps without a last newline."""
        rest = self._open_line.pop(stream, b"")
        if rest:
            self._unwritten += cri.record(self._now(), stream, rest, ended=False)

    def flush(self) -> None:
        """Write what is there with one call, so that a crash tears one record at most."""
        # What a full disk took of a record is there: the rest of it comes right behind.
        with suppress(OSError):
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def close(self) -> None:
        """Make the log final."""
        for stream in list(self._open_line):
            self.end(stream)
        self.flush()
        with suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()

    def _now(self) -> int:
        # Never twice the same and never back, whatever the clock does: ids are made of it.
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return self._last_ns


class Supervisor:
    """The head of one run, its output, and everything it starts."""

    def __init__(self, orders: Orders, locks: Locks) -> None:
        self._orders = orders
        self._locks = locks
        self._log = Log(orders.directory / "log")
        self._pipes = selectors.DefaultSelector()
        self._head: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None  # of the head, as waitpid tells it
        self._childless = False
        self._asked_to_end = False  # by a signal to this process
        self._kill_head: processes.Ending | None = None
        self._end_rest: processes.Ending | None = None
        self._seen: tuple[int, int] | None = None  # which job.json was looked at

    def run(self) -> None:
        """Start the head, and stay until it has ended and nothing of it is left."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask_to_end)
        for note in self._orders.notes:
            self._log.take("stderr", note.encode() + b"\n")
        try:
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            return self._finish("Failed", None, f"Nextflow could not be started: {error}.")
        while not self._over():
            self._turn()
        self._drain()
        self._finish(*_outcome(self._exit_code))

    # The head.

    def _start(self) -> None:
        orders = self._orders
        for name, content in orders.files.items():
            (orders.directory / name).write_text(content, "utf-8")
        orders.state.launch.mkdir(exist_ok=True)
        supervisor = os.getpid()
        self._head = subprocess.Popen(
            orders.command,
            env=orders.environ | {processes.COOKIE: orders.run_id},
            cwd=orders.state.launch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=self._locks.of_head,
            process_group=0,
            preexec_fn=lambda: processes.join_run(orders.run_id, supervisor),  # noqa: PLW1509 (there are no threads)
        )
        for stream in ("stdout", "stderr"):
            self._pipes.register(getattr(self._head, stream), selectors.EVENT_READ, stream)
        started_at = _now()
        _write_surely(orders, lambda job: replace(job, started_at=started_at))

    def _turn(self) -> None:
        """Bring output to the log, and heed whatever else has happened."""
        ending = self._exit_code is not None or self._asked_to_end
        self._read(_ENDING_TURN_SECONDS if ending else _TURN_SECONDS)
        self._reap()
        if self._exit_code is None:
            self._heed_mark()
        else:
            self._end_what_is_left()

    def _over(self) -> bool:
        return self._end_rest is not None and self._childless and not processes.marked(self._orders.run_id)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            self._childless = False
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if self._head is not None and pid == self._head.pid:
                    # Popen must not wait for it: it is gone.
                    self._exit_code = self._head.returncode = os.waitstatus_to_exitcode(status)
        self._childless = True

    def _heed_mark(self) -> None:
        """Ask the head to end if that is wanted; force it, with all it has started, after the grace."""
        if self._kill_head is not None:
            self._kill_head.step()
        elif self._is_unwanted():
            self._head_signal()
            grace = self._orders.grace_seconds
            self._kill_head = processes.Ending(self._family_after(grace), grace)

    def _end_what_is_left(self) -> None:
        if self._end_rest is None:
            self._end_rest = processes.Ending(
                lambda: processes.family(self._orders.run_id), _LEFT_BEHIND_GRACE_SECONDS
            )
        self._end_rest.step()
