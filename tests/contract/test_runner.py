"""What `common.runner.Runner` promises, sentence by sentence, of every runner."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from common.errors import Conflict
from common.events import Line
from common.jobs import Holder, Job, Lease, end_state, state
from common.kube import log as kube_log
from common.models import CancelMark
from common.names import new_run_id
from common.phases import State
from common.runner import Runner
from tests.contract.conftest import (
    FOREVER,
    MARK,
    STUBBORN,
    Place,
    a_record,
    current,
    ended,
    log,
    on_kubernetes,
    running,
    said,
    started,
    stopped,
    taken,
    text,
)

pytestmark = pytest.mark.slow


async def outcomes(*calls: "asyncio._CoroutineLike[object]") -> list[str]:
    """What became of calls made at once: `done` or `Conflict`; anything else is a failure."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    unexpected = [
        result for result in results if isinstance(result, BaseException) and not isinstance(result, Conflict)
    ]
    assert not unexpected
    return sorted("Conflict" if isinstance(result, Conflict) else "done" for result in results)


async def test_a_place_in_order_passes_the_check(runner: Runner) -> None:
    """`check` returns."""
    await runner.check()


async def test_closing_leaves_runs_alone(place: Place) -> None:
    """A run goes on when the runner that launched it is closed."""
    first = await place.runner()
    job = await started(first, FOREVER)
    await said(first, job.run_id, b"ready")
    await first.close()
    second = await place.runner()
    assert state(await current(second, job.run_id)) is State.RUNNING
    await stopped(second, job.run_id)
    assert (await ended(second, job.run_id)).mark == MARK


# The Lease.


async def test_the_lease_begins_empty(runner: Runner) -> None:
    """A new place's Lease names nobody, and reading it again shows the same."""
    lease = await runner.lease()
    assert lease.holder is None
    assert await runner.lease() == lease


async def test_the_lease_names_whom_it_was_told(runner: Runner) -> None:
    """A write's answer is what the next read shows; None empties it."""
    holder = Holder(new_run_id(), "uid")
    written = await runner.write_lease(await runner.lease(), holder)
    assert (written.holder, await runner.lease()) == (holder, written)
    emptied = await runner.write_lease(written, None)
    assert (emptied.holder, await runner.lease()) == (None, emptied)


async def test_a_stale_write_to_the_lease_is_refused(runner: Runner) -> None:
    """Also where the Lease names again what it named when it was read."""
    first = await runner.lease()
    holder = Holder(new_run_id(), "uid")
    emptied = await runner.write_lease(await runner.write_lease(first, holder), None)
    with pytest.raises(Conflict):
        await runner.write_lease(first, Holder(new_run_id(), "late"))
    assert await runner.lease() == emptied


async def test_one_of_many_takes_the_lease(place: Place) -> None:
    """Of eight writers who read the same version, each in another process, one succeeds."""
    runners = [await place.runner() for _ in range(8)]
    read = await runners[0].lease()
    holders = [Holder(new_run_id(), str(number)) for number in range(8)]
    calls = [runner.write_lease(read, holder) for runner, holder in zip(runners, holders, strict=True)]
    assert await outcomes(*calls) == ["Conflict"] * 7 + ["done"]
    assert (await runners[0].lease()).holder in holders


# Create and read.


async def test_a_job_is_created_inert_with_its_record(runner: Runner) -> None:
    """The whole record comes back, and nothing else is claimed."""
    record = a_record('echo "$(date)" \\ \u00e9 \U0001f9ec', profile="a,b", workdir="x/y", triggered_by="Zo\u00eb")
    job = await runner.create(record)
    assert job == Job(record=record, uid=job.uid, version=job.version)
    assert await runner.job(record.run_id) == job


async def test_a_second_job_of_the_name_is_refused(runner: Runner) -> None:
    """The first one stays what it was."""
    first = await runner.create(a_record())
    with pytest.raises(Conflict):
        await runner.create(a_record("another", run_id=first.run_id))
    assert await runner.job(first.run_id) == first


