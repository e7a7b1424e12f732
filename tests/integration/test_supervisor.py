"""What LocalRunner and its supervisor keep to when processes are killed, stopped, or cut off anywhere."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import Conflict, Invalid, OutcomeUnknown, Unavailable
from common.jobs import Holder, end_state, state
from common.local import processes, toolchain
from common.local.runner import LocalRunner
from common.local.state import LOST, Lock
from common.models import ProcessProgress, Progress, RunRequest
from common.phases import State
from common.settings import Settings
from common.sources import Sources
from tests.contract.conftest import (
    FOREVER,
    MARK,
    PATIENCE_SECONDS,
    STUBBORN,
    LocalPlace,
    a_record,
    current,
    directory,
    ended,
    eventually,
    log,
    running,
    said,
    started,
    stopped,
    taken,
    text,
)

pytestmark = pytest.mark.slow

__all__ = ["directory"]  # the fixture

ROOT = Path(__file__).resolve().parents[2]

# Every way out of a head's group, session, environment and family. As Java does it for its children, all
# descriptors are closed first: tasks do not inherit the locks.
SCATTER = """
(
for fd in $(ls /proc/$BASHPID/fd); do [ $fd -le 2 ] || eval "exec $fd>&-"; done 2>/dev/null
sleep 3600 &
setsid sleep 3600 &
env -i /usr/bin/env sleep 3600 &
( setsid env -i /usr/bin/env sleep 3600 & )
( setsid nohup env -i /bin/bash -c "trap '' TERM; while :; do /usr/bin/env sleep 0.1; done" >/dev/null 2>&1 & )
)
sleep 0.2
"""
SCATTERED = 5
STAY = "echo ready; while :; do sleep 0.05; done"


@pytest.fixture
async def place(directory: Path) -> AsyncIterator[LocalPlace]:
    """An empty state directory."""
    made = LocalPlace(directory)
    yield made
    await made.close()


@pytest.fixture
async def runner(place: LocalPlace) -> LocalRunner:
    """A runner on it."""
    return await place.runner()


def supervisors(run_id: str) -> tuple[psutil.Process, psutil.Process]:
    """The run's guard, and its supervisor proper."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:  # until what they have just forked is what it is to be: before, it looks like them
        found = {process.pid: process for process in psutil.process_iter() if _is_supervisor(process, run_id)}
        inner = [process for process in found.values() if process.ppid() in found]
        if (len(found), len(inner)) == (2, 1):
            return found[inner[0].ppid()], inner[0]
        assert time.monotonic() < deadline, found


def _is_supervisor(process: psutil.Process, run_id: str) -> bool:
    with suppress(psutil.Error):
        return process.cmdline()[-2:] == ["common.local.supervisor", run_id]
    return False


def head(run_id: str) -> psutil.Process:
    """The run's head."""
    _, inner = supervisors(run_id)
    return next(process for process in inner.children() if process in processes.marked(run_id))


async def gone(process: psutil.Process) -> None:
    """Return once the process is gone."""

    async def look() -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    await eventually(look, f"{process} to be gone")


# The supervisor is killed.


@pytest.mark.fault("a run's supervisor is killed")
async def test_a_killed_supervisor_takes_its_run_with_it(runner: LocalRunner) -> None:
    """kill -9: the guard ends whatever the run has started, and says that its end was not seen."""
    run_id = (await started(runner, f"{SCATTER} {STAY}")).run_id
    await said(runner, run_id, b"ready")
    await running(runner, run_id)
    guard, inner = supervisors(run_id)
    inner.kill()
    job = await ended(runner, run_id)
    assert (job.condition, job.exit_code, job.message, job.remains) == ("Failed", None, LOST, ())
    assert job.started_at is not None
    assert job.finished_at is not None
    assert processes.marked(run_id) == set()
    assert await text(runner, run_id) == b"ready"
    await gone(guard)


