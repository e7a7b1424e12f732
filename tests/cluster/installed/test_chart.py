"""The chart on a real cluster: installed, tested, upgraded."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.cluster.place import command
from tests.cluster.release import INGRESS, Caller, Release

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def test_an_installation_answers(release: Release, caller: Caller) -> None:
    """Through the Ingress, who shows the token, and nobody else."""

    assert (await caller.http.get("/active")).status_code == 200
    stranger = await caller.http.get("/active", headers={"authorization": ""})
    assert stranger.status_code == 401
    pages = [await caller.http.get(f"http://{INGRESS}{path}") for path in ("/docs", "/follow", "/openapi.json")]
    assert [page.status_code for page in pages] == [200] * 3
    inside = [await caller.http.get(f"http://{INGRESS}{path}") for path in ("/metrics", "/readyz", "/healthz", "/")]
    assert [page.status_code for page in inside] == [404] * 4


def test_helm_test_is_green(release: Release) -> None:
    """Its pod finds every function ready and answering, a silent stream left open, a run told as it happens."""
    said = command("helm", "test", f"nfc-{release.mark}", "--namespace", release.namespace, "--logs")
    assert re.search(r"Phase: +Succeeded", said)
    assert len(re.findall(r"^ok ", said, re.MULTILINE)) == 9


def test_functions_run_restricted(release: Release) -> None:
    """Pod Security `restricted` has let all pods of the release in, and nothing of what runs is its violation."""
    level = "pod-security.kubernetes.io/enforce"
    assert release.get("namespace", release.namespace)["metadata"]["labels"][level] == "restricted"
    assert release.get("namespace", release.runs)["metadata"]["labels"][level] == "baseline"
    for kind in ("deployments", "statefulsets"):
        for item in release.get(kind)["items"]:
            assert item["status"].get("readyReplicas") == item["spec"]["replicas"], item["metadata"]["name"]


async def test_an_upgrade_keeps_secrets_and_answers(release: Release, caller: Caller) -> None:
    """Callers notice nothing of an upgrade that starts every pod anew: tokens go on working, no call fails."""
    secrets = {name: release.secret(name) for name in ("tokens", "redis")}
    before = {function: set(release.pods(function)) for function in ("active", "run")}

    def change() -> None:
        release.helm("upgrade", HISTORY_MAX_RUNS="500")
        release.rolled_out()

    upgrade = asyncio.create_task(asyncio.to_thread(change))
    answers = set()
    while not upgrade.done():
        answer = await caller.http.get("/active")
        answers.add((answer.status_code, answer.text))
    await upgrade
    assert answers == {(200, '{"active":false,"run":null}')}
    assert {name: release.secret(name) for name in secrets} == secrets
    assert not any(before[function] & set(release.pods(function)) for function in before)


async def test_the_notes_can_be_followed(release: Release, caller: Caller, tmp_path: Path) -> None:
    """What helm prints after an installation works as it is printed, where the host's name leads to the Ingress."""
    (tmp_path / ".curlrc").write_text(f'connect-to = "::{INGRESS}"\nnoproxy = "*"\nsilent\nshow-error\nfail\n')
    notes = command("helm", "get", "notes", f"nfc-{release.mark}", "--namespace", release.namespace)
    export, run, stream, cancel = [line.strip() for line in notes.splitlines() if line.startswith("  ")]
    # Ended before it is followed: the tests' head would wait for a parameter that is not in the notes.
    told = command("bash", "-euc", "\n".join([export, run, "echo", cancel, "echo", stream]), CURL_HOME=str(tmp_path))
    started, cancelled, *_ = told.splitlines()
    assert json.loads(started)["run_id"] == json.loads(cancelled)["run_id"]