async def test_one_of_many_creates_the_job(place: Place) -> None:
    """Of eight who create it at once, each in another process, one succeeds."""
    runners = [await place.runner() for _ in range(8)]
    run_id = new_run_id()
    assert await outcomes(*(runner.create(a_record(run_id=run_id)) for runner in runners)) == ["Conflict"] * 7 + [
        "done"
    ]


async def test_a_job_made_again_is_another(runner: Runner) -> None:
    """What was read of a Job says nothing about a later one of the same name."""
    first = await runner.create(a_record())
    await runner.delete(first)
    second = await runner.create(a_record(run_id=first.run_id))
    assert second.uid != first.uid
    await runner.delete(first)
    for late in (runner.launch(first), runner.seal(first, MARK)):
        with pytest.raises(Conflict):
            await late
    assert await runner.job(first.run_id) == second


async def test_there_is_no_job_of_an_unknown_name(runner: Runner) -> None:
    """Nor of a name that is none."""
    for run_id in (new_run_id(), "", ".", "..", "../..", "/", "run-../../../x", "\x00", "a" * 5000):
        assert await runner.job(run_id) is None


async def test_all_jobs_are_listed(runner: Runner) -> None:
    """In every state, as `job` shows them."""
    assert list(await runner.jobs()) == []
    inert = await runner.create(a_record())
    sealed = await runner.seal(await runner.create(a_record()), MARK)
    done = await ended(runner, (await started(runner)).run_id)
    listed = {job.run_id: job for job in await runner.jobs()}
    assert listed == {job.run_id: job for job in (inert, sealed, done)}


async def test_reads_do_not_write(runner: Runner) -> None:
    """However often a Job and the Lease are read, what was read first can still be written to."""
    job, lease = await runner.create(a_record()), await runner.lease()
    for _ in range(5):
        await runner.job(job.run_id)
        await runner.jobs()
        await runner.lease()
        await runner.progress(job.run_id)
    taken_lease = await runner.write_lease(lease, job.holder)
    await runner.launch(job)
    assert (await runner.lease()).version == taken_lease.version


# Launch.


async def test_a_launched_job_runs_to_its_end(runner: Runner) -> None:
    """It starts, says something, ends; times and exit code are told."""
    before = datetime.now(UTC)
    launched = await started(runner, "echo hello")
    assert (launched.launched, launched.ended) == (True, False)
    assert await text(runner, launched.run_id) == b"hello"
    job = await ended(runner, launched.run_id)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert before <= job.started_at <= job.finished_at <= datetime.now(UTC)
    assert replace(job, version="", started_at=None, finished_at=None) == replace(
        launched, version="", condition="Complete", exit_code=0, awaited_since=None
    )


