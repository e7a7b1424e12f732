"""The cluster's own parts are killed, or stand still, in the middle of a run."""

import pytest

from tests.chaos.audit import Audit
from tests.chaos.conftest import NO_CLUSTER, Judge
from tests.chaos.midrun import followed
from tests.chaos.places import Cluster
from tests.cluster.place import kill9
from tests.integration.server import LocalServer, poll

pytestmark = [pytest.mark.cluster, pytest.mark.slow, NO_CLUSTER]


@pytest.fixture
def audit(cluster: Cluster, judge: Judge) -> Audit:
    """The audit of a place on the cluster."""
    return judge(cluster)


def running(server: LocalServer, run_id: str) -> None:
    """Wait until a run's head is there."""
    for _ in poll(f"{run_id} to run"):
        answer = server.call("GET", "/status", params={"run_id": run_id})
        if answer.status_code == 200 and answer.json()["status"] == "running":
            return


@pytest.mark.fault(
    "etcd, the API server, the kubelet and containerd are killed and start again, in the middle of a run"
)
@pytest.mark.parametrize("what", ["etcd", "apiserver", "kubelet", "containerd"])
def test_killed(audit: Audit, what: str) -> None:
    """Whoever asks is told to come again, or is attached to the run that goes on; the next one is cancelled."""
    other = audit.place.server()
    with followed(audit, audit.witness, other) as run_id:
        running(audit.witness, run_id)
        kill9(what)
        audit.gets_past(other)
        running(other, run_id)
    audit.gone(other, audit.gets_past(audit.witness).json()["run_id"])
    audit.finish()


@pytest.mark.fault("the kubelet stands still while a run is started, and while it is cancelled")
def test_a_kubelet_that_stands_still(audit: Audit) -> None:
    """What cannot have started is given up or cancelled when it goes on; until then nothing is told to be gone."""
    run_id = audit.started(audit.witness)
    running(audit.witness, run_id)
    hasty = audit.place.server(CANCEL_WAIT_SECONDS="2")
    kill9("stop", "kubelet")
    try:
        assert audit.cancel(hasty, run_id).status_code == 202
        assert audit.ask(hasty).status_code == 409  # nobody says that the slot is free
    finally:
        kill9("cont", "kubelet")
    audit.gone(audit.witness, run_id)
    kill9("stop", "kubelet")
    try:
        run_id = audit.started(audit.witness)
        assert audit.ask(hasty).json()["run_id"] == run_id
        assert audit.cancel(hasty, run_id).status_code == 202
    finally:
        kill9("cont", "kubelet")
    audit.gone(audit.witness, run_id)
    audit.finish()


@pytest.mark.fault("the API server hangs in the middle of a start and of a cancel, and goes on")
def test_an_api_server_that_stands_still(audit: Audit) -> None:
    """What was sent to it may be done when it goes on: once, or not at all, and what is told of it is true."""
    run_id = audit.started(audit.witness)
    running(audit.witness, run_id)
    kill9("stop", "apiserver")
    try:
        assert audit.cancel(audit.witness, run_id).status_code == 503
    finally:
        kill9("cont", "apiserver")
    audit.gone(audit.witness, run_id)
    kill9("stop", "apiserver")
    try:
        assert audit.ask(audit.witness).status_code == 503
    finally:
        kill9("cont", "apiserver")
    for _ in poll("the API server to answer"):
        if audit.witness.call("GET", "/active").status_code == 200:
            break
    audit.finish()
