"""Places where runs happen, for tests of what every runner promises.

A place makes runners that all work on the same runs, as the processes of a deployment do. Its heads
run a script in place of Nextflow, so that a test says what a run does. A test of the contract asks
for `place` and is run once for each place in `PLACES`.
"""

import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from common.events import Line
from common.jobs import Job
from common.kube import reading
from common.kube.runner import KubernetesRunner
from common.kube.transport import Api
from common.local.processes import end, marked
from common.local.runner import LocalRunner
from common.local.state import State
from common.models import CancelMark, RunRecord, RunRequest
from common.names import new_run_id
from common.runner import Runner
from common.settings import Settings
from common.sources import ANY
from tests.cluster.place import IMAGES, namespace

T = TypeVar("T")

GRACE_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # to give up, on a busy machine; no test passes by waiting it out
MARK = CancelMark(requested_by="tester", requested_at=datetime(2030, 1, 2, 3, 4, 5, 678901, UTC))

FOREVER = "echo ready; sleep 3600 & wait"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"

# Nextflow's part: it runs the script that is the run's parameter, as bash does.
_STUB = """\
#!{python} -IS
import json, os, sys
with open(sys.argv[sys.argv.index("-params-file") + 1]) as file:
    script = json.load(file)["script"]
os.execvp("bash", ["bash", "-c", script])
"""


class Place(Protocol):
    """Where a test's runs happen."""

    async def runner(self) -> Runner:
        """A runner as another process would have it; all share the place's runs."""

    async def close(self) -> None:
        """End what is left, and let go of everything."""


class LocalPlace:
    """A state directory, with a stub of Nextflow."""

    def __init__(self, root: Path) -> None:
        self.state = State(root / "state")
        self.nextflow = root / "nextflow"
        self.nextflow.write_text(_STUB.format(python=sys.executable))
        self.nextflow.chmod(0o755)
        self._runners: list[LocalRunner] = []

    async def runner(self, **changes: Any) -> LocalRunner:
        arguments = {
            "state_dir": self.state.root,
            "nextflow": self.nextflow,
            "environ": os.environ,
            "grace_seconds": GRACE_SECONDS,
        }
        made = LocalRunner(**{**arguments, **changes})
        self._runners.append(made)
        return made

    async def close(self) -> None:
        for runner in self._runners:
            await runner.close()
        if self.state.runs.exists():
            for directory in self.state.runs.iterdir():
                end(lambda run_id=directory.name: marked(run_id), 0, PATIENCE_SECONDS)  # type: ignore[misc]


class KubernetesPlace:
    """A namespace of the cluster that KUBECONFIG names, with the image of tests/cluster/head."""

    def __init__(self, root: Path) -> None:
        self._stack = ExitStack()
        self._name = self._stack.enter_context(namespace("contract"))
        self._runners: list[KubernetesRunner] = []

    async def runner(self) -> KubernetesRunner:
        made = _Settled(
            Settings(
                release_namespace=self._name,
                run_namespace=self._name,
                head_image=IMAGES["head"],
                pipeline_sources=(ANY,),
                cancel_grace_seconds=GRACE_SECONDS,
            ),
            Api(),
        )
        self._runners.append(made)
        return made

    async def close(self) -> None:
        for runner in self._runners:
            await runner.close()
        self._stack.close()


class _Settled(KubernetesRunner):
    """A runner whose new Jobs change no more by themselves: the Job controller has seen them."""

    async def create(self, record: RunRecord) -> Job:
        await super().create(record)

        async def look() -> Job | None:
            found = await self._api.get(self._paths.job(record.run_id))
            assert found is not None
            return reading.job(found) if "startTime" in found["status"] else None

        return await eventually(look, f"the Job controller to see {record.run_id}")


def on_kubernetes(runner: Runner) -> bool:
    """Whether runs are containers: some of what a machine does with processes is another then."""
    return isinstance(runner, KubernetesRunner)


PLACES: dict[str, Callable[[Path], Place]] = {"kubernetes": KubernetesPlace, "local": LocalPlace}
# Asked for by name: whoever has a KUBECONFIG need not want tests in that cluster.
NO_CLUSTER = pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of the test's own; supervisors that are just ending may still write to it."""
    with tempfile.TemporaryDirectory(prefix="nfc-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(params=[pytest.param("kubernetes", marks=[pytest.mark.cluster, NO_CLUSTER]), "local"])
async def place(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Place]:
    """An empty place."""
    made = PLACES[request.param](directory)
    yield made
    await made.close()


@pytest.fixture
async def runner(place: Place) -> Runner:
    """A runner of the place."""
    return await place.runner()


def a_record(script: str = "true", run_id: str | None = None, **request: Any) -> RunRecord:
    """The record of a run whose head runs this script."""
    return RunRecord(
        run_id=run_id or new_run_id(),
        request=RunRequest(pipeline="owner/stub", parameters={"script": script}, **request),
        caller="tester",
        fingerprint="f" * 64,
        session_id=str(uuid.uuid4()),
        created_at=datetime.now(UTC),
    )


async def taken(runner: Runner, record: RunRecord) -> Job:
    """The record's Job, inert and named by the Lease."""
    job = await runner.create(record)
    await runner.write_lease(await runner.lease(), job.holder)
    return job


async def started(runner: Runner, script: str = "true", **request: Any) -> Job:
    """A Job that was just launched."""
    return await runner.launch(await taken(runner, a_record(script, **request)))


async def eventually(ask: Callable[[], Awaitable[T | None]], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What `ask` says, once it says anything."""
    deadline = time.monotonic() + seconds
    while not (said := await ask()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)
    return said


async def current(runner: Runner, run_id: str) -> Job:
    """The run's Job, which is there."""
    job = await runner.job(run_id)
    assert job is not None
    return job


async def running(runner: Runner, run_id: str) -> Job:
    """The run's Job once its head has started; it changes no more by itself until that ends."""

    async def look() -> Job | None:
        job = await current(runner, run_id)
        return job if job.started_at or job.ended else None

    return await eventually(look, f"{run_id} to start")


async def ended(runner: Runner, run_id: str) -> Job:
    """The run's Job once it has ended."""

    async def look() -> Job | None:
        job = await current(runner, run_id)
        return job if job.ended else None

    return await eventually(look, f"{run_id} to end")


async def stopped(runner: Runner, run_id: str, mark: CancelMark = MARK) -> Job:
    """The run's Job right after it was told to stop."""
    return await runner.stop(await running(runner, run_id), mark)


async def log(runner: Runner, run_id: str) -> list[Line]:
    """All lines of the run, followed to the end."""
    return [line async for batch in runner.lines(run_id, 1) for line in batch]


async def text(runner: Runner, run_id: str) -> bytes:
    """The run's whole log, joined by newlines."""
    return b"\n".join(line.text for line in await log(runner, run_id))


async def said(runner: Runner, run_id: str, wanted: bytes) -> None:
    """Return once the run has said a line."""

    async def look() -> None:
        async for batch in runner.lines(run_id, 1):
            if any(line.text == wanted for line in batch):
                return
        raise AssertionError(f"{run_id} has ended without saying {wanted!r}")

    await asyncio.wait_for(look(), PATIENCE_SECONDS)
