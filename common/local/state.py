"""The state directory of LocalRunner, made to behave like a small API server with resource versions.

    STATE_DIR/
      mutex          flock: every look at and every change of what follows is made under it
      lease.json     whom the fence names
      slot.lock      flock of the head's whole family: no second head starts while one of the first lives
      launch/        where Nextflow is started; its history and caches stay here, so -resume finds them
      work/          task work
      trash/         what is being deleted
      runs/RUN_ID/
        job.json         the Job: record, marks, end; one file, so one rename is one conditional write
        alive.lock       flock of this run's supervisor and its head: the run's liveness
        supervised.lock  flock of the supervisor alone: whether anybody is left to act on a mark
        log, ...         see common.local.supervisor

A critical section is a few reads and at most one synced write, so a mutex that is not free for
seconds means a holder that was stopped: that is `Unavailable`, never a hang. A lock that the kernel
drops with its last holder cannot be left behind by any crash, which no pid file can promise.

The supervisor loads this module, so it does not import pydantic: values are plain.
flock must work between processes: the directory belongs on a local file system.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from common.errors import Conflict, OutcomeUnknown, Unavailable

LOST = "Its supervisor was lost; how it ended is not known."

PATIENCE_SECONDS = 2.0
_PAUSES = (0.001, 0.002, 0.005, 0.01)  # between tries for the mutex; the last one repeats


@dataclass(frozen=True, slots=True)
class End:
    """The last word on a run's head.

    Attributes:
        finished_at: None where nobody saw it.
        clean: its writer saw that no process of the run was left.
    """

    condition: Literal["Complete", "Failed"]
    finished_at: str | None
    exit_code: int | None = None
    message: str | None = None
    clean: bool = False


@dataclass(frozen=True, slots=True)
class JobFile:
    """What job.json says; `common.jobs.Job` is made from it."""

    uid: str
    record: dict[str, Any]
    version: int = 0
    launched: bool = False
    sealed: bool = False
    mark: dict[str, Any] | None = None
    message: str | None = None
    started_at: str | None = None
    end: End | None = None

    @property
    def inert(self) -> bool:
        return not (self.launched or self.sealed or self.end)

    @property
    def runs(self) -> bool:
        return self.launched and self.end is None


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """What lease.json says."""

    version: int = 0
    run_id: str | None = None
    uid: str | None = None


class Lock:
    """An flock that is held. It lives as long as any process that inherited its descriptor, or until `release`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, create: bool = True) -> "Lock | None":
        """The lock on this file, or None if somebody holds it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def release(self) -> None:
        # Closing alone would leave it with a child that another thread is just starting.
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)


class GrowingFile:
    """Reads a file while it grows. It is opened for each read, so a reader that goes away leaves nothing open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = 0

    def read(self, size: int) -> bytes:
        """What comes next, at most so many bytes; empty where there is nothing (yet, or any more).

        Raises:
            Unavailable: it cannot be read.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                inode = os.fstat(file.fileno()).st_ino
                if self._inode not in (None, inode):
                    return b""  # another one, of the same name
                data = os.pread(file.fileno(), size, self._offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise Unavailable("runner", f"{self._path.name} cannot be read: {error.strerror}.") from error
        self._inode = inode
        self._offset += len(data)
        return data


class Files:
    """What can be read and written while the mutex is held. Get one from `State.held`."""

    def __init__(self, state: "State") -> None:
        self._state = state

    def lease(self) -> LeaseFile:
        """The Lease.

        Raises:
            Unavailable: its file is damaged, which no crash can do.
        """
        try:
            return _made(LeaseFile, _read(self._state.lease))
        except FileNotFoundError:
            return LeaseFile()
        except _DAMAGES as error:
            raise Unavailable("runner", "lease.json in the state directory is damaged.") from error

    def write_lease(self, lease: LeaseFile) -> LeaseFile:
        """Write the Lease under its next version."""
        written = replace(lease, version=lease.version + 1)
        _write(self._state.lease, asdict(written))
        return written

    def job(self, run_id: str) -> JobFile | None:
        """The run's Job; None where there is none, or only what a crash left of one that was being made.

        One that is launched, has no end and is not alive has lost its supervisor: that is its end.
        """
        try:
            fields = _read(self._state.run(run_id) / "job.json")
            end = fields.pop("end")
            job = _made(JobFile, {**fields, "end": _made(End, end) if end else None})
        except (FileNotFoundError, NotADirectoryError, *_DAMAGES):
            return None
        lost = job.runs and not _is_held(self._state.run(run_id) / "alive.lock")
        return replace(job, end=End("Failed", None, message=LOST)) if lost else job

    def write_job(self, run_id: str, job: JobFile) -> JobFile:
        """Write the Job under its next version."""
        written = replace(job, version=job.version + 1)
        _write(self._state.run(run_id) / "job.json", asdict(written))
        return written

    def create_job(self, run_id: str, job: JobFile) -> JobFile:
        """Make the run's directory with its Job, over what a crash may have left of one."""
        directory = self._state.run(run_id)
        if directory.exists():
            self.discard(run_id)
        directory.mkdir(parents=True)
        _sync(directory.parent)
        return self.write_job(run_id, job)

    def discard(self, run_id: str) -> None:
        """Take the run's directory away; `State.empty_trash` deletes it."""
        self._state.trash.mkdir(exist_ok=True)
        self._state.run(run_id).rename(self._state.trash / f"{run_id}.{time.time_ns()}")
        _sync(self._state.runs)

    def run_ids(self) -> list[str]:
        """The names of all runs that have a directory."""
        try:
            return os.listdir(self._state.runs)
        except FileNotFoundError:
            return []

    def supervised(self, run_id: str) -> bool:
        """Whether the run's supervisor lives."""
        return _is_held(self._state.run(run_id) / "supervised.lock")

    def has_whole_log(self, run_id: str) -> bool:
        """Whether nothing more comes to the run's log."""
        return log_whole(self._state.run(run_id)).exists()


