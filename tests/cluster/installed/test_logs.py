"""Logs that outlive everything: what followers got is the run's own log, whatever was killed, emptied or away."""

import asyncio
from itertools import groupby

import pytest

from common.kube.objects import OPENING
from tests.cluster.following import COUNTING, Follower, assert_counted, assert_whole
from tests.cluster.place import IMAGES, kill9, kubectl
from tests.cluster.release import FUNCTIONS, HELD, Caller, Release, eventually, log

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# Twice twice as much as a log file of the kubelet's holds (10 MiB), and each time as long as it may take to look. Not
# before it is followed: nobody has what a file held that was begun anew before anybody could read it.
PARTS, PART_LINES = 2, 220_000
LONG = f"""\
echo ready; until [ -e /tmp/go ]; do sleep 0.1; done
line=$(printf '%092d' 0); for part in $(seq {PARTS}); do
seq -f "%06.0f $line" $(((part - 1) * {PART_LINES} + 1)) $((part * {PART_LINES})); sleep 11; done\
"""


@pytest.mark.fault("recorder, stream, Redis, archive, kubelet and containerd are killed in one run that is followed")
async def test_whatever_is_killed_no_line_is_lost(release: Release, caller: Caller) -> None:
    """One after the other, in one run that is followed all the time; each time more of it arrives."""
    run_id = await caller.started(COUNTING)
    follower = Follower(caller, run_id)
    await follower.hears_more()

    def recorder() -> None:
        kill9("process", f"common.recorder.kubernetes {run_id}")

    kills = {
        "the recorder": recorder,
        "the stream function": lambda: release.kill("stream"),
        "Redis": lambda: release.kill("redis"),
        "Redis with its data": release.empty_redis,
        "the archive function": lambda: release.kill("archive"),
        "the kubelet": lambda: kill9("kubelet"),
        "containerd": lambda: kill9("containerd"),
    }
    for what, kill in kills.items():
        await asyncio.to_thread(kill)
        await follower.hears_more(f"after {what} was killed")
    answer = await caller.asked("echo a second one")
    assert (answer.status_code, answer.json()["run_id"]) == (200, run_id), answer.text
    await asyncio.to_thread(release.let, run_id)
    await follower.end()
    assert_whole(follower.lines)
    ended = await caller.ended(run_id)
    assert (ended["status"], ended["exit_code"], ended["attempt"]) == ("succeeded", 0, 1)
    assert log(await caller.ndjson(run_id)) == log(follower.events)


@pytest.mark.fault("Nextflow is killed")
async def test_a_killed_head_has_failed_and_said_what_it_said(release: Release, caller: Caller) -> None:
    """It is not started again: what killed it would do so again. All that it wrote is told, and the slot is free."""
    run_id = await caller.started(f": {release.mark}-killed; {COUNTING}")
    follower = Follower(caller, run_id)
    await follower.hears_more()
    await asyncio.to_thread(kill9, "process", f"^bash .*{release.mark}-killed")
    await follower.end()
    assert_counted(follower.lines)
    ended = await caller.ended(run_id)
    assert (ended["status"], ended["exit_code"], ended["attempt"]) == ("failed", 137, 1)
    written = await asyncio.to_thread(kubectl, "logs", f"--namespace={release.runs}", f"job/{run_id}")
    assert [OPENING, *follower.lines] == written.splitlines()
    another = await caller.started("echo the next one")
    assert (await caller.ended(another))["status"] == "succeeded"


@pytest.mark.fault("the head is evicted from its node")
async def test_an_evicted_head_is_started_again(release: Release, caller: Caller) -> None:
    """The stream tells the boundary, and each attempt's own lines; an end that its attempts had is the run's."""
    run_id = await caller.started(COUNTING)
    follower = Follower(caller, run_id)
    await follower.hears_more()
    await asyncio.to_thread(release.evict, run_id)
    await follower.until(lambda events: any(event["type"] == "restarted" for event in events), "another attempt")
    await follower.hears_more()

    async def runs_again() -> bool:
        status = await caller.truth("/status")
        return (status["run_id"], status["status"], status["attempt"]) == (run_id, "running", 2)

    await eventually(runs_again, "the second attempt to be told")
    await asyncio.to_thread(release.let, run_id)
    await follower.end()
    attempts = [event["id"].split(".")[1] for event in follower.events if event["type"] == "log"]
    assert attempts == sorted(attempts)
    first, second = attempts.count("1"), attempts.count("2")
    assert_counted(follower.lines[:first])
    assert_whole(follower.lines[first:])
    (boundary,) = [event for event in follower.events if event["type"] == "restarted"]
    assert (boundary["id"], boundary["data"]["attempt"]) == (f"{run_id}.2.0-0", 2)
    assert "taken from its node" in boundary["data"]["reason"]
    ended = await caller.ended(run_id)
    assert (ended["status"], ended["attempt"]) == ("succeeded", 2)
    assert len(log(await caller.ndjson(run_id))) == first + second
    # Nobody but the archive has them: the first attempt's pod is gone for long, and now Redis' data are.
    await asyncio.to_thread(release.empty_redis)
    assert log(await caller.ndjson(run_id)) == log(follower.events)


