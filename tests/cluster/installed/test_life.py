"""A release from the chart before this one to its removal: what goes on, what is kept, and that nothing else is."""

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from tests.cluster.following import COUNTING, Follower, assert_whole
from tests.cluster.place import command, kubectl
from tests.cluster.release import HELD, Release, log, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster"),
]

PREVIOUS = Path(__file__).parent / "nextflow-controller-0.1.0.tgz"
# What every namespace has, and what passes by itself.
USUAL = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
PASSING = {"events", "events.events.k8s.io"}


def inventory(namespace: str) -> set[str]:
    """Everything there is in a namespace beyond what every namespace has."""
    kinds = set(kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()) - PASSING
    return set(kubectl("get", ",".join(sorted(kinds)), "--namespace", namespace, "--output=name").split()) - USUAL


def claims(release: Release) -> dict[str, str]:
    """The release's volumes, by name: which they are."""
    items = [
        item
        for namespace in (release.namespace, release.runs)
        for item in release.get("persistentvolumeclaims", namespace=namespace)["items"]
    ]
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}


@pytest.mark.fault("the release is upgraded in the middle of a run")
async def test_an_upgrade_from_the_previous_chart() -> None:
    """Secrets and volumes are kept, no call fails, and a run from before goes on, with all who follow it."""
    release = Release(secrets.token_hex(3))
    try:
        release.install(PREVIOUS)
        async with release.caller() as caller:
            run_id = await caller.started(COUNTING)
            follower = Follower(caller, run_id)
            await follower.hears_more()
            tokens, redis, volumes = release.secret("tokens"), release.secret("redis"), claims(release)
            before = {function: set(release.pods(function)) for function in ("active", "redis", "run")}

            def upgrade() -> None:
                release.helm("upgrade")
                release.rolled_out()

            upgraded = asyncio.create_task(asyncio.to_thread(upgrade))
            answers = set()
            while not upgraded.done():
                answer = await caller.http.get("/active")
                answers.add((answer.status_code, answer.json()["run"]["run_id"]))
            await upgraded
            assert answers == {(200, run_id)}
            assert not any(pods & set(release.pods(function)) for function, pods in before.items())
            assert release.secret("tokens") == tokens
            assert release.secret("redis")["password"] == redis["password"]
            assert claims(release) == volumes
            assert len(volumes) == 2
            assert (await caller.start(HELD)).json()["run_id"] == run_id
            await follower.hears_more("after the upgrade")
            release.let(run_id)
            await follower.end()
            assert_whole(follower.lines)
            assert (await caller.ended(run_id))["status"] == "succeeded"
            assert log(await caller.ndjson(run_id)) == log(follower.events)
    finally:
        release.uninstall()


@pytest.mark.fault("the release is removed in the middle of a run, and installed again")
async def test_what_is_left_of_a_release() -> None:
    """The runs' namespace with its runs, the volumes, and the Lease that says what is active: put back, it goes on."""
    release = Release(secrets.token_hex(3))
    try:
        release.install()
        async with release.caller() as caller:
            run_id = await caller.started(HELD)
            await caller.ready(run_id)
        (head,) = release.pods_of(run_id)
        left = {
            release.namespace: {
                f"lease.coordination.k8s.io/{release.name}",
                f"persistentvolumeclaim/data-{release.name}-redis-0",
            },
            release.runs: {f"job.batch/{run_id}", f"persistentvolumeclaim/{release.name}-work", f"pod/{head}"},
        }
        command("helm", "uninstall", f"nfc-{release.mark}", "--namespace", release.namespace)
        for namespace, expected in left.items():
            until(lambda: inventory(namespace) <= expected, f"all else to go from {namespace}")  # noqa: B023  # called here
            assert inventory(namespace) == expected
        release.helm("install")
        release.rolled_out()
        async with release.caller() as caller:  # with another token
            assert (await caller.truth("/active"))["run"]["run_id"] == run_id
            assert (await caller.cancel()).json()["status"] == "cancelled"
    finally:
        release.uninstall()