@pytest.mark.parametrize(("script", "exit_code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
async def test_a_head_that_fails_is_told_as_it_failed(runner: Runner, script: str, exit_code: int) -> None:
    """An exit code is told as it is, a signal as containers tell it, and both in words."""
    job = await ended(runner, (await started(runner, script)).run_id)
    assert (job.condition, job.exit_code, end_state(job)) == ("Failed", exit_code, State.FAILED)
    assert job.message


async def test_nothing_runs_before_the_launch(runner: Runner) -> None:
    """An inert Job that the Lease names is still inert: its log ticks and stays empty."""
    job = await taken(runner, a_record("echo started"))
    batches: list[Sequence[Line]] = []
    async for batch in runner.lines(job.run_id, 1):
        batches.append(batch)
        if len(batches) == 2:
            break
    assert batches == [(), ()]
    assert await runner.job(job.run_id) == job


async def test_a_job_is_launched_once(runner: Runner) -> None:
    """A second launch is refused, by what was read before the first and by what was read after it."""
    inert = await taken(runner, a_record(FOREVER))
    launched = await runner.launch(inert)
    for again in (inert, launched, await running(runner, inert.run_id)):
        with pytest.raises(Conflict):
            await runner.launch(again)
    await said(runner, inert.run_id, b"ready")
    await stopped(runner, inert.run_id)
    job = await ended(runner, inert.run_id)
    with pytest.raises(Conflict):
        await runner.launch(job)
    # The pod of a cancelled Job is deleted, and its log with it: what is kept is the recorder's. Who saw that it had
    # ended, and came too late for its log, says that this is not to be had.
    gone = (b"", kube_log._CUT) if on_kubernetes(runner) else ()
    assert await text(runner, inert.run_id) in (b"ready", *gone)


async def test_one_of_many_launches_the_job(place: Place) -> None:
    """Of six who launch it at once, each in another process, one succeeds, and one head runs."""
    runners = [await place.runner() for _ in range(6)]
    job = await taken(runners[0], a_record("echo once"))
    assert await outcomes(*(runner.launch(job) for runner in runners)) == ["Conflict"] * 5 + ["done"]
    assert (await ended(runners[0], job.run_id)).condition == "Complete"
    assert await text(runners[0], job.run_id) == b"once"


async def test_a_job_that_is_gone_is_not_launched(runner: Runner) -> None:
    """Nor is anything else done."""
    job = await taken(runner, a_record())
    await runner.delete(job)
    with pytest.raises(Conflict):
        await runner.launch(job)
    assert await runner.job(job.run_id) is None


# Seal.


async def test_a_sealed_job_is_never_launched(runner: Runner) -> None:
    """Its end is told at once, with mark or reason; its log is empty and final."""
    inert = await taken(runner, a_record("echo started"))
    sealed = await runner.seal(inert, None, "Too late.")
    assert replace(sealed, version="") == replace(inert, version="", sealed=True, message="Too late.")
    for stale in (inert, sealed):
        with pytest.raises(Conflict):
            await runner.launch(stale)
    assert await runner.job(inert.run_id) == sealed
    assert await log(runner, inert.run_id) == []


async def test_a_seal_keeps_its_mark(runner: Runner) -> None:
    """To the microsecond, as whoever reads it later sees it."""
    sealed = await runner.seal(await runner.create(a_record()), MARK)
    assert (sealed.mark, end_state(sealed)) == (MARK, State.CANCELLED)
    assert await runner.job(sealed.run_id) == sealed


async def test_only_an_inert_job_is_sealed(runner: Runner) -> None:
    """Not by a stale read of one that was launched, nor a fresh one of any other."""
    inert = await taken(runner, a_record(FOREVER))
    launched = await runner.launch(inert)
    for read in (inert, launched, await running(runner, inert.run_id)):
        with pytest.raises(Conflict):
            await runner.seal(read, MARK)
    await stopped(runner, inert.run_id)
    with pytest.raises(Conflict):
        await runner.seal(await ended(runner, inert.run_id), None)


async def test_of_launch_and_seal_one_wins(place: Place) -> None:
    """At once, in two processes, again and again: it runs or it never does, and everybody is told right."""
    first, second = await place.runner(), await place.runner()
    for number in range(10):
        inert = await taken(first, a_record("echo ran"))

        async def seal(inert: Job = inert, pause: float = number * 0.01) -> Job:
            await asyncio.sleep(pause)  # across all that a launch does
            return await second.seal(inert, MARK)

        assert await outcomes(first.launch(inert), seal()) == ["Conflict", "done"]
        job = await ended(first, inert.run_id)
        assert job.launched != job.sealed
        assert await text(second, inert.run_id) == (b"ran" if job.launched else b"")


# Stop.


async def test_a_stopped_head_is_asked_first(runner: Runner) -> None:
    """It gets SIGTERM and time to clean up; the answer does not wait for its end."""
    script = "trap 'echo cleaning; sleep 0.3; echo clean; exit 1' TERM; echo ready; while :; do sleep 0.05; done"
    run_id = (await started(runner, script)).run_id
    await said(runner, run_id, b"ready")
    following = asyncio.create_task(text(runner, run_id))
    stopping = await stopped(runner, run_id)
    assert (stopping.mark, stopping.condition, state(stopping)) == (MARK, None, State.CANCELLING)
    job = await ended(runner, run_id)
    assert (job.mark, job.condition, end_state(job)) == (MARK, "Failed", State.CANCELLED)
    assert job.exit_code in ((1, None) if on_kubernetes(runner) else (1,))  # it goes with the pod
    assert await following == b"ready\ncleaning\nclean"


async def test_a_head_that_will_not_end_is_forced(runner: Runner) -> None:
    """After the grace, not before it."""
    run_id = (await started(runner, STUBBORN)).run_id
    await said(runner, run_id, b"ready")
    begun = asyncio.get_running_loop().time()
    await stopped(runner, run_id)
    job = await ended(runner, run_id)
    assert job.exit_code in ((137, None) if on_kubernetes(runner) else (137,))
    assert asyncio.get_running_loop().time() - begun >= 1.0
    assert job.remains == ()


async def test_only_a_running_job_is_stopped(runner: Runner) -> None:
    """Not an inert one, a sealed one, one that has ended, or by a stale read."""
    inert = await taken(runner, a_record())
    with pytest.raises(Conflict):
        await runner.stop(inert, MARK)
    launched = await runner.launch(inert)
    over = await ended(runner, inert.run_id)
    sealed = await runner.seal(await runner.create(a_record()), None)
    for read in (launched, over, sealed):
        with pytest.raises(Conflict):
            await runner.stop(read, MARK)
    assert await runner.job(inert.run_id) == over


async def test_a_mark_is_for_ever(runner: Runner) -> None:
    """Who stops it by a read from before the first mark is refused, and the first mark stays."""
    await said(runner, run_id := (await started(runner, FOREVER)).run_id, b"ready")
    read = await running(runner, run_id)
    await runner.stop(read, MARK)
    with pytest.raises(Conflict):
        await runner.stop(read, CancelMark(requested_by="late", requested_at=datetime.now(UTC)))
    assert (await ended(runner, run_id)).mark == MARK


async def test_a_second_stop_changes_nothing(runner: Runner) -> None:
    """Also by somebody who has read the first mark: that one stays, and the head is ended all the same."""
    await said(runner, run_id := (await started(runner, STUBBORN)).run_id, b"ready")
    first = await stopped(runner, run_id)
    second = await runner.stop(first, CancelMark(requested_by="late", requested_at=datetime.now(UTC)))
    assert second == first
    assert (await ended(runner, run_id)).mark == MARK


async def test_of_stop_and_end_one_is_first(runner: Runner) -> None:
    """A run that ended first stays what it was; one that was marked first is cancelled."""
    chance = random.Random(5)
    for _ in range(8):
        run_id = (await started(runner, "sleep 0.1; echo done")).run_id
        read = await running(runner, run_id)
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        try:
            await runner.stop(read, MARK)
            expected: CancelMark | None = MARK
        except Conflict:
            expected = None
        job = await ended(runner, run_id)
        assert job.mark == expected
        if expected is None:
            assert (job.condition, await text(runner, run_id)) == ("Complete", b"done")


async def test_no_end_is_told_while_anything_lives(runner: Runner) -> None:
    """A background process that the head left is ended before the Job has, and its last words are in the log."""
    if on_kubernetes(runner):
        pytest.skip("a container ends with its first process, and takes all others with it at once")
    script = "(trap 'echo last words; exit' TERM; echo ready; while :; do sleep 0.05; done) & sleep 0.3; exit 0"
    job = await ended(runner, (await started(runner, script)).run_id)
    assert (job.condition, job.remains) == ("Complete", ())
    assert (await text(runner, job.run_id)).endswith(b"last words")


# Delete and sweep.


async def test_a_job_that_has_ended_or_never_ran_is_deleted(runner: Runner) -> None:
    """With its log; once more is success."""
    inert = await runner.create(a_record())
    sealed = await runner.seal(await runner.create(a_record()), None)
    over = await ended(runner, (await started(runner, "echo x")).run_id)
    for job in (inert, sealed, over):
        await runner.delete(job)
        await runner.delete(job)
        assert await runner.job(job.run_id) is None
        assert await log(runner, job.run_id) == []
    assert list(await runner.jobs()) == []


async def test_a_job_that_changed_or_runs_is_not_deleted(runner: Runner) -> None:
    """It goes on."""
    inert = await taken(runner, a_record(FOREVER))
    launched = await runner.launch(inert)
    for read in (inert, launched, await running(runner, inert.run_id)):
        with pytest.raises(Conflict):
            await runner.delete(read)
    assert state(await current(runner, inert.run_id)) is State.RUNNING


async def test_a_sweep_leaves_a_running_head_alone(runner: Runner) -> None:
    """And finds nothing after a clean end, or of a run that never was."""
    run_id = (await started(runner, FOREVER)).run_id
    await said(runner, run_id, b"ready")
    await runner.sweep(run_id)
    assert state(await current(runner, run_id)) is State.RUNNING
    await stopped(runner, run_id)
    await ended(runner, run_id)
    assert await runner.sweep(run_id) == ()
    assert await runner.sweep(new_run_id()) == ()


# Lines.


async def test_lines_come_while_the_run_goes_on(runner: Runner) -> None:
    """A follower has a line long before the end, ticks while there is none, and more when there is more."""
    pause = 6 if on_kubernetes(runner) else 1.5  # longer than it may take to see that the head has started
    run_id = (await started(runner, f"echo first; sleep {pause}; echo second")).run_id
    seen: list[bytes] = []
    async for batch in runner.lines(run_id, 1):
        seen += [line.text for line in batch] or [b"(tick)"]
        if seen[-1] == b"first":
            assert not (await current(runner, run_id)).ended
    assert [text for text in seen if text != b"(tick)"] == [b"first", b"second"]
    assert b"(tick)" in seen[seen.index(b"first") : seen.index(b"second")]


async def test_every_reader_has_the_same_lines(place: Place) -> None:
    """The same ids, growing; followers from the beginning, late ones, and ones in another process."""
    first, second = await place.runner(), await place.runner()
    script = "for n in $(seq 300); do echo line $n; [ $((n % 100)) = 0 ] && sleep 0.1; done"
    run_id = (await started(first, script)).run_id
    early, other = await asyncio.gather(log(first, run_id), log(second, run_id))
    late = await log(second, run_id)
    assert early == other == late
    assert [line.text for line in early] == [b"line %d" % number for number in range(1, 301)]
    ids = [line.id for line in early]
    assert ids == sorted(set(ids))


async def test_what_is_written_at_the_very_end_is_not_lost(runner: Runner) -> None:
    """Again and again, followers are right there when the run ends."""
    for _ in range(10):
        run_id = (await started(runner, "sleep 0.05; seq 2000; printf end")).run_id
        lines = await log(runner, run_id)
        assert [line.text for line in lines] == [*(b"%d" % number for number in range(1, 2001)), b"end"]
        assert (await current(runner, run_id)).ended


async def test_lines_are_bytes_as_they_were_written(runner: Runner) -> None:
    """Invalid UTF-8, NUL, carriage returns, empty lines, and a last line without a newline."""
    script = r"printf 'a\xff\xfe\x00b\n\n\r\r\n \n 2026-01-01T00:00:00Z stdout F x\nno newline'"
    expected = [b"a\xff\xfe\x00b", b"", b"\r\r", b" ", b" 2026-01-01T00:00:00Z stdout F x", b"no newline"]
    run_id = (await started(runner, script)).run_id
    if on_kubernetes(runner):
        expected[2] = b"\r"  # containerd takes CR LF for the end of a line
    assert [line.text for line in await log(runner, run_id)] == expected


async def test_long_lines_are_one_line(runner: Runner) -> None:
    """Of a piece's size exactly, one more, one less, and much more."""
    sizes = [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 32 * 1024, 1_000_000]
    script = f"for n in {' '.join(map(str, sizes))}; do head -c $n /dev/zero | tr '\\0' x; echo; done"
    run_id = (await started(runner, script)).run_id
    assert [line.text for line in await log(runner, run_id)] == [b"x" * size for size in sizes]


async def test_many_lines_come_fast_and_in_portions(runner: Runner) -> None:
    """100,000 lines, none lost, in batches that no reader chokes on."""
    run_id = (await started(runner, "seq 100000")).run_id
    begun = asyncio.get_running_loop().time()
    count = most = 0
    async for batch in runner.lines(run_id, 1):
        assert [int(line.text) for line in batch] == list(range(count + 1, count + len(batch) + 1))
        count, most = count + len(batch), max(most, len(batch))
    assert count == 100_000
    assert most <= 1000
    assert asyncio.get_running_loop().time() - begun < 20


async def test_a_line_that_is_not_whole_is_not_told_before_it_is(runner: Runner) -> None:
    """A prompt waits for its newline, and other lines do not wait for it."""
    run_id = (await started(runner, "printf 'pro'; sleep 0.2; echo other >&2; sleep 0.2; echo mpt")).run_id
    assert sorted(line.text for line in await log(runner, run_id)) == [b"other", b"prompt"]


async def test_lines_from_a_place_on(runner: Runner) -> None:
    """Exactly those behind it, under the same ids; a tick is said by nothing that was skipped."""
    run_id = (await started(runner, "seq 2000")).run_id
    lines = await log(runner, run_id)
    assert (await current(runner, run_id)).ended
    for at in (0, 1234, 1998, 1999):
        batches = [batch async for batch in runner.lines(run_id, 1, lines[at].id)]
        assert [line for batch in batches for line in batch] == lines[at + 1 :]
        assert () not in batches


async def test_a_log_is_final_once_its_run_has_ended(runner: Runner) -> None:
    """Not before, and of no run there is nothing to say."""
    run_id = (await started(runner, FOREVER)).run_id
    await said(runner, run_id, b"ready")
    assert await runner.final(run_id, 1) is False
    await stopped(runner, run_id)
    await ended(runner, run_id)
    assert await runner.final(run_id, 1) is True
    assert await runner.final(new_run_id(), 1) is None


async def test_there_are_no_lines_of_what_is_not_there(runner: Runner) -> None:
    """An unknown run's log and an attempt's that was not made end at once."""
    assert await log(runner, new_run_id()) == []
    run_id = (await started(runner, "echo x")).run_id
    assert [batch async for batch in runner.lines(run_id, 2)] == []
    assert [batch async for batch in runner.lines("../../etc", 1)] == []


async def test_progress_that_nobody_wrote_down_is_none(runner: Runner) -> None:
    """For a run, and for none."""
    assert await runner.progress((await runner.create(a_record())).run_id) is None
    assert await runner.progress(new_run_id()) is None


async def test_runs_follow_one_another(runner: Runner) -> None:
    """As soon as one has ended the next can take its place."""
    for number in range(5):
        lease = await runner.lease()
        job = await runner.create(a_record(f"echo {number}"))
        lease = await runner.write_lease(lease, job.holder)
        await runner.launch(job)
        assert (await ended(runner, job.run_id)).condition == "Complete"
        assert await runner.write_lease(lease, None) == Lease((await runner.lease()).version, None)
    assert len(await runner.jobs()) == 5
