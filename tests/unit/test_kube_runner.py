"""What KubernetesRunner does in states that a cluster is hard to bring into, and with none at all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from common.errors import Conflict, OutcomeUnknown, Unavailable
from common.kube import objects
from common.kube.runner import KubernetesRunner
from common.kube.transport import Api, Object
from tests.unit import samples
from tests.unit.test_kube_objects import RUN_ID, SETTINGS
from tests.unit.test_kube_reading import LAUNCH, a_job, a_pod, condition


class Answers(Api):
    """An API server that shows one Job and its pods; task pods go when they are deleted."""

    def __init__(self, job: Object, pods: list[Object]) -> None:
        super().__init__()
        self._job, self.pods = job, pods

    async def get(self, path: str, **query: str) -> Object:
        """The Job, or the pods that a selector chooses."""
        if "labelSelector" not in query:
            return self._job
        if path.endswith("/jobs"):
            return {"metadata": {}, "items": []}
        return {"metadata": {}, "items": list(self.pods)}

    async def delete(self, path: str, options: Object) -> None:
        """Delete a pod, if it is the one that is meant."""
        (found,) = (pod for pod in self.pods if pod["metadata"]["name"] == path.rpartition("/")[2])
        if found["metadata"]["uid"] != options["preconditions"]["uid"]:
            raise Conflict("it is another")
        self.pods.remove(found)


def runner(job: Object, *pods: Object) -> KubernetesRunner:
    """A runner on such a server."""
    for number, pod in enumerate(pods):
        pod["metadata"] |= {"name": f"pod-{number}", "uid": f"uid-{number}"}
    return KubernetesRunner(SETTINGS, Answers(job, list(pods)))


FAILED: dict[str, Any] = {"failed": 1, "conditions": [condition("Failed")]}


async def test_a_sweep_counts_a_head_that_has_not_ended() -> None:
    """Its tasks are deleted; as long as the head may live (a node that is out of reach) something is left."""
    head = a_pod(phase="Running")
    assert await runner(a_job(LAUNCH, **FAILED), head, a_pod(None), a_pod(None)).sweep(RUN_ID) == ("pod-0",)
    assert await runner(a_job(LAUNCH, **FAILED), a_pod(phase="Failed"), a_pod(None)).sweep(RUN_ID) == ()


async def test_a_task_that_calls_itself_a_head_is_a_task() -> None:
    """A pipeline may label its tasks as it likes, and annotate them: a head is what the run's Job has made."""
    liar = a_pod("head")
    del liar["metadata"]["ownerReferences"]
    liar["metadata"]["annotations"] = {objects.FAILURES: "7"}
    made = runner(a_job(LAUNCH, **FAILED), a_pod(phase="Failed"), liar)
    job = await made.job(RUN_ID)
    assert job is not None
    assert (job.attempt, job.remains) == (1, ("pod-1",))
    assert await made.sweep(RUN_ID) == ()


@pytest.mark.parametrize("count", ["x", "-1", "", "²", "1e9"])
async def test_a_count_that_is_none_breaks_nothing(count: str) -> None:
    """Whoever has written it."""
    head = a_pod(running={})
    head["metadata"]["annotations"] = {objects.FAILURES: count}
    job = await runner(a_job(LAUNCH, active=1), head).job(RUN_ID)
    assert job is not None
    assert job.attempt == 1


async def test_a_sweep_leaves_alone_what_has_a_name_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever slept between looking and deleting must not take the task of a later run."""
    server = Answers(a_job(LAUNCH, **FAILED), [a_pod(None)])
    seen, later = server.pods[0], a_pod(None)
    seen["metadata"] |= {"name": "nf-1", "uid": "uid-1"}
    later["metadata"] |= {"name": "nf-1", "uid": "uid-2"}
    delete = server.delete

    async def slept(path: str, options: Object) -> None:
        server.pods = [later]
        await delete(path, options)

    monkeypatch.setattr(server, "delete", slept)
    await KubernetesRunner(SETTINGS, server).sweep(RUN_ID)
    assert server.pods == [later]


async def test_a_run_that_cannot_be_read_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' orphans are deleted; that something could not be seen is an error all the same."""
    tasks, gone = [a_pod(None), a_pod(None)], samples.run_id(2)
    for number, (pod, run_id) in enumerate(zip(tasks, (RUN_ID, gone), strict=True)):
        pod["metadata"] |= {"name": f"nf-{number}", "uid": f"uid-{number}", "labels": {objects.RUN_ID: run_id}}
    server = Answers({}, list(tasks))
    get = server.get

    async def refusing(path: str, **query: str) -> Object | None:
        if path.endswith(RUN_ID):
            raise Unavailable("runner", "away")
        return None if path.endswith(gone) else await get(path, **query)

    monkeypatch.setattr(server, "get", refusing)
    with pytest.raises(Unavailable, match="away"):
        await KubernetesRunner(SETTINGS, server).sweep_orphans()
    assert server.pods == tasks[:1]


async def test_a_job_whose_record_cannot_be_read_is_not_absent() -> None:
    """Absent would mean that its Lease may be emptied, and it may have a pod."""
    job = a_job(LAUNCH)
    job["metadata"]["annotations"][objects.RECORD] = "tampered with"
    with pytest.raises(Unavailable, match=RUN_ID):
        await runner(job).job(RUN_ID)


@asynccontextmanager
async def an_api(port: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The way to an API server at a port of this machine."""
    place = {"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    config = {"clusters": [place], "contexts": [context], "users": [{"name": "x", "user": {}}], "current-context": "x"}
    (directory / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(directory / "config"))
    api = Api()
    try:
        yield api
    finally:
        await api.close()


async def test_a_log_is_taken_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late it is read: a kubelet that waits misses files. Silence is told, and a cut at its place."""
    log = b"".join(b"%07d\n" % number for number in range(2_000_000))
    written, cut = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(log), 4096):
            piece = log[at : at + 4096]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        written.set()
        await cut.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, an_api(server.sockets[0].getsockname()[1], tmp_path, monkeypatch) as api:
        chunks = api.stream("/log")
        read = await anext(chunks)
        async with asyncio.timeout(30):
            await written.wait()
            while chunk := await anext(chunks):
                read += chunk
            assert read == log
            assert await anext(chunks) == b""
            cut.set()
            with pytest.raises(Unavailable, match="cut"):
                assert [chunk async for chunk in chunks if chunk]


@pytest.fixture
async def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The way to an API server that nobody serves."""
    async with an_api(1, tmp_path, monkeypatch) as api:
        yield api


async def test_an_api_server_that_is_away(nowhere: Api) -> None:
    """Reads and logs are unavailable, and a write that was never sent has a known outcome."""
    with pytest.raises(Unavailable):
        await nowhere.get("/api")
    with pytest.raises(Unavailable):
        await anext(nowhere.stream("/api"))
    with pytest.raises(Unavailable) as caught:
        await nowhere.create("/api", {"x": 1})
    assert not isinstance(caught.value, OutcomeUnknown)
