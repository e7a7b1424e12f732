"""A real Nextflow with its task pods, through the Ingress: followed, published, cancelled without a rest."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.cluster.following import Follower
from tests.cluster.nextflow import TASK_IMAGE, WithNextflow
from tests.cluster.release import API, INGRESS, Caller, Object, Release, eventually, installed, log

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GREETINGS = ["Hello", "Grüezi"]
TASKS = 6
HELLO = """\
process HELLO {
    container params.container
    output: stdout
    script: "echo hello from the volume"
}
workflow { HELLO().view() }
"""
REPORT = "Greetings of the world\n800\tGrüezi\n600\tHello\n1400\tbytes in all\n"


PODS = pytest.mark.parametrize("nextflow", ["Pod"], indirect=True)  # what is the same however tasks are made


@pytest.fixture(scope="module", params=["Pod", "Job"])
def nextflow(request: pytest.FixtureRequest) -> Iterator[WithNextflow]:
    """The chart, installed with Nextflow."""
    release = WithNextflow(secrets.token_hex(3))
    release.resource = request.param
    with installed(release) as made:
        yield made


@pytest.fixture
async def person(nextflow: WithNextflow) -> AsyncIterator[Caller]:
    """A caller of it, with nothing active."""
    async with nextflow.caller() as made:
        yield made
        await made.cancel()


async def start(person: Caller, **parameters: Any) -> str:
    """Start the example; its run's id."""
    request = {
        "pipeline": "examples/simple-pipeline",
        "profile": "kubernetes",
        "parameters": {"container": TASK_IMAGE, "greetings": GREETINGS, **parameters},
    }
    answer = await person.http.post("/run", json=request)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


async def curled(release: Release, run_id: str) -> str:
    """What `curl -N` prints of a run, from its start to its end."""
    url = f"http://{INGRESS}{API}/stream?run_id={run_id}&timestamps=true"
    headers = [part for name, value in release.headers.items() for part in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "-N", "--noproxy", "*", *headers, url]
    done = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await done.communicate()
    assert done.returncode == 0
    return out.decode()


async def tasks(nextflow: WithNextflow, run_id: str) -> list[Object]:
    """The pods of a run's tasks, once there is one that runs."""

    async def ask() -> list[Object] | None:
        found = await asyncio.to_thread(nextflow.tasks_of, run_id)
        return found if any(pod["status"].get("phase") == "Running" for pod in found) else None

    return await eventually(ask, "a task's pod")


async def test_the_example_runs_with_task_pods(nextflow: WithNextflow, person: Caller) -> None:
    """Followed live by SSE, NDJSON, WebSocket and curl under the same ids; its output is on the volume."""
    run_id = await start(person, delay_seconds=1, outdir="/workspace/results")
    following = asyncio.gather(
        person.sse(run_id), person.ndjson(run_id), person.websocket(run_id), curled(nextflow, run_id)
    )
    pod, *_ = await tasks(nextflow, run_id)
    assert pod["spec"]["serviceAccountName"] == f"{nextflow.name}-task"
    assert [volume for volume in pod["spec"]["volumes"] if "projected" in volume] == []  # no token
    *told, text = await following
    expected = log(told[0])
    assert [log(events) for events in told] == [expected] * 3
    assert [tuple(line.split(" ", 1)) for line in text.splitlines() if not line.startswith("#")] == expected
    lines = [line for _, line in expected]
    assert sum("Submitted process" in line for line in lines) == TASKS
    assert lines[-len(REPORT.splitlines()) :] == REPORT.splitlines()
    final = told[0][-1]
    assert (final["type"], final["data"]["status"], final["data"]["exit_code"]) == ("complete", "succeeded", 0)
    assert await asyncio.to_thread(nextflow.on_the_volume, "cat", "/workspace/results/report.txt") == REPORT
    assert nextflow.tasks_of(run_id) == []


@PODS
async def test_an_evicted_head_resumes(nextflow: WithNextflow, person: Caller) -> None:
    """The next attempt ends the last one's tasks, goes on with its session, and runs only what was not done."""
    run_id = await start(person, delay_seconds=8, outdir="/workspace/resumed")
    follower = Follower(person, run_id)
    done = "the first task to be done"
    await follower.until(lambda events: any(map(_succeeded, events)), done)
    running = {pod["metadata"]["uid"] for pod in await tasks(nextflow, run_id)}
    await asyncio.to_thread(nextflow.evict, run_id)
    await follower.until(lambda events: any(event["type"] == "restarted" for event in events), "another attempt")
    later = await tasks(nextflow, run_id)
    assert running.isdisjoint(pod["metadata"]["uid"] for pod in later)
    await follower.end()
    lines = [event for event in follower.events if event["type"] == "log"]
    second = [event["data"]["line"] for event in lines if event["id"].startswith(f"{run_id}.2.")]
    cached = [line for line in second if "Cached process" in line]
    submitted = [line for line in second if "Submitted process" in line]
    assert cached != []
    assert len(cached) + len(submitted) == TASKS
    assert second[-len(REPORT.splitlines()) :] == REPORT.splitlines()
    final = follower.events[-1]
    assert (final["type"], final["data"]["status"], final["data"]["attempt"]) == ("complete", "succeeded", 2)
    assert final["data"]["progress"]["total"]["cached"] == len(cached)
    assert await asyncio.to_thread(nextflow.on_the_volume, "cat", "/workspace/resumed/report.txt") == REPORT
    assert nextflow.tasks_of(run_id) == []


def _succeeded(event: Object) -> bool:
    return bool(event["data"].get("total", {}).get("succeeded"))


@PODS
async def test_a_run_resumes_an_earlier_one(nextflow: WithNextflow, person: Caller) -> None:
    """By its id: what the earlier one has done is not done again."""
    first = await start(person, outdir="/workspace/once")
    assert (await person.ended(first))["status"] == "succeeded"
    body = {"container": TASK_IMAGE, "greetings": GREETINGS, "outdir": "/workspace/once"}
    request = {"pipeline": "examples/simple-pipeline", "profile": "kubernetes", "parameters": body, "resume": first}
    answer = await person.http.post("/run", json=request)
    assert answer.status_code == 201, answer.text
    second = answer.json()["run_id"]
    lines = (await person.text(second)).splitlines()
    assert sum("Cached process" in line for line in lines) == TASKS
    assert (await person.ended(second))["status"] == "succeeded"


@PODS
async def test_a_pipeline_on_the_volume(nextflow: WithNextflow, person: Caller) -> None:
    """Put there by somebody, named by its path."""
    directory = "/workspace/pipelines/hello"
    script = f"mkdir -p {directory} && printf %s '{HELLO}' > {directory}/main.nf"
    await asyncio.to_thread(nextflow.on_the_volume, "sh", "-c", script)
    request = {"pipeline": directory, "parameters": {"container": TASK_IMAGE}}
    answer = await person.http.post("/run", json=request)
    assert answer.status_code == 201, answer.text
    run_id = answer.json()["run_id"]
    assert "hello from the volume" in await person.text(run_id)
    assert (await person.ended(run_id))["status"] == "succeeded"


async def test_a_cancel_with_tasks_running_leaves_nothing(nextflow: WithNextflow, person: Caller) -> None:
    """When the answer is `cancelled`, neither head nor task has a pod, nor a task a Job."""
    run_id = await start(person, delay_seconds=3600)
    await tasks(nextflow, run_id)
    answer = await person.cancel()
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert nextflow.pods_of(run_id) == []
    assert nextflow.tasks_of(run_id, "jobs") == []
    assert (await person.json("/status", run_id=run_id))["status"] == "cancelled"