@pytest.mark.fault("the guard of a run's supervisor is killed")
async def test_a_killed_guard_changes_nothing(runner: LocalRunner) -> None:
    """The supervisor does not need it."""
    run_id = (await started(runner, "sleep 0.5; echo done")).run_id
    await running(runner, run_id)
    guard, inner = supervisors(run_id)
    guard.kill()
    assert (await ended(runner, run_id)).condition == "Complete"
    assert await text(runner, run_id) == b"done"
    await gone(inner)


@pytest.mark.fault("a run's supervisor and its guard are killed at once")
async def test_with_both_killed_the_head_is_asked_to_end_and_the_run_is_lost(
    place: LocalPlace, runner: LocalRunner
) -> None:
    """The kernel asks the head; what it leaves behind is counted and swept; nothing is claimed about its end."""
    mine = place.state.root.parent / "asked"
    run_id = (await started(runner, f"trap 'touch {mine}; exit' TERM; {SCATTER} {STAY}")).run_id
    await said(runner, run_id, b"ready")
    await running(runner, run_id)
    kill_both(run_id)
    job = await ended(runner, run_id)
    assert mine.exists()
    assert (job.condition, job.exit_code, job.finished_at, job.message) == ("Failed", None, None, LOST)
    assert len(job.remains) >= SCATTERED - 1
    assert list(await runner.jobs()) == [replace(job, remains=())]
    again = await current(await place.runner(), run_id)  # some of what it left is still forking: the count may differ
    assert again == replace(job, remains=again.remains)
    assert len(again.remains) >= SCATTERED - 1
    assert await log(runner, run_id)
    assert await runner.sweep(run_id) == ()
    assert (await current(runner, run_id)).remains == ()


def kill_both(run_id: str) -> None:
    """End the guard and the supervisor such that neither sees the other's end."""
    guard, inner = supervisors(run_id)
    for process in (guard, inner):
        process.suspend()
    for process in (guard, inner):
        process.kill()


async def test_while_the_head_lives_its_job_does_and_nothing_else_starts(runner: LocalRunner) -> None:
    """A head that outlives its supervisors keeps the slot, whatever the Lease says; `stop` still ends it."""
    run_id = (await started(runner, STUBBORN)).run_id
    await said(runner, run_id, b"ready")
    await running(runner, run_id)
    kill_both(run_id)
    other = await taken(runner, a_record("echo second"))
    with pytest.raises(Unavailable):
        await runner.launch(other)
    job = await current(runner, run_id)
    assert (state(job), job.remains) == (State.RUNNING, ())
    with pytest.raises(Conflict):
        await runner.delete(job)
    await runner.stop(job, MARK)
    assert end_state(await ended(runner, run_id)) is State.CANCELLED
    await runner.launch(other)
    assert await text(runner, other.run_id) == b"second"


async def test_a_lost_job_is_deleted_with_its_processes(runner: LocalRunner) -> None:
    """Its record does not go before what it speaks of."""
    run_id = (await started(runner, f"{SCATTER} {STAY}")).run_id
    await said(runner, run_id, b"ready")
    kill_both(run_id)
    await runner.delete(await ended(runner, run_id))
    assert processes.marked(run_id) == set()
    assert await runner.job(run_id) is None


async def test_a_supervisor_that_is_asked_to_end_ends_its_run(runner: LocalRunner) -> None:
    """SIGTERM, as a machine that shuts down sends it to all: the head is asked, and its real end is written."""
    run_id = (await started(runner, f"trap 'echo bye; exit 5' TERM; {STAY}")).run_id
    await said(runner, run_id, b"ready")
    for process in supervisors(run_id):
        process.terminate()
    job = await ended(runner, run_id)
    assert (job.exit_code, job.mark) == (5, None)
    assert await text(runner, run_id) == b"ready\nbye"


async def test_a_run_whose_directory_is_gone_ends(place: LocalPlace, runner: LocalRunner) -> None:
    """Somebody deleted it by hand: nothing goes on that nobody can see."""
    run_id = (await started(runner, FOREVER)).run_id
    await said(runner, run_id, b"ready")
    guard, _ = supervisors(run_id)
    place.state.run(run_id).rename(place.state.root / "elsewhere")
    await gone(guard)
    assert processes.marked(run_id) == set()
    assert await runner.job(run_id) is None


