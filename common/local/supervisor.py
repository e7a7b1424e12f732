"""The supervisor: owns one run from its launch to its end, whatever becomes of the server.

    python -m common.local.supervisor RUN_ID < ORDERS

(The argument is for who looks at `ps`.) It answers with one line on standard output (`launched VERSION`,
`refused WHY`, `unavailable WHY`) and goes on in the background. Under the mutex it takes the locks,
compares the Job and the Lease with what its launcher read and marks the Job launched: that is the
conditional write of a launch, made by who will live up to it, so no Job is launched without a supervisor.

It runs as two processes. The inner one, `Supervisor`, starts Nextflow, writes its output to the log
and ends what it leaves behind; only when no process is left, the log is final and its recorder has taken it in
does it write the Job's end. The outer one, `_guard`, only waits for it: if it is killed or broken, it ends the
run and writes that down. If both are killed, the kernel asks Nextflow to end and frees the locks,
and readers tell "lost" from a Job that is launched, has no end, and is not alive.

Files in the run's directory: `log` (the format of `common.cri`), `log.whole` once nothing more comes to it,
those of the orders, `supervisor.err` and `recorder.err`. This process stays as long as its run, and its
start is waited for: it imports little, and all of it at the start, for the installation may be replaced meanwhile.
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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from psutil import Process

from common.errors import Conflict, OutcomeUnknown, Unavailable
from common.local import processes
from common.local.log import Log
from common.local.state import LOST, PATIENCE_SECONDS, End, JobFile, Lock, Orders, check_unchanged, log_whole

_LOG_CUT = "The end of its log could not be written."
_RECORDED = Path("archive", "1", "end")  # what the recorder writes last; common.archive takes long to import

_TURN_SECONDS = 0.1  # the longest time until a cancel mark or an exit is noticed
_ENDING_TURN_SECONDS = 0.02
_READ_BYTES = 64 * 1024  # what a pipe holds
_LEFT_BEHIND_GRACE_SECONDS = 2.0  # for processes that outlive the head, from SIGTERM to SIGKILL
_DRAIN_SECONDS = 2.0  # for a pipe that somebody outside the run keeps open
_RECORDED_SECONDS = 5.0  # for a recorder that is behind, or gone, to have taken in what led to the end
_RECORDER_PAUSE_SECONDS = 0.5  # before one that died is started again; doubled each time
_RECORDER_MOST_SECONDS = 30.0
_RETRY_SECONDS = 0.5  # while the state directory cannot be written
_LOOK_SECONDS = 0.05  # for the mutex, while output is waiting


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


class Supervisor:
    """The head of one run, its output, and everything that it starts."""

    def __init__(self, orders: Orders, locks: Locks) -> None:
        self._orders = orders
        self._locks = locks
        self._log = Log(orders.directory / "log")
        self._pipes = selectors.DefaultSelector()
        self._head: subprocess.Popen[bytes] | None = None
        self._started_at: str | None = None
        self._start_is_written = False
        self._looked_at: tuple[int, ...] | None = None  # which job.json
        self._told_to_end = False  # by a signal to this process
        self._force_at: float | None = None  # when a head that was asked to end is killed
        self._exited: tuple[int, str] | None = None  # the head's exit code as waitpid tells it, and when
        self._childless = False
        self._ending: processes.Ending | None = None  # of what the head has left behind

    def run(self) -> None:
        """Start the head, and stay until it has ended and nothing of it is left."""
        _on_signals(self._tell_to_end)
        for note in self._orders.notes:
            self._log.take("stderr", note.encode() + b"\n")
        try:
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            self._finish(End("Failed", _now(), message=f"Nextflow could not be started: {error}", clean=True))
            return
        while (exited := self._exited) is None or not self._alone():
            self._turn()
        self._finish(_end_of(*exited, self._log.complaint))

    def _start(self) -> None:
        orders = self._orders
        for name, content in orders.files.items():
            (orders.directory / name).write_text(content, "utf-8")
        orders.state.launch.mkdir(exist_ok=True)
        self._head = processes.start_head(orders, self._locks.of_head)
        self._started_at = _now()
        for stream, pipe in (("stdout", self._head.stdout), ("stderr", self._head.stderr)):
            self._pipes.register(pipe, selectors.EVENT_READ, stream)  # type: ignore[arg-type] # both are pipes

    def _turn(self) -> None:
        """Bring output to the log, and heed whatever else has happened."""
        # Its pipes closed, the head is about to be gone.
        self._read(_TURN_SECONDS if self._pipes.get_map() and self._exited is None else _ENDING_TURN_SECONDS)
        self._reap()
        self._write_start()
        if self._exited is None:
            self._heed_mark()
        else:
            self._end_what_is_left()

    def _read(self, seconds: float) -> None:
        """Bring to the log what is in the pipes, waiting for it so long."""
        if self._log.blocked or not self._pipes.get_map():
            time.sleep(seconds)
        else:
            for key, _ in self._pipes.select(seconds):
                data = os.read(key.fd, _READ_BYTES)
                if data:
                    self._log.take(key.data, data)
                else:
                    self._log.end(key.data)
                    self._pipes.unregister(key.fileobj)
        self._log.flush()

    def _reap(self) -> None:
        """Collect the children that have ended, orphans of the head among them."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if self._head is not None and pid == self._head.pid:
                    # Popen is told, or it would wait for a process that is gone.
                    self._head.returncode = os.waitstatus_to_exitcode(status)
                    self._exited = self._head.returncode, _now()
        self._childless = True

    def _write_start(self) -> None:
        """Write down, once, when the head was started; where that has to wait, the next turn tries again."""
        if not self._start_is_written:
            with suppress(Unavailable):
                _change(self._orders, lambda job: replace(job, started_at=self._started_at), _LOOK_SECONDS)
                self._start_is_written = True

    def _heed_mark(self) -> None:
        """Ask the head to end if that is wanted; after the grace force it, with all that it has started."""
        if self._head is not None and self._force_at is None and self._is_unwanted():
            os.kill(self._head.pid, signal.SIGTERM)
            self._force_at = time.monotonic() + self._orders.grace_seconds
        if self._force_at is not None and time.monotonic() >= self._force_at:
            processes.Ending(self._family, grace_seconds=0).step()

    def _is_unwanted(self) -> bool:
        """Whether the Job carries a cancel mark, or is gone. It is read only where its file has changed."""
        try:
            current = _stamp(self._orders.directory / "job.json")
            if current != self._looked_at:
                with self._orders.state.held(_LOOK_SECONDS) as files:
                    job = files.job(self._orders.run_id)
                self._looked_at = current
                self._told_to_end |= job is None or job.uid != self._orders.uid or job.mark is not None
        except (OSError, Unavailable):
            pass  # the next turn looks again
        return self._told_to_end

    def _end_what_is_left(self) -> None:
        if self._ending is None:
            grace = _LEFT_BEHIND_GRACE_SECONDS
            if self._force_at is not None:  # the grace of a cancel is for all of it
                grace = min(grace, max(0.0, self._force_at - time.monotonic()))
            self._ending = processes.Ending(self._family, grace)
        self._ending.step()

    def _alone(self) -> bool:
        """Whether all that the head has started is gone."""
        # Orphans become children of this process, so without children it has no descendants.
        return self._childless and not self._family()

    def _family(self) -> set[Process]:
        return processes.family(self._orders.run_id)

    def _drain(self) -> bool:
        """Read what the gone processes left in the pipes; False if the log cannot take it: try again."""
        give_up_at = time.monotonic() + _DRAIN_SECONDS
        while (self._pipes.get_map() or self._log.blocked) and time.monotonic() < give_up_at:
            self._read(_ENDING_TURN_SECONDS)
        return not self._log.blocked

    def _finish(self, end: End) -> None:
        """Make the log final, then write the end; with a full disk, as soon as it is not."""
        whole = False
        while True:
            if not whole and (whole := self._drain() and self._log.finish()) and self._orders.recorder:
                self._let_record()
            told = end if whole else replace(end, message=f"{end.message or ''} {_LOG_CUT}".lstrip())
            if _write_end(self._orders, self._locks, told, self._started_at):
                return
            time.sleep(_RETRY_SECONDS)

    def _let_record(self) -> None:
        """Have the recorder take in all of the log and of the tasks, as a pod does that ends after its sidecars.

        Who is told the end would be told of tasks that still run otherwise.
        """
        with suppress(OSError):
            log_whole(self._orders.directory).touch()
        give_up_at = time.monotonic() + _RECORDED_SECONDS
        while not (self._orders.directory / _RECORDED).exists() and time.monotonic() < give_up_at:
            time.sleep(_ENDING_TURN_SECONDS)

    def _tell_to_end(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_end = True


def _end_of(code: int, at: str, complaint: str) -> End:
    """The end of a head that exited like this, as waitpid tells it, and with what it complained of."""
    if code == 0:
        return End("Complete", at, exit_code=0, clean=True)
    if code > 0:
        message = f"Nextflow exited with {code}. {complaint}".rstrip()
        return End("Failed", at, exit_code=code, message=message, clean=True)
    # 128 more than the signal, as shells and container runtimes tell it.
    message = f"Nextflow was ended by signal {-code} ({signal.strsignal(-code)})."
    return End("Failed", at, exit_code=128 - code, message=message, clean=True)


def main() -> None:
    """Launch as the orders on standard input say, answer, and stay with the run in a process nobody waits for."""
    orders = Orders(**json.load(sys.stdin))
    if os.fork():
        os._exit(0)
    try:
        locks, version = _admit(orders)
    except OutcomeUnknown:
        raise  # no answer: the launcher reads again
    except Conflict as error:
        return _answer(f"refused {error}")
    except Unavailable as error:
        return _answer(f"unavailable {error}")
    _on_signals(lambda *_: None)
    _answer(f"launched {version}")
    processes.go_background(orders.directory)
    _guard(orders, locks)


def _admit(orders: Orders) -> tuple[Locks, int]:
    """Take the run's locks and mark its Job launched, if nothing speaks against it.

    Raises:
        Conflict: something does.
    """
    with orders.state.held() as files:
        job = check_unchanged(files.job(orders.run_id), orders.uid, orders.version)
        if not job.inert:
            raise Conflict("The Job is launched or sealed already.")
        lease = files.lease()
        if (lease.run_id, lease.uid) != (orders.run_id, orders.uid):
            raise Conflict("The Lease does not name this Job.")
        locks = Locks(
            slot=_lock(orders.state.slot),
            alive=_lock(orders.directory / "alive.lock"),
            supervised=_lock(orders.directory / "supervised.lock"),
        )
        return locks, files.write_job(orders.run_id, replace(job, launched=True)).version


def _lock(path: Path) -> Lock:
    lock = Lock.take(path)
    if lock is None:
        # No other version would change that, so reading again is of no use to the launcher: it has to wait.
        raise Unavailable("runner", "Processes of an earlier run are still there.", retry_after_seconds=5)
    return lock


def _guard(orders: Orders, locks: Locks) -> None:
    """Have the run supervised, and end it if its supervisor does not."""
    processes.adopt_orphans()
    inner = os.fork()
    if not inner:
        os.setsid()
        processes.adopt_orphans()
        Supervisor(orders, locks).run()
        return
    status, recorder = _wait(inner, orders)
    if status:
        processes.end(lambda: processes.family(orders.run_id, but=recorder), orders.grace_seconds)
        while not _write_end(orders, locks, End("Failed", _now(), message=LOST, clean=True)):
            time.sleep(_RETRY_SECONDS)


def _wait(inner: int, orders: Orders) -> tuple[int, int | None]:
    """Wait for the supervisor; its exit status, and the recorder's pid.

    Meanwhile keep a recorder going, as the kubelet does with a sidecar: one that ended well has recorded
    all there is, one that died is started again, ever more slowly.
    """
    recorder = processes.start_recorder(orders)  # kept for as long as it is waited for: see `start_recorder`
    again_at, pause = float("inf"), _RECORDER_PAUSE_SECONDS
    while True:
        pid, status = os.waitpid(-1, 0 if again_at == float("inf") else os.WNOHANG)
        if pid == inner:
            return status, recorder.pid if recorder else None
        if recorder and pid == recorder.pid and status:
            again_at, pause = time.monotonic() + pause, min(2 * pause, _RECORDER_MOST_SECONDS)
        elif not pid:
            time.sleep(_TURN_SECONDS)
        if time.monotonic() >= again_at:
            recorder, again_at = processes.start_recorder(orders), float("inf")


def _write_end(orders: Orders, locks: Locks, end: End, started_at: str | None = None) -> bool:
    """Write the Job's end, unless it has one, and let go of the locks, as one change; whether it is done."""

    def change(job: JobFile) -> JobFile:
        return job if job.end else replace(job, end=end, started_at=started_at or job.started_at)

    with suppress(Unavailable):
        _change(orders, change, PATIENCE_SECONDS, locks)
        return True
    return False


def _change(
    orders: Orders, change: Callable[[JobFile], JobFile], patience_seconds: float, free: Locks | None = None
) -> None:
    """Change the Job, if it is still there, and then free the locks."""
    with orders.state.held(patience_seconds) as files:
        job = files.job(orders.run_id)
        if job is not None and job.uid == orders.uid:
            changed = change(job)
            if changed is not job:
                files.write_job(orders.run_id, changed)
        if free is not None:
            free.release()


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handle what politely ends a process; ignoring it instead would be inherited by the head."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def _answer(line: str) -> None:
    with suppress(BrokenPipeError):  # the launcher is gone; what was done is done
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes whenever the file is replaced; empty where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    main()
