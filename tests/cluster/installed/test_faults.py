"""What no failure of a part changes: one run at most, its right end, true answers, and the whole log."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.cluster.place import command, kubectl
from tests.cluster.release import FUNCTIONS, HELD, HELD_LOG, Caller, Release, eventually, log

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def in_mid_run(caller: Caller) -> str:
    """A run that waits to be let go on."""
    run_id = await caller.started(HELD)
    await caller.ready(run_id)
    return run_id


async def assert_goes_on(caller: Caller, run_id: str) -> None:
    """Every reader tells of this run, and whoever asks for one is attached to it."""
    assert (await caller.truth("/active"))["run"]["run_id"] == run_id
    assert (await caller.truth("/status"))["run_id"] == run_id
    assert (await caller.truth("/history", limit=1))["runs"][0]["run_id"] == run_id
    answer = await caller.asked("echo a second one")
    assert (answer.status_code, answer.json()["run_id"]) == (200, run_id), answer.text


async def assert_ends_well(release: Release, caller: Caller, run_id: str, before: set[str]) -> None:
    """It ends as it should, with its whole log, having been the only one."""
    await asyncio.to_thread(release.let, run_id)
    ended = await caller.ended(run_id)
    assert (ended["status"], ended["exit_code"]) == ("succeeded", 0)
    assert [line for _, line in log(await caller.ndjson(run_id))] == HELD_LOG
    entries = [run for run in (await caller.truth("/history"))["runs"] if run["run_id"] not in before]
    assert [(run["run_id"], run["status"]) for run in entries] == [(run_id, "succeeded")]
    assert release.jobs() - before == {run_id}
    assert (await caller.truth("/active"))["active"] is False


@pytest.mark.fault("Redis comes back with nothing that it knew")
async def test_redis_emptied(release: Release, caller: Caller) -> None:
    """Redis comes back without anything it knew, in the middle of a run that is followed."""
    before = release.jobs()
    run_id = await in_mid_run(caller)
    following = asyncio.create_task(caller.ndjson(run_id))
    await asyncio.to_thread(release.empty_redis)
    await assert_goes_on(caller, run_id)
    await assert_ends_well(release, caller, run_id, before)
    assert [line for _, line in log(await following)] == HELD_LOG


@pytest.mark.fault("Redis is away from a run's start to its end")
async def test_redis_away(release: Release, caller: Caller) -> None:
    """A run from its start to its end without any Redis, which then comes back and learns of it."""
    before = release.jobs()
    await asyncio.to_thread(release.scale_redis, 0)
    try:
        run_id = await in_mid_run(caller)
        await assert_goes_on(caller, run_id)
        await assert_ends_well(release, caller, run_id, before)
    finally:
        await asyncio.to_thread(release.scale_redis, 1)
    assert (await caller.truth("/status", run_id=run_id))["status"] == "succeeded"


@pytest.mark.fault("all pods of each function are killed, one function after the other")
async def test_each_function_killed(release: Release, caller: Caller) -> None:
    """All pods of each function in turn, in the middle of one run."""
    before = release.jobs()
    run_id = await in_mid_run(caller)
    for function in FUNCTIONS:
        await asyncio.to_thread(release.kill, function)
        await assert_goes_on(caller, run_id)
    await assert_ends_well(release, caller, run_id, before)


@pytest.mark.fault("a function's rights are taken away")
async def test_rights_taken_away(release: Release, caller: Caller) -> None:
    """What a function may not look at it does not know: it says so, in the API server's words, until it may again."""
    run_id = await in_mid_run(caller)
    where = ("rolebinding", f"{release.name}-status")
    binding: dict[str, Any] = release.get(*where, namespace=release.runs)
    kubectl("delete", "--namespace", release.runs, *where)
    try:

        async def refused() -> httpx.Response | None:
            answer = await caller.http.get("/status")
            return answer if answer.status_code == 503 else None

        told = await eventually(refused, "a status that may not look")
        assert told.json()["dependency"] == "runner"
        assert "403" in told.json()["detail"]
        assert "forbidden" in told.json()["detail"]
        assert int(told.headers["retry-after"]) >= 1
        assert (await caller.json("/active"))["run"]["run_id"] == run_id
    finally:
        binding["metadata"] = {key: binding["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
        command("kubectl", "create", "--filename", "-", stdin=json.dumps(binding))
    assert (await caller.truth("/status"))["run_id"] == run_id


@pytest.mark.fault("the function that a follower is connected to is killed")
async def test_a_follower_of_a_killed_stream_comes_back(release: Release, caller: Caller) -> None:
    """With the id it saw last, to another pod: it gets what followed, and nothing twice."""
    run_id = await in_mid_run(caller)
    (first,) = log(await caller.ndjson(run_id, follow="false"))
    following = asyncio.create_task(caller.ndjson(run_id, after=first[0]))
    await asyncio.to_thread(release.kill, "stream")
    await asyncio.gather(following, return_exceptions=True)  # was cut
    await asyncio.to_thread(release.let, run_id)
    assert [line for _, line in log(await caller.ndjson(run_id, after=first[0]))] == HELD_LOG[1:]