# The head is killed, or leaves something behind.


@pytest.mark.parametrize("last", ["exit 0", "kill -9 $$", STAY])
async def test_nothing_is_left_of_a_run(runner: LocalRunner, last: str) -> None:
    """However the head ends, by itself, by force or by a cancel: when the end is told, everything is gone."""
    run_id = (await started(runner, f"{SCATTER} echo ready; {last}")).run_id
    await said(runner, run_id, b"ready")
    if last == STAY:
        assert len(processes.marked(run_id)) > SCATTERED
        await stopped(runner, run_id)
    job = await ended(runner, run_id)
    assert processes.marked(run_id) == set()
    assert (job.condition, job.exit_code) == {
        "exit 0": ("Complete", 0),
        "kill -9 $$": ("Failed", 137),
        STAY: ("Failed", 143),
    }[last]


async def test_a_pipe_that_an_outsider_holds_does_not_hold_the_run(runner: LocalRunner) -> None:
    """The end waits for the run's processes, not for who else has its output open."""
    run_id = (await started(runner, "echo ready; sleep 1")).run_id
    await said(runner, run_id, b"ready")
    pipe = os.open(f"/proc/{head(run_id).pid}/fd/1", os.O_WRONLY)
    try:
        assert (await ended(runner, run_id)).condition == "Complete"
    finally:
        os.close(pipe)


async def test_a_head_that_cannot_start_fails(place: LocalPlace, runner: LocalRunner) -> None:
    """It is told in words, and the next run starts."""
    place.nextflow.write_text("#!/no/such/interpreter\n")
    job = await ended(runner, (await started(runner)).run_id)
    assert (job.condition, job.exit_code, job.started_at) == ("Failed", None, None)
    assert job.message is not None
    assert job.message.startswith("Nextflow could not be started: ")


async def test_the_slot_is_free_as_soon_as_the_end_is_told(place: LocalPlace, runner: LocalRunner) -> None:
    """Not when the supervisor has found the time to exit: the next run may be launched at this very moment."""
    for _ in range(5):
        await ended(runner, (await started(runner)).run_id)
        with place.state.held():
            lock = Lock.take(place.state.slot)
            assert lock is not None
            lock.release()


async def test_a_head_sees_what_it_may(place: LocalPlace) -> None:
    """An allow-list of the environment, the session's id, no input, and a directory that all runs share."""
    environ = {"PATH": os.environ["PATH"], "NXF_OPTS": "-Xmx1g", "REDIS_URL": "redis://secret", "NXF_UUID": "other"}
    runner = await place.runner(environ=environ)
    job = await started(runner, "pwd; env -0 | sort -z | tr '\\0' '\\n'; read -r line || echo end of input")
    lines = (await text(runner, job.run_id)).decode().splitlines()
    assert lines[0] == str(place.state.launch)
    assert lines[-1] == "end of input"
    shells = ("PWD=", "SHLVL=", "_=", "OLDPWD=", "LC_CTYPE=")  # and the stub's Python
    assert [line for line in lines[1:-1] if not line.startswith(shells)] == [
        f"NEXTFLOW_CONTROLLER_RUN={job.run_id}",
        "NXF_OPTS=-Xmx1g",
        f"NXF_UUID={job.record.session_id}",
        f"PATH={os.environ['PATH']}",
    ]


# The launch.


async def test_a_job_that_the_lease_does_not_name_is_not_launched(runner: LocalRunner) -> None:
    """No Lease, another run's, or one of the same name: it stays inert."""
    job = await runner.create(a_record("echo x"))
    for holder in (None, Holder(a_record().run_id, job.uid), Holder(job.run_id, "another")):
        await runner.write_lease(await runner.lease(), holder)
        with pytest.raises(Conflict):
            await runner.launch(job)
    await runner.write_lease(await runner.lease(), job.holder)
    await runner.launch(job)
    assert await text(runner, job.run_id) == b"x"