@pytest.mark.fault("the container runtime throws log files away")
async def test_a_long_log_outlives_the_runtimes_files(release: Release, caller: Caller) -> None:
    """40 MB, of which the kubelet keeps a quarter where it can be read: all of it arrives, but for gaps, and stays."""
    run_id = await caller.started(LONG)
    await caller.ready(run_id)
    await asyncio.to_thread(release.let, run_id)
    expected = ["ready", *(f"{n:06} {0:092}" for n in range(1, PARTS * PART_LINES + 1))]
    lines = (await caller.text(run_id)).splitlines()
    # What is missing is missing at a gap, and at each something is.
    whole, at, told, gaps = "".join(expected), 0, 0, 0
    for is_gap, some in groupby(lines, lambda line: line.startswith("# gap: ")):
        piece = "" if is_gap else "".join(some)
        gaps += is_gap
        begins = whole.find(piece, at)
        says_rightly = begins == at if is_gap or not gaps else begins > at
        assert says_rightly, f"missing without a gap, or a gap where nothing is: {whole[at : at + 200]}"
        at, told = begins + len(piece), told + len(piece)
    assert at == len(whole) or lines[-1].startswith("# gap: ")
    assert gaps <= 2 * PARTS
    assert len(lines) <= len(expected) + 4 * PARTS
    kept = await asyncio.to_thread(kubectl, "logs", f"--namespace={release.runs}", f"job/{run_id}")
    assert len(kept) < len(whole) / 2 < told  # or this test would show nothing
    await asyncio.to_thread(release.empty_redis)
    assert (await caller.text(run_id)).splitlines() == lines


@pytest.mark.fault("all functions are scaled to zero until the run has ended, and Redis emptied")
async def test_a_run_that_nobody_watches(release: Release, caller: Caller) -> None:
    """All functions at zero to its end, and Redis empty when they come back: its log and its end are complete."""
    run_id = await caller.started("for n in $(seq 100); do echo line $n; sleep 0.02; done; echo 100 lines")
    counts = {name: len(release.pods(name)) for name in FUNCTIONS}
    try:
        for name in FUNCTIONS:
            release.scale(name, 0)
        done = "--for=condition=Complete"
        await asyncio.to_thread(kubectl, "wait", f"--namespace={release.runs}", f"job/{run_id}", done, "--timeout=60s")
        await asyncio.to_thread(release.empty_redis)
    finally:
        for name, count in counts.items():
            release.scale(name, count)
    for name, count in counts.items():
        await asyncio.to_thread(release.await_pods, name, count)
    assert_whole([line for _, line in log(await caller.ndjson(run_id))])
    status = await caller.truth("/status")
    assert (status["run_id"], status["status"], status["exit_code"]) == (run_id, "succeeded", 0)


@pytest.mark.fault("a head that came to a hard end leaves a task behind")
async def test_what_a_head_leaves_behind_is_told_and_removed(release: Release, caller: Caller) -> None:
    """By the clean-up that comes by itself, where nobody calls; `status` names it as long as it is there."""
    run_id = await caller.started(HELD)
    await caller.ready(run_id)
    # What Nextflow would have made, and what would be left of it had its head come to a hard end.
    label, name = f"nextflow-controller/run-id={run_id}", f"nf-{release.mark}"
    image = ("--image", IMAGES["head"], "--command", "--", "sleep", "3600")
    kubectl("run", name, f"--namespace={release.runs}", f"--labels={label}", *image)
    await asyncio.to_thread(release.let, run_id)
    ended = await caller.ended(run_id)
    assert (ended["status"], ended["left_behind"]) == ("succeeded", [name])
    where = f"--namespace={release.namespace}"
    kubectl("create", "job", f"now-{release.mark}", f"--from=cronjob/{release.name}-cleanup", where)
    kubectl("wait", f"job/now-{release.mark}", "--for=condition=Complete", where, "--timeout=60s")
    assert f'"run_id":"{run_id}","tasks":["{name}"]' in kubectl("logs", where, f"job/now-{release.mark}")
    kubectl("wait", f"pod/{name}", f"--namespace={release.runs}", "--for=delete", "--timeout=60s")
    assert (await caller.truth("/status", run_id=run_id))["left_behind"] == []