@dataclass(frozen=True)
class State:
    """The paths in a state directory, and the way to its files."""

    root: Path

    @property
    def lease(self) -> Path:
        return self.root / "lease.json"

    @property
    def slot(self) -> Path:
        return self.root / "slot.lock"

    @property
    def launch(self) -> Path:
        return self.root / "launch"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    @contextmanager
    def held(self, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[Files]:
        """Hold the mutex: nobody else looks or writes meanwhile. Nothing in here may wait for anything.

        Raises:
            Unavailable: it was not free in time, or the directory cannot be read or written.
        """
        try:
            mutex = self._mutex(time.monotonic() + patience_seconds)
            try:
                yield Files(self)
            finally:
                mutex.release()
        except OSError as error:
            raise Unavailable("runner", f"The state directory cannot be used: {error.strerror}.") from error

    def empty_trash(self) -> None:
        """Delete what was taken away, now or before a crash; what resists is left for the next time."""
        with suppress(FileNotFoundError):
            for left in self.trash.iterdir():
                shutil.rmtree(left, ignore_errors=True)

    def _mutex(self, deadline: float) -> Lock:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        tries = 0
        # Tries instead of waiting: only so can the wait be bounded in a thread.
        while (mutex := Lock.take(self.root / "mutex")) is None:
            if time.monotonic() >= deadline:
                raise Unavailable("runner", "The state directory is locked by a process that does not go on.")
            time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
        return mutex


@dataclass(frozen=True, slots=True)
class Orders:
    """What a launcher asks of a supervisor.

    Attributes:
        uid, version: of the inert Job that the launcher read.
        command, environ: of the head.
        files: written to the run's directory before the head starts.
        notes: lines for the log, before the head's own.
        recorder, recorder_environ: of the process beside the head; no command, no process.
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

    @property
    def state(self) -> State:
        return State(Path(self.state_dir))

    @property
    def directory(self) -> Path:
        return self.state.run(self.run_id)


def log_whole(run: Path) -> Path:
    """What is in a run's directory once nothing more comes to its log, which is before its Job has its end."""
    return run / "log.whole"


def check_unchanged(job: JobFile | None, uid: str, version: str | int) -> JobFile:
    """The Job, if it is the one that its writer had read.

    Raises:
        Conflict: it is gone, another one, or changed.
    """
    if job is None or job.uid != uid:
        raise Conflict("The Job is gone.")
    if str(job.version) != str(version):
        raise Conflict("The Job has changed since it was read.")
    return job


def _is_held(path: Path) -> bool:
    try:
        lock = Lock.take(path, create=False)
    except FileNotFoundError:
        return False
    if lock is None:
        return True
    lock.release()
    return False


_DAMAGES = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_File = TypeVar("_File", End, JobFile, LeaseFile)
_HINTS = {kind: get_type_hints(kind) for kind in (End, JobFile, LeaseFile)}


def _read(path: Path) -> Any:
    content = json.loads(path.read_bytes())
    json.dumps(content, ensure_ascii=False).encode()  # fails for half of a surrogate pair, which could not be told
    return content


def _made(kind: type[_File], fields: Any) -> _File:
    """What a file says, if each value is of its type: a task may have written it, as it is the same user's."""
    made = kind(**fields)
    if not all(_fits(getattr(made, name), hint) for name, hint in _HINTS[kind].items()):
        raise TypeError(f"no {kind.__name__}")
    return made


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    return type(value) is (get_origin(hint) or hint)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace a file in one step that a crash leaves either undone or done."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(json.dumps(content).encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Make what was renamed in here last: before this, all can see it, and a power cut may take it back."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutcomeUnknown("runner", f"A write may not outlive a power cut: {error.strerror}.") from error