async def test_without_nextflow_nothing_is_launched(place: LocalPlace) -> None:
    """`check` says so, and the Job stays what it was."""
    for missing in (None, place.nextflow.with_name("not-there")):
        runner = await place.runner(nextflow=missing)
        with pytest.raises(Unavailable, match="Nextflow"):
            await runner.check()
        job = await taken(runner, a_record())
        with pytest.raises(Unavailable) as caught:
            await runner.launch(job)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert await runner.job(job.run_id) == job


async def test_a_supervisor_that_does_not_start_changes_nothing(
    runner: LocalRunner, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died before it answered and nothing was written: that is a definite no, and the next launch succeeds."""
    job = await taken(runner, a_record("echo x"))
    broken = directory / "python"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        for executable in (str(broken), "/no/such/python"):
            patch.setattr(sys, "executable", executable)
            with pytest.raises(Unavailable) as caught:
                await runner.launch(job)
            assert not isinstance(caught.value, OutcomeUnknown)
            assert await runner.job(job.run_id) == job
    await runner.launch(job)
    assert await text(runner, job.run_id) == b"x"


async def test_a_supervisor_that_does_not_answer_leaves_it_open(
    runner: LocalRunner, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did, or not, is found by reading again."""
    job = await taken(runner, a_record("echo x"))
    silent = directory / "python"
    silent.write_text(f'#!/bin/sh\n"{sys.executable}" "$@" >/dev/null\nexec sleep 3600\n')
    silent.chmod(0o755)
    monkeypatch.setattr(processes, "_LAUNCH_SECONDS", 1.0)
    monkeypatch.setattr(sys, "executable", str(silent))
    with pytest.raises(OutcomeUnknown) as caught:
        await runner.launch(job)
    assert caught.value.run_id == job.run_id
    assert (await ended(runner, job.run_id)).condition == "Complete"


LAUNCHER = """
import asyncio, os, sys
from pathlib import Path
from common.local.runner import LocalRunner
async def main():
    runner = LocalRunner(Path(sys.argv[1]), Path(sys.argv[2]), os.environ)
    job = await runner.job(sys.argv[3])
    print("launching", flush=True)
    await runner.launch(job)
    print("launched", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@contextmanager
def launcher(place: LocalPlace, run_id: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that launches the run; it and its whole group are killed at the end."""
    command = [sys.executable, "-c", LAUNCHER, str(place.state.root), str(place.nextflow), run_id]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "launching\n"
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.fault("a launcher is killed at a random moment")
async def test_a_launcher_may_be_killed_at_any_moment(place: LocalPlace, runner: LocalRunner) -> None:
    """Its Job is inert and can be launched, or it is launched and runs: once, to its end."""
    job = await taken(runner, a_record())
    begun = time.monotonic()
    with launcher(place, job.run_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "launched\n"
        whole = time.monotonic() - begun
    seen = set()
    await ended(runner, job.run_id)
    for step in range(12):
        job = await taken(runner, a_record("echo once"))
        begun = time.monotonic()
        with launcher(place, job.run_id):
            await asyncio.sleep(begun + (step / 10) * whole - time.monotonic())
        found = await current(runner, job.run_id)
        seen.add(found.launched)
        if found.inert:
            with suppress(Conflict):  # its supervisor may be on the way still
                await runner.launch(found)
        over = await ended(runner, job.run_id)
        assert (over.condition, await text(runner, job.run_id)) == ("Complete", b"once")
    assert False in seen


@pytest.mark.fault("the server's whole process group is killed in the middle of a run")
async def test_a_run_outlives_its_server(place: LocalPlace, runner: LocalRunner) -> None:
    """kill -9 of the server's whole process group in mid-run: not a line and not the end is lost."""
    job = await taken(runner, a_record("for n in $(seq 60); do echo $n; sleep 0.02; done"))
    with launcher(place, job.run_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "launched\n"
    assert state(await running(runner, job.run_id)) is State.RUNNING
    assert len(supervisors(job.run_id)) == 2
    assert await text(runner, job.run_id) == b"\n".join(b"%d" % number for number in range(1, 61))
    assert (await ended(runner, job.run_id)).condition == "Complete"


def a_supervisor(run_id: str) -> "subprocess.Popen[str]":
    """A supervisor that waits for its orders."""
    command = [sys.executable, "-m", "common.local.supervisor", run_id]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=null, text=True)


@pytest.mark.fault("a launcher is killed while it writes its orders")
async def test_orders_that_were_cut_off_are_not_followed(runner: LocalRunner) -> None:
    """A launcher that died while it wrote them has launched nothing."""
    job = await taken(runner, a_record("echo x"))
    whole = json.dumps(asdict(runner._orders(job)))
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        with a_supervisor(job.run_id) as process:
            said, _ = process.communicate(whole[:size])
        assert (said, process.returncode) == ("", 1)
    assert await runner.job(job.run_id) == job


async def test_an_answer_that_nobody_reads_changes_nothing(runner: LocalRunner) -> None:
    """A launcher that died before the answer: the run is launched all the same."""
    job = await taken(runner, a_record("echo x"))
    with a_supervisor(job.run_id) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(json.dumps(asdict(runner._orders(job))))
    assert (await ended(runner, job.run_id)).condition == "Complete"


async def test_the_recorder_is_on_its_own(place: LocalPlace, directory: Path) -> None:
    """It gets the run's id and directory and its own environment, no lock and no mark, and outlives the run."""
    told, script = directory / "told", directory / "recorder"
    script.write_text(
        f"#!/bin/bash\nls -l /proc/$$/fd >{told}.fds\nenv >{told}.env\n"
        f'echo "$$ $1 $2" >{told}.tmp\nmv {told}.tmp {told}\nexec sleep 3600\n'
    )
    script.chmod(0o755)
    runner = await place.runner(recorder=[str(script)], recorder_environ={"PATH": os.environ["PATH"], "MINE": "1"})
    job = await started(runner, "sleep 1")

    async def look() -> bool:
        return told.exists()

    await eventually(look, "the recorder")
    pid, *arguments = told.read_text().split()
    recorder = psutil.Process(int(pid))
    try:
        guard, inner = supervisors(job.run_id)
        assert recorder.ppid() == guard.pid
        assert set(guard.children()) == {inner, recorder}
        await ended(runner, job.run_id)
        assert arguments == [job.run_id, str(place.state.run(job.run_id))]
        assert processes.marked(job.run_id) == set()
        assert await runner.sweep(job.run_id) == ()
        assert recorder.is_running()
        assert os.getsid(recorder.pid) == recorder.pid
        assert ".lock" not in told.with_suffix(".fds").read_text()
        variables = {line.partition("=")[0] for line in told.with_suffix(".env").read_text().splitlines()}
        assert variables - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "MINE"}
    finally:
        recorder.kill()


async def test_a_run_ends_after_its_recorder_has_all_of_it(place: LocalPlace, directory: Path) -> None:
    """Who sees the end sees what led to it: it is written once the recorder says that it has the whole log."""
    script, may = directory / "recorder", directory / "may"
    script.write_text(
        f"#!/bin/bash\nuntil [ -e $2/log.whole ] && [ -e {may} ]; do sleep 0.02; done\n"
        "mkdir -p $2/archive/1\ntouch $2/archive/1/end\n"
    )
    script.chmod(0o755)
    runner = await place.runner(recorder=[str(script)], recorder_environ={"PATH": os.environ["PATH"]})
    job = await started(runner, "echo the last")
    assert (await log(runner, job.run_id))[-1].text == b"the last"
    assert await runner.final(job.run_id, 1)
    assert not (await current(runner, job.run_id)).ended
    may.touch()
    await ended(runner, job.run_id)


def failing_recorder(directory: Path, code: int) -> Path:
    """A recorder that says that it was started, and ends with this code."""
    script = directory / "recorder"
    script.write_text(f"#!/bin/bash\necho started >>{directory}/told\nexit {code}\n")
    script.chmod(0o755)
    return script


@pytest.mark.fault("a run's recorder is killed")
async def test_a_recorder_that_died_is_started_again(place: LocalPlace, directory: Path) -> None:
    """While the run lives, as a sidecar is."""
    recorder = [str(failing_recorder(directory, 1))]
    runner = await place.runner(recorder=recorder, recorder_environ={"PATH": os.environ["PATH"]})
    run_id = (await started(runner, FOREVER)).run_id

    async def again() -> bool:
        told = directory / "told"
        return told.exists() and len(told.read_text().splitlines()) > 1

    await eventually(again, "the recorder to be started again")
    await stopped(runner, run_id)
    await ended(runner, run_id)


async def test_a_recorder_that_ended_well_is_not_started_again(place: LocalPlace, directory: Path) -> None:
    """It had nothing left to do."""
    recorder = [str(failing_recorder(directory, 0))]
    runner = await place.runner(recorder=recorder, recorder_environ={"PATH": os.environ["PATH"]})
    await ended(runner, (await started(runner, "sleep 3")).run_id)
    assert (directory / "told").read_text() == "started\n"


async def test_a_recorder_that_cannot_start_disturbs_nobody(place: LocalPlace) -> None:
    """The run is what it is without one."""
    runner = await place.runner(recorder=["/no/such/recorder"])
    assert (await ended(runner, (await started(runner, "echo x")).run_id)).condition == "Complete"


async def test_lines_written_while_a_reader_looks_away_are_not_lost(
    place: LocalPlace, runner: LocalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read all there was, and before it knows whether that was all, the run writes much more and ends."""
    other = await place.runner()
    run_id = (await started(runner, "echo 0; sleep 1; seq 20000")).run_id
    await said(other, run_id, b"0")
    real = runner._do

    async def slow(action: Any) -> Any:
        await ended(other, run_id)
        return await real(action)

    monkeypatch.setattr(runner, "_do", slow)
    assert [int(line.text) for line in await log(runner, run_id)] == list(range(20_001))


# The state directory.


@contextmanager
def stuck(place: LocalPlace) -> Iterator[psutil.Process]:
    """A process that was stopped while it held the mutex."""
    hold = (
        "import fcntl, sys; fcntl.flock(f := open(sys.argv[1], 'a'), fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", hold, str(place.state.root / "mutex")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


@pytest.mark.fault("whoever holds the state directory's mutex is stopped")
async def test_a_stopped_holder_of_the_mutex_makes_the_runner_unavailable(
    place: LocalPlace, runner: LocalRunner
) -> None:
    """Everybody is told, however many ask, without waiting for each other; when the holder is gone all is as before."""
    job = await taken(runner, a_record())
    lease = await runner.lease()
    mark = replace(job, uid="any")
    with stuck(place):
        calls: list[Any] = [runner.check(), runner.lease(), runner.job(job.run_id), runner.jobs(), runner.launch(job)]
        calls += [
            runner.write_lease(lease, None),
            runner.create(a_record()),
            runner.seal(job, MARK),
            runner.delete(mark),
        ]
        calls += [runner.stop(job, MARK), runner.sweep(job.run_id), log(runner, job.run_id)]
        calls += [runner.lease() for _ in range(100)]
        async with asyncio.timeout(PATIENCE_SECONDS):  # one after the other they would take minutes
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
    assert (await runner.lease(), await runner.job(job.run_id)) == (lease, job)


@pytest.mark.fault("whoever holds the state directory's mutex is stopped while a run ends")
async def test_a_run_that_ends_while_the_mutex_is_stuck_ends_after_it(place: LocalPlace, runner: LocalRunner) -> None:
    """Its supervisor waits as long as it takes; nothing is lost and nothing is made up."""
    run_id = (await started(runner, "sleep 0.5; echo done; exit 4")).run_id
    with stuck(place):
        for process in psutil.wait_procs([head(run_id)], PATIENCE_SECONDS)[1]:
            raise AssertionError(process)
    job = await ended(runner, run_id)
    assert (job.exit_code, await text(runner, run_id)) == (4, b"done")


@pytest.mark.fault("a Job's file is cut off anywhere")
async def test_a_torn_job_is_no_job(place: LocalPlace, runner: LocalRunner) -> None:
    """Whatever a crash leaves of one that was being made, another can be made in its place."""
    job = await runner.create(a_record())
    file = place.state.run(job.run_id) / "job.json"
    whole = file.read_bytes()
    for content in (None, b"", b"{", whole[: len(whole) // 2], b"[]", b"{}", b"null", b"\xff", b'{"uid": 1, "end": 3}'):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        assert await runner.job(job.run_id) is None
        assert list(await runner.jobs()) == []
        assert await log(runner, job.run_id) == []
        await runner.delete(job)
        with pytest.raises(Conflict):
            await runner.launch(job)
    again = await runner.create(a_record(run_id=job.run_id))
    assert await runner.job(job.run_id) == again
    (place.state.runs / "run-aaaaaaaaaaaaaaaa").mkdir()
    (place.state.runs / "a file").touch()
    assert list(await runner.jobs()) == [again]


async def test_a_record_of_another_form_is_not_absence(place: LocalPlace, runner: LocalRunner) -> None:
    """Its head may live, so nobody may conclude that the Lease names nothing."""
    job = await runner.create(a_record())
    file = place.state.run(job.run_id) / "job.json"
    whole = json.loads(file.read_bytes())
    for odd in ({"record": {"of": "another version"}}, {"started_at": "never"}, {"started_at": "2030-01-01T00:00:00"}):
        file.write_text(json.dumps(whole | odd))
        with pytest.raises(Unavailable, match=job.run_id):
            await runner.job(job.run_id)
        assert list(await runner.jobs()) == []


@pytest.mark.parametrize(
    "content", [b"{", b'{"version": "x"}', b'{"run_id": 5}', b'{"uid": "\\ud800"}', b"[" * 100_000], ids=range(5)
)
async def test_a_damaged_lease_is_not_taken_for_an_empty_one(
    place: LocalPlace, runner: LocalRunner, content: bytes
) -> None:
    """No crash can do that, so nobody guesses."""
    await runner.write_lease(await runner.lease(), Holder("run", "uid"))
    place.state.lease.write_bytes(content)
    with pytest.raises(Unavailable, match=r"lease\.json"):
        await runner.lease()


@pytest.mark.fault("each system call of a write fails")
async def test_a_write_is_done_or_not_wherever_it_is_cut(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each system call of a write fails in turn: `Unavailable` left everything as it was, unknown is readable."""
    real = os.fsync
    for fail_at in range(1, 5):
        job, lease = await runner.create(a_record()), await runner.lease()
        for write, read, before in (
            (lambda lease=lease, job=job: runner.write_lease(lease, job.holder), runner.lease, lease),
            (lambda job=job: runner.seal(job, MARK), lambda job=job: runner.job(job.run_id), job),
        ):
            calls = 0

            def failing(descriptor: int, fail_at: int = fail_at) -> None:
                nonlocal calls
                calls += 1
                if calls == fail_at:
                    raise OSError(5, "Input/output error")
                real(descriptor)

            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", failing)
                result = (await asyncio.gather(write(), return_exceptions=True))[0]
            found = await read()
            if isinstance(result, Unavailable) and not isinstance(result, OutcomeUnknown):
                assert found == before
            elif not isinstance(result, OutcomeUnknown):
                assert found == result


def test_a_lock_is_free_when_it_was_released_even_if_a_child_has_it(directory: Path) -> None:
    """A process that another thread is just starting holds every descriptor for a moment."""
    lock = Lock.take(directory / "lock")
    assert lock is not None
    with subprocess.Popen(["sleep", "3600"], pass_fds=[lock.descriptor]) as child:
        assert Lock.take(directory / "lock") is None
        lock.release()
        again = Lock.take(directory / "lock")
        child.kill()
    assert again is not None
    again.release()


async def test_another_process_sees_the_same(place: LocalPlace, runner: LocalRunner) -> None:
    """A runner in a process of its own, without Nextflow, reads what this one wrote."""
    over = await ended(runner, (await started(runner, "echo x")).run_id)
    read = """
import asyncio, sys
from pathlib import Path
from common.local.runner import LocalRunner
async def main():
    runner = LocalRunner(Path(sys.argv[1]), None, {})
    print(await runner.job(sys.argv[2]), await runner.lease(), [b async for b in runner.lines(sys.argv[2], 1)])
asyncio.run(main())
"""
    command = [sys.executable, "-c", read, str(place.state.root), over.run_id]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=True)
    batches = [batch async for batch in runner.lines(over.run_id, 1)]
    assert done.stdout == f"{over} {await runner.lease()} {batches}\n"


# What the request names.


async def test_a_pipeline_outside_is_not_accepted(place: LocalPlace, directory: Path) -> None:
    """Before anything is created for it."""
    (directory / "pipelines").mkdir()
    (directory / "pipelines" / "link").symlink_to(directory)
    runner = await place.runner(sources=Sources(("./",), directory / "pipelines"))
    for pipeline in ("../outside", "link", "a/../../b"):
        with pytest.raises(Invalid):
            await runner.accept(RunRequest(pipeline=pipeline))
    assert list(await runner.jobs()) == []


async def test_a_pipeline_that_moves_outside_before_the_launch_seals_the_job(
    place: LocalPlace, directory: Path
) -> None:
    """It will never run, and its end says why; whoever comes next is not held up."""
    inside = directory / "pipelines" / "stub"
    inside.mkdir(parents=True)
    runner = await place.runner(sources=Sources(("./",), directory / "pipelines"))
    record = a_record()
    request = record.request.model_copy(update={"pipeline": "stub"})
    job = await taken(runner, record.model_copy(update={"request": request}))
    inside.rmdir()
    inside.symlink_to(directory)
    with pytest.raises(Conflict):
        await runner.launch(job)
    sealed = await current(runner, job.run_id)
    assert sealed.sealed
    assert "/pipeline" in (sealed.message or "")


async def test_a_session_that_never_began_is_not_resumed(place: LocalPlace, runner: LocalRunner) -> None:
    """Nextflow would refuse; the run starts afresh under the session's id, and its log says so."""
    record = a_record("echo $NXF_UUID").model_copy(update={"resumed_from": "run-aaaaaaaaaaaaaaaa"})
    job = await runner.launch(await taken(runner, record))
    note, session = [line.text.decode() for line in await log(runner, job.run_id)]
    assert "run-aaaaaaaaaaaaaaaa" in note
    assert session == record.session_id
    history = place.state.launch / ".nextflow" / "history"
    history.parent.mkdir()
    history.write_text(f"time\t1s\trun-b\tOK\trev\t{record.session_id}\tnextflow run\n")
    assert "-resume" in runner._orders(replace(job, record=record)).command


async def test_progress_is_what_was_written_down(place: LocalPlace, runner: LocalRunner) -> None:
    """As the recorder writes it; a file that does not make sense says nothing."""
    job = await runner.create(a_record())
    progress = Progress(total=ProcessProgress(submitted=2, running=1, succeeded=1))
    file = place.state.run(job.run_id) / "progress.json"
    file.write_text(progress.model_dump_json())
    assert await runner.progress(job.run_id) == progress
    file.write_text("{")
    assert await runner.progress(job.run_id) is None


async def test_a_runner_is_made_from_settings(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are those of the server; the recorder is told where the state is."""
    monkeypatch.chdir(place.state.root.parent)
    environ = {"PATH": os.environ["PATH"], "STATE_DIR": "state"}
    found = toolchain.Toolchain(place.nextflow, Path("/a/java"), "here", "24")
    monkeypatch.setattr(toolchain, "find", lambda cache, environ: found)
    runner = LocalRunner.open(Settings(state_dir=Path("state"), pipeline_sources=("*",)), environ)
    await runner.check()
    orders = runner._orders(await taken(runner, a_record()))
    assert orders.command[0] == str(place.nextflow)
    assert orders.environ["JAVA_HOME"] == "/a/java"
    assert orders.recorder[1:] == ["-m", "common.recorder.local", orders.run_id, str(place.state.run(orders.run_id))]
    assert orders.recorder_environ == environ | {"STATE_DIR": str(place.state.root)}
    await runner.close()
