"""What keeps a run from starting, or ends it, as `status` tells it: in plain words, with the cluster's own reason."""

import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from common import claim, look
from common.connection import Connection
from common.kube.runner import KubernetesRunner
from common.kube.transport import Api
from common.models import RunInfo, RunRequest
from common.phases import State
from common.platform import Platform
from common.settings import Settings
from tests.cluster.place import IMAGES, namespace
from tests.cluster.release import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster"),
]

HUNGRY = "tail /dev/zero"


@dataclass(frozen=True)
class Place:
    """A namespace of its own, and functions that run heads there."""

    api: Api
    namespace: str

    async def make(self, kind: str, **body: Any) -> None:
        """Create an object in it."""
        await self.api.create(f"/api/v1/namespaces/{self.namespace}/{kind}", body)

    def platform(self, **changes: Any) -> Platform:
        """The library, as settings make it."""
        settings = Settings(
            release_namespace=self.namespace,
            run_namespace=self.namespace,
            head_image=IMAGES["head"],
            pipeline_sources=("*",),
            cancel_grace_seconds=1,
        ).model_copy(update=changes)
        return Platform.assemble(settings, lambda: KubernetesRunner(settings, self.api), Connection(FakeAsyncRedis()))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """An empty place."""
    api = Api()
    with namespace("held") as name:
        yield Place(api, name)
    await api.close()


async def start(platform: Platform, script: str = "true") -> RunInfo:
    """Start a run; nothing else is active."""
    claimed = await claim.start(
        platform, RunRequest(pipeline="owner/stub", parameters={"script": script}), caller="tester"
    )
    assert not claimed.attached
    return claimed.run


async def status(platform: Platform, run_id: str, fits: Callable[[RunInfo], bool]) -> RunInfo:
    """What is told about a run, once it fits."""

    async def ask() -> RunInfo | None:
        found = await look.run(platform, run_id)
        return found if fits(found) else None

    return await eventually(ask, f"the status of {run_id}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head_image": "localhost/nfc-absent:1"}, "The image localhost/nfc-absent:1 cannot be pulled: .+"),
        ({"head_pod": {"nodeSelector": {"no": "such"}}}, r"No node takes the pod: 0/\d+ nodes are available: .+"),
        ({"work_claim": "absent"}, 'No node takes the pod: .*persistentvolumeclaim "absent" not found.*'),
        (
            {"head_pod": {"volumes": [{"name": "work", "emptyDir": None, "secret": {"secretName": "absent"}}]}},
            'Its pod does not come up: .*secret "absent" not found',
        ),
        ({"head_service_account": "absent"}, 'Its pod cannot be made: .*serviceaccount "absent" not found'),
    ],
    ids=["image", "node", "claim", "volume", "account"],
)
async def test_what_holds_a_head_up_is_told(place: Place, settings: dict[str, Any], words: str) -> None:
    """While it is starting, with what the cluster says."""
    platform = place.platform(**settings)
    run = await start(platform)
    found = await status(platform, run.run_id, lambda found: bool(re.fullmatch(words, found.message or "", re.DOTALL)))
    assert found.status is State.STARTING


async def test_a_quota_is_told(place: Place) -> None:
    """The Job controller tells it in an event, and nowhere else."""
    await place.make("resourcequotas", metadata={"name": "none"}, spec={"hard": {"pods": "0"}})
    platform = place.platform()
    run = await start(platform)
    found = await status(platform, run.run_id, lambda found: found.message is not None)
    assert re.fullmatch(r"Its pod cannot be made: .*exceeded quota: none.*", found.message or "")


@pytest.mark.fault("a head is killed for want of memory")
async def test_a_head_that_takes_too_much_memory_is_told(place: Place) -> None:
    """What the kernel did to it, and not only its exit code."""
    resources = {"limits": {"memory": "64Mi"}}
    platform = place.platform(head_pod={"containers": [{"name": "nextflow", "resources": resources}]})
    run = await start(platform, HUNGRY)
    found = await status(platform, run.run_id, lambda found: found.status.terminal)
    assert (found.status, found.exit_code) == (State.FAILED, 137)
    assert found.message == "Nextflow was killed: it took more memory than its limit."


@pytest.mark.fault("a head's pod is evicted, where nothing is recorded")
async def test_a_pod_that_is_taken_away_is_told(place: Place) -> None:
    """As an eviction, a drain or a lost node do it."""
    platform = place.platform()
    run = await start(platform, "sleep 3600")
    await status(platform, run.run_id, lambda found: found.status is State.RUNNING)
    path = f"/api/v1/namespaces/{place.namespace}/pods"
    pods = await place.api.get(path)
    assert pods is not None
    name = pods["items"][0]["metadata"]["name"]
    await place.api.create(
        f"{path}/{name}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    )
    found = await status(platform, run.run_id, lambda found: found.status.terminal)
    assert found.status is State.FAILED
    assert (found.message or "").startswith("Its pod was taken from its node before Nextflow had ended")


@pytest.mark.fault("a head's image is not to be had")
async def test_what_does_not_start_is_given_up(place: Place) -> None:
    """The next who asks for a run gets the slot; the run that had it has failed, and says why."""
    platform = place.platform(head_image="localhost/nfc-absent:1", start_deadline_seconds=0.5)
    first = await start(platform)
    await status(platform, first.run_id, lambda found: found.message is not None)
    again = place.platform(start_deadline_seconds=0.5, busy_wait_seconds=30)
    second = await start(again)
    found = await look.run(again, first.run_id)
    assert found.status is State.FAILED
    assert re.fullmatch(r"It did not start within 0\.5 seconds\. .*localhost/nfc-absent:1.+", found.message or "")
    assert (await status(again, second.run_id, lambda found: found.status.terminal)).status is State.SUCCEEDED
