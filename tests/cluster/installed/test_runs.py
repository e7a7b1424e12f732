"""Runs through the Ingress: one at a time, the same log for everybody, and nothing left of what is cancelled."""

import asyncio

import pytest

from tests.cluster.place import IMAGES, kubectl
from tests.cluster.release import HELD, Caller, Release, log

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CALLERS = 100
FOREVER = "trap exit TERM; sleep 3600 & wait"


async def test_one_of_a_hundred_starts(release: Release, caller: Caller) -> None:
    """A hundred who ask at once, at three replicas: one Job, one 201, the others attached to it."""
    before = release.jobs()
    answers = await asyncio.gather(*(caller.start(HELD) for _ in range(CALLERS)))
    assert sorted(answer.status_code for answer in answers) == [200] * (CALLERS - 1) + [201]
    assert {answer.json()["attached"] for answer in answers if answer.status_code == 200} == {True}
    (run_id,) = {answer.json()["run_id"] for answer in answers}
    assert release.jobs() - before == {run_id}
    chosen = "app.kubernetes.io/component=run"
    said = kubectl("logs", "--namespace", release.namespace, "--selector", chosen, "--prefix", "--tail=-1")
    asked = {answer.headers["x-request-id"] for answer in answers}
    lines = (line.split(maxsplit=1) for line in said.splitlines())
    assert len({pod for pod, line in lines if any(f'"{request}"' in line for request in asked)}) == 3
    assert len(release.pods_of(run_id)) <= 1


async def test_every_transport_tells_the_same(release: Release, caller: Caller) -> None:
    """Followed live by SSE, NDJSON, text and WebSocket, and read again when it is over: same ids, exact log."""
    lines = [f"line {number}" for number in range(300)]
    run_id = await caller.started("echo ready; until [ -e /tmp/go ]; do sleep 0.1; done; seq -f 'line %g' 0 299")
    following = asyncio.gather(
        caller.sse(run_id), caller.ndjson(run_id), caller.websocket(run_id), caller.text(run_id, timestamps="true")
    )
    await caller.ready(run_id)
    await asyncio.to_thread(release.let, run_id)
    *told, text = await following
    expected = log(told[0])
    assert [line for _, line in expected] == ["ready", *lines]
    assert [log(events) for events in told] == [expected] * 3
    assert [tuple(line.split(" ", 1)) for line in text.splitlines() if not line.startswith("#")] == expected
    assert log(await caller.ndjson(run_id)) == expected
    assert [events[-1]["type"] for events in told] == ["complete"] * 3


async def test_a_cancelled_run_leaves_nothing(release: Release, caller: Caller) -> None:
    """When the answer is `cancelled`, neither the head nor a task has a pod."""
    run_id = await caller.started(HELD)
    await caller.ready(run_id)
    (head,) = release.pods_of(run_id)
    labels = f"--labels=nextflow-controller/run-id={run_id}"
    task = ("run", f"{run_id}-task", "--namespace", release.runs, "--restart=Never", labels)
    kubectl(*task, f"--image={IMAGES['head']}", "--command", "--", "bash", "-c", FOREVER)
    assert sorted(release.pods_of(run_id)) == sorted([head, f"{run_id}-task"])
    answer = await caller.cancel()
    assert (answer.status_code, answer.json()["status"], answer.json()["cancelled"]) == (200, "cancelled", True)
    assert release.pods_of(run_id) == []
    assert (await caller.json("/active"))["active"] is False
    assert (await caller.json("/status", run_id=run_id))["status"] == "cancelled"
